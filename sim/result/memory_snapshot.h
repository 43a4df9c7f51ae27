// What PyTorch's own memory viewer shows: every event of one GPU's caching allocator, and its segments at the
// end.
//   source      torch.cuda.memory._snapshot(), as read by pytorch.org/memory_viz
//   leaves out  addresses as CUDA gives them: ours count from an arbitrary base
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sim/base/category.h"
#include "sim/base/id.h"
#include "sim/base/memory_event.h"
#include "sim/base/units.h"

namespace shardsim {

// The tensor an event or block belongs to, and where in the step it was made.
struct MemoryOwner {
  std::int32_t tensor = -1;  // of MemorySnapshot::names; -1 = none
  std::int32_t phase = -1;
  int step = 0;  // 0 = while the model is set up
  Category category{};
  Bytes requested;  // by the tensor; its block is at least as large
};

struct MemoryEvent {
  MemoryAction action{};
  std::int64_t address = 0;
  Bytes size;  // of the block or segment; oom: of what was asked for
  int stream = 0;
  Time at{};  // on the host's clock
  MemoryOwner owner{};
  Bytes device_free{};  // oom
};

struct MemoryBlock {
  std::int64_t address = 0;
  Bytes size;
  BlockState state{};
  MemoryOwner owner{};
};

struct MemorySegment {
  std::int64_t address = 0;
  Bytes size;
  int stream = 0;
  bool small = false, expandable = false;
  std::vector<MemoryBlock> blocks;  // without gaps
};

struct MemorySnapshot {
  Rank rank;                        // with the highest reserved peak
  std::vector<std::string> names;   // of tensors and phases
  std::vector<MemoryEvent> events;  // in order; of a long run the last `events_max`
  std::vector<MemorySegment> segments;

  static constexpr std::size_t events_max = 500'000;  // 40 MB in a file; the viewer ends near a GB
};

}  // namespace shardsim
