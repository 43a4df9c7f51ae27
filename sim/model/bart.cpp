#include <string>

#include "sim/model/family.h"
#include "sim/model/layers.h"

namespace shardsim {
namespace {

struct Bart : Layers {
  using Layers::Layers;

  // One attention, its residual and the norm behind them.
  ValueId attend(const std::string& name, ValueId x, ValueId memory, const AttentionShape& shape) {
    ValueId y = projected_attention(name, x, memory, shape, {});
    y = graph.dropout(linear(name + ".out", y, batch * shape.queries, inner, spec.hidden));
    return norm(name + ".norm", graph.residual_add(x, y));
  }
  ValueId transform(ValueId x, std::int64_t rows) {
    return norm("mlp.norm", graph.residual_add(x, graph.dropout(feed_forward(x, rows))));
  }

  ValueId embeddings(const std::string& stack, ValueId ids, ParameterId table, std::int64_t sequence) {
    const ValueId x = graph.embedding(ids, table, spec.vocab, spec.hidden);
    const ParameterId positions = graph.parameter(stack + "_position_embedding",
                                                  spec.max_positions + spec.position_offset, spec.hidden);
    const ValueId placed = graph.add_positions(x, positions, sequence * spec.hidden);
    return graph.dropout(norm(stack + "_embedding_norm", placed));
  }

  OpGraph build() {
    const std::int64_t source = graph.workload().sequence, target = graph.workload().decoder_sequence;
    const ValueId ids = graph.from_host("token ids", batch * source);
    const ValueId labels = graph.from_host("labels", batch * target);
    const ParameterId table = graph.parameter("shared", spec.vocab, spec.hidden);
    ValueId x = embeddings("encoder", ids, table, source);
    for (std::int64_t layer = 0; layer < spec.encoder_layers; ++layer) {
      graph.begin_block("encoder " + std::to_string(layer));
      x = transform(attend("self", x, x, attention_shape(source, source, false)), batch * source);
    }
    graph.begin_root();
    const ValueId memory = x;
    x = embeddings("decoder", labels, table, target);  // the labels, shifted right
    for (std::int64_t layer = 0; layer < spec.decoder_layers; ++layer) {
      graph.begin_block("decoder " + std::to_string(layer));
      x = attend("self", x, x, attention_shape(target, target, true));
      x = attend("cross", x, memory, attention_shape(target, source, false));
      x = transform(x, batch * target);
    }
    graph.begin_root();
    graph.keep_until_here(memory);
    const ParameterId head =
        spec.tied_embeddings ? table : graph.parameter("head.weight", spec.vocab, spec.hidden);
    graph.total_loss({head_loss(x, batch * target, head, nullptr, labels,
                                /*upcast=*/graph.workload().numerics.autocast)});
    return std::move(graph).finish();
  }
};

}  // namespace

OpGraph bart(const ModelSpec& spec, const Workload& workload) { return Bart(spec, workload).build(); }

}  // namespace shardsim
