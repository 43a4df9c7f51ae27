// Results as JSON, in the contract of `shardsim schema`: fields are only ever added, units stand in the
// names.
#pragma once

#include <string>
#include <string_view>

#include "sim/result/memory_timeline.h"
#include "sim/result/record.h"
#include "sim/study/calibrate.h"
#include "sim/study/collective_table.h"
#include "sim/study/frontier.h"
#include "sim/study/limit.h"
#include "sim/study/sweep.h"
#include "sim/study/validate.h"

namespace shardsim {

struct Tool {
  std::string version, git;
};

std::string to_json(const RunRecord& run, const Tool& tool);
std::string to_json(const SweepResult& sweep, const Tool& tool);
std::string to_json(const FrontierResult& frontier, const Tool& tool);
std::string to_json(const LimitResult& limit, const Tool& tool);
std::string to_json(const CollectiveResult& result, const Tool& tool);
std::string to_json(const ValidateResult& result, const Tool& tool);
std::string to_json(const CalibrateResult& result, const Tool& tool);
std::string to_json(const std::vector<RecordedValue>& values, const Tool& tool);  // of `check`

// Of `run --memory-timeline`: columns of differences, so that a long run stays small.
std::string to_json(const MemoryTimeline& memory, const RunRecord& run, const Tool& tool);

// The JSON Schema of a command's output; "" for a command without one.
std::string schema(std::string_view command);
std::vector<std::string> schema_commands();

}  // namespace shardsim
