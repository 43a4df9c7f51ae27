// What a model file says: the shape of an architecture of a known family.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace shardsim {

enum class Family : std::uint8_t { gpt, t5 };
constexpr std::string_view name(Family f) { return f == Family::gpt ? "gpt" : "t5"; }

enum class Activation : std::uint8_t { relu, gelu, gelu_tanh };
constexpr std::string_view name(Activation a) {
  constexpr std::string_view names[] = {"relu", "gelu", "gelu-tanh"};
  return names[static_cast<int>(a)];
}

struct ModelSpec {
  std::string name{};
  Family family{};
  std::int64_t layers = 0;                              // gpt
  std::int64_t encoder_layers = 0, decoder_layers = 0;  // t5
  std::int64_t hidden = 0;
  std::int64_t heads = 0;
  std::int64_t head_dim = 0;  // T5's d_kv; heads * head_dim may differ from hidden
  std::int64_t ffn = 0;
  std::int64_t vocab = 0;
  std::int64_t max_positions = 0;  // learned position embeddings; 0 = none
  bool tied_embeddings = true;
  Activation activation{};
  bool bias = true;  // of linear layers and LayerNorms
  double dropout = 0.0;
};

}  // namespace shardsim
