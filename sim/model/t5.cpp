#include <string>

#include "sim/model/family.h"
#include "sim/model/layers.h"

namespace shardsim {
namespace {

constexpr std::int64_t relative_buckets = 32;  // relative_attention_num_buckets, Hugging Face T5Config

struct T5 : Layers {
  using Layers::Layers;

  ValueId norm(std::string_view name, ValueId x) {  // of which T5 has one kind
    return graph.rms_norm(x, spec.hidden, graph.parameter(std::string(name) + ".weight", spec.hidden),
                          spec.norm_impl == NormImpl::fused ? RmsNorm::fused : RmsNorm::t5);
  }

  // T5Attention.forward: no scaling, scores in fp32 for the softmax, the caller's bias added in place.
  // `memory` are the keys' tokens: x itself, or the encoder's output. A block that owns the relative bias of
  // its stack creates it here and leaves it in `bias` for the others.
  struct Bias {
    ValueId value{-1};
    bool relative = true;  // else the mask alone (cross attention)
  };
  ValueId attention(std::string_view name, ValueId x, std::int64_t queries, ValueId memory, std::int64_t keys,
                    Bias& bias) {
    const std::string prefix(name);
    const std::int64_t heads = batch * spec.heads;
    const ValueId q = linear(prefix + ".q", x, batch * queries, spec.hidden, inner);
    const ValueId k = linear(prefix + ".k", memory, batch * keys, spec.hidden, inner);
    const ValueId v = linear(prefix + ".v", memory, batch * keys, spec.hidden, inner);
    const ValueId q_heads = graph.copy("q heads", q), k_heads = graph.copy("k heads", k);
    graph.begin_attention_core();
    const ValueId scores =
        graph.batched_product("scores", q_heads, k_heads, heads, queries, keys, spec.head_dim);
    if (bias.value.index < 0) bias.value = make_bias(prefix, queries, keys, bias.relative);
    const ValueId biased = graph.add_in_place(scores, bias.value);
    ValueId p = graph.softmax(graph.cast(biased, DType::fp32), keys);
    p = graph.dropout(graph.cast(p, graph.compute()));
    const ValueId v_heads = graph.copy("v heads", v);
    ValueId y = graph.batched_product("context", p, v_heads, heads, queries, spec.head_dim, keys);
    graph.end_attention_core();
    y = graph.copy("merge heads", y);
    y = linear(prefix + ".o", y, batch * queries, inner, spec.hidden);
    for (const ValueId local : {q, k, v, scores}) graph.keep_until_here(local);
    return y;
  }
  ValueId make_bias(const std::string& prefix, std::int64_t queries, std::int64_t keys, bool relative) {
    if (!relative) return graph.zero_bias(batch * spec.heads * queries * keys);
    const ParameterId table = graph.parameter(prefix + ".relative_bias", relative_buckets, spec.heads);
    return graph.position_bias(table, batch, spec.heads, queries, keys);
  }

  ValueId feed_forward(ValueId x, std::int64_t tokens) {
    const ValueId normal = norm("ffn.norm", x);
    ValueId y;
    if (spec.gated()) {  // T5DenseGatedActDense
      const ValueId gate = activation(linear("ffn.wi_0", normal, tokens, spec.hidden, spec.ffn));
      y = graph.multiply("gated", gate, linear("ffn.wi_1", normal, tokens, spec.hidden, spec.ffn));
    } else {
      y = activation(linear("ffn.wi", normal, tokens, spec.hidden, spec.ffn));
    }
    y = linear("ffn.wo", graph.dropout(y), tokens, spec.ffn, spec.hidden);
    return graph.residual_add(x, graph.dropout(y));
  }

  ValueId encoder(ValueId x, std::int64_t sequence) {
    Bias bias;
    for (std::int64_t layer = 0; layer < spec.encoder_layers; ++layer) {
      graph.begin_block("encoder " + std::to_string(layer));
      const ValueId normal = norm("self.norm", x);
      const ValueId y = attention("self", normal, sequence, normal, sequence, bias);
      x = feed_forward(graph.residual_add(x, graph.dropout(y)), batch * sequence);
    }
    graph.begin_root();
    return graph.dropout(norm("encoder_norm", x));
  }

  ValueId decoder(ValueId x, std::int64_t sequence, ValueId memory, std::int64_t memory_sequence) {
    Bias self_bias, cross_bias{.relative = false};
    for (std::int64_t layer = 0; layer < spec.decoder_layers; ++layer) {
      graph.begin_block("decoder " + std::to_string(layer));
      ValueId normal = norm("self.norm", x);
      ValueId y = attention("self", normal, sequence, normal, sequence, self_bias);
      x = graph.residual_add(x, graph.dropout(y));
      normal = norm("cross.norm", x);
      y = attention("cross", normal, sequence, memory, memory_sequence, cross_bias);
      x = feed_forward(graph.residual_add(x, graph.dropout(y)), batch * sequence);
    }
    graph.begin_root();
    return graph.dropout(norm("decoder_norm", x));
  }

  OpGraph build() {
    const Workload& w = graph.workload();
    const ValueId ids = graph.from_host("token ids", batch * w.sequence);
    const ValueId labels = graph.from_host("labels", batch * w.decoder_sequence);
    const ParameterId shared = graph.parameter("shared", spec.vocab, spec.hidden);
    ValueId x = graph.dropout(graph.embedding(ids, shared, spec.vocab, spec.hidden));
    const ValueId memory = encoder(x, w.sequence);
    x = graph.dropout(graph.embedding(labels, shared, spec.vocab, spec.hidden));  // the labels, shifted right
    x = decoder(x, w.decoder_sequence, memory, w.sequence);
    graph.keep_until_here(memory);
    if (spec.tied_embeddings) x = graph.scale("scale by d_model^-0.5", x);
    const ParameterId head =
        spec.tied_embeddings ? shared : graph.parameter("head.weight", spec.vocab, spec.hidden);
    graph.total_loss({head_loss(x, batch * w.decoder_sequence, head, nullptr, labels,
                                /*upcast=*/w.numerics.autocast)});
    return std::move(graph).finish();
  }
};

}  // namespace

OpGraph t5(const ModelSpec& spec, const Workload& workload) { return T5(spec, workload).build(); }

}  // namespace shardsim
