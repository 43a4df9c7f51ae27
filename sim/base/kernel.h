// What a GPU kernel has to do, independent of the GPU: the vocabulary between programs and hardware.
#pragma once

#include <compare>
#include <cstdint>
#include <string_view>
#include <variant>

#include "sim/base/dtype.h"
#include "sim/base/units.h"

namespace shardsim {

// C[m,n] += A[m,k] B[k,n], `batch` times side by side.
struct Gemm {
  std::int64_t batch = 1, m, n, k;
  DType dtype;
  friend auto operator<=>(const Gemm&, const Gemm&) = default;
};

// Pointwise operations, reductions, normalisations, copies, optimizer passes: bound by the bytes they move.
struct MemoryBound {
  Bytes traffic;        // read + written
  bool narrow = false;  // in elements of 16 bits: fewer bytes under way per thread
  friend auto operator<=>(const MemoryBound&, const MemoryBound&) = default;
};

enum class AttentionKind : std::uint8_t { unfused, flash, flash2, mem_efficient };
constexpr std::string_view name(AttentionKind kind) {
  constexpr std::string_view names[] = {"unfused", "flash", "flash2", "mem-efficient"};
  return names[static_cast<int>(kind)];
}

// Attention as one kernel. Unfused attention is not this: it is Gemms and MemoryBounds.
struct FusedAttention {
  AttentionKind kind;
  bool backward;
  bool causal;
  std::int64_t heads;  // micro_batch * attention heads
  std::int64_t queries, keys, head_dim;
  DType dtype;
  friend auto operator<=>(const FusedAttention&, const FusedAttention&) = default;
};

using Kernel = std::variant<Gemm, MemoryBound, FusedAttention>;

// FLOP the kernel really executes: causal attention computes half the scores, its backward recomputes them.
Flop executed_flop(const Kernel& kernel);

}  // namespace shardsim
