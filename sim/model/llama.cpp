#include <string>

#include "sim/model/family.h"
#include "sim/model/layers.h"

namespace shardsim {
namespace {

struct Llama : Layers {
  std::int64_t sequence = graph.workload().sequence, tokens = batch * sequence;
  GraphBuilder::Rotation rotation{};

  using Layers::Layers;

  ValueId block(ValueId x) {
    const ValueId normal = norm("norm_1", x);
    const ValueId y =
        projected_attention("attention", normal, normal, attention_shape(sequence, sequence, /*causal=*/true),
                            {.fp32_softmax = true}, &rotation);
    x = graph.residual_add(x, linear("attention.out", y, tokens, inner, spec.hidden));
    return graph.residual_add(x, feed_forward(norm("norm_2", x), tokens));
  }

  OpGraph build() {
    const ValueId ids = graph.from_host("token ids", tokens);
    const ValueId labels = graph.from_host("labels", tokens);
    const ParameterId table = graph.parameter("token_embedding", spec.vocab, spec.hidden);
    ValueId x = graph.embedding(ids, table, spec.vocab, spec.hidden);
    rotation = graph.rotation(sequence, spec.head_dim, graph.compute());
    for (std::int64_t layer = 0; layer < spec.layers; ++layer) {
      graph.begin_block("decoder " + std::to_string(layer));
      x = block(x);
    }
    graph.begin_root();
    x = norm("final_norm", x);
    graph.keep_until_here(rotation.cos), graph.keep_until_here(rotation.sin);
    const ParameterId head =
        spec.tied_embeddings ? table : graph.parameter("head.weight", spec.vocab, spec.hidden);
    graph.total_loss({head_loss(x, tokens, head, nullptr, labels, /*upcast=*/true)});
    return std::move(graph).finish();
  }
};

}  // namespace

OpGraph llama(const ModelSpec& spec, const Workload& workload) { return Llama(spec, workload).build(); }

}  // namespace shardsim
