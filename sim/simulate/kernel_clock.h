// Durations of a program's kernels on one GPU type, remembered per kernel and number of SMs taken.
#pragma once

#include <utility>
#include <vector>

#include "sim/base/id.h"
#include "sim/hardware/kernel_time.h"
#include "sim/program/program.h"

namespace shardsim {

class KernelClock {
 public:
  KernelClock(const IdVector<KernelId, Kernel>& kernels, const Gpu& gpu)
      : kernels_(kernels), gpu_(gpu), known_(kernels.size()) {}

  // Time of the kernel beside the collectives that hold `taken`, if `sharers` kernels run on the GPU at once
  // (they share it evenly: no kernel is slowed without another gaining) and it computes at `scale`.
  Time pace(KernelId id, const Taken& taken, int sharers, double scale) {
    const Time free = alone(id, 0);
    Time t = taken == Taken{} ? free : contended(gpu_, kernels_[id], free, alone(id, taken.sms), taken);
    if (scale != 1.0) t = from_seconds(seconds(t) / scale);
    return t * sharers;
  }

 private:
  Time alone(KernelId id, int sms_taken) {
    for (const auto& [sms, time] : known_[id])
      if (sms == sms_taken) return time;
    known_[id].push_back({sms_taken, kernel_time(gpu_, kernels_[id], sms_taken)});
    return known_[id].back().second;
  }

  const IdVector<KernelId, Kernel>& kernels_;
  const Gpu& gpu_;
  IdVector<KernelId, std::vector<std::pair<int, Time>>> known_;
};

}  // namespace shardsim
