#include "sim/model/layers.h"

namespace shardsim {

Layers::Layers(const ModelSpec& s, const Workload& w)
    : spec(s),
      graph(w),
      batch(w.micro_batch),
      inner(s.heads * s.head_dim),
      kv_inner(s.key_heads() * s.head_dim) {}

ValueId Layers::linear(std::string_view name, ValueId x, std::int64_t rows, std::int64_t in,
                       std::int64_t out) {
  const ParameterId weight = graph.parameter(std::string(name) + ".weight", out, in);
  if (!spec.bias) return graph.linear(x, rows, in, out, weight);
  const ParameterId bias = graph.parameter(std::string(name) + ".bias", out);
  return graph.linear(x, rows, in, out, weight, &bias);
}

ValueId Layers::norm(std::string_view name, ValueId x) {
  const ParameterId weight = graph.parameter(std::string(name) + ".weight", spec.hidden);
  if (spec.norm == Norm::rmsnorm)
    return graph.rms_norm(x, spec.hidden, weight,
                          spec.norm_impl == NormImpl::fused ? RmsNorm::fused : RmsNorm::llama);
  if (!spec.bias) return graph.layer_norm(x, spec.hidden, weight, nullptr);
  const ParameterId bias = graph.parameter(std::string(name) + ".bias", spec.hidden);
  return graph.layer_norm(x, spec.hidden, weight, &bias);
}

ValueId Layers::activation(ValueId x) {
  switch (spec.activation) {
    case Activation::relu: return graph.activation_relu(x);
    case Activation::gelu: return graph.activation_gelu(x);
    case Activation::gelu_tanh:
    case Activation::geglu: return graph.activation_gelu_tanh(x);
    case Activation::swiglu: return graph.activation_silu(x);
  }
  return x;
}

ValueId Layers::feed_forward(ValueId x, std::int64_t rows) {
  ValueId y;
  if (spec.gated()) {
    const ValueId gate = activation(linear("mlp.gate", x, rows, spec.hidden, spec.ffn));
    y = graph.multiply("gated", gate, linear("mlp.up", x, rows, spec.hidden, spec.ffn));
  } else {
    y = activation(linear("mlp.up", x, rows, spec.hidden, spec.ffn));
  }
  return linear("mlp.down", y, rows, spec.ffn, spec.hidden);
}

AttentionShape Layers::attention_shape(std::int64_t queries, std::int64_t keys, bool causal) const {
  return {batch, spec.heads, spec.key_heads(), queries, keys, spec.head_dim, causal};
}

ValueId Layers::projected_attention(const std::string& prefix, ValueId x, ValueId memory,
                                    const AttentionShape& shape, const ScoreStyle& style,
                                    const GraphBuilder::Rotation* rotation) {
  const std::int64_t queries = batch * shape.queries, keys = batch * shape.keys;
  const ValueId q = linear(prefix + ".q", x, queries, spec.hidden, inner);
  const ValueId k = linear(prefix + ".k", memory, keys, spec.hidden, kv_inner);
  const ValueId v = linear(prefix + ".v", memory, keys, spec.hidden, kv_inner);
  ValueId q_heads = q, k_heads = k, v_heads = v;
  if (rotation != nullptr) {
    q_heads = graph.rotary("rotary q", q, *rotation);
    k_heads = graph.rotary("rotary k", k, *rotation);
  } else if (!fused()) {
    q_heads = graph.copy("q heads", q);
    k_heads = graph.copy("k heads", k);
  }
  const std::int64_t group = shape.heads / shape.kv_heads;
  if (spec.repeat_kv || !fused()) {
    k_heads = graph.repeat("repeat k", k_heads, group);
    v_heads = graph.repeat("repeat v", v_heads, group);
  }
  if (!fused() && v_heads == v) v_heads = graph.copy("v heads", v);
  const ValueId context = fused() ? graph.fused_attention({q_heads, k_heads, v_heads}, shape)
                                  : unfused_attention(q_heads, k_heads, v_heads, shape, style);
  // The function's locals; a rotation assigns its result to the same names.
  const bool rotated = rotation != nullptr;
  for (const ValueId local : {rotated ? q_heads : q, rotated ? k_heads : k, v}) graph.keep_until_here(local);
  return context;
}

ValueId Layers::unfused_attention(ValueId q, ValueId k, ValueId v, const AttentionShape& shape,
                                  const ScoreStyle& style) {
  const std::int64_t heads = shape.batch * shape.heads;
  graph.begin_attention_core();
  ValueId x = graph.batched_product("scores", q, k, heads, shape.queries, shape.keys, shape.head_dim);
  const bool one_kernel = graph.workload().fused_softmax && spec.positions != Positions::alibi;
  if (!one_kernel) {
    x = graph.scale("scaled scores", x);
    if (spec.positions == Positions::alibi) x = graph.add_constant("ALiBi", x);
    x = style.where ? graph.masked_fill(x, shape.queries * shape.keys)
                    : graph.add_constant("masked scores", x);
  }
  if (one_kernel) {
    x = graph.dropout(graph.softmax(x, shape.keys));
  } else if (style.fp32_softmax) {
    x = graph.dropout(graph.cast(graph.softmax(graph.cast(x, DType::fp32), shape.keys), graph.compute()));
  } else {
    if (graph.workload().numerics.autocast) x = graph.cast(x, DType::fp32);
    x = graph.cast(graph.dropout(graph.softmax(x, shape.keys)), graph.compute());
  }
  x = graph.batched_product("context", x, v, heads, shape.queries, shape.head_dim, shape.keys);
  graph.end_attention_core();
  return graph.copy("merge heads", x);
}

ValueId Layers::head_loss(ValueId x, std::int64_t rows, ParameterId weight, const ParameterId* bias,
                          ValueId labels, bool upcast) {
  if (graph.workload().loss_chunks > 1)
    return graph.chunked_cross_entropy(x, labels, rows, spec.hidden, spec.vocab, weight, bias);
  return graph.cross_entropy(graph.linear(x, rows, spec.hidden, spec.vocab, weight, bias), labels, upcast);
}

}  // namespace shardsim
