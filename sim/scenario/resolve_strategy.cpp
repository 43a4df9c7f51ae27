#include <cmath>

#include "sim/scenario/resolver.h"

namespace shardsim {
namespace {

int zero_stage(const std::string& kind) { return kind == "mics" ? 3 : kind.back() - '0'; }

}  // namespace

void Resolver::read_strategy() {
  const std::string kind = std::get<std::string>(settings_.find("strategy.kind")->value);
  reject_foreign_options(kind);
  if (kind == "ddp" && text("strategy.cpu_offload", "none", "PyTorch's") != "none")
    fail("strategy.cpu_offload", "DDP keeps everything on the GPU; offload needs a strategy that shards");
  if (kind == "ddp")
    read_ddp();
  else if (kind == "fsdp2")
    read_fsdp2();
  else if (kind.starts_with("zero") || kind == "mics")
    read_zero(zero_stage(kind), kind == "mics");
  else if (kind == "megatron-dp")
    read_megatron_dp();
  else
    read_fsdp();
}

void Resolver::reject_foreign_options(const std::string& kind) const {
  const bool deepspeed = kind.starts_with("zero") || kind == "mics";
  for (const auto& [key, setting] : settings_.all()) {
    if (!key.starts_with("strategy.") || has_option(kind, key)) continue;
    if (key.starts_with("strategy.deepspeed.") && !deepspeed)
      fail(key, fmt::format("\"{}\" is not DeepSpeed's; strategy.kind = \"zero1\", \"zero2\", \"zero3\" and "
                            "\"mics\" are",
                            kind));
    if (key.starts_with("strategy.megatron."))
      fail(key, fmt::format("\"{}\" is not Megatron's; strategy.kind = \"megatron-dp\" is", kind));
    const std::string strategy = kind == "ddp"     ? "DDP"
                                 : kind == "fsdp"  ? "FSDP"
                                 : kind == "fsdp2" ? "FSDP2"
                                 : key.starts_with("strategy.deepspeed.")
                                     ? fmt::format("ZeRO stage {}", zero_stage(kind))
                                     : fmt::format("\"{}\"", kind);
    fail(key, fmt::format("{} has no option \"{}\"", strategy, key.substr(9)));
  }
}

void Resolver::read_ddp() {
  Ddp ddp;
  ddp.bucket_cap = {std::llround(number("strategy.bucket_cap_mb", 25, "PyTorch's") * 1048576)};
  ddp.gradient_as_bucket_view = flag("strategy.gradient_as_bucket_view", false, "PyTorch's");
  s_.strategy = ddp;
  s_.strategy_name = "ddp";
}

void Resolver::read_fsdp() {
  if (const Setting* reshard = settings_.find("strategy.reshard_after_forward"))
    if (std::holds_alternative<std::int64_t>(reshard->value))
      fail("strategy.reshard_after_forward",
           "a number of ranks needs strategy.kind = \"fsdp2\"; true or false is expected");
  Fsdp f;
  f.sharding_factor = sharding_factor();
  f.reshard_after_forward = flag("strategy.reshard_after_forward", true, "FULL_SHARD");
  f.backward_prefetch = parse(text("strategy.backward_prefetch", "pre", "PyTorch's"),
                              {BackwardPrefetch::pre, BackwardPrefetch::post, BackwardPrefetch::none});
  f.forward_prefetch = flag("strategy.forward_prefetch", false, "PyTorch's");
  f.limit_all_gathers =
      flag("strategy.limit_all_gathers", s_.stack.limit_all_gathers, fmt::format("stack {}", s_.stack.name));
  f.cpu_offload = fsdp_offload(f.sharding_factor, /*adds_on_host=*/false);
  f.use_orig_params = flag("strategy.use_orig_params", true, "recommended since PyTorch 2.1");
  f.wrap =
      parse(text("strategy.wrap", "block", "one unit per transformer block"), {Wrap::block, Wrap::model});
  s_.strategy = f;
  s_.strategy_name = fmt::format("fsdp F={}", f.sharding_factor);
}

void Resolver::read_fsdp2() {
  Fsdp2 f;
  f.sharding_factor = sharding_factor();
  f.reshard = reshard_ranks(f.sharding_factor);
  f.cpu_offload = fsdp_offload(f.sharding_factor, /*adds_on_host=*/true);
  f.reshard_last_block = flag("strategy.reshard_last_block", true, "fully_shard on every block alike");
  f.wrap =
      parse(text("strategy.wrap", "block", "one unit per transformer block"), {Wrap::block, Wrap::model});
  s_.strategy = f;
  s_.strategy_name = fmt::format("fsdp2 F={}", f.sharding_factor);
}

// CPUOffload(offload_params=True), CPUOffloadPolicy: parameters, gradients and optimizer together.
// FSDP2 adds the gradients of micro-batches up on the host, FSDP1 cannot.
bool Resolver::fsdp_offload(std::int64_t factor, bool adds_on_host) {
  const std::string key = "strategy.cpu_offload";
  const std::string what = text(key, "none", "PyTorch's");
  if (what == "none") return false;
  if (what == "optimizer")
    fail(key, "FSDP offloads the optimizer together with the parameters: \"parameters\"");
  if (s_.gpus == 1) fail(key, "one GPU runs without FSDP; offloaded parameters need several GPUs");
  if (factor == 1) fail(key, "FSDP offloads sharded parameters only; the sharding factor is 1");
  if (!adds_on_host && s_.training.micro_batches > 1 && !s_.training.no_sync)
    fail(key, "FSDP cannot add up reduced gradients that are offloaded; accumulate with no_sync = true");
  return true;
}

std::int64_t Resolver::elements(const std::string& key, std::int64_t fallback, const std::string& reason) {
  return std::llround(number(key, static_cast<double>(fallback), reason));
}

void Resolver::read_zero(int stage, bool mics) {
  const std::string group = "strategy.deepspeed.", reason = "DeepSpeed's";
  const auto size = [&](const char* key, std::int64_t fallback) {
    return elements(group + key, fallback, reason);
  };
  Zero z;
  z.stage = stage;
  z.overlap_comm = flag(group + "overlap_comm", stage == 3, reason);
  z.offload = zero_offload(stage, mics);
  z.reduce_bucket_size = size("reduce_bucket_size", z.reduce_bucket_size);
  if (stage < 3) {
    z.multi_rank_bucket_allreduce =
        flag(group + "multi_rank_bucket_allreduce", z.multi_rank_bucket_allreduce, reason);
    z.allgather_bucket_size = size("allgather_bucket_size", z.allgather_bucket_size);
  } else {
    z.prefetch_bucket_size = size("prefetch_bucket_size", z.prefetch_bucket_size);
    z.param_persistence_threshold = size("param_persistence_threshold", z.param_persistence_threshold);
    z.max_live_parameters = size("max_live_parameters", z.max_live_parameters);
    z.max_reuse_distance = size("max_reuse_distance", z.max_reuse_distance);
    z.sub_group_size = size("sub_group_size", z.sub_group_size);
    if (z.prefetch_bucket_size > z.max_live_parameters)
      fail(group + "prefetch_bucket_size",
           fmt::format("{} elements cannot be gathered early when max_live_parameters is {}",
                       z.prefetch_bucket_size, z.max_live_parameters));
  }
  if (mics) z.mics_shard_size = mics_shard_size();
  if (stage > 1 && s_.training.no_sync)
    fail("training.no_sync", "partitioned gradients are reduced in every micro-step; no_sync needs stage 1");
  s_.strategy = z;
  s_.strategy_name = mics ? fmt::format("mics p={}", z.mics_shard_size) : fmt::format("zero{}", stage);
}

ZeroOffload Resolver::zero_offload(int stage, bool mics) {
  const std::string key = "strategy.cpu_offload";
  const std::string what = text(key, "none", "DeepSpeed's");
  if (what == "none") return ZeroOffload::none;
  if (mics) fail(key, "MiCS has no offload; \"zero2\" and \"zero3\" have");
  if (what == "parameters" && stage < 3)
    fail(key,
         fmt::format("parameters are offloaded by stage 3 only; stage {} offloads the \"optimizer\"", stage));
  if (what == "parameters" && s_.gpus == 1)
    fail(key, "offloading the parameters of a single GPU is not supported yet");
  if (s_.training.optimizer_impl != OptimizerImpl::fused)
    fail(key, "DeepSpeed's optimizer on the host is \"fused\"; so must training.optimizer_impl be");
  return what == "optimizer" ? ZeroOffload::optimizer : ZeroOffload::parameters;
}

// Over how many ranks MiCS shards.
std::int64_t Resolver::mics_shard_size() {
  const std::string key = "strategy.sharding_factor";
  if (!given(key)) text(key, "node", "MiCS's usual");
  const std::int64_t factor = sharding_factor();
  if (factor == 1 && s_.gpus > 1) fail(key, "MiCS over one rank shards nothing");
  return factor;
}

void Resolver::read_megatron_dp() {
  if (text("strategy.cpu_offload", "none", "Megatron's") != "none")
    fail("strategy.cpu_offload",
         "\"megatron-dp\" keeps everything on the GPU; \"zero2\" offloads the optimizer");
  if (s_.training.no_sync)
    fail("training.no_sync", "\"megatron-dp\" reduces in the last micro-step only, without being told");
  MegatronDp m;
  m.overlap_grad_reduce = flag("strategy.megatron.overlap_grad_reduce", m.overlap_grad_reduce, "the usual");
  m.overlap_param_gather =
      flag("strategy.megatron.overlap_param_gather", m.overlap_param_gather, "Megatron's");
  m.bucket_size = elements("strategy.megatron.bucket_size",
                           std::max<std::int64_t>(40'000'000, 1'000'000 * s_.gpus), "Megatron's");
  s_.strategy = m;
  s_.strategy_name = "megatron-dp";
}

// Over how many ranks a unit's parameters are spread between forward and backward.
std::int64_t Resolver::reshard_ranks(std::int64_t factor) {
  const std::string key = "strategy.reshard_after_forward";
  if (!given(key)) flag(key, true, "fully_shard's");
  const Scalar& value = settings_.find(key)->value;
  if (const bool* reshard = std::get_if<bool>(&value)) return *reshard ? factor : 1;
  const std::int64_t ranks = std::get<std::int64_t>(value);
  if (ranks < 1 || factor % ranks != 0)
    fail(key, fmt::format("{} ranks do not divide a sharding factor of {}", ranks, factor));
  return ranks;
}

std::int64_t Resolver::ranks_of_a_node() const {
  if (s_.parts.empty()) return std::min<std::int64_t>(s_.gpus, s_.topology.node.gpus);
  const auto ranks = [](const ClusterPart& p) {
    return std::min<std::int64_t>(p.gpus, p.topology.node.gpus);
  };
  const std::int64_t first = ranks(s_.parts.front());
  for (std::size_t p = 1; p < s_.parts.size(); ++p)
    if (ranks(s_.parts[p]) != first)
      fail(
          "strategy.sharding_factor",
          fmt::format("\"node\" is {} ranks on cluster.part[0] and {} on cluster.part[{}]; a number of ranks "
                      "is expected",
                      first, ranks(s_.parts[p]), p));
  return first;
}

std::int64_t Resolver::sharding_factor() {
  const std::string key = "strategy.sharding_factor";
  if (!given(key)) return get<std::int64_t>(key, s_.gpus, "full sharding");
  const Scalar& value = settings_.find(key)->value;
  if (const auto* name = std::get_if<std::string>(&value))
    return *name == "full" ? s_.gpus : ranks_of_a_node();
  const std::int64_t factor = std::get<std::int64_t>(value);
  if (factor < 1 || s_.gpus % factor != 0) {
    std::int64_t below = std::min(factor, s_.gpus), above = below;
    while (below > 1 && s_.gpus % below != 0) --below;
    while (above < s_.gpus && s_.gpus % above != 0) ++above;
    fail(key, below == above ? fmt::format("a sharding factor of {} does not divide {} GPUs; {} does", factor,
                                           s_.gpus, below)
                             : fmt::format("a sharding factor of {} does not divide {} GPUs; {} or {} do",
                                           factor, s_.gpus, below, above));
  }
  return factor;
}

}  // namespace shardsim
