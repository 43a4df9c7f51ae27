// What does torch.compile leave of a graph: the same products, fewer bytes, nothing lost?
#include "sim/model/fusion.h"

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "sim/model/family.h"
#include "sim/scenario/scenario.h"

#include "tests/support/hardware.h"
#include "tests/support/print.h"
#include "tests/support/small_llama.h"
#include "tests/support/tiny_model.h"

namespace shardsim {
namespace {

constexpr Numerics fp8{DType::bf16, DType::bf16, DType::bf16, false, true};

// One model of each kind of block, two layers of it, in each way to store and multiply numbers and to attend.
template <class Law>
void for_all_graphs(const Law& law) {
  const Library library = test_library();
  for (const std::string name : {"gpt2", "llama-7b", "llama3-8b", "bert-large", "bart-large", "t5-base",
                                 "flan-t5-small", "bloom-560m", "mpt-7b"}) {
    const std::string text = "model = \"" + name + "\"\ntopology = \"single-gpu\"\n";
    ModelSpec spec = resolve(read_scenario_text(text, "a.toml").settings, library).model;
    for (std::int64_t* layers : {&spec.layers, &spec.encoder_layers, &spec.decoder_layers})
      *layers = std::min<std::int64_t>(*layers, 2);
    CAPTURE(name);
    for (const Numerics& numerics : {Numerics{}, bf16_on_shards, bf16_autocast, fp8})
      for (const double dropout : {0.0, 0.1})
        for (const AttentionKind attention : {AttentionKind::unfused, AttentionKind::flash2}) {
          if (spec.positions == Positions::relative && attention != AttentionKind::unfused) continue;
          const OpGraph eager = build(spec, {.micro_batch = 2,
                                             .sequence = 64,
                                             .decoder_sequence = 16,
                                             .dropout = dropout,
                                             .attention = attention,
                                             .numerics = numerics});
          for (const CompileScope scope : {CompileScope::blocks, CompileScope::model}) {
            CAPTURE(std::string(shardsim::name(scope)));
            law(eager, fuse(eager, scope));
          }
        }
  }
}

// Of memory-bound kernels; products are what they are.
Bytes moved(const std::vector<Kernel>& kernels) {
  Bytes total;
  for (const Kernel& k : kernels)
    if (const auto* m = std::get_if<MemoryBound>(&k)) total += m->traffic;
  return total;
}
Bytes moved_forward(const OpGraph& graph, const Segment& s) {
  Bytes total;
  for (OpId op = s.first; op < s.last; ++op.index) total += moved(graph.ops[op].forward);
  return total;
}
// With autograd's sums of gradients: those of values that several operations read. Compiled kernels read one
// addend more for each, and write none.
Bytes moved_backward(const OpGraph& graph, const Segment& s) {
  Bytes total;
  for (OpId op = s.first; op < s.last; ++op.index) total += moved(graph.ops[op].backward);
  std::map<ValueId, std::int64_t> gradients;
  for (const Op& op : graph.ops)
    for (std::size_t i = 0; i < op.inputs.size(); ++i)
      if (op.gradients[i] != Gradient::none) ++gradients[op.inputs[i]];
  for (OpId op = s.first; op < s.last; ++op.index)
    for (const ValueId v : graph.ops[op].outputs)
      if (const auto found = gradients.find(v); found != gradients.end() && found->second > 1) {
        const bool fused = graph.ops[op].kind == OpKind::fused;
        const auto kernels = static_cast<std::int64_t>(graph.ops[op].backward.size());
        total += bytes_of(graph, v) * ((found->second - 1) * (fused ? kernels : 3));
      }
  return total;
}

// What is there in backward anyway.
std::vector<ValueId> held(const OpGraph& graph) {
  std::vector<ValueId> all;
  for (const ValueId v : ids(graph.values))
    if (graph.values[v].held_by_user) all.push_back(v);
  return all;
}

std::vector<double> products(const OpGraph& graph) {
  std::vector<double> flop;
  for (const Op& op : graph.ops)
    for (const auto* kernels : {&op.forward, &op.backward})
      for (const Kernel& k : *kernels)
        if (executed_flop(k).count > 0) flop.push_back(executed_flop(k).count);
  return flop;
}

TEST_CASE("products stay as they are, in the same order; so do FLOP, parameters, modules and the loss") {
  for_all_graphs([](const OpGraph& eager, const OpGraph& fused) {
    CHECK(products(fused) == products(eager));
    CHECK(forward_flop(fused) == forward_flop(eager));
    CHECK(fused.parameters.size() == eager.parameters.size());
    CHECK(fused.segments.size() == eager.segments.size());
    CHECK(fused.values[fused.loss].name == eager.values[eager.loss].name);
    std::vector<int> uses(eager.parameters.size()), uses_fused(eager.parameters.size());
    for (const Op& op : eager.ops)
      for (const ParameterId p : op.parameters) ++uses[static_cast<std::size_t>(p.index)];
    for (const Op& op : fused.ops)
      for (const ParameterId p : op.parameters) ++uses_fused[static_cast<std::size_t>(p.index)];
    CHECK(uses == uses_fused);
  });
}

TEST_CASE(
    "a compiled segment moves no more bytes than the eager one, forward and backward, and keeps no more") {
  for_all_graphs([](const OpGraph& eager, const OpGraph& fused) {
    for (std::size_t s = 0; s < eager.segments.size(); ++s) {
      CHECK(moved_forward(fused, fused.segments[s]) <= moved_forward(eager, eager.segments[s]));
      CHECK(moved_backward(fused, fused.segments[s]) <= moved_backward(eager, eager.segments[s]));
      CHECK(saved_bytes(fused, fused.segments[s], held(fused)) <=
            saved_bytes(eager, eager.segments[s], held(eager)));
    }
  });
}

TEST_CASE("a fused graph is sound: made once before used, kept only if read or made, gradients for all") {
  for_all_graphs([](const OpGraph&, const OpGraph& graph) {
    std::vector<int> made(graph.values.size(), 0);
    for (const OpId id : ids(graph.ops)) {
      const Op& op = graph.ops[id];
      for (const ValueId v : op.inputs) REQUIRE(made[static_cast<std::size_t>(v.index)] == 1);
      for (const ValueId v : op.outputs) ++made[static_cast<std::size_t>(v.index)];
      for (const ValueId v : op.saved)
        REQUIRE((std::find(op.inputs.begin(), op.inputs.end(), v) != op.inputs.end() ||
                 std::find(op.outputs.begin(), op.outputs.end(), v) != op.outputs.end()));
      REQUIRE(op.gradients.size() == op.inputs.size());
      for (std::size_t i = 0; i < op.inputs.size(); ++i) {
        const Value& input = graph.values[op.inputs[i]];
        REQUIRE((op.gradients[i] == Gradient::none) == !input.needs_grad);
        if (op.gradients[i] == Gradient::alias)
          REQUIRE(bytes_of(graph, op.inputs[i]) == bytes_of(graph, op.outputs.front()));
        if (op.gradients[i] == Gradient::same)
          REQUIRE(bytes_of(graph, op.inputs[i]) == bytes_of(graph, op.inputs[i - 1]));
      }
      for (const auto* values : {&op.inputs, &op.outputs})
        for (const ValueId v : *values) REQUIRE(graph.values[graph.values[v].storage].last_use >= id);
    }
    REQUIRE(std::all_of(made.begin(), made.end(), [](int times) { return times == 1; }));
    OpId next{0};
    for (const Segment& segment : graph.segments) {
      REQUIRE(segment.first == next);
      for (OpId op = segment.first; op < segment.last; ++op.index)
        REQUIRE(graph.ops[op].module == segment.module);
      next = segment.last;
    }
    REQUIRE(next == graph.ops.next_id());
  });
}

std::string text_of(const OpGraph& g) {
  std::string text;
  for (const Op& op : g.ops) {
    text += std::string(op.name) + (op.compiled ? " compiled" : "");
    for (const auto* values : {&op.inputs, &op.outputs, &op.saved}) {
      text += ";";
      for (const ValueId v : *values) text += " " + std::to_string(v.index);
    }
    for (const auto* kernels : {&op.forward, &op.backward})
      text += "; " + std::to_string(kernels->size()) + " " + std::to_string(moved(*kernels).count);
    text += "\n";
  }
  for (const Value& v : g.values)
    text += std::to_string(v.elements) + " " + std::to_string(v.storage.index) + " " +
            std::to_string(v.last_use.index) + "\n";
  return text;
}

TEST_CASE("fusing again changes nothing; nor does fusing what has no memory-bound operation in scope") {
  for_all_graphs([](const OpGraph&, const OpGraph& fused) {
    CHECK(text_of(fuse(fused, CompileScope::blocks)) == text_of(fused));
  });
  GraphBuilder builder(Workload{.micro_batch = 1, .sequence = 8, .numerics = bf16_on_shards});
  builder.begin_block("block");
  ValueId x = builder.from_host("x", 64);
  for (const char* name : {"a", "b"}) x = builder.linear(x, 8, 8, 8, builder.parameter(name, 8, 8));
  builder.begin_root();
  builder.total_loss({x});
  const OpGraph products_only = std::move(builder).finish();
  std::string compiled = text_of(fuse(products_only, CompileScope::blocks));
  for (std::size_t at = compiled.find(" compiled"); at != std::string::npos; at = compiled.find(" compiled"))
    compiled.erase(at, std::string(" compiled").size());
  CHECK(compiled == text_of(products_only));
}

// LLaMA's block in bf16, by hand: h = tokens * hidden, f = tokens * feed-forward, 2 bytes each.
TEST_CASE("LLaMA's block becomes one kernel per chain between its products") {
  const ModelSpec spec = small_llama(2, 640, 1000);
  const std::int64_t tokens = 2 * 128;
  const OpGraph graph = fuse(build(spec, {.micro_batch = 2,
                                          .sequence = 128,
                                          .attention = AttentionKind::flash2,
                                          .numerics = bf16_on_shards}),
                             CompileScope::blocks);
  const Segment& block = graph.segments[1];
  std::vector<std::string> names;
  for (OpId op = block.first; op < block.last; ++op.index) names.emplace_back(graph.ops[op].name);
  CHECK(names == std::vector<std::string>{"fused norm", "linear", "linear", "linear", "rotary q", "rotary k",
                                          "attention", "linear", "fused norm", "linear", "linear",
                                          "fused pointwise", "linear", "residual add"});
  const std::int64_t h = tokens * 256 * 2, f = tokens * 640 * 2;
  const auto op = [&](int i) -> const Op& { return graph.ops[OpId{block.first.index + i}]; };
  // The first norm: x in, the normalised out; back: its gradient and x in, that of x out; both again for the
  // weight. The second adds before: two in, the sum and its norm out; one gradient for both.
  CHECK(moved(op(0).forward).count == 2 * h);
  CHECK(moved(op(0).backward).count == 3 * h + 2 * h);
  CHECK(moved(op(8).forward).count == 4 * h);
  CHECK(moved(op(8).backward).count == 4 * h + 2 * h);
  CHECK(op(8).gradients == std::vector{Gradient::fresh, Gradient::same});
  // silu(gate) * up: two in, one out; back: three in, two out.
  CHECK(moved(op(11).forward).count == 3 * f);
  CHECK(moved(op(11).backward).count == 5 * f);
  CHECK(op(13).backward.empty());
  // Kept: x, the first norm's result, q and k rotated, v, context (and its log-sum-exp), the sum, the second
  // norm's result; gate, up, their product; two statistics per token; the rotation's tables.
  const std::int64_t small = 4 * (2 * 4 * 128 + 2 * tokens), tables = 2 * 2 * 128 * 64;
  CHECK(saved_bytes(graph, block).count == 8 * h + 3 * f + small + tables);
}

TEST_CASE(
    "dropout's mask is kept, a causal mask is not; softmax is kept by its input and two numbers per row") {
  const ModelSpec spec{.family = Family::gpt,
                       .layers = 1,
                       .hidden = 256,
                       .heads = 4,
                       .head_dim = 64,
                       .ffn = 1024,
                       .vocab = 1000,
                       .max_positions = 128,
                       .dropout = 0.1};
  const OpGraph graph =
      fuse(build(spec, {.micro_batch = 2, .sequence = 128, .dropout = 0.1, .numerics = bf16_autocast}),
           CompileScope::blocks);
  const auto softmax = std::find_if(graph.ops.begin(), graph.ops.end(),
                                    [](const Op& op) { return op.name == "fused softmax"; });
  REQUIRE(softmax != graph.ops.end());
  std::vector<std::string> kept;
  for (const ValueId v : softmax->saved) kept.emplace_back(graph.values[v].name);
  std::sort(kept.begin(), kept.end());
  CHECK(kept == std::vector<std::string>{"dropout mask", "scores", "statistics"});
  CHECK(softmax->outputs.size() == 3);  // dropped, mask, statistics
}

TEST_CASE("compiled fp8 casts an operand once for all products that read it") {
  const ModelSpec spec = small_llama(1, 640, 1000);
  const OpGraph graph = fuse(
      build(spec, {.micro_batch = 2, .sequence = 128, .attention = AttentionKind::flash2, .numerics = fp8}),
      CompileScope::blocks);
  std::vector<std::size_t> forward;
  const Segment& block = graph.segments[1];
  for (OpId op = block.first; op < block.last; ++op.index)
    if (graph.ops[op].kind == OpKind::linear) forward.push_back(graph.ops[op].forward.size());
  // q casts what the norm made and measured, k and v find it cast; out reads the attention's result, which
  // nothing fused made; then gate, up, down as q, k, q. The weight: magnitude, cast. The product.
  CHECK(forward == std::vector<std::size_t>{4, 3, 3, 5, 4, 3, 4});
}

}  // namespace
}  // namespace shardsim
