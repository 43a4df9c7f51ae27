// Files for PyTorch's memory viewer.
#pragma once

#include <string>

#include "sim/result/memory_snapshot.h"
#include "sim/result/record.h"

namespace shardsim {

// What torch.cuda.memory._dump_snapshot() writes, for https://pytorch.org/memory_viz and Python's pickle: one
// device, times in microseconds, a tensor's name, phase and step as its stack frame. Sizes of events are
// those of blocks, so that they add up to what was allocated.
//   source  torch/utils/viz/MemoryViz.js, which reads pickles of protocol 2 to 4 with few opcodes
std::string to_pickle(const MemorySnapshot& snapshot, const RunRecord& run);

}  // namespace shardsim
