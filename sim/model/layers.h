// What the families share: the layers of a transformer as a spec asks for them.
#pragma once

#include <string>
#include <string_view>

#include "sim/model/graph_builder.h"
#include "sim/model/spec.h"

namespace shardsim {

// How an architecture writes attention between the scores and the probabilities.
struct ScoreStyle {
  bool where = false;         // causal mask by torch.where, which keeps it; else by adding a constant
  bool fp32_softmax = false;  // softmax(dtype=float32), cast back before dropout
};

class Layers {
 public:
  Layers(const ModelSpec& spec, const Workload& workload);

  ValueId linear(std::string_view name, ValueId x, std::int64_t rows, std::int64_t in, std::int64_t out);
  ValueId norm(std::string_view name, ValueId x);  // the spec's, over the hidden size
  ValueId activation(ValueId x);                   // of an ungated feed-forward layer, or of the gate
  // Up (and gate), activation, down.
  ValueId feed_forward(ValueId x, std::int64_t rows);
  AttentionShape attention_shape(std::int64_t queries, std::int64_t keys, bool causal) const;
  // Projections of x (queries) and of `memory` (keys and values), rotated if `rotation` is given, and
  // attention between them, without the output projection.
  ValueId projected_attention(const std::string& prefix, ValueId x, ValueId memory,
                              const AttentionShape& shape, const ScoreStyle& style,
                              const GraphBuilder::Rotation* rotation = nullptr);
  // From q, k and v head by head to the context token by token.
  ValueId unfused_attention(ValueId q, ValueId k, ValueId v, const AttentionShape& shape,
                            const ScoreStyle& style);
  // The head's logits of x and their mean cross-entropy; `upcast` computes it in fp32.
  ValueId head_loss(ValueId x, std::int64_t rows, ParameterId weight, const ParameterId* bias, ValueId labels,
                    bool upcast);

  bool fused() const { return graph.workload().attention != AttentionKind::unfused; }

  const ModelSpec& spec;
  GraphBuilder graph;
  std::int64_t batch, inner, kv_inner;
};

}  // namespace shardsim
