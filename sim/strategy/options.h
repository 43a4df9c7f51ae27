// How a model is trained: what the strategies compile. No TOML, no hardware, no time.
#pragma once

#include <cstdint>
#include <string_view>

#include "sim/base/dtype.h"
#include "sim/base/units.h"
#include "sim/model/workload.h"

namespace shardsim {

enum class OptimizerKind : std::uint8_t { adamw, adam, lamb, sgd, sgd_momentum, adafactor, adamw_8bit };
constexpr std::string_view name(OptimizerKind k) {
  constexpr std::string_view names[] = {"adamw",        "adam",      "lamb",      "sgd",
                                        "sgd-momentum", "adafactor", "adamw-8bit"};
  return names[static_cast<int>(k)];
}

// How PyTorch runs the optimizer's arithmetic: tensor by tensor, pass by pass over all tensors, or in one
// kernel.
enum class OptimizerImpl : std::uint8_t { for_loop, foreach, fused };
constexpr std::string_view name(OptimizerImpl i) {
  constexpr std::string_view names[] = {"for-loop", "foreach", "fused"};
  return names[static_cast<int>(i)];
}

// What backward computes again instead of finding it saved.
enum class Checkpointing : std::uint8_t {
  none,
  full,          // every block
  selective,     // the attention cores: scores, softmax, dropout, context (Korthikanti et al. 2022)
  selective_op,  // blocks but for every second linear layer's product and fused attention (torchtitan)
  every_k,       // every group of `checkpoint_every` blocks in sequence
};
constexpr std::string_view name(Checkpointing c) {
  constexpr std::string_view names[] = {"none", "full", "selective", "selective-op", "every-k"};
  return names[static_cast<int>(c)];
}

struct Training {
  std::int64_t micro_batches = 1;  // per step (gradient accumulation)
  OptimizerKind optimizer = OptimizerKind::adamw;
  OptimizerImpl optimizer_impl = OptimizerImpl::foreach;
  Checkpointing checkpointing = Checkpointing::none;
  std::int64_t checkpoint_every = 1;  // blocks, for every_k
  bool activation_offload = false;    // what blocks keep for backward waits in host memory
  DType stored = DType::fp32;  // of parameters between steps, and so of their gradients and optimizer state
  DType reduce = DType::fp32;  // of gradients on the wire
  // Parameters and gradients in 16 bits (`stored`), an fp32 copy of each in the optimizer: apex amp, level
  // O2.
  bool master_copies = false;
  bool gradient_clipping = true;
  bool loss_scaling = false;   // GradScaler of fp16
  bool no_sync = false;        // gradients are reduced in the last micro-batch only
  bool sync_each_step = true;  // loss.item() at the end of each step
};

// What the framework's version decides about a program.
struct Framework {
  bool collectives_record_streams = true;  // c10d marks tensors as used by the NCCL stream (PyTorch <= 2.1)
  Bytes cublas_workspace;                  // per thread that multiplies, on the default stream
};

struct Ddp {
  Bytes bucket_cap{25 << 20};
  bool gradient_as_bucket_view = false;
};

enum class BackwardPrefetch : std::uint8_t { pre, post, none };
constexpr std::string_view name(BackwardPrefetch p) {
  constexpr std::string_view names[] = {"pre", "post", "none"};
  return names[static_cast<int>(p)];
}
enum class Wrap : std::uint8_t { block, model };
constexpr std::string_view name(Wrap w) { return w == Wrap::block ? "block" : "model"; }

struct Fsdp {
  std::int64_t sharding_factor = 1;   // F: 1 = full replication, gpus = full sharding, between = hybrid
  bool reshard_after_forward = true;  // false = SHARD_GRAD_OP
  BackwardPrefetch backward_prefetch = BackwardPrefetch::pre;
  bool forward_prefetch = false;
  bool limit_all_gathers = true;
  bool use_orig_params = true;  // aligns every parameter to 16 bytes
  bool cpu_offload = false;     // parameters, gradients and optimizer in host memory; needs F > 1
  Wrap wrap = Wrap::block;
};

// The same by fully_shard: every parameter sharded along its first dimension.
struct Fsdp2 {
  std::int64_t sharding_factor = 1;
  // Ranks among which a unit's parameters stay spread between forward and backward: the sharding factor =
  // reshard_after_forward, 1 = they stay unsharded, in between = an integer reshard_after_forward.
  std::int64_t reshard = 1;
  bool reshard_last_block = true;  // false: the last block stays unsharded, as backward needs it at once
  bool cpu_offload = false;        // CPUOffloadPolicy
  Wrap wrap = Wrap::block;
};

// DeepSpeed's ZeRO. Sizes are elements, defaults those of deepspeed/runtime/zero/config.py.
enum class ZeroOffload : std::uint8_t { none, optimizer, parameters };  // each with those before it
struct Zero {
  int stage = 2;  // 1 = optimizer state, 2 = and gradients, 3 = and parameters are partitioned
  std::int64_t mics_shard_size = 0;  // stage 3: ranks that share one copy of all states (MiCS); 0 = all
  bool overlap_comm = false;
  ZeroOffload offload = ZeroOffload::none;
  std::int64_t reduce_bucket_size = 500'000'000;
  // Stages 1 and 2. Off: each slice of a bucket is reduced to the rank that owns it.
  bool multi_rank_bucket_allreduce = true;
  std::int64_t allgather_bucket_size = 500'000'000;
  // Stage 3.
  std::int64_t prefetch_bucket_size = 50'000'000;
  std::int64_t param_persistence_threshold = 100'000;
  std::int64_t max_live_parameters = 1'000'000'000;
  std::int64_t max_reuse_distance = 1'000'000'000;
  std::int64_t sub_group_size = 1'000'000'000;
};

// Megatron-LM's distributed optimizer.
struct MegatronDp {
  bool overlap_grad_reduce = true;
  bool overlap_param_gather = false;
  std::int64_t bucket_size = 40'000'000;  // elements
};

}  // namespace shardsim
