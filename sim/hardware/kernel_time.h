// Descriptor -> duration, on one GPU.
#pragma once

#include "sim/base/kernel.h"
#include "sim/base/units.h"
#include "sim/hardware/gpu.h"

namespace shardsim {

// What the collectives on a GPU take from its kernels.
struct Taken {
  int sms = 0;               // each NCCL channel keeps one SM to itself
  std::int64_t hbm_ppm = 0;  // of the usable HBM bandwidth, in millionths
  friend bool operator==(const Taken&, const Taken&) = default;
};

// HBM bandwidth a collective that moves `wire` bytes per second takes, as a share in millionths.
std::int64_t hbm_taken_ppm(const Gpu& gpu, Bandwidth wire);

// Time of the kernel inside a training step when collectives hold `sms_taken` SMs but move no data.
//   Gemm            tiles in waves over the free SMs, split-K, bytes; capped by the sustained rate
//   MemoryBound     fixed cost + bytes over usable bandwidth
//   FusedAttention  executed FLOP over the saturating rate of its implementation
// Requires: the GPU has a profile for the kernel's dtype or attention kind (checked when the scenario is
// read); sms_taken < gpu.sms.
Time kernel_time(const Gpu& gpu, const Kernel& kernel, int sms_taken);

// The same kernel when the collectives also move data: `alone` = kernel_time(gpu, kernel, taken.sms) and
// `free` = kernel_time(gpu, kernel, 0). Bandwidth-bound kernels lose the share of HBM, at least the share of
// SMs; the others a part of it.
Time contended(const Gpu& gpu, const Kernel& kernel, Time free, Time alone, const Taken& taken);

}  // namespace shardsim
