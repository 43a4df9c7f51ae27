#include <cmath>

#include "sim/scenario/resolver.h"

namespace shardsim {

void Resolver::read_strategy() {
  const std::string kind = std::get<std::string>(settings_.find("strategy.kind")->value);
  if (kind == "ddp" && text("strategy.cpu_offload", "none", "PyTorch's") != "none")
    fail("strategy.cpu_offload", "DDP keeps everything on the GPU; offload needs a strategy that shards");
  if (kind == "ddp")
    read_ddp();
  else if (kind == "fsdp2")
    read_fsdp2();
  else
    read_fsdp();
}

void Resolver::reject(std::initializer_list<const char*> keys, std::string_view kind) const {
  for (const char* key : keys)
    if (given(key)) fail(key, fmt::format("{} has no option \"{}\"", kind, std::string_view(key).substr(9)));
}

void Resolver::read_ddp() {
  reject({"strategy.sharding_factor", "strategy.reshard_after_forward", "strategy.backward_prefetch",
          "strategy.forward_prefetch", "strategy.limit_all_gathers", "strategy.use_orig_params",
          "strategy.wrap", "strategy.reshard_last_block"},
         "DDP");
  Ddp ddp;
  ddp.bucket_cap = {std::llround(number("strategy.bucket_cap_mb", 25, "PyTorch's") * 1048576)};
  ddp.gradient_as_bucket_view = flag("strategy.gradient_as_bucket_view", false, "PyTorch's");
  s_.strategy = ddp;
  s_.strategy_name = "ddp";
}

void Resolver::read_fsdp() {
  reject({"strategy.bucket_cap_mb", "strategy.gradient_as_bucket_view", "strategy.reshard_last_block"},
         "FSDP");
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
  f.cpu_offload = fsdp_offload(f.sharding_factor);
  f.use_orig_params = flag("strategy.use_orig_params", true, "recommended since PyTorch 2.1");
  f.wrap =
      parse(text("strategy.wrap", "block", "one unit per transformer block"), {Wrap::block, Wrap::model});
  s_.strategy = f;
  s_.strategy_name = fmt::format("fsdp F={}", f.sharding_factor);
}

void Resolver::read_fsdp2() {
  reject({"strategy.bucket_cap_mb", "strategy.gradient_as_bucket_view", "strategy.backward_prefetch",
          "strategy.forward_prefetch", "strategy.limit_all_gathers", "strategy.use_orig_params"},
         "FSDP2");
  Fsdp2 f;
  f.sharding_factor = sharding_factor();
  f.reshard = reshard_ranks(f.sharding_factor);
  f.cpu_offload = fsdp_offload(f.sharding_factor);
  f.reshard_last_block = flag("strategy.reshard_last_block", true, "fully_shard on every block alike");
  f.wrap =
      parse(text("strategy.wrap", "block", "one unit per transformer block"), {Wrap::block, Wrap::model});
  s_.strategy = f;
  s_.strategy_name = fmt::format("fsdp2 F={}", f.sharding_factor);
}

// CPUOffload(offload_params=True), CPUOffloadPolicy: parameters, gradients and optimizer together.
bool Resolver::fsdp_offload(std::int64_t factor) {
  const std::string key = "strategy.cpu_offload";
  const std::string what = text(key, "none", "PyTorch's");
  if (what == "none") return false;
  if (what == "optimizer")
    fail(key, "FSDP offloads the optimizer together with the parameters: \"parameters\"");
  if (factor == 1 && s_.gpus > 1)
    fail(key, "FSDP offloads sharded parameters only; the sharding factor is 1");
  if (s_.training.micro_batches > 1 && !s_.training.no_sync)
    fail(key, "FSDP cannot add up reduced gradients that are offloaded; accumulate with no_sync = true");
  return true;
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

std::int64_t Resolver::sharding_factor() {
  const std::string key = "strategy.sharding_factor";
  if (!given(key)) return get<std::int64_t>(key, s_.gpus, "full sharding");
  const Scalar& value = settings_.find(key)->value;
  if (const auto* name = std::get_if<std::string>(&value))
    return *name == "full" ? s_.gpus : std::min<std::int64_t>(s_.gpus, s_.topology.node.gpus);
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
