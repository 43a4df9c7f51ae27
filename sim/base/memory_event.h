// What a caching allocator does, and what a block of it can be, as PyTorch names them.
#pragma once

#include <cstdint>
#include <string_view>

namespace shardsim {

enum class MemoryAction : std::uint8_t {
  alloc,
  free_requested,
  free_completed,  // no stream uses it any more
  segment_alloc,
  segment_free,
  segment_map,  // pages of an expandable segment
  segment_unmap,
  oom,  // what was asked for could not be had
};
constexpr std::string_view name(MemoryAction a) {
  constexpr std::string_view names[] = {"alloc",        "free_requested", "free_completed", "segment_alloc",
                                        "segment_free", "segment_map",    "segment_unmap",  "oom"};
  return names[static_cast<int>(a)];
}

enum class BlockState : std::uint8_t { inactive, active_allocated, active_pending_free };
constexpr std::string_view name(BlockState s) {
  constexpr std::string_view names[] = {"inactive", "active_allocated", "active_pending_free"};
  return names[static_cast<int>(s)];
}

}  // namespace shardsim
