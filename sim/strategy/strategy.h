// Strategies are compilers: an op graph and options in, a step program out. They compute no times and know no
// hardware.
#pragma once

#include <cstdint>
#include <variant>

#include "sim/model/op_graph.h"
#include "sim/program/program.h"
#include "sim/strategy/options.h"

namespace shardsim {

// torch.nn.parallel.DistributedDataParallel: full replicas, gradients all-reduced in buckets.
//   source  torch/nn/parallel/distributed.py, torch/csrc/distributed/c10d/reducer.cpp
//   leaves out  find_unused_parameters, static_graph, communication hooks
Program compile(const OpGraph& graph, const Training& training, const Framework& framework,
                std::int64_t world, const Ddp& options);

// torch.distributed.fsdp.FullyShardedDataParallel (FSDP1) at any sharding factor.
//   source  torch/distributed/fsdp/_runtime_utils.py, _flat_param.py, _limiter_utils.py
//   leaves out  CPU offload, no_sync, the transients of wrapping (shards appear in place)
Program compile(const OpGraph& graph, const Training& training, const Framework& framework,
                std::int64_t world, const Fsdp& options);

// torch.distributed.fsdp.fully_shard (FSDP2) at any sharding factor.
//   source  torch/distributed/fsdp/_fully_shard/_fsdp_param_group.py, _fsdp_collectives.py, _fsdp_param.py
//   leaves out  CPU offload, set_requires_gradient_sync, explicit prefetching
Program compile(const OpGraph& graph, const Training& training, const Framework& framework,
                std::int64_t world, const Fsdp2& options);

using Strategy = std::variant<Ddp, Fsdp, Fsdp2>;

// A job of one GPU has nothing to shard or to reduce: every strategy compiles to plain training.
// Requires: world > 0; a sharding factor that divides it.
Program compile(const OpGraph& graph, const Training& training, const Framework& framework,
                std::int64_t world, const Strategy& strategy);

}  // namespace shardsim
