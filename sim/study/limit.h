// How far does one key go: the largest value that fits, or the fewest GPUs on which a model trains.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "sim/study/fit.h"

namespace shardsim {

struct LimitOptions {
  std::optional<std::int64_t> step, up_to;
};

struct LimitRow {
  std::string label;           // the strategy
  std::vector<Change> change;  // against the scenario; empty for its own
  Boundary boundary;
};

struct LimitResult {
  bool largest = true;  // else the smallest
  std::string key;
  std::vector<Scalar> values;  // that were searched, in the order in which memory grows
  std::vector<LimitRow> rows;
};

using Progress = std::function<void(const std::string&)>;

// The largest multiple of `step` (1; 128 tokens for sequences) that fits. Without `up_to` it is looked for
// until the live tensors alone exceed the memory; keys along which they need not grow require it.
LimitResult largest_value(ScenarioFile scenario, const std::string& key, const LimitOptions& options,
                          const Library& library, const Progress& progress);

// The fewest GPUs, up to 512 or `up_to`, parts of a node and then whole nodes: with the scenario's own
// strategy first, then with every kind of strategy that is built, of FSDP with each copy of the model on all
// GPUs, on a node and on one GPU.
LimitResult fewest_gpus(ScenarioFile scenario, const LimitOptions& options, const Library& library,
                        const Progress& progress);

}  // namespace shardsim
