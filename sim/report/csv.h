// Results as CSV: the dotted keys of the scenario, then `simulated.` figures; one row per run.
#pragma once

#include <string>

#include "sim/result/memory_timeline.h"
#include "sim/result/record.h"
#include "sim/study/collective_table.h"
#include "sim/study/frontier.h"
#include "sim/study/limit.h"
#include "sim/study/sweep.h"
#include "sim/study/validate.h"

namespace shardsim {

std::string to_csv(const RunRecord& run);
std::string to_csv(const SweepResult& sweep);
// The runs on both sides of each boundary.
std::string to_csv(const FrontierResult& frontier);
std::string to_csv(const LimitResult& limit);
std::string to_csv(const CollectiveResult& result);
std::string to_csv(const ValidateResult& result);  // a row per run and metric

// Of `run --memory-timeline`: a row per change, in picoseconds and bytes.
std::string to_csv(const MemoryTimeline& memory);

}  // namespace shardsim
