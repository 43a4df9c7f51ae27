// A GPU as numbers. The numbers come from topologies/gpus/*.toml, each with its source.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sim/base/dtype.h"
#include "sim/base/kernel.h"
#include "sim/base/units.h"

namespace shardsim {

enum class Architecture : std::uint8_t { volta, turing, ampere, hopper };
inline constexpr int architectures = 4;
constexpr std::string_view name(Architecture a) {
  constexpr std::string_view names[] = {"volta", "turing", "ampere", "hopper"};
  return names[static_cast<int>(a)];
}

// Matrix products in one number format.
struct GemmProfile {
  FlopRate peak;       // dense, data sheet
  FlopRate sustained;  // ceiling on random data for minutes: the power limit bites before the peak
  // Share of an SM's peak that the inner loop reaches, by tile size in outputs: >= 32768, >= 16384, >= 8192,
  // >= 4096, smaller.
  std::array<double, 5> tile_efficiency{};
  Time prologue;               // per tile: fill of the pipeline, write of the result
  double memory_efficiency{};  // share of peak bandwidth that operands and results stream at
  // Rate in a training step over that in a benchmark loop: cold L2, mixed layouts, gaps.
  double training_context = 1;
};

// Fused attention reaches rate_max * s / (s + half_sequence), s = keys: short sequences do not fill the SMs.
struct AttentionProfile {
  AttentionKind kind{};
  bool full_precision = false;  // of fp32 tensors; else of 16-bit ones
  std::int64_t head_dim{};
  bool causal{};
  FlopRate forward, backward;  // limits for long sequences, in executed FLOP
  double half_sequence{};
};

// What a running collective takes from the kernels beside it, and they from it.
struct Interference {
  double hbm_bytes_per_bus_byte{};  // HBM traffic of a collective per byte on the wire
  double hbm_share_max{};           // of the usable HBM bandwidth
  double gemm_sensitivity{};        // slow-down of a matrix product per share of HBM lost
  double collective_slowdown{};     // share of its rate a collective loses while its GPUs compute
};

struct Gpu {
  std::string name;
  Architecture architecture{};
  int sms{};
  Bytes memory;   // as CUDA reports it
  Bytes context;  // CUDA context and loaded kernels, outside the caching allocator
  Bandwidth memory_bandwidth;
  double memory_efficiency{};     // share that streaming kernels reach
  Time gemm_fixed, memory_fixed;  // start and end of a kernel, on the GPU
  double narrow_efficiency = 1;   // of that, on 16-bit elements: the software stack's kernels
  int nvlinks{};
  Bandwidth nvlink;                                // one link, one direction, wire rate
  double nvlink_efficiency{};                      // payload that NCCL's rings reach over the wire rate
  Bandwidth pcie;                                  // one direction, effective
  std::array<std::optional<GemmProfile>, 5> gemm;  // by DType fp32 .. fp8
  std::vector<AttentionProfile> attention;
  Interference interference;

  const std::optional<GemmProfile>& profile(DType t) const { return gemm[static_cast<std::size_t>(t)]; }
};

}  // namespace shardsim
