// After out of memory: the smallest single changes that make the scenario fit, each verified by simulation.
#pragma once

#include "sim/result/advice.h"
#include "sim/scenario/scenario.h"
#include "sim/scenario/settings.h"

namespace shardsim {

// `settings` resolve to a scenario that runs out of memory. Tried are, where legal and built: a smaller
// micro-batch (with more accumulation if the global batch is given), a larger sharding factor, more
// checkpointing, offload, other optimizer implementations, allocator settings, resharding, DDP's bucket view,
// FSDP instead of DDP, shorter sequences.
//   leaves out  combinations of changes, other hardware (`limit --min cluster.gpus` counts GPUs)
OomAdvice advise_oom(const Settings& settings, const Library& library);

}  // namespace shardsim
