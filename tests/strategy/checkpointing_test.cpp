// Does each way of checkpointing and offloading keep, run again and move what it says, and nothing else?
#include <algorithm>
#include <map>

#include <doctest/doctest.h>

#include "sim/model/family.h"
#include "sim/program/count.h"
#include "sim/program/dump.h"
#include "sim/strategy/strategy.h"

#include "tests/support/print.h"
#include "tests/support/programs.h"
#include "tests/support/tiny_model.h"

namespace shardsim {
namespace {

constexpr Checkpointing modes[] = {Checkpointing::none, Checkpointing::full, Checkpointing::selective,
                                   Checkpointing::selective_op, Checkpointing::every_k};

// A GPT in which every tensor that counts is larger than what offload leaves alone.
struct Gpt {
  std::int64_t layers = 8, b = 2, s = 128, h = 256, a = 4, f = 1024, v = 512;
  double dropout = 0.1;
  Numerics numerics = bf16_on_shards;

  std::int64_t tokens() const { return b * s; }
  OpGraph build() const {
    const ModelSpec spec{.family = Family::gpt,
                         .layers = layers,
                         .hidden = h,
                         .heads = a,
                         .head_dim = h / a,
                         .ffn = f,
                         .vocab = v,
                         .max_positions = s,
                         .activation = Activation::gelu,
                         .dropout = dropout};
    return shardsim::build(spec, {.micro_batch = b, .sequence = s, .dropout = dropout, .numerics = numerics});
  }
};
struct T5 {
  std::int64_t encoder = 3, decoder = 2, b = 2, s = 64, t = 32, h = 256, a = 4;
  Numerics numerics = bf16_on_shards;

  OpGraph build() const {
    const ModelSpec spec{.family = Family::t5,
                         .encoder_layers = encoder,
                         .decoder_layers = decoder,
                         .hidden = h,
                         .heads = a,
                         .head_dim = 64,
                         .ffn = 1024,
                         .vocab = 2048,
                         .bias = false,
                         .dropout = 0.1};
    return shardsim::build(
        spec, {.micro_batch = b, .sequence = s, .decoder_sequence = t, .dropout = 0.1, .numerics = numerics});
  }
};

Program plain(const OpGraph& graph, const Training& training) {
  return compile(graph, training, Framework{}, 1, Strategy(Ddp{}));
}

// Activations on the device when the forward pass of a steady step is over.
std::int64_t kept(const Program& p) {
  std::int64_t bytes = 0;
  bool forward = true;
  for_each(p, Section::steady, [&](const Instruction& i) {
    if (const auto* mark = std::get_if<MarkBegin>(&i))
      forward = forward && p.labels[mark->label] != "backward";
    if (!forward) return;
    const auto add = [&](TensorId t, std::int64_t sign) {
      if (p.tensors[t].category == Category::activations && p.tensors[t].space == MemorySpace::device)
        bytes += sign * p.tensors[t].bytes.count;
    };
    if (const auto* alloc = std::get_if<Alloc>(&i)) add(alloc->tensor, 1);
    if (const auto* free = std::get_if<Free>(&i)) add(free->tensor, -1);
  });
  return bytes;
}
std::int64_t peak(const Program& p) {
  LiveBytes live(p);
  for (const Section s : {Section::init, Section::first}) live.run(s);
  return live.peak(Category::activations).count;
}
std::int64_t groups(std::int64_t blocks, std::int64_t k) { return (blocks + k - 1) / k; }

// --- bytes ------------------------------------------------------------------------------------------------

TEST_CASE("selective checkpointing spares 5 a s^2 b of a block at 16 bits, and the causal mask") {
  // Korthikanti et al. 2022, arXiv:2205.05198, section 5: softmax and its dropout's result 2 as^2b each, the
  // mask as^2b. Theirs has no causal mask of its own.
  const Gpt m;
  const OpGraph graph = m.build();
  const std::int64_t scores = m.b * m.a * m.s * m.s;
  CHECK(kept(plain(graph, {})) - kept(plain(graph, {.checkpointing = Checkpointing::selective})) ==
        m.layers * (5 * scores + m.s * m.s));
}

TEST_CASE("selective checkpointing of T5 spares 7 bytes per score and keeps the position biases") {
  const T5 m;
  const OpGraph graph = m.build();
  const std::int64_t self = m.b * m.a * m.s * m.s, decoder = m.b * m.a * m.t * m.t,
                     cross = m.b * m.a * m.t * m.s;
  CHECK(kept(plain(graph, {})) - kept(plain(graph, {.checkpointing = Checkpointing::selective})) ==
        7 * (m.encoder * self + m.decoder * (decoder + cross)) - 2 * (self + decoder + cross));
}

TEST_CASE("groups of k blocks keep one input each, and k blocks' saved sets while backward is in them") {
  const Gpt m{.v = 64};
  const OpGraph graph = m.build();
  const std::int64_t input = 2 * m.tokens() * m.h;
  const std::int64_t block = saved_bytes(graph, graph.segments[2]).count;
  const auto every = [&](std::int64_t k) {
    return plain(graph, {.checkpointing = Checkpointing::every_k, .checkpoint_every = k});
  };
  for (std::int64_t k = 1; k <= m.layers; ++k) {
    CAPTURE(k);
    const Program p = every(k);
    CHECK(kept(p) - kept(every(m.layers)) == (groups(m.layers, k) - 1) * input);
    if (m.layers % k != 0) continue;
    CHECK(peak(p) >= groups(m.layers, k) * input + k * block - input);  // the first block's is the group's
    CHECK(peak(p) <= kept(p) + (k + 1) * block);
  }
}

TEST_CASE("full checkpointing is groups of one block") {
  for (const auto& graph : {Gpt{.layers = 2}.build(), T5{}.build()}) {
    const Program one = plain(graph, {.checkpointing = Checkpointing::every_k, .checkpoint_every = 1});
    CHECK(dump(one, Section::steady) ==
          dump(plain(graph, {.checkpointing = Checkpointing::full}), Section::steady));
  }
}

TEST_CASE("groups never hold blocks of two stacks") {
  const T5 m{.encoder = 3, .decoder = 2};
  const OpGraph graph = m.build();
  int recomputations = 0;
  const Program p = plain(graph, {.checkpointing = Checkpointing::every_k, .checkpoint_every = 3});
  for_each(p, Section::steady, [&](const Instruction& i) {
    const auto* mark = std::get_if<MarkBegin>(&i);
    recomputations += mark != nullptr && p.labels[mark->label] == "recompute";
  });
  CHECK(recomputations == 2);
}

TEST_CASE("keeping half of the products lies between keeping everything and nothing") {
  for (const auto& graph : {Gpt{}.build(), T5{}.build(), Gpt{.numerics = bf16_autocast}.build()}) {
    const auto of = [&](Checkpointing c) { return kept(plain(graph, {.checkpointing = c})); };
    CHECK(of(Checkpointing::full) < of(Checkpointing::selective_op));
    CHECK(of(Checkpointing::selective_op) < of(Checkpointing::none));
  }
}

TEST_CASE("selective by operation keeps the inputs of blocks and the results of every second product") {
  // GPT's products: qkv (kept), out, up (kept), down.
  const Gpt m;
  const OpGraph graph = m.build();
  CHECK(kept(plain(graph, {.checkpointing = Checkpointing::selective_op})) -
            kept(plain(graph, {.checkpointing = Checkpointing::full})) ==
        m.layers * 2 * m.tokens() * (3 * m.h + m.f));
}

// --- what runs again --------------------------------------------------------------------------------------

TEST_CASE("hardware FLOP are what the kernels execute, model FLOP never change") {
  for (const auto& graph : {Gpt{}.build(), T5{}.build(), Gpt{.dropout = 0}.build()})
    for (const Checkpointing c : modes)
      for (const Strategy& s : {Strategy(Ddp{}), Strategy(Fsdp{.sharding_factor = 4}),
                                Strategy(Fsdp2{.sharding_factor = 4, .reshard = 2})}) {
        const Program p = compile(graph, {.micro_batches = 2, .checkpointing = c, .checkpoint_every = 2},
                                  Framework{}, 4, s);
        CHECK(count(p, Section::steady).executed.count == doctest::Approx(p.flop.hardware.count));
        CHECK(p.flop.model.count == doctest::Approx(3 * 2 * forward_flop(graph).count));
      }
}

double recomputed(const OpGraph& graph, Checkpointing c) {
  const Program p = plain(graph, {.checkpointing = c});
  return p.flop.hardware.count - p.flop.model.count;
}

TEST_CASE("selective checkpointing runs the attention's two products again") {
  const Gpt m;
  const double product = 2.0 * static_cast<double>(m.b * m.s * m.s * m.h);
  CHECK(recomputed(m.build(), Checkpointing::selective) ==
        doctest::Approx(2 * product * static_cast<double>(m.layers)));
}

TEST_CASE("a non-reentrant checkpoint stops before a last product that nothing needs") {
  // With dropout the mask behind it is needed, and the product runs on the way.
  Gpt with, without;
  without.dropout = 0;
  const double down = 2.0 * static_cast<double>(with.tokens() * with.f * with.h * with.layers);
  CHECK(recomputed(with.build(), Checkpointing::selective_op) -
            recomputed(without.build(), Checkpointing::selective_op) ==
        doctest::Approx(down));
  CHECK(recomputed(with.build(), Checkpointing::full) ==
        doctest::Approx(recomputed(without.build(), Checkpointing::full)));
}

// Kernels of the forward pass in order, and of each recomputation in order.
struct Kernels {
  std::vector<std::int32_t> forward;
  std::vector<std::vector<std::int32_t>> again;
};
Kernels kernels_of_blocks(const Program& p) {
  Kernels kernels;
  std::vector<std::string> marks;
  for_each(p, Section::steady, [&](const Instruction& i) {
    if (const auto* mark = std::get_if<MarkBegin>(&i)) {
      marks.push_back(p.labels[mark->label]);
      if (marks.back() == "recompute") kernels.again.emplace_back();
    }
    if (std::holds_alternative<MarkEnd>(i)) marks.pop_back();
    const auto* launch = std::get_if<Launch>(&i);
    if (launch == nullptr || marks.empty()) return;
    if (marks.front() == "forward" && marks.back() != "root") kernels.forward.push_back(launch->kernel.index);
    if (marks.back() == "recompute") kernels.again.back().push_back(launch->kernel.index);
  });
  return kernels;
}

TEST_CASE("whole blocks run again kernel by kernel as in forward, the last group first") {
  for (const auto& graph : {Gpt{}.build(), T5{}.build(), Gpt{.numerics = bf16_autocast}.build()})
    for (const std::int64_t k : {1, 2, 3}) {
      const Kernels kernels =
          kernels_of_blocks(plain(graph, {.checkpointing = Checkpointing::every_k, .checkpoint_every = k}));
      std::vector<std::int32_t> again;
      for (auto group = kernels.again.rbegin(); group != kernels.again.rend(); ++group)
        again.insert(again.end(), group->begin(), group->end());
      CHECK(again == kernels.forward);
    }
}

bool is_subsequence(const std::vector<std::int32_t>& part, const std::vector<std::int32_t>& whole) {
  auto next = part.begin();
  for (const std::int32_t k : whole)
    if (next != part.end() && *next == k) ++next;
  return next == part.end();
}

TEST_CASE("an attention core runs again as it ran, once per attention") {
  const T5 m;
  const Kernels kernels = kernels_of_blocks(plain(m.build(), {.checkpointing = Checkpointing::selective}));
  CHECK(kernels.again.size() == static_cast<std::size_t>(m.encoder + 2 * m.decoder));
  for (const auto& core : kernels.again) CHECK(is_subsequence(core, kernels.forward));
}

TEST_CASE("FSDP gathers again, and reshards, the blocks of a group whose backward is not running yet") {
  const OpGraph graph = TinyModel{.blocks = 4, .numerics = bf16_on_shards}.build();
  const Training training{.checkpointing = Checkpointing::every_k,
                          .checkpoint_every = 2,
                          .reduce = DType::bf16,
                          .gradient_clipping = false};
  // Blocks 1 and 3 are gathered three times: the gather ahead of their backward serves the recomputation.
  const char* expected =
      "AG root, AG block 1, AG block 2, AG block 3, AG block 4, "
      "AG block 4, AG block 3, RS block 4, AG block 3, AG block 2, RS block 3, AG block 1, RS block 2, "
      "AG block 1, RS block 1, RS root";
  for (const Strategy& s :
       {Strategy(Fsdp{.sharding_factor = 4}), Strategy(Fsdp2{.sharding_factor = 4, .reshard = 4})})
    CHECK(collectives_of(compile(graph, training, Framework{}, 4, s), Section::steady, Axis::shard) ==
          expected);
  // What stays unsharded is gathered once.
  CHECK(collectives_of(compile(graph, training, Framework{}, 4,
                               Strategy(Fsdp{.sharding_factor = 4, .reshard_after_forward = false})),
                       Section::steady, Axis::shard) ==
        "AG root, AG block 1, AG block 2, AG block 3, AG block 4, "
        "RS block 4, RS block 3, RS block 2, RS block 1, RS root");
}

// --- offload ----------------------------------------------------------------------------------------------

struct Moved {
  std::int64_t out = 0, back = 0;
};
Moved moved(const Program& p) {
  Moved bytes;
  for_each(p, Section::steady, [&](const Instruction& i) {
    const auto* copy = std::get_if<Copy>(&i);
    if (copy == nullptr || p.streams[copy->stream].name != "offload") return;
    (copy->direction == CopyDirection::device_to_host ? bytes.out : bytes.back) += copy->bytes.count;
  });
  return bytes;
}

TEST_CASE("offload moves what blocks save to the host and back, once") {
  const Gpt m;
  const OpGraph graph = m.build();
  std::int64_t saved = 0;
  for (const Segment& s : graph.segments)
    if (graph.modules[s.module].block) saved += saved_bytes(graph, s).count;
  const Moved none = moved(plain(graph, {.activation_offload = true}));
  CHECK(none.out == saved);
  CHECK(none.back == saved);
  const Moved full = moved(plain(graph, {.checkpointing = Checkpointing::full, .activation_offload = true}));
  CHECK(full.out == m.layers * 2 * m.tokens() * m.h);
  CHECK(full.back == full.out);
  CHECK(moved(plain(graph, {.micro_batches = 3, .activation_offload = true})).out == 3 * saved);
}

TEST_CASE("with offload two blocks' saved sets are on the device, however many blocks there are") {
  const auto of = [](std::int64_t layers) {
    const OpGraph graph = Gpt{.layers = layers, .v = 64}.build();
    return peak(plain(graph, {.activation_offload = true}));
  };
  CHECK(of(8) == of(5));
  CHECK(of(8) < peak(plain(Gpt{.v = 64}.build(), {})) / 2);
}

TEST_CASE("what several users hold stays on the device") {
  // The encoder's output and the position biases, which several blocks read, and casts of weights. The rest
  // is each block's input.
  const T5 m{.decoder = 3, .numerics = bf16_autocast};
  const Program p = plain(m.build(), {.checkpointing = Checkpointing::full, .activation_offload = true});
  CHECK(moved(p).out == 4 * m.h * m.b * (m.encoder * m.s + m.decoder * m.t));
}

TEST_CASE("every combination frees what it allocates, on the device and in the host's memory") {
  for (const auto& graph : {Gpt{.layers = 3}.build(), T5{}.build(), T5{.numerics = bf16_autocast}.build()})
    for (const Checkpointing c : modes)
      for (const bool offload : {false, true})
        for (const std::int64_t micro_batches : {1, 2})
          for (const Strategy& s :
               {Strategy(Ddp{}), Strategy(Fsdp{.sharding_factor = 4}), Strategy(Fsdp{.sharding_factor = 2}),
                Strategy(Fsdp{.sharding_factor = 4, .wrap = Wrap::model}),
                Strategy(Fsdp2{.sharding_factor = 4, .reshard = 4}),
                Strategy(Fsdp2{.sharding_factor = 4, .reshard = 2, .reshard_last_block = false})}) {
            const Program p = compile(graph,
                                      {.micro_batches = micro_batches,
                                       .checkpointing = c,
                                       .checkpoint_every = 2,
                                       .activation_offload = offload},
                                      Framework{}, 4, s);  // verified on the way
            const Counts counts = count(p, Section::steady);
            CHECK(counts.allocated == counts.freed);
            CHECK(moved(p).out == moved(p).back);
            CHECK((moved(p).out > 0) == offload);
          }
}

}  // namespace
}  // namespace shardsim
