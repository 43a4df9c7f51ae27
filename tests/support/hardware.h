// The GPUs and stacks of the repository, for tests.
#pragma once

#include <string>

#include "sim/scenario/library.h"
#include "sim/scenario/scenario.h"

namespace shardsim {

inline Library test_library() { return Library({SHARDSIM_SOURCE_DIR}); }
inline Gpu gpu_named(const std::string& name) {
  return read_gpu(test_library().find("topologies/gpus", name, {}));
}
inline Stack stack_named(const std::string& name) {
  return read_stack(test_library().find("topologies/stacks", name, {}));
}

// A scenario for its hardware: one GPU of the topology, with a stack of the time of most measurements.
inline Scenario scenario_on(const std::string& topology) {
  Settings settings;
  settings.scenario = {topology};
  const Origin origin{Origin::Kind::flag, {topology}, {}};
  settings.set("topology", topology, origin);
  settings.set("model", std::string("gpt2"), origin);
  settings.set("cluster.gpus", std::int64_t{1}, origin);
  settings.set("training.stack", std::string("eager-2023"), origin);
  return resolve(settings, test_library());
}

}  // namespace shardsim
