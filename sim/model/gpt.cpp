#include <string>

#include "sim/model/family.h"
#include "sim/model/layers.h"

namespace shardsim {
namespace {

struct Gpt : Layers {
  std::int64_t sequence = graph.workload().sequence, tokens = batch * sequence;
  GraphBuilder::Rotation rotation{};

  using Layers::Layers;

  ValueId attention(ValueId packed) {
    const AttentionShape shape = attention_shape(sequence, sequence, /*causal=*/true);
    const bool rotated = spec.positions == Positions::rotary;
    const bool repeated = shape.heads != shape.kv_heads && (spec.repeat_kv || !fused());
    if (fused() && !rotated && !repeated) return graph.fused_attention({packed}, shape);
    auto parts = graph.split("split heads", packed, {tokens * inner, tokens * kv_inner, tokens * kv_inner});
    if (rotated) {
      parts[0] = graph.rotary("rotary q", parts[0], rotation);
      parts[1] = graph.rotary("rotary k", parts[1], rotation);
    }
    if (repeated)
      for (const std::size_t kv : {1U, 2U})
        parts[kv] = graph.repeat("repeat heads", parts[kv], shape.heads / shape.kv_heads);
    if (fused()) return graph.fused_attention(parts, shape);
    const ValueId context = unfused_attention(parts[0], parts[1], parts[2], shape, {.where = true});
    for (const ValueId part : parts) graph.keep_until_here(part);
    return context;
  }

  ValueId block(ValueId x) {
    ValueId y = linear("attention.qkv", norm("norm_1", x), tokens, spec.hidden, inner + 2 * kv_inner);
    y = graph.dropout(linear("attention.out", attention(y), tokens, inner, spec.hidden));
    x = graph.residual_add(x, y);
    return graph.residual_add(x, graph.dropout(feed_forward(norm("norm_2", x), tokens)));
  }

  OpGraph build() {
    const ValueId ids = graph.from_host("token ids", tokens);
    const ValueId labels = graph.from_host("labels", tokens);
    const ParameterId table = graph.parameter("token_embedding", spec.vocab, spec.hidden);
    ValueId x = graph.embedding(ids, table, spec.vocab, spec.hidden);
    if (spec.max_positions > 0) {
      const ParameterId positions =
          graph.parameter("position_embedding", spec.max_positions + spec.position_offset, spec.hidden);
      x = graph.add_positions(x, positions, sequence * spec.hidden);
    }
    if (spec.embedding_norm) x = norm("embedding_norm", x);
    x = graph.dropout(x);
    const bool rotated = spec.positions == Positions::rotary;
    if (rotated) rotation = graph.rotation(sequence, spec.head_dim, graph.compute());
    for (std::int64_t layer = 0; layer < spec.layers; ++layer) {
      graph.begin_block("decoder " + std::to_string(layer));
      x = block(x);
    }
    graph.begin_root();
    x = norm("final_norm", x);
    if (rotated) graph.keep_until_here(rotation.cos), graph.keep_until_here(rotation.sin);
    const ParameterId head =
        spec.tied_embeddings ? table : graph.parameter("head.weight", spec.vocab, spec.hidden);
    graph.total_loss({head_loss(x, tokens, head, nullptr, labels, /*upcast=*/true)});
    return std::move(graph).finish();
  }
};

}  // namespace

OpGraph gpt(const ModelSpec& spec, const Workload& workload) { return Gpt(spec, workload).build(); }

}  // namespace shardsim
