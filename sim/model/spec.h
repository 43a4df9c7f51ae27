// What a model file says: the shape of an architecture of a known family.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace shardsim {

enum class Family : std::uint8_t { gpt, t5, llama, bert, bart };
constexpr std::string_view name(Family f) {
  constexpr std::string_view names[] = {"gpt", "t5", "llama", "bert", "bart"};
  return names[static_cast<int>(f)];
}

// The last two are gated: two linear layers up, the activated one scales the other. "geglu" is T5 v1.1's
// "gated-gelu", with the GELU of gelu-tanh.
enum class Activation : std::uint8_t { relu, gelu, gelu_tanh, swiglu, geglu };
constexpr std::string_view name(Activation a) {
  constexpr std::string_view names[] = {"relu", "gelu", "gelu-tanh", "swiglu", "geglu"};
  return names[static_cast<int>(a)];
}

enum class Norm : std::uint8_t { layernorm, rmsnorm };
constexpr std::string_view name(Norm n) { return n == Norm::layernorm ? "layernorm" : "rmsnorm"; }

// How an RMS norm runs: operation by operation in fp32, or as one kernel. LayerNorm always is one kernel.
enum class NormImpl : std::uint8_t { eager, fused };
constexpr std::string_view name(NormImpl i) { return i == NormImpl::eager ? "eager" : "fused"; }

enum class Positions : std::uint8_t { none, learned, rotary, alibi, relative };
constexpr std::string_view name(Positions p) {
  constexpr std::string_view names[] = {"none", "learned", "rotary", "alibi", "relative"};
  return names[static_cast<int>(p)];
}

struct ModelSpec {
  std::string name{};
  Family family{};
  std::int64_t layers = 0;                              // of models with one stack
  std::int64_t encoder_layers = 0, decoder_layers = 0;  // of encoder-decoder models
  std::int64_t hidden = 0;
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;  // that keys and values have; 0 = as many as heads
  std::int64_t head_dim = 0;  // T5's d_kv; heads * head_dim may differ from hidden
  std::int64_t ffn = 0;
  std::int64_t vocab = 0;
  Positions positions = Positions::learned;
  std::int64_t max_positions = 0;    // that sequences may have if learned; 0 = no learned positions
  std::int64_t position_offset = 0;  // further rows of the table (OPT, RoBERTa, BART: 2)
  std::int64_t type_vocab = 0;       // BERT's segments
  bool tied_embeddings = true;
  bool embedding_norm = false;  // LayerNorm of the embeddings (BLOOM); BERT and BART always have it
  bool pooler = false;          // BERT: pooler and next-sentence head
  Activation activation{};
  Norm norm = Norm::layernorm;
  NormImpl norm_impl = NormImpl::eager;
  bool repeat_kv = true;  // grouped keys and values are copied out to all heads before attention
  bool bias = true;       // of linear layers and LayerNorms
  double dropout = 0.0;

  std::int64_t key_heads() const { return kv_heads > 0 ? kv_heads : heads; }
  bool gated() const { return activation == Activation::swiglu || activation == Activation::geglu; }
};

}  // namespace shardsim
