// Durations of a program's kernels on one GPU type.
#pragma once

#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "sim/base/id.h"
#include "sim/hardware/kernel_time.h"
#include "sim/program/program.h"

namespace shardsim {

// What a kernel shares its GPU with: collectives that hold `taken`, and other kernels, `sharers` with itself
// (they share it evenly: no kernel is slowed without another gaining).
struct Company {
  Taken taken{};
  int sharers = 1;
  friend bool operator==(const Company&, const Company&) = default;
};

// Remembers a table for each of the last few things taken: ranks that are alike ask the same, and a rank asks
// again and again.
class KernelClock {
  struct Table {
    Taken taken;
    IdVector<KernelId, Time> time;
  };

 public:
  KernelClock(const IdVector<KernelId, Kernel>& kernels, const Gpu& gpu)
      : kernels_(kernels), gpu_(gpu), by_sms_(kernels.size()) {}

  // Durations in such company on a GPU that computes at `scale` of its type's speed. Good until the next one
  // is asked for.
  class Pace {
   public:
    Time operator()(KernelId id) const {
      Time t = table_.time[id];
      if (t == unknown) t = table_.time[id] = clock_.beside(id, company_.taken);
      if (scale_ != 1.0) t = from_seconds(seconds(t) / scale_);
      return t * company_.sharers;
    }

   private:
    friend KernelClock;
    Pace(KernelClock& clock, const Company& company, double scale)
        : clock_(clock), table_(clock.table(company.taken)), company_(company), scale_(scale) {}

    KernelClock& clock_;
    Table& table_;
    Company company_;
    double scale_;
  };
  Pace pace(const Company& company, double scale) { return {*this, company, scale}; }

 private:
  static constexpr Time unknown{-1};
  static constexpr int tables_log2 = 6;

  Table& table(const Taken& taken) {
    const auto mixed = static_cast<std::uint64_t>(taken.hbm_ppm * 251 + taken.sms) * 0x9e3779b97f4a7c15u;
    Table& table = recent_[mixed >> (64 - tables_log2)];
    if (table.time.empty() || table.taken != taken) {
      table.taken = taken;
      table.time.assign(kernels_.size(), unknown);
    }
    return table;
  }
  Time beside(KernelId id, const Taken& taken) {
    const Time free = alone(id, 0);
    return taken == Taken{} ? free : contended(gpu_, kernels_[id], free, alone(id, taken.sms), taken);
  }
  Time alone(KernelId id, int sms_taken) {
    for (const auto& [sms, time] : by_sms_[id])
      if (sms == sms_taken) return time;
    by_sms_[id].push_back({sms_taken, kernel_time(gpu_, kernels_[id], sms_taken)});
    return by_sms_[id].back().second;
  }

  const IdVector<KernelId, Kernel>& kernels_;
  const Gpu& gpu_;
  IdVector<KernelId, std::vector<std::pair<int, Time>>> by_sms_;  // by SMs taken, no bytes moved
  std::array<Table, 1 << tables_log2> recent_;                    // by a hash of what is taken
};

}  // namespace shardsim
