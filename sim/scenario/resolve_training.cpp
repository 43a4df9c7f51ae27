#include <cmath>

#include "sim/model/family.h"
#include "sim/scenario/resolver.h"
#include "sim/strategy/optimizer.h"

namespace shardsim {
namespace {

// T5's span corruption: 15% of the tokens are noise, in spans of 3 on average; each span leaves one
// sentinel in the input and one in the target, both end with EOS. (t5/data/preprocessors.py,
// random_spans_helper)
std::int64_t span_corruption_targets(std::int64_t inputs) {
  const auto lengths = [](std::int64_t tokens) {
    const auto noise = static_cast<std::int64_t>(std::llround(static_cast<double>(tokens) * 0.15));
    const auto spans = static_cast<std::int64_t>(std::llround(static_cast<double>(noise) / 3.0));
    return std::pair(tokens - noise + spans + 1, noise + spans + 1);
  };
  auto tokens = static_cast<std::int64_t>(static_cast<double>(inputs) / 0.95);  // 1 - 0.15 + 0.05, from below
  tokens = std::max<std::int64_t>(1, std::min(tokens, inputs));
  while (lengths(tokens + 1).first <= inputs) ++tokens;
  return lengths(tokens).second;
}

}  // namespace

void Resolver::read_workload() {
  const FamilyEntry& family = entry(s_.model.family);
  const bool encoder_decoder = family.encoder_decoder;
  const std::string usual(family.objective);
  if (text("training.objective", usual, "the family's usual") != usual)
    fail("training.objective",
         fmt::format("family \"{}\" is trained with objective \"{}\"", family.name, usual));
  Workload& w = s_.workload;
  const std::int64_t positions = s_.model.max_positions;
  const std::int64_t usual_length = encoder_decoder ? 512 : positions > 0 ? positions : 2048;
  w.sequence = integer("training.sequence_length", usual_length,
                       positions > 0 ? "the model's positions" : "the family's usual");
  if (positions > 0 && w.sequence > positions)
    fail("training.sequence_length",
         fmt::format("sequences of {} tokens need as many positions; the model has {}", w.sequence,
                     positions));
  if (encoder_decoder)
    w.decoder_sequence =
        s_.model.family == Family::bart
            ? integer("training.decoder_sequence_length", w.sequence, "BART's target is the whole text")
            : integer("training.decoder_sequence_length", span_corruption_targets(w.sequence),
                      fmt::format("span corruption of {} tokens", w.sequence));
  else if (given("training.decoder_sequence_length"))
    fail("training.decoder_sequence_length",
         fmt::format("family \"{}\" has no decoder of its own", name(s_.model.family)));
  if (encoder_decoder && positions > 0 && w.decoder_sequence > positions)
    fail("training.decoder_sequence_length",
         fmt::format("sequences of {} tokens need as many positions; the model has {}", w.decoder_sequence,
                     positions));
  if (usual == "masked")
    w.masked_share = number("training.masked_share", 1.0, "Hugging Face computes all logits");
  else if (given("training.masked_share"))
    fail("training.masked_share", fmt::format("family \"{}\" masks no tokens", family.name));
  w.dropout = number("training.dropout", s_.model.dropout, "the model's");
}

std::int64_t Resolver::tokens_per_sample() const {
  return s_.workload.sequence + s_.workload.decoder_sequence;
}

// micro_batch * grad_accum * gpus = global_batch: two of the three imply the third.
void Resolver::read_batch() {
  const std::string micro_key = "training.micro_batch", accum_key = "training.grad_accum";
  std::string global_key = "training.global_batch";
  std::optional<std::int64_t> global;
  if (given("training.global_batch")) global = required_int(global_key, "");
  if (given("training.global_batch_tokens")) {
    const std::int64_t tokens = required_int("training.global_batch_tokens", ""),
                       sample = tokens_per_sample();
    if (tokens % sample != 0)
      fail("training.global_batch_tokens",
           fmt::format("{} tokens are not whole sequences of {}; {} or {} are", tokens, sample,
                       std::max<std::int64_t>(1, tokens / sample) * sample, (tokens / sample + 1) * sample));
    if (global && *global != tokens / sample)
      fail("training.global_batch_tokens", fmt::format("{} tokens are {} sequences, but global_batch is {}",
                                                       tokens, tokens / sample, *global));
    if (!global) global_key = "training.global_batch_tokens";
    global = tokens / sample;
  }
  std::int64_t micro = given(micro_key) ? required_int(micro_key, "") : 0;
  std::int64_t accum = given(accum_key) ? required_int(accum_key, "") : 0;
  if (global) {
    if (micro == 0) micro = divide(*global, accum == 0 ? 1 : accum, global_key, micro_key);
    if (accum == 0) accum = divide(*global, micro, global_key, accum_key);
    if (micro * accum * s_.gpus != *global)
      fail(global_key,
           fmt::format("a micro-batch of {}, {} micro-steps and {} GPUs make a global batch of {}, not {}",
                       micro, accum, s_.gpus, micro * accum * s_.gpus, *global));
  }
  const std::string implied = global ? "implied by the global batch" : "";
  s_.workload.micro_batch = integer(micro_key, micro == 0 ? 1 : micro, global ? implied : "the smallest");
  s_.training.micro_batches =
      integer(accum_key, accum == 0 ? 1 : accum, global ? implied : "no accumulation");
  s_.global_batch = s_.workload.micro_batch * s_.training.micro_batches * s_.gpus;
  s_.global_batch_tokens = s_.global_batch * tokens_per_sample();
  integer("training.global_batch", s_.global_batch, "micro_batch * grad_accum * gpus");
  integer("training.global_batch_tokens", s_.global_batch_tokens, "global_batch * tokens of a sequence");
}

std::int64_t Resolver::divide(std::int64_t global, std::int64_t by, const std::string& global_key,
                              const std::string& missing) const {
  const std::int64_t unit = by * s_.gpus;
  if (global < unit)
    fail(global_key, fmt::format("a global batch of {} sequences is less than {} GPUs need; {} is the least",
                                 global, s_.gpus, unit));
  if (global % unit != 0)
    fail(global_key,
         fmt::format("a global batch of {} sequences gives no whole {} on {} GPUs; {} or {} do", global,
                     missing.substr(9), s_.gpus, global / unit * unit, (global / unit + 1) * unit));
  return global / unit;
}

// What a scenario says of itself often tells which software ran it.
std::pair<std::string, std::string> Resolver::usual_stack() const {
  const auto says = [&](const std::string& key, const Scalar& value) {
    const Setting* setting = settings_.find(key);
    return setting != nullptr && setting->value == value;
  };
  const auto is = [&](const std::string& key, const char* value) { return says(key, std::string(value)); };
  const bool apex = (is("training.optimizer", "lamb") || is("training.optimizer", "adam")) &&
                    is("training.optimizer_impl", "fused") && is("strategy.kind", "ddp");
  if (apex && s_.model.family == Family::gpt) return {"megatron", "a GPT with apex's FusedAdam: Megatron-LM"};
  if (apex) return {"apex-2020", "FusedLAMB and FusedAdam come with NVIDIA's apex"};
  for (const char* zero : {"zero1", "zero2", "zero3", "mics"})
    if (is("strategy.kind", zero)) return {"deepspeed", "ZeRO is DeepSpeed's"};
  if (is("strategy.kind", "megatron-dp")) return {"megatron", "the strategy is Megatron-LM's"};
  const bool fsdp = is("strategy.kind", "fsdp");
  const bool flash = is("training.attention", "flash") || is("training.attention", "flash2");
  if (fsdp && flash && is("training.optimizer", "adamw") && is("training.optimizer_impl", "for-loop"))
    return {"composer-2023",
            "FSDP with an optimizer of its own in Python: DecoupledAdamW of MosaicML's Composer"};
  return {"eager-2023", "eager PyTorch of the GPU's generation"};
}

void Resolver::read_stack() {
  const bool compile = flag("training.compile", false, "PyTorch's");
  const auto [usual, reason] =
      compile ? std::pair<std::string, std::string>("compiled-2024", "has torch.compile") : usual_stack();
  const std::string stack = text("training.stack", usual, reason);
  s_.stack = shardsim::read_stack(
      library_.find("topologies/stacks", stack, settings_.place("training.stack")), &overlays_);
  const auto driven_by_stack = [&](Gpu& gpu) {
    gpu.narrow_efficiency = s_.stack.narrow_efficiency;
    for (std::optional<GemmProfile>& profile : gpu.gemm)
      if (profile)
        profile->training_context *= s_.stack.gemm_efficiency[static_cast<std::size_t>(gpu.architecture)];
  };
  driven_by_stack(s_.gpu);
  for (ClusterPart& part : s_.parts) driven_by_stack(part.gpu);
  read_compile_scope(compile);
}

void Resolver::read_compile_scope(bool compile) {
  const std::string key = "training.compile_scope";
  if (!compile && given(key)) fail(key, "nothing is compiled; training.compile is false");
  if (!compile) return;
  if (!s_.stack.compiles) {
    std::string able;
    for (const std::string& name : library_.names("topologies/stacks"))
      if (shardsim::read_stack(library_.find("topologies/stacks", name, {})).compiles)
        able += (able.empty() ? "" : ", ") + name;
    fail("training.compile", fmt::format("stack \"{}\" does not compile; {} does", s_.stack.name, able));
  }
  s_.compiled = text(key, "blocks", "each block is compiled, as torchtitan does") == "model"
                    ? CompileScope::model
                    : CompileScope::blocks;
}

// On every GPU of the cluster.
bool Resolver::has(DType t) const {
  return gpu_without([&](const Gpu& gpu) { return gpu.profile(t).has_value(); }).empty();
}

void Resolver::read_precision() {
  struct Precision {
    std::string name;
    DType needs;  // matrix units
    DType multiply, compute;
    bool pure = false;
  };
  const Precision known[] = {{"fp32", DType::fp32, DType::fp32, DType::fp32},
                             {"tf32", DType::tf32, DType::tf32, DType::fp32},
                             {"fp16-mixed", DType::fp16, DType::fp16, DType::fp16},
                             {"bf16-mixed", DType::bf16, DType::bf16, DType::bf16},
                             {"fp16-pure", DType::fp16, DType::fp16, DType::fp16, true},
                             {"bf16-pure", DType::bf16, DType::bf16, DType::bf16, true},
                             {"fp8-mixed", DType::fp8, DType::bf16, DType::bf16}};
  const std::string usual = has(DType::bf16) ? "bf16-mixed" : has(DType::fp16) ? "fp16-mixed" : "fp32";
  s_.precision = text("training.precision", usual,
                      s_.parts.empty() ? fmt::format("what {} is fastest in", s_.gpu.name)
                                       : "the fastest that the GPUs of all parts have");
  const Precision& p = *std::find_if(std::begin(known), std::end(known),
                                     [&](const auto& k) { return k.name == s_.precision; });
  if (!has(p.needs)) {
    std::string legal;
    for (const Precision& k : known)
      if (has(k.needs)) legal += (legal.empty() ? "" : ", ") + k.name;
    fail("training.precision",
         fmt::format("{} has no {} matrix units; legal here: {}",
                     gpu_without([&](const Gpu& gpu) { return gpu.profile(p.needs).has_value(); }),
                     name(p.needs), legal));
  }
  const bool mixed = p.compute != DType::fp32 && !p.pure;
  const std::string kind = text("strategy.kind", "fsdp", "the strategy for models of any size");
  const bool fsdp = kind.starts_with("fsdp"), pytorch = fsdp || kind == "ddp";
  Numerics& n = s_.workload.numerics;
  n.multiply = p.multiply;
  n.compute = p.compute;
  n.fp8_linears = p.needs == DType::fp8;
  if (p.pure && !pytorch)
    fail("training.precision",
         fmt::format("\"{}\" keeps an fp32 copy of the parameters: it trains in \"{}-mixed\", not in \"{}\"",
                     kind, name(p.compute), s_.precision));
  if (!mixed && given("training.mixed_precision"))
    fail("training.mixed_precision", fmt::format("precision \"{}\" mixes nothing", s_.precision));
  if (!pytorch && given("training.mixed_precision"))
    fail("training.mixed_precision",
         fmt::format("\"{}\" keeps 16-bit parameters and an fp32 copy; nobody casts", kind));
  if (mixed && pytorch) {
    const bool shards = fsdp && s_.gpus > 1;
    const bool o2 = kind == "ddp" && s_.stack.mixed_precision == "o2";
    const std::string caster = text("training.mixed_precision",
                                    shards ? "fsdp"
                                    : o2   ? "o2"
                                           : "autocast",
                                    shards ? "FSDP's usual"
                                    : fsdp ? "one GPU has no shards to cast"
                                    : o2   ? fmt::format("amp's usual in stack {}", s_.stack.name)
                                           : "DDP's usual");
    if (caster == "o2" && kind != "ddp")
      fail("training.mixed_precision", "apex amp trains with strategy.kind = \"ddp\"");
    s_.training.master_copies = caster == "o2";
    if (caster == "fsdp" && !shards)
      fail("training.mixed_precision", fsdp ? "MixedPrecision on shards needs several GPUs"
                                            : "MixedPrecision on shards needs strategy.kind = \"fsdp\"");
    n.autocast = caster == "autocast";
  }
  n.parameter = n.autocast ? DType::fp32 : p.compute;
  s_.training.stored = p.pure || s_.training.master_copies ? p.compute : DType::fp32;
  const std::string reduce =
      kind == "megatron-dp"
          ? text("training.reduce_precision", "fp32", "Megatron's gradient buffer")
          : text("training.reduce_precision", std::string(name(n.parameter)), "the format of the gradients");
  s_.training.reduce = parse(reduce, {DType::fp32, DType::bf16, DType::fp16});
  if (kind == "ddp" && s_.training.reduce != n.parameter)
    fail("training.reduce_precision", "DDP's compression hooks are not supported yet");
  s_.training.loss_scaling = s_.precision == "fp16-mixed";
}

void Resolver::read_attention() {
  const auto legal = [&](AttentionKind kind) {
    if (kind == AttentionKind::unfused) return std::string();
    if (std::find(s_.stack.attention.begin(), s_.stack.attention.end(), kind) == s_.stack.attention.end())
      return fmt::format("stack \"{}\" has no \"{}\" attention", s_.stack.name, name(kind));
    if (s_.model.positions == Positions::relative)
      return fmt::format("\"{}\" attention cannot add T5's relative position bias", name(kind));
    if (s_.model.positions == Positions::alibi &&
        kind != AttentionKind::flash2)  // flash-attn 2.4: alibi_slopes
      return fmt::format("\"{}\" attention cannot add ALiBi; \"unfused\" and \"flash2\" can", name(kind));
    const bool full_precision = s_.workload.numerics.compute == DType::fp32;
    if (full_precision && kind != AttentionKind::mem_efficient)
      return fmt::format("\"{}\" attention computes in 16 bits; precision is \"{}\"", name(kind),
                         s_.precision);
    const std::string without = gpu_without([&](const Gpu& gpu) {
      return std::any_of(gpu.attention.begin(), gpu.attention.end(),
                         [&](const auto& p) { return p.kind == kind && p.full_precision == full_precision; });
    });
    if (!without.empty()) return fmt::format("\"{}\" attention does not run on {}", name(kind), without);
    // csrc/flash_attn/flash_api.cpp of versions 1 and 2.
    const std::int64_t widest = kind == AttentionKind::flash    ? 128
                                : kind == AttentionKind::flash2 ? 256
                                                                : 1024;
    if (s_.model.head_dim > widest)
      return fmt::format("\"{}\" attention has heads of up to {}, not {}", name(kind), widest,
                         s_.model.head_dim);
    return std::string();
  };
  AttentionKind best = AttentionKind::unfused;
  for (auto kind = s_.stack.attention.rbegin(); kind != s_.stack.attention.rend(); ++kind)
    if (legal(*kind).empty()) best = *kind;
  s_.workload.attention = parse(
      text("training.attention", std::string(name(best)), "the best legal one"),
      {AttentionKind::unfused, AttentionKind::flash, AttentionKind::flash2, AttentionKind::mem_efficient});
  if (const std::string why = legal(s_.workload.attention); !why.empty()) fail("training.attention", why);
  s_.workload.fused_softmax = s_.stack.fused_softmax;
}

constexpr OptimizerKind all_optimizers[] = {
    OptimizerKind::adamw,        OptimizerKind::adam,      OptimizerKind::lamb,      OptimizerKind::sgd,
    OptimizerKind::sgd_momentum, OptimizerKind::adafactor, OptimizerKind::adamw_8bit};
constexpr OptimizerImpl all_implementations[] = {OptimizerImpl::fused, OptimizerImpl::foreach,
                                                 OptimizerImpl::for_loop};

void Resolver::read_training() {
  Training& t = s_.training;
  const std::string kind = std::get<std::string>(settings_.find("strategy.kind")->value);
  t.optimizer = parse(text("training.optimizer", "adamw", "the usual"), all_optimizers);
  if (t.master_copies &&
      (t.optimizer == OptimizerKind::adafactor || t.optimizer == OptimizerKind::adamw_8bit))
    fail("training.optimizer",
         fmt::format("apex amp's fp32 copies are not trained by {}", name(t.optimizer)));
  t.optimizer_impl = optimizer_impl();
  read_checkpointing();
  t.gradient_clipping = flag("training.gradient_clipping", true, "the usual");
  t.sync_each_step = flag("training.sync_each_step", true, "the loss is printed");
  read_loss();
  const bool no_sync = s_.stack.no_sync && kind == "ddp" && t.micro_batches > 1;
  t.no_sync = flag("training.no_sync", no_sync,
                   no_sync ? fmt::format("usual in stack {}", s_.stack.name) : "PyTorch's");
  if (t.no_sync && t.micro_batches == 1)
    fail("training.no_sync", "no_sync needs several micro-steps; grad_accum is 1");
}

void Resolver::read_loss() {
  Workload& w = s_.workload;
  w.loss_chunks = integer("training.loss_chunks", 1, "PyTorch's");
  const bool chunks = w.loss_chunks > 1,
             flash_attn = w.attention == AttentionKind::flash || w.attention == AttentionKind::flash2;
  w.fused_loss = text("training.loss", flash_attn && !chunks ? "fused" : "eager",
                      chunks       ? "the loss in chunks has its own"
                      : flash_attn ? "comes with flash attention, in package flash-attn"
                                   : "PyTorch's") == "fused";
  if (chunks && w.fused_loss) fail("training.loss", "a loss in chunks is not the fused one");
  if (chunks && given("training.held_logits"))
    fail("training.held_logits", "a loss in chunks keeps no logits");
  w.train_metrics =
      integer("training.train_metrics", chunks ? 0 : s_.stack.train_metrics,
              chunks ? "the loss in chunks keeps no logits" : fmt::format("stack {}", s_.stack.name));
  if (chunks && w.train_metrics > 0) fail("training.train_metrics", "a loss in chunks keeps no logits");
  w.held_logits = parse(text("training.held_logits", chunks ? "none" : "head",
                             chunks ? "the loss in chunks keeps none" : "the model's output"),
                        {HeldLogits::head, HeldLogits::fp32, HeldLogits::both, HeldLogits::none});
  if (w.fused_loss && (w.held_logits == HeldLogits::fp32 || w.held_logits == HeldLogits::both))
    fail("training.held_logits", "a fused loss makes no fp32 copy of the logits");
}

OptimizerImpl Resolver::optimizer_impl() {
  const std::string key = "training.optimizer_impl";
  const OptimizerKind kind = s_.training.optimizer;
  std::string usual = s_.stack.optimizer_impl, reason = fmt::format("stack {}", s_.stack.name), legal;
  for (const OptimizerImpl impl : all_implementations)
    if (exists(kind, impl)) legal += (legal.empty() ? "" : ", ") + std::string(name(impl));
  if (const std::string strategy = std::get<std::string>(settings_.find("strategy.kind")->value);
      strategy != "ddp" && !strategy.starts_with("fsdp"))
    usual = "fused",
    reason = fmt::format("{}'s FusedAdam", strategy == "megatron-dp" ? "Megatron" : "DeepSpeed");
  else if (const Setting* offload = settings_.find("strategy.cpu_offload");
           offload != nullptr && offload->value != Scalar(std::string("none")))
    usual = "for-loop", reason = "PyTorch's for tensors on the host";
  if (!exists(kind, parse(usual, all_implementations)))
    usual = legal.substr(0, legal.find(',')), reason = fmt::format("how {} is implemented", name(kind));
  const OptimizerImpl impl = parse(text(key, usual, reason), all_implementations);
  if (!exists(kind, impl))
    fail(key, fmt::format("{} has no \"{}\" implementation; legal: {}", name(kind), name(impl), legal));
  return impl;
}

void Resolver::read_checkpointing() {
  Training& t = s_.training;
  const std::string mode = "training.activation_checkpointing", every = "training.checkpoint_every";
  t.checkpointing = parse(text(mode, "none", "PyTorch's"),
                          {Checkpointing::none, Checkpointing::full, Checkpointing::selective,
                           Checkpointing::selective_op, Checkpointing::every_k});
  if (t.checkpointing == Checkpointing::every_k) {
    if (!given(every)) fail(mode, "\"every-k\" needs \"checkpoint_every\", the blocks per checkpoint");
    t.checkpoint_every = required_int(every, "");
    const ModelSpec& m = s_.model;  // of an encoder-decoder, no group holds blocks of both stacks
    const std::int64_t blocks = std::max({m.layers, m.encoder_layers, m.decoder_layers});
    if (t.checkpoint_every > blocks)
      fail(every, fmt::format("{} blocks per checkpoint, but the model has {} in a row", t.checkpoint_every,
                              blocks));
  } else if (given(every)) {
    fail(every, fmt::format("activation_checkpointing = \"{}\" has no groups of blocks; \"every-k\" has",
                            name(t.checkpointing)));
  }
  t.activation_offload = flag("training.activation_offload", false, "PyTorch's");
}

}  // namespace shardsim
