// After out of memory: the smallest changes that make the scenario fit, each verified by simulation.
#pragma once

#include "sim/result/advice.h"
#include "sim/scenario/scenario.h"
#include "sim/scenario/settings.h"

namespace shardsim {

// `settings` resolve to a scenario that runs out of memory. Tried are, where legal and built: a smaller
// micro-batch (with more accumulation if the global batch is given), a larger sharding factor, more
// checkpointing, offload, other optimizer implementations, allocator settings, resharding, DDP's bucket view,
// FSDP instead of DDP, shorter sequences. Where none of them is enough, each is tried again on top of FSDP
// instead of DDP, else of full checkpointing.
//   leaves out  other combinations, other hardware (`limit --min cluster.gpus` counts GPUs)
OomAdvice advise_oom(const Settings& settings, const Library& library);

}  // namespace shardsim
