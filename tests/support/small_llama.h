// A LLaMA of hidden size 256, for tests that count its kernels.
#pragma once

#include "sim/model/spec.h"

namespace shardsim {

inline ModelSpec small_llama(std::int64_t layers, std::int64_t ffn, std::int64_t vocab) {
  return {.family = Family::llama,
          .layers = layers,
          .hidden = 256,
          .heads = 4,
          .kv_heads = 4,
          .head_dim = 64,
          .ffn = ffn,
          .vocab = vocab,
          .positions = Positions::rotary,
          .activation = Activation::swiglu,
          .norm = Norm::rmsnorm,
          .bias = false};
}

}  // namespace shardsim
