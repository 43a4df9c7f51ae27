// The collective operations a program can ask for.
#pragma once

#include <cstdint>
#include <string_view>

namespace shardsim {

// Bytes of a collective are counted as nccl-tests does: all-gather by its total output, reduce-scatter by its
// total input, all-reduce by the buffer of one rank. (NVIDIA/nccl-tests, doc/PERFORMANCE.md)
enum class CollectiveKind : std::uint8_t { all_gather, reduce_scatter, all_reduce };
inline constexpr int collective_kinds = 3;

constexpr std::string_view name(CollectiveKind kind) {
  constexpr std::string_view names[] = {"all_gather", "reduce_scatter", "all_reduce"};
  return names[static_cast<int>(kind)];
}

}  // namespace shardsim
