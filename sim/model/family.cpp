#include "sim/model/family.h"

namespace shardsim {
namespace {

constexpr std::string_view any_activation = "gelu|gelu-tanh|relu|swiglu|geglu";

// In the order of enum Family.
constexpr FamilyEntry table[] = {
    {Family::gpt, "gpt", "decoder-only, LayerNorm, learned positions", gpt, false, "causal", any_activation,
     "layernorm|rmsnorm", "learned|alibi|rotary|none", "true|false",
     "kv_heads|repeat_kv|position_offset|embedding_norm", true, 0.0},
    {Family::t5, "t5", "encoder-decoder, RMS norm, relative position bias", t5, true, "span-corruption",
     "relu|geglu", "rmsnorm", "relative", "false", "", true, 0.1},
    {Family::llama, "llama", "decoder-only, RMS norm, rotary positions, gated feed-forward", llama, false,
     "causal", "swiglu|geglu", "rmsnorm|layernorm", "rotary", "false|true", "kv_heads|repeat_kv", false, 0.0},
    {Family::bert, "bert", "encoder, LayerNorm behind residuals, masked tokens", bert, false, "masked",
     "gelu|gelu-tanh|relu", "layernorm", "learned", "true", "position_offset|type_vocab|pooler", true, 0.1},
    {Family::bart, "bart", "encoder-decoder, LayerNorm behind residuals, learned positions", bart, true,
     "span-corruption", "gelu|gelu-tanh|relu", "layernorm", "learned", "true", "position_offset", true, 0.1},
};

}  // namespace

std::span<const FamilyEntry> families() { return table; }

const FamilyEntry& entry(Family family) { return table[static_cast<std::size_t>(family)]; }

OpGraph build(const ModelSpec& spec, const Workload& workload) {
  return entry(spec.family).build(spec, workload);
}

}  // namespace shardsim
