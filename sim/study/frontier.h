// The boundary between what fits and what runs out of memory, over two keys of a scenario.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "sim/study/fit.h"

namespace shardsim {

struct FrontierRow {
  std::string label;  // the value of the first key
  Boundary boundary;  // along the second
};

struct FrontierResult {
  std::string over, along;  // the first and the second key
  bool smallest = false;    // memory falls along the second key: the boundary is the smallest value that fits
  std::vector<Scalar> values;  // of the second key, as memory grows
  std::vector<FrontierRow> rows;

  bool everything_fits() const;  // at every legal value
  bool nothing_fits() const;
};

// `over`: two keys, separated by a comma, each with its values ("training.micro_batch=1..64") or without:
// then its axis in the scenario's [sweep], else default_values. Throws InputError for anything else, and for
// a second key that is not an integer.
FrontierResult frontier(ScenarioFile scenario, const std::string& over, const Library& library,
                        const std::function<void(const std::string&)>& progress);

// The values a key takes when nobody says: "1..64 x2"; "" for most keys.
std::string default_values(const std::string& key);

}  // namespace shardsim
