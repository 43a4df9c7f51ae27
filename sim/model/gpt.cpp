#include <string>

#include "sim/model/family.h"
#include "sim/model/graph_builder.h"

namespace shardsim {
namespace {

struct Gpt {
  const ModelSpec& spec;
  GraphBuilder graph;
  std::int64_t batch, sequence, tokens, inner;

  Gpt(const ModelSpec& s, const Workload& w)
      : spec(s),
        graph(w),
        batch(w.micro_batch),
        sequence(w.sequence),
        tokens(w.micro_batch * w.sequence),
        inner(s.heads * s.head_dim) {}

  ValueId linear(std::string_view name, ValueId x, std::int64_t in, std::int64_t out) {
    const ParameterId weight = graph.parameter(std::string(name) + ".weight", out, in);
    if (!spec.bias) return graph.linear(x, tokens, in, out, weight);
    const ParameterId bias = graph.parameter(std::string(name) + ".bias", out);
    return graph.linear(x, tokens, in, out, weight, &bias);
  }

  ValueId norm(std::string_view name, ValueId x) {
    const ParameterId weight = graph.parameter(std::string(name) + ".weight", spec.hidden);
    if (!spec.bias) return graph.layer_norm(x, spec.hidden, weight, nullptr);
    const ParameterId bias = graph.parameter(std::string(name) + ".bias", spec.hidden);
    return graph.layer_norm(x, spec.hidden, weight, &bias);
  }

  ValueId unfused_attention(ValueId qkv) {
    const std::int64_t heads = batch * spec.heads;
    const auto parts = graph.split("split heads", qkv, 3);
    graph.begin_attention_core();
    ValueId x = graph.batched_product("scores", parts[0], parts[1], heads, sequence, sequence, spec.head_dim);
    x = graph.scale("scaled scores", x);
    x = graph.masked_fill(x, sequence * sequence);
    if (graph.workload().numerics.autocast) x = graph.cast(x, DType::fp32);
    x = graph.dropout(graph.softmax(x));
    x = graph.cast(x, graph.compute());
    x = graph.batched_product("context", x, parts[2], heads, sequence, spec.head_dim, sequence);
    graph.end_attention_core();
    x = graph.copy("merge heads", x);
    for (const ValueId part : parts) graph.keep_until_here(part);
    return x;
  }

  ValueId block(ValueId x) {
    ValueId y = linear("attention.qkv", norm("norm_1", x), spec.hidden, 3 * inner);
    y = graph.workload().attention == AttentionKind::unfused
            ? unfused_attention(y)
            : graph.fused_attention(y, batch, spec.heads, sequence, spec.head_dim);
    y = graph.dropout(linear("attention.out", y, inner, spec.hidden));
    x = graph.residual_add(x, y);
    y = linear("mlp.up", norm("norm_2", x), spec.hidden, spec.ffn);
    switch (spec.activation) {
      case Activation::relu: y = graph.activation_relu(y); break;
      case Activation::gelu: y = graph.activation_gelu(y); break;
      case Activation::gelu_tanh: y = graph.activation_gelu_tanh(y); break;
    }
    y = graph.dropout(linear("mlp.down", y, spec.ffn, spec.hidden));
    return graph.residual_add(x, y);
  }

  OpGraph build() {
    const ValueId ids = graph.from_host("token ids", tokens);
    const ValueId labels = graph.from_host("labels", tokens);
    const ParameterId table = graph.parameter("token_embedding", spec.vocab, spec.hidden);
    ValueId x = graph.embedding(ids, table, spec.vocab, spec.hidden);
    if (spec.max_positions > 0) {
      const ParameterId positions = graph.parameter("position_embedding", spec.max_positions, spec.hidden);
      x = graph.add_positions(x, positions, sequence * spec.hidden);
    }
    x = graph.dropout(x);
    for (std::int64_t layer = 0; layer < spec.layers; ++layer) {
      graph.begin_block("decoder " + std::to_string(layer));
      x = block(x);
    }
    graph.begin_root();
    x = norm("final_norm", x);
    const ParameterId head =
        spec.tied_embeddings ? table : graph.parameter("head.weight", spec.vocab, spec.hidden);
    const ValueId logits = graph.linear(x, tokens, spec.hidden, spec.vocab, head);
    graph.loss(logits, labels, /*upcast=*/true);
    return std::move(graph).finish();
  }
};

}  // namespace

OpGraph gpt(const ModelSpec& spec, const Workload& workload) { return Gpt(spec, workload).build(); }

}  // namespace shardsim
