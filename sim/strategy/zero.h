// What the stages of DeepSpeed's ZeRO share.
#pragma once

#include "sim/strategy/partitioned.h"

namespace shardsim {

// Stages 1 and 2: parameters whole, in one flat buffer. Stage 3: parameters gathered when a module runs.
Program compile_zero12(const OpGraph& graph, const Training& training, const Framework& framework,
                       std::int64_t world, const Zero& options);
Program compile_zero3(const OpGraph& graph, const Training& training, const Framework& framework,
                      std::int64_t world, const Zero& options);

inline MemorySpace optimizer_space(const Zero& options) {
  return options.offload == ZeroOffload::none ? MemorySpace::device : MemorySpace::pinned;
}

}  // namespace shardsim
