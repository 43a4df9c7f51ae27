// The GPUs and stacks of the repository, for tests.
#pragma once

#include <string>

#include "sim/scenario/library.h"

namespace shardsim {

inline Library test_library() { return Library({SHARDSIM_SOURCE_DIR}); }
inline Gpu gpu_named(const std::string& name) {
  return read_gpu(test_library().find("topologies/gpus", name, {}));
}
inline Stack stack_named(const std::string& name) {
  return read_stack(test_library().find("topologies/stacks", name, {}));
}

}  // namespace shardsim
