// How the memory of one GPU rises and falls: a row per change, on the clock of the host, as in the snapshots
// of torch.cuda.memory.
#pragma once

#include <vector>

#include "sim/base/category.h"
#include "sim/base/id.h"
#include "sim/base/units.h"

namespace shardsim {

// The state after a change.
struct MemoryRow {
  int step = 0;  // 0 = while the model is set up, 1 = first step
  Time at;
  Bytes allocated, active, reserved;
  ByCategory live{};  // sums to `allocated`
};

// From the set-up to the end of the simulation, the steps that the host had issued ahead included.
struct MemoryTimeline {
  Rank rank;                    // with the highest reserved peak
  std::vector<MemoryRow> rows;  // by time
};

// Appends a row. A last row of the same step and instant gives way to it when allocated, active and reserved
// all go on as they went into it, up or down: no maximum is lost.
void append(std::vector<MemoryRow>& rows, const MemoryRow& row);

}  // namespace shardsim
