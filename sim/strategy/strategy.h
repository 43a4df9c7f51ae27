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
//   leaves out  the transients of wrapping beyond a unit at a time, ignored modules, units other than blocks
Program compile(const OpGraph& graph, const Training& training, const Framework& framework,
                std::int64_t world, const Fsdp& options);

// torch.distributed.fsdp.fully_shard (FSDP2) at any sharding factor.
//   source  torch/distributed/fsdp/_fully_shard/_fsdp_param_group.py, _fsdp_collectives.py, _fsdp_param.py
//   leaves out  explicit prefetching, units other than blocks
Program compile(const OpGraph& graph, const Training& training, const Framework& framework,
                std::int64_t world, const Fsdp2& options);

// DeepSpeed's ZeRO, stages 1 to 3, ZeRO-Offload, MiCS. Operations see 16-bit parameters (or fp32 ones), the
// optimizer an fp32 partition of them.
//   source  deepspeed/runtime/zero/{stage_1_and_2,stage3,partitioned_param_coordinator,mics}.py
//   leaves out  NVMe, ZeRO++ (quantised communication, secondary partitions), round-robin gradients,
//               non-contiguous gradients, temporaries of the overflow check
Program compile(const OpGraph& graph, const Training& training, const Framework& framework,
                std::int64_t world, const Zero& options);

// Megatron-LM's data parallelism with the distributed optimizer: 16-bit parameters, gradients added up in a
// buffer of their own (fp32 unless Training::reduce says otherwise), reduce-scattered bucket by bucket.
//   source  megatron/core/distributed/{distributed_data_parallel,param_and_grad_buffer}.py,
//           megatron/core/optimizer/distrib_optimizer.py
//   leaves out  tensor and pipeline parallelism, weight gradients accumulated inside the matrix product,
//               several optimizer instances
Program compile(const OpGraph& graph, const Training& training, const Framework& framework,
                std::int64_t world, const MegatronDp& options);

using Strategy = std::variant<Ddp, Fsdp, Fsdp2, Zero, MegatronDp>;

// A job of one GPU has nothing to shard or to reduce: PyTorch's strategies compile to plain training; ZeRO
// and Megatron keep 16-bit parameters and an fp32 copy there too. Requires: world > 0; a sharding factor that
// divides it.
Program compile(const OpGraph& graph, const Training& training, const Framework& framework,
                std::int64_t world, const Strategy& strategy);

}  // namespace shardsim
