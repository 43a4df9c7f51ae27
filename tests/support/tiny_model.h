// A model small enough to read its whole program: an embedding, `blocks` blocks of one linear layer, a head.
#pragma once

#include <string>

#include "sim/model/graph_builder.h"

namespace shardsim {

struct TinyModel {
  int blocks = 2;
  std::int64_t tokens = 8, width = 64, vocab = 128;
  Numerics numerics{};

  // Parameters: vocab * width in the root (tied head), width^2 + width in each block.
  OpGraph build() const {
    GraphBuilder graph(Workload{.micro_batch = 1, .sequence = tokens, .numerics = numerics});
    const ValueId ids = graph.from_host("token ids", tokens), labels = graph.from_host("labels", tokens);
    const ParameterId table = graph.parameter("embedding", vocab * width);
    ValueId x = graph.embedding(ids, table, vocab, width);
    for (int b = 0; b < blocks; ++b) {
      graph.begin_block("block " + std::to_string(b + 1));
      const ParameterId weight = graph.parameter("weight", width * width),
                        bias = graph.parameter("bias", width);
      x = graph.activation_relu(graph.linear(x, tokens, width, width, weight, &bias));
    }
    graph.begin_root();
    graph.loss(graph.linear(x, tokens, width, vocab, table), labels, false);
    return std::move(graph).finish();
  }
};

inline constexpr Numerics bf16_on_shards{DType::bf16, DType::bf16, DType::bf16, false};
inline constexpr Numerics bf16_autocast{DType::bf16, DType::bf16, DType::fp32, true};

}  // namespace shardsim
