#include <algorithm>
#include <cmath>
#include <string>

#include "sim/model/family.h"
#include "sim/model/layers.h"

namespace shardsim {
namespace {

struct Bert : Layers {
  std::int64_t sequence = graph.workload().sequence, tokens = batch * sequence;

  using Layers::Layers;

  ValueId block(ValueId x) {
    ValueId y =
        projected_attention("attention", x, x, attention_shape(sequence, sequence, /*causal=*/false), {});
    y = graph.dropout(linear("attention.out", y, tokens, inner, spec.hidden));
    x = norm("norm_1", graph.residual_add(x, y));
    y = graph.dropout(feed_forward(x, tokens));
    return norm("norm_2", graph.residual_add(x, y));
  }

  ValueId embeddings(ParameterId table) {
    const ValueId ids = graph.from_host("token ids", tokens);
    ValueId x = graph.embedding(ids, table, spec.vocab, spec.hidden);
    if (spec.type_vocab > 0) {
      const ValueId types = graph.from_host("segment ids", tokens);
      const ParameterId segments = graph.parameter("segment_embedding", spec.type_vocab, spec.hidden);
      x = graph.residual_add(x, graph.embedding(types, segments, spec.type_vocab, spec.hidden));
    }
    const ParameterId positions =
        graph.parameter("position_embedding", spec.max_positions + spec.position_offset, spec.hidden);
    x = graph.add_positions(x, positions, sequence * spec.hidden);
    return graph.dropout(norm("embedding_norm", x));
  }

  // Of the masked positions only if the workload says so: NVIDIA's DeepLearningExamples gather them first,
  // Hugging Face computes the logits of all.
  ValueId masked_loss(ValueId x, ParameterId table) {
    const double share = graph.workload().masked_share;
    std::int64_t rows = tokens;
    if (share < 1) {
      const auto masked = std::llround(share * static_cast<double>(sequence));
      rows = batch * std::max<std::int64_t>(1, masked);
      x = graph.gather(x, graph.from_host("masked positions", rows), spec.hidden);
    }
    const ValueId labels = graph.from_host("labels", rows);
    x = norm("head.norm", activation(linear("head.transform", x, rows, spec.hidden, spec.hidden)));
    const ParameterId weight =
        spec.tied_embeddings ? table : graph.parameter("head.weight", spec.vocab, spec.hidden);
    const ParameterId bias = graph.parameter("head.bias", spec.vocab);
    return head_loss(x, rows, weight, &bias, labels, /*upcast=*/graph.workload().numerics.autocast);
  }

  // Whether the second segment follows the first, from the first token of each sequence.
  ValueId next_sentence_loss(ValueId x) {
    const ValueId first = graph.gather(x, graph.from_host("first tokens", batch), spec.hidden);
    const ValueId pooled = graph.activation_tanh(linear("pooler", first, batch, spec.hidden, spec.hidden));
    const ValueId answer = linear("next_sentence", pooled, batch, spec.hidden, 2);
    const ValueId labels = graph.from_host("next-sentence labels", batch);
    const ValueId high = graph.workload().numerics.autocast ? graph.cast(answer, DType::fp32) : answer;
    return graph.mean_loss(high, labels);
  }

  OpGraph build() {
    const ParameterId table = graph.parameter("token_embedding", spec.vocab, spec.hidden);
    ValueId x = embeddings(table);
    for (std::int64_t layer = 0; layer < spec.layers; ++layer) {
      graph.begin_block("encoder " + std::to_string(layer));
      x = block(x);
    }
    graph.begin_root();
    std::vector<ValueId> losses{masked_loss(x, table)};
    if (spec.pooler) losses.push_back(next_sentence_loss(x));
    graph.total_loss(losses);
    return std::move(graph).finish();
  }
};

}  // namespace

OpGraph bert(const ModelSpec& spec, const Workload& workload) { return Bert(spec, workload).build(); }

}  // namespace shardsim
