// Scenarios by assignments as on the command line.
#pragma once

#include <string>
#include <vector>

#include "sim/scenario/scenario.h"
#include "sim/scenario/settings.h"

namespace shardsim {

inline ScenarioFile scenario_of(const std::vector<std::string>& sets) {
  ScenarioFile file;
  file.settings.scenario = {"test"};
  for (const std::string& set : sets) assign(file, set);
  return file;
}

}  // namespace shardsim
