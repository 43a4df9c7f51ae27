// A GPT of three blocks, large enough that padding and rounding hardly count.
#pragma once

#include "sim/model/family.h"

#include "tests/support/tiny_model.h"

namespace shardsim {

inline OpGraph small_gpt(const Numerics& numerics = {}, std::int64_t micro_batch = 2) {
  const ModelSpec spec{.family = Family::gpt,
                       .layers = 3,
                       .hidden = 256,
                       .heads = 4,
                       .head_dim = 64,
                       .ffn = 1024,
                       .vocab = 2048,
                       .max_positions = 128,
                       .activation = Activation::gelu,
                       .dropout = 0.1};
  return build(spec, {.micro_batch = micro_batch, .sequence = 128, .dropout = 0.1, .numerics = numerics});
}

}  // namespace shardsim
