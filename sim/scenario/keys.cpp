#include "sim/scenario/keys.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

namespace shardsim {
namespace {

using enum KeySpec::Type;
constexpr double any = 1e300;

constexpr KeySpec flag_key(std::string_view key, std::string_view meaning, std::string_view only = {}) {
  return {key, flag, only, 0, 0, meaning};
}
constexpr KeySpec int_key(std::string_view key, double low, double high, std::string_view meaning) {
  return {key, integer, {}, low, high, meaning};
}
constexpr KeySpec num_key(std::string_view key, double low, double high, std::string_view meaning) {
  return {key, number, {}, low, high, meaning};
}
constexpr KeySpec text_key(std::string_view key, std::string_view meaning) {
  return {key, text, {}, 0, 0, meaning};
}
constexpr KeySpec choice_key(std::string_view key, std::string_view legal, std::string_view meaning) {
  return {key, choice, legal, 0, 0, meaning};
}

// In the order in which `check` prints them.
constexpr KeySpec table[] = {
    text_key("model", "a name in models/, a path, or a table"),
    text_key("model.name", "shown in reports"),
    choice_key("model.family", "gpt|t5|llama|bert|bart", "which architecture the numbers fill"),
    int_key("model.layers", 1, 1e5, "models with one stack"),
    int_key("model.encoder_layers", 1, 1e5, "encoder-decoder models"),
    int_key("model.decoder_layers", 1, 1e5, "encoder-decoder models"),
    int_key("model.hidden", 1, 1e7, "width of the residual stream"),
    int_key("model.heads", 1, 1e6, "attention heads"),
    int_key("model.kv_heads", 1, 1e6, "key and value heads; fewer than heads = grouped queries"),
    int_key("model.head_dim", 1, 1e6, "width of a head (T5's d_kv)"),
    int_key("model.ffn", 1, 1e8, "width of the feed-forward layer"),
    int_key("model.vocab", 1, 1e8, "rows of the token embedding"),
    choice_key("model.positions", "learned|rotary|alibi|relative|none", "how the model knows positions"),
    int_key("model.max_positions", 0, 1e8, "learned position embeddings; 0 = none"),
    int_key("model.position_offset", 0, 1e4, "further rows of the position table (OPT, RoBERTa, BART: 2)"),
    int_key("model.type_vocab", 0, 1e4, "BERT's segments"),
    flag_key("model.tied_embeddings", "the head shares the token embedding"),
    flag_key("model.embedding_norm", "LayerNorm of the embeddings (BLOOM)"),
    flag_key("model.pooler", "BERT's pooler and next-sentence head"),
    choice_key("model.activation", "relu|gelu|gelu-tanh|swiglu|geglu",
               "of the feed-forward layer; geglu = gated gelu-tanh"),
    choice_key("model.norm", "layernorm|rmsnorm", "normalisation"),
    choice_key("model.norm_impl", "eager|fused",
               "RMS norms operation by operation in fp32, as in Hugging Face, or one kernel"),
    flag_key("model.repeat_kv", "copy grouped keys and values out to all heads before fused attention"),
    flag_key("model.bias", "linear layers and norms have biases"),
    num_key("model.dropout", 0, 0.999, "probability the model was designed with"),
    text_key("model.source", "where the shape comes from"),

    text_key("topology", "a name in topologies/, a path, or a table"),
    text_key("topology.name", "shown in reports"),
    text_key("topology.source", "where the numbers come from"),
    text_key("topology.node.gpu", "a name in topologies/gpus, or a path"),
    int_key("topology.node.gpus", 1, 1024, "GPUs of a node"),
    choice_key("topology.node.intra", "nvswitch|hybrid-cube-mesh|pcie|links",
               "links between the GPUs of a node"),
    text_key("topology.node.link[].a", "one end of an explicit link: gpu0 .. or any other name"),
    text_key("topology.node.link[].b", "the other end"),
    num_key("topology.node.link[].gb_per_s", 1e-3, 1e6, "payload bandwidth per direction, GB/s"),
    int_key("topology.node.gpus_per_pcie_switch", 1, 1024, "GPUs that share a PCIe switch with their NICs"),
    int_key("topology.node.nics", 0, 1024, "network interfaces of a node"),
    num_key("topology.node.nic_gbps", 1e-2, 1e7, "line rate of each NIC, Gbit/s"),
    text_key("topology.node.transport", "a name in topologies/transports, a path, or a table"),
    text_key("topology.node.transport.based_on", "a transport of which the table changes some constants"),
    text_key("topology.node.transport.name", "shown in reports"),
    text_key("topology.node.transport.source", "where the constants come from"),
    num_key("topology.node.transport.efficiency", 1e-3, 1, "payload over line rate for large messages"),
    num_key("topology.node.transport.efficiency_many_leaves", 1e-3, 1, "further factor across leaf switches"),
    num_key("topology.node.transport.half_rate_mib", 0, 1e6, "MiB per channel and step at half the rate"),
    num_key("topology.node.transport.hop_latency_us", 0, 1e5, "per network hop beyond NCCL's constant"),
    num_key("topology.node.transport.fabric_half_rate_mib", 0, 1e6,
            "what the fabric adds to that under load, which NCCL does not know when it chooses"),
    flag_key("topology.node.transport.ll128", "NCCL may use protocol LL128"),
    num_key("topology.node.network_overhead_us", 0, 1e5, "of the host per ring step between nodes"),
    num_key("topology.node.host_memory_gib", 1e-3, 1e6, "memory of the node's host, for all its GPUs"),
    num_key("topology.node.host_memory_gb_per_s", 1e-3, 1e6, "what optimizers on its cores reach, GB/s"),
    choice_key("topology.fabric.kind", "single-switch|fat-tree|rail-fat-tree|!dragonfly",
               "switches between nodes"),
    int_key("topology.fabric.nodes_per_leaf", 1, 1e6, "nodes under a leaf switch"),
    num_key("topology.fabric.oversubscription", 1, 1e6, "downlink over uplink capacity of a leaf"),
    num_key("topology.fabric.step_jitter", 0, 0.5,
            "std over mean of a rank's step time from one step and rank to the next"),

    text_key("overlay", "a file of constants that replace those of GPU, stack, transport and topology"),
    int_key("cluster.gpus", 1, 4194304,
            "GPUs of the job; nodes are filled whole unless they are fewer than a node"),
    text_key("cluster.part[].topology",
             "nodes of a part of a mixed cluster: a name in topologies/, a path, or a table"),
    int_key("cluster.part[].gpus", 1, 4194304, "GPUs of the part; ranks follow each other part by part"),

    int_key("training.micro_batch", 1, 1e7, "sequences per GPU and micro-step"),
    int_key("training.grad_accum", 1, 65536, "micro-steps per step"),
    int_key("training.global_batch", 1, 1e12, "sequences per step over all GPUs"),
    int_key("training.global_batch_tokens", 1, 1e15, "tokens per step over all GPUs"),
    int_key("training.sequence_length", 1, 1e8, "tokens; of the encoder for encoder-decoder models"),
    int_key("training.decoder_sequence_length", 1, 1e8, "encoder-decoder models"),
    choice_key("training.objective", "causal|masked|span-corruption", "what the model learns to predict"),
    {"training.masked_share", number, {}, 1e-6, 1, "positions whose logits a masked model computes"},
    choice_key("training.precision", "fp32|tf32|fp16-mixed|bf16-mixed|fp16-pure|bf16-pure|fp8-mixed",
               "number formats"),
    choice_key("training.mixed_precision", "autocast|fsdp|o2",
               "who casts: autocast, FSDP on shards, or nobody (apex O2: 16-bit parameters, fp32 copies)"),
    choice_key("training.reduce_precision", "fp32|bf16|fp16", "gradients on the wire"),
    choice_key("training.optimizer", "adamw|adam|lamb|sgd|sgd-momentum|adafactor|adamw-8bit", "optimizer"),
    choice_key("training.optimizer_impl", "foreach|fused|for-loop", "how PyTorch runs it"),
    choice_key("training.attention", "unfused|flash|flash2|mem-efficient", "attention kernels"),
    choice_key("training.activation_checkpointing", "none|full|selective|selective-op|every-k",
               "what backward computes again"),
    int_key("training.checkpoint_every", 1, 1e6, "blocks per checkpoint, for every-k"),
    flag_key("training.activation_offload", "what blocks keep for backward waits in host memory"),
    choice_key("training.loss", "eager|fused",
               "cross-entropy pass by pass in fp32, or flash-attn's one kernel"),
    int_key("training.train_metrics", 0, 100,
            "cross-entropies of the logits that the training loop computes for its log, per micro-batch"),
    int_key("training.loss_chunks", 1, 1e6,
            "parts of the tokens for which head and loss are computed, one at a time; 1 = all at once"),
    choice_key("training.held_logits", "head|fp32|both|none",
               "copies of the logits that live through backward"),
    num_key("training.dropout", 0, 0.999, "probability"),
    flag_key("training.compile", "torch.compile: memory-bound operations fused, launched by generated code"),
    choice_key("training.compile_scope", "blocks|model",
               "what is compiled: each block by itself, or the parts of the root and the loss too"),
    text_key("training.stack", "a name in topologies/stacks, or a path"),
    flag_key("training.gradient_clipping", "by global norm"),
    flag_key("training.no_sync", "no reduction before the last micro-step"),
    flag_key("training.sync_each_step", "loss.item() drains the queue at the end of a step"),

    choice_key("strategy.kind", "ddp|fsdp|fsdp2|zero1|zero2|zero3|mics|megatron-dp|!tp", "who holds what"),
    {"strategy.sharding_factor", integer_or_choice, "full|node", 1, 4194304,
     "ranks that share one copy of the model: 1 = full replication, all = full sharding"},
    {"strategy.reshard_after_forward",
     flag_or_integer,
     {},
     1,
     4194304,
     "free a unit after its forward; false = SHARD_GRAD_OP; fsdp2: or keep it spread over so many ranks"},
    flag_key("strategy.reshard_last_block", "fsdp2: the last block too, which backward needs at once"),
    choice_key("strategy.backward_prefetch", "pre|post|none", "when backward gathers the next unit"),
    flag_key("strategy.forward_prefetch", "forward gathers the next unit early"),
    flag_key("strategy.limit_all_gathers", "the rate limiter: two gathered units in flight"),
    flag_key("strategy.use_orig_params", "aligns parameters within a unit"),
    choice_key("strategy.cpu_offload", "none|optimizer|parameters", "what lives in host memory"),
    choice_key("strategy.wrap", "block|model", "what one FSDP unit is"),
    num_key("strategy.bucket_cap_mb", 1e-3, 1e6, "DDP's buckets, MiB"),
    flag_key("strategy.gradient_as_bucket_view", "DDP's gradients live in its buckets"),
    num_key("strategy.deepspeed.reduce_bucket_size", 1, 1e14, "elements reduced together"),
    flag_key("strategy.deepspeed.overlap_comm", "reduce during backward, on a stream of its own"),
    flag_key("strategy.deepspeed.multi_rank_bucket_allreduce",
             "zero1, zero2: all-reduce buckets; false = reduce each slice to its owner"),
    num_key("strategy.deepspeed.allgather_bucket_size", 1e5, 1e14, "zero1, zero2: elements gathered at once"),
    num_key("strategy.deepspeed.prefetch_bucket_size", 0, 1e14, "zero3: elements gathered early"),
    num_key("strategy.deepspeed.param_persistence_threshold", 0, 1e14,
            "zero3: elements up to which a parameter stays whole"),
    num_key("strategy.deepspeed.max_live_parameters", 0, 1e14, "zero3: elements whole at a time, at most"),
    num_key("strategy.deepspeed.max_reuse_distance", 0, 1e14,
            "zero3: elements used in between, up to which a parameter is kept"),
    num_key("strategy.deepspeed.sub_group_size", 1, 1e14, "zero3: elements updated together"),
    flag_key("strategy.megatron.overlap_grad_reduce", "reduce buckets during backward"),
    flag_key("strategy.megatron.overlap_param_gather", "gather buckets during the next forward"),
    num_key("strategy.megatron.bucket_size", 1, 1e14, "elements of a bucket"),

    flag_key("allocator.expandable_segments", "PYTORCH_CUDA_ALLOC_CONF"),
    int_key("allocator.max_split_size_mb", 0, 1e9, "PYTORCH_CUDA_ALLOC_CONF, MiB; 0 = unlimited"),
    num_key("allocator.garbage_collection_threshold", 0, 1,
            "PYTORCH_CUDA_ALLOC_CONF, of the limit by memory_fraction; 0 = off"),
    num_key("allocator.memory_fraction", 0, 1, "torch.cuda.set_per_process_memory_fraction"),
    int_key("allocator.roundup_power2_divisions", 0, 64, "PYTORCH_CUDA_ALLOC_CONF; 0 = off"),
    choice_key("network.detail", "fluid|chunk", "transfers as rates that share links, or chunk by chunk"),

    int_key("straggler[].gpu", 0, 4194303, "rank of a slow GPU"),
    num_key("straggler[].compute_scale", 1e-3, 1e3, "its speed over the others'"),
    num_key("jitter.step_sigma", 0, 0.5, "std over mean of a rank's step time; default: the topology's"),
    choice_key("jitter.mode", "expected-maximum|sampled",
               "lengthen the step by what the slowest rank needs more on average, or draw each rank's speed"),
    int_key("jitter.seed", 0, 9e15, "of the draws of mode sampled"),
    text_key("measured.source", "where a real run of this scenario was published"),
    choice_key("measured.quality", "exact|approximate", "whether the source gives every digit and setting"),
    num_key("measured.step_time_s", 1e-9, 1e9, "of that run"),
    num_key("measured.tokens_per_s_per_gpu", 1e-9, 1e12, "of that run"),
    num_key("measured.tflops_per_gpu.model", 1e-9, 1e6, "of that run"),
    num_key("measured.tflops_per_gpu.hardware", 1e-9, 1e6, "of that run"),
    num_key("measured.peak_allocated_gib", 1e-9, 1e6, "of that run"),
    num_key("measured.peak_active_gib", 1e-9, 1e6, "of that run"),
    num_key("measured.peak_reserved_gib", 1e-9, 1e6, "of that run"),
    num_key("measured.peak_device_gib", 1e-9, 1e6, "of that run: reserved and outside the allocator"),
    flag_key("measured.fits", "whether it ran; false = out of memory"),

    int_key("degraded_link[].node", 0, 4194303, "node of the device; leaf switches have none"),
    text_key(
        "degraded_link[].device",
        "gpu3 = the NVLinks of that GPU, nic2 = that NIC's network link, leaf4 = a leaf switch's uplinks"),
    num_key("degraded_link[].scale", 1e-3, 1, "what is left of their bandwidth, in both directions"),
    int_key("background_job[].leaf", 0, 4194303,
            "leaf switch whose uplinks other jobs use; default: every one"),
    int_key("background_job[].node", 0, 4194303, "node of the device"),
    text_key("background_job[].device", "nic2: other jobs use that NIC's network link"),
    num_key("background_job[].gb_per_s", 1e-3, 1e6, "offered load per link and direction, GB/s"),
    int_key("background_job[].flows", 1, 1e6,
            "weight of that load where a link is full; a ring has two channels per NIC"),
};

// Options that not every strategy has; a key that ends in a dot stands for its table. The first match counts.
struct OptionOfSome {
  std::string_view key, kinds;
};
constexpr OptionOfSome options_of_some[] = {
    {"strategy.sharding_factor", "fsdp|fsdp2|mics"},
    {"strategy.reshard_after_forward", "fsdp|fsdp2"},
    {"strategy.reshard_last_block", "fsdp2"},
    {"strategy.backward_prefetch", "fsdp"},
    {"strategy.forward_prefetch", "fsdp"},
    {"strategy.limit_all_gathers", "fsdp"},
    {"strategy.use_orig_params", "fsdp"},
    {"strategy.wrap", "fsdp|fsdp2"},
    {"strategy.bucket_cap_mb", "ddp"},
    {"strategy.gradient_as_bucket_view", "ddp"},
    {"strategy.deepspeed.multi_rank_bucket_allreduce", "zero1|zero2"},
    {"strategy.deepspeed.allgather_bucket_size", "zero1|zero2"},
    {"strategy.deepspeed.prefetch_bucket_size", "zero3|mics"},
    {"strategy.deepspeed.param_persistence_threshold", "zero3|mics"},
    {"strategy.deepspeed.max_live_parameters", "zero3|mics"},
    {"strategy.deepspeed.max_reuse_distance", "zero3|mics"},
    {"strategy.deepspeed.sub_group_size", "zero3|mics"},
    {"strategy.deepspeed.", "zero1|zero2|zero3|mics"},
    {"strategy.megatron.", "megatron-dp"},
};

constexpr std::string_view sentence_tp =
    "tensor, pipeline, sequence, context and expert parallelism are not simulated";

// "straggler[2].gpu" -> "straggler[].gpu"
std::string without_indices(std::string_view key) {
  std::string out;
  bool inside = false;
  for (const char c : key) {
    if (c == ']') inside = false;
    if (!inside) out += c;
    if (c == '[') inside = true;
  }
  return out;
}

// The tables of parts have the keys of the one topology of other clusters.
std::string in_key_table(std::string_view key) {
  std::string plain = without_indices(key);
  constexpr std::string_view part = "cluster.part[].";
  return plain.starts_with(std::string(part) + "topology.") ? plain.substr(part.size()) : plain;
}

std::string first_below(const std::string& name) {
  for (const KeySpec& spec : table)
    if (spec.key.starts_with(name + ".")) return std::string(spec.key.substr(name.size() + 1));
  return "";
}

[[noreturn]] void unknown(const std::string& key, const Place& place) {
  const std::size_t dot = key.rfind('.');
  const std::string parent = dot == std::string::npos ? "" : key.substr(0, dot + 1);
  const std::string leaf = key.substr(parent.size());
  std::vector<std::string> siblings;
  for (const KeySpec& spec : table) {
    if (!spec.key.starts_with(parent)) continue;
    std::string sibling(spec.key.substr(parent.size()));
    sibling = sibling.substr(0, sibling.find_first_of(".["));
    if (std::find(siblings.begin(), siblings.end(), sibling) == siblings.end()) siblings.push_back(sibling);
  }
  if (siblings.empty() && !parent.empty()) unknown(parent.substr(0, parent.size() - 1), place);
  const auto is_list = [&](const KeySpec& spec) { return spec.key.starts_with(parent + leaf + "[]"); };
  if (const KeySpec* list = std::find_if(std::begin(table), std::end(table), is_list);
      list != std::end(table))
    throw InputError(place, fmt::format("{0} is a list: [[{0}]] in a file, {0}[0]{1} elsewhere",
                                        parent + leaf, list->key.substr(parent.size() + leaf.size() + 2)));
  if (std::find(siblings.begin(), siblings.end(), leaf) != siblings.end())
    throw InputError(place, first_below(parent + leaf).empty()
                                ? fmt::format("{} is a value, not a table", parent + leaf)
                                : fmt::format("{0} is a table; a key such as {0}.{1} is expected",
                                              parent + leaf, first_below(parent + leaf)));
  const std::string where =
      parent.empty() ? "" : fmt::format(" in [{}]", parent.substr(0, parent.size() - 1));
  throw InputError(place, fmt::format("unknown key \"{}\"{}{}", leaf, where, suggestion(leaf, siblings)));
}

[[noreturn]] void not_yet(std::string_view what, const Place& place) {
  throw InputError(place, fmt::format("{} is not supported yet", what));
}

std::vector<std::string> choices_of(std::string_view legal, bool built_only) {
  std::vector<std::string> result;
  while (!legal.empty()) {
    const std::size_t end = std::min(legal.find('|'), legal.size());
    std::string_view one = legal.substr(0, end);
    legal.remove_prefix(std::min(end + 1, legal.size()));
    const bool built = !one.starts_with('!');
    if (!built) one.remove_prefix(1);
    if (built || !built_only) result.emplace_back(one);
  }
  return result;
}

bool contains(const std::vector<std::string>& list, const std::string& value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

Scalar checked_choice(const KeySpec& spec, const std::string& value, const Place& place) {
  if (contains(choices_of(spec.legal, true), value)) return value;
  if (value == "tp") throw InputError(place, fmt::format("{} \"{}\": {}", spec.key, value, sentence_tp));
  if (contains(choices_of(spec.legal, false), value))
    not_yet(fmt::format("{} = \"{}\"", spec.key, value), place);
  throw InputError(place, fmt::format("{} cannot be \"{}\"{}", spec.key, value,
                                      suggestion(value, choices_of(spec.legal, true))));
}

Scalar checked_number(const KeySpec& spec, double value, const Scalar& as_given, const Place& place) {
  if (std::isfinite(value) && value >= spec.low && value <= spec.high) return as_given;
  if (spec.low == spec.high && std::isfinite(value) && value >= spec.low)
    not_yet(fmt::format("{} = {}", spec.key, to_string(as_given)), place);
  const std::string range = spec.high >= any ? fmt::format("a finite number, at least {},", spec.low)
                                             : fmt::format("a value from {} to {}", spec.low, spec.high);
  throw InputError(place, fmt::format("{} is {}; {} is expected", spec.key, to_string(as_given), range));
}

[[noreturn]] void wrong_type(const KeySpec& spec, const Scalar& value, std::string_view expected,
                             const Place& place) {
  throw InputError(place, fmt::format("{} is {}; {} is expected", spec.key, to_string(value), expected));
}

}  // namespace

bool has_option(std::string_view strategy_kind, std::string_view key) {
  const auto about =
      std::find_if(std::begin(options_of_some), std::end(options_of_some), [&](const auto& option) {
        return option.key.ends_with('.') ? key.starts_with(option.key) : key == option.key;
      });
  return about == std::end(options_of_some) ||
         contains(choices_of(about->kinds, false), std::string(strategy_kind));
}

std::span<const KeySpec> keys() { return table; }

const KeySpec& key_spec(std::string_view key, const Place& place) {
  const std::string plain = in_key_table(key);
  for (const KeySpec& spec : table) {
    if (!spec.meaning.starts_with('!')) {
      if (spec.key == plain) return spec;
    } else if (plain == spec.key || (plain.starts_with(spec.key) && plain[spec.key.size()] == '.')) {
      not_yet(spec.key, place);
    }
  }
  unknown(plain, place);
}

void check_table(std::string_view name, const Place& place) {
  const std::string prefix = in_key_table(name) + ".";
  if (std::none_of(std::begin(table), std::end(table),
                   [&](const KeySpec& spec) { return spec.key.starts_with(prefix); }))
    unknown(in_key_table(name), place);
}

std::vector<std::string> built_choices(const KeySpec& spec) {
  const bool has_choices = spec.type == choice || spec.type == integer_or_choice;
  return has_choices ? choices_of(spec.legal, true) : std::vector<std::string>{};
}

Scalar checked(const KeySpec& spec, const Scalar& value, const Place& place) {
  const auto* i = std::get_if<std::int64_t>(&value);
  const auto* d = std::get_if<double>(&value);
  const auto* s = std::get_if<std::string>(&value);
  switch (spec.type) {
    case flag:
      if (!std::holds_alternative<bool>(value)) wrong_type(spec, value, "true or false", place);
      if (!spec.legal.empty() && to_string(value) != spec.legal)
        not_yet(fmt::format("{} = {}", spec.key, to_string(value)), place);
      return value;
    case integer:
      if (i == nullptr) wrong_type(spec, value, "an integer", place);
      return checked_number(spec, static_cast<double>(*i), value, place);
    case number:
      if (i == nullptr && d == nullptr) wrong_type(spec, value, "a number", place);
      return checked_number(spec, d != nullptr ? *d : static_cast<double>(*i),
                            d != nullptr ? *d : static_cast<double>(*i), place);
    case text:
      if (s == nullptr) wrong_type(spec, value, "a string", place);
      return value;
    case choice:
      if (s == nullptr) wrong_type(spec, value, "a string", place);
      return checked_choice(spec, *s, place);
    case integer_or_choice:
      if (i != nullptr) return checked_number(spec, static_cast<double>(*i), value, place);
      if (s == nullptr) wrong_type(spec, value, "an integer or a name", place);
      return checked_choice(spec, *s, place);
    case flag_or_integer:
      if (i != nullptr) return checked_number(spec, static_cast<double>(*i), value, place);
      if (!std::holds_alternative<bool>(value)) wrong_type(spec, value, "true, false or an integer", place);
      return value;
  }
  return value;
}

}  // namespace shardsim
