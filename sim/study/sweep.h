// Many runs, one answer: the product of a scenario's [sweep] axes.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "sim/result/record.h"
#include "sim/scenario/scenario.h"
#include "sim/scenario/settings.h"

namespace shardsim {

struct SweepRow {
  std::vector<std::string> point;  // a label per axis
  std::optional<RunRecord> run;    // none if the combination is illegal
  std::string error;               // why
};

struct SweepResult {
  std::vector<std::string> axes;  // dotted keys
  // "weak" (work per GPU fixed) or "strong" (global batch fixed) when cluster.gpus is an axis, else "".
  std::string scaling;
  std::vector<SweepRow> rows;  // in the order of the file: the first axis varies slowest
};

// The first combination, and how many will run after [[sweep.skip]]: 1 without axes.
struct SweepSample {
  Settings settings;
  std::string label;
  std::size_t runs;
};
SweepSample first_of(const ScenarioFile& scenario);

// The settings of a scenario of one run. Throws InputError if its axes leave several.
Settings only_one(const ScenarioFile& scenario);

// Runs every combination, in parallel, and says how far each time is to be trusted. A combination that is
// illegal becomes a row with its error; errors of the file itself throw. `progress` is called from any
// thread, one call at a time, with how many runs are done, how many there are, and the labels of the latest.
SweepResult sweep(const ScenarioFile& scenario, const Library& library, const RunOptions& options,
                  const std::function<void(std::size_t, std::size_t, const std::string&)>& progress);

}  // namespace shardsim
