// Is every model's graph sound: nothing used before it is there, nothing lost, every gradient accounted for?
#include <algorithm>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "sim/model/family.h"
#include "sim/model/op_graph.h"
#include "sim/scenario/scenario.h"

#include "tests/support/hardware.h"
#include "tests/support/print.h"
#include "tests/support/tiny_model.h"

namespace shardsim {
namespace {

// Three layers of every bundled model, on a few tokens, in each way to store and multiply numbers and to
// attend.
template <class Law>
void for_all_graphs(const Law& law) {
  const Library library = test_library();
  for (const std::string& name : library.names("models")) {
    const std::string text = "model = \"" + name + "\"\ntopology = \"single-gpu\"\n";
    ModelSpec spec = resolve(read_scenario_text(text, "a.toml").settings, library).model;
    for (std::int64_t* layers : {&spec.layers, &spec.encoder_layers, &spec.decoder_layers})
      *layers = std::min<std::int64_t>(*layers, 3);
    CAPTURE(name);
    for (const Numerics& numerics : {Numerics{}, bf16_on_shards, bf16_autocast})
      for (const double dropout : {0.0, 0.1})
        for (const AttentionKind attention : {AttentionKind::unfused, AttentionKind::flash2}) {
          if (spec.positions == Positions::relative && attention != AttentionKind::unfused) continue;
          law(build(spec, {.micro_batch = 2,
                           .sequence = 16,
                           .decoder_sequence = 6,
                           .dropout = dropout,
                           .attention = attention,
                           .numerics = numerics}));
        }
  }
}

TEST_CASE("every value is made by one operation, before any uses it") {
  for_all_graphs([](const OpGraph& graph) {
    std::vector<int> made(graph.values.size(), 0);
    for (const OpId op : ids(graph.ops)) {
      for (const ValueId v : graph.ops[op].inputs) REQUIRE(made[static_cast<std::size_t>(v.index)] == 1);
      for (const ValueId v : graph.ops[op].outputs) ++made[static_cast<std::size_t>(v.index)];
    }
    CHECK(std::all_of(made.begin(), made.end(), [](int times) { return times == 1; }));
  });
}

TEST_CASE("a value that shares memory shares that of an earlier one of the same size, which owns it") {
  for_all_graphs([](const OpGraph& graph) {
    for (const ValueId v : ids(graph.values)) {
      const ValueId owner = graph.values[v].storage;
      REQUIRE(owner <= v);
      REQUIRE(graph.values[owner].storage == owner);
      REQUIRE(bytes_of(graph, owner) == bytes_of(graph, v));
      REQUIRE(graph.values[v].elements > 0);
    }
  });
}

TEST_CASE("an operation keeps only what it read or made") {
  for_all_graphs([](const OpGraph& graph) {
    for (const Op& op : graph.ops)
      for (const ValueId v : op.saved)
        REQUIRE((std::find(op.inputs.begin(), op.inputs.end(), v) != op.inputs.end() ||
                 std::find(op.outputs.begin(), op.outputs.end(), v) != op.outputs.end()));
  });
}

TEST_CASE("the last use of a value's memory is not before any operation that touches it") {
  for_all_graphs([](const OpGraph& graph) {
    for (const OpId op : ids(graph.ops))
      for (const auto* values : {&graph.ops[op].inputs, &graph.ops[op].outputs})
        for (const ValueId v : *values) REQUIRE(graph.values[graph.values[v].storage].last_use >= op);
    for (const Value& v : graph.values) REQUIRE(v.last_use < graph.ops.next_id());
  });
}

TEST_CASE("the cache of weight casts lives until the forward pass ends") {
  for_all_graphs([](const OpGraph& graph) {
    for (const Value& v : graph.values)
      if (v.autocast_cache) REQUIRE(v.last_use == OpId{graph.ops.next_id().index - 1});
  });
}

TEST_CASE("every input has its gradient's making, none where it needs none") {
  for_all_graphs([](const OpGraph& graph) {
    for (const Op& op : graph.ops) {
      REQUIRE(op.gradients.size() == op.inputs.size());
      for (std::size_t i = 0; i < op.inputs.size(); ++i)
        REQUIRE((op.gradients[i] == Gradient::none) == !graph.values[op.inputs[i]].needs_grad);
    }
  });
}

TEST_CASE("an operation makes a tensor that needs a gradient exactly if an input or a parameter of it does") {
  for_all_graphs([](const OpGraph& graph) {
    for (const Op& op : graph.ops) {
      const auto needs = [&](ValueId v) { return graph.values[v].needs_grad; };
      const bool asked = std::any_of(op.outputs.begin(), op.outputs.end(), needs);
      const bool passes = std::any_of(op.inputs.begin(), op.inputs.end(), needs) || !op.parameters.empty();
      REQUIRE(asked == passes);
    }
  });
}

TEST_CASE("a gradient that is passed on fits: the input is as large as the output") {
  for_all_graphs([](const OpGraph& graph) {
    for (const Op& op : graph.ops)
      for (std::size_t i = 0; i < op.inputs.size(); ++i)
        if (op.gradients[i] == Gradient::alias)
          REQUIRE(graph.values[op.inputs[i]].elements == graph.values[op.outputs.front()].elements);
  });
}

TEST_CASE(
    "a residual addition passes its gradient on to what is stored as the sum is, else makes a new one") {
  for_all_graphs([](const OpGraph& graph) {
    for (const Op& op : graph.ops) {
      if (op.name != "residual add") continue;
      for (std::size_t i = 0; i < 2; ++i) {
        const bool alike = graph.values[op.inputs[i]].dtype == graph.values[op.outputs.front()].dtype;
        REQUIRE(op.gradients[i] == (alike ? Gradient::alias : Gradient::fresh));
      }
    }
  });
}

TEST_CASE("every parameter gets a gradient from an operation, of its module or of a weight tied to it") {
  for_all_graphs([](const OpGraph& graph) {
    IdVector<ParameterId, bool> reached(graph.parameters.size(), false);
    for (const Op& op : graph.ops)
      for (const ParameterId p : op.parameters) {
        reached[p] = true;
        REQUIRE(graph.parameters[p].module == op.module);
      }
    REQUIRE(std::all_of(reached.begin(), reached.end(), std::identity{}));
  });
}

TEST_CASE("segments tile the operations; each is of one module, each block has one") {
  for_all_graphs([](const OpGraph& graph) {
    OpId next{0};
    IdVector<ModuleId, int> segments(graph.modules.size(), 0);
    for (const Segment& segment : graph.segments) {
      REQUIRE(segment.first == next);
      REQUIRE(segment.first < segment.last);
      for (OpId op = segment.first; op < segment.last; ++op.index)
        REQUIRE(graph.ops[op].module == segment.module);
      next = segment.last;
      ++segments[segment.module];
    }
    REQUIRE(next == graph.ops.next_id());
    for (const ModuleId m : ids(graph.modules)) {
      REQUIRE(graph.modules[m].block == (m != ModuleId{0}));
      if (graph.modules[m].block) REQUIRE(segments[m] == 1);
    }
  });
}

TEST_CASE("names of parameters and modules are unique") {
  for_all_graphs([](const OpGraph& graph) {
    std::set<std::string> seen;
    for (const Parameter& p : graph.parameters) REQUIRE(seen.insert(p.name).second);
    for (const Module& m : graph.modules) REQUIRE(seen.insert(m.name).second);
  });
}

TEST_CASE("the loss is one number, made last and held by the training loop with the logits") {
  for_all_graphs([](const OpGraph& graph) {
    CHECK(graph.values[graph.loss].elements == 1);
    CHECK(graph.ops.back().outputs == std::vector{graph.loss});
    CHECK(graph.values[graph.loss].held_by_user);
    const auto held = std::count_if(graph.values.begin(), graph.values.end(),
                                    [](const Value& v) { return v.held_by_user; });
    CHECK(held == 2);
  });
}

TEST_CASE("what the training loop holds: the logits it asks for, or none, and the loss") {
  const ModelSpec spec{
      .family = Family::gpt, .layers = 1, .hidden = 8, .heads = 1, .head_dim = 8, .ffn = 32, .vocab = 9};
  const auto held = [&](HeldLogits logits, std::int64_t chunks) {
    const OpGraph graph = build(spec, {.micro_batch = 1,
                                       .sequence = 16,
                                       .loss_chunks = chunks,
                                       .held_logits = logits,
                                       .numerics = bf16_on_shards});
    Bytes bytes;
    for (const ValueId v : ids(graph.values))
      if (graph.values[v].held_by_user && v != graph.loss) bytes += bytes_of(graph, v);
    return bytes.count;
  };
  CHECK(held(HeldLogits::none, 1) == 0);
  CHECK(held(HeldLogits::head, 1) == 2 * 16 * 9);
  CHECK(held(HeldLogits::fp32, 1) == 4 * 16 * 9);
  CHECK(held(HeldLogits::both, 1) == 6 * 16 * 9);
  CHECK(held(HeldLogits::head, 4) == 0);
}

TEST_CASE("dropout is where the architectures have it") {
  const auto dropouts = [](const ModelSpec& spec, AttentionKind attention, double probability) {
    const OpGraph graph = build(spec, {.micro_batch = 1,
                                       .sequence = 16,
                                       .decoder_sequence = 6,
                                       .dropout = probability,
                                       .attention = attention,
                                       .numerics = {}});
    return std::count_if(graph.ops.begin(), graph.ops.end(),
                         [](const Op& op) { return op.name == "dropout"; });
  };
  const ModelSpec gpt{
      .family = Family::gpt, .layers = 5, .hidden = 8, .heads = 1, .head_dim = 8, .ffn = 32, .vocab = 9};
  const ModelSpec t5{.family = Family::t5,
                     .encoder_layers = 3,
                     .decoder_layers = 2,
                     .hidden = 8,
                     .heads = 1,
                     .head_dim = 8,
                     .ffn = 32,
                     .vocab = 9};
  // GPT-2: the embedding; per block the attention's probabilities and the end of both halves.
  CHECK(dropouts(gpt, AttentionKind::unfused, 0.1) == 1 + 5 * 3);
  CHECK(dropouts(gpt, AttentionKind::flash2, 0.1) == 1 + 5 * 2);  // the kernel drops its probabilities itself
  // Hugging Face modeling_t5.py: T5Stack at both ends; T5Attention's probabilities, after each layer, and
  // within T5DenseActDense.
  CHECK(dropouts(t5, AttentionKind::unfused, 0.1) == 2 + 3 * (2 + 2) + 2 + 2 * (2 + 2 + 2));
  for (const ModelSpec& spec : {gpt, t5}) CHECK(dropouts(spec, AttentionKind::unfused, 0) == 0);
}

double gemm_flop(const std::vector<Kernel>& kernels) {
  double flop = 0;
  for (const Kernel& k : kernels)
    if (std::holds_alternative<Gemm>(k)) flop += executed_flop(k).count;
  return flop;
}

TEST_CASE("the backward of a product is two of as many FLOP, in the same format") {
  for_all_graphs([](const OpGraph& graph) {
    for (const Op& op : graph.ops) {
      const double forward = gemm_flop(op.forward);
      REQUIRE(gemm_flop(op.backward) == 2 * forward);
      if (forward == 0) continue;
      REQUIRE(op.model_flop.count == forward);
      const Gemm& first = std::get<Gemm>(op.forward.front());
      for (const Kernel& k : op.backward)
        if (const Gemm* g = std::get_if<Gemm>(&k)) REQUIRE(g->dtype == first.dtype);
    }
  });
}

TEST_CASE("a linear layer's products are those of its rows and its weight") {
  for_all_graphs([](const OpGraph& graph) {
    for (const Op& op : graph.ops) {
      if (op.name != "linear") continue;
      const Gemm& g = std::get<Gemm>(op.forward.front());
      REQUIRE(g.batch * g.m * g.k == graph.values[op.inputs.front()].elements);
      REQUIRE(g.batch * g.m * g.n == graph.values[op.outputs.front()].elements);
      const bool cast_weight = op.inputs.size() == 2;
      REQUIRE(g.k * g.n == (cast_weight ? graph.values[op.inputs[1]].elements
                                        : graph.parameters[op.parameters.front()].elements));
    }
  });
}

TEST_CASE("fused attention executes its model FLOP, half of them behind a causal mask") {
  for_all_graphs([](const OpGraph& graph) {
    for (const Op& op : graph.ops) {
      if (op.forward.empty() || !std::holds_alternative<FusedAttention>(op.forward.front())) continue;
      const double share = std::get<FusedAttention>(op.forward.front()).causal ? 0.5 : 1;
      REQUIRE(executed_flop(op.forward.front()).count == share * op.model_flop.count);
    }
  });
}

TEST_CASE("every operation launches a kernel, unless its data come from the host") {
  for_all_graphs([](const OpGraph& graph) {
    for (const Op& op : graph.ops) {
      REQUIRE(op.forward.empty() == op.from_host);
      REQUIRE_FALSE(op.outputs.empty());
      if (op.from_host) REQUIRE((op.inputs.empty() && op.backward.empty() && op.parameters.empty()));
    }
  });
}

TEST_CASE("a fresh gradient is made by a kernel") {
  for_all_graphs([](const OpGraph& graph) {
    for (const Op& op : graph.ops) {
      CAPTURE(op.name);
      if (std::count(op.gradients.begin(), op.gradients.end(), Gradient::fresh) > 0 || !op.parameters.empty())
        REQUIRE_FALSE(op.backward.empty());
    }
  });
}

}  // namespace
}  // namespace shardsim
