// Do the programs move and hold what the strategies promise: bytes per rank, bytes per parameter, FLOP?
#include <doctest/doctest.h>

#include "sim/model/family.h"
#include "sim/program/count.h"
#include "sim/strategy/strategy.h"

#include "tests/support/print.h"
#include "tests/support/programs.h"
#include "tests/support/small_gpt.h"
#include "tests/support/tiny_model.h"

namespace shardsim {
namespace {

constexpr std::int64_t kib = 1024;

Bytes elements(std::int64_t n, DType t) { return storage(n, t); }

OpGraph small_t5(const Numerics& numerics = {}) {
  const ModelSpec spec{.family = Family::t5,
                       .encoder_layers = 2,
                       .decoder_layers = 2,
                       .hidden = 256,
                       .heads = 4,
                       .head_dim = 64,
                       .ffn = 1024,
                       .vocab = 2048,
                       .bias = false,
                       .dropout = 0.1};
  return build(
      spec, {.micro_batch = 2, .sequence = 64, .decoder_sequence = 32, .dropout = 0.1, .numerics = numerics});
}

LiveBytes after(const Program& p, std::initializer_list<Section> sections) {
  LiveBytes live(p);
  for (const Section s : sections) live.run(s);
  return live;
}

TEST_CASE(
    "between steps full sharding holds 12 bytes per parameter over F: fp32 parameter and Adam's moments") {
  for (const auto& graph : {small_gpt(bf16_on_shards), small_t5(bf16_on_shards)})
    for (const std::int64_t factor : {1, 2, 4, 8}) {
      const Program p =
          compile(graph, {.reduce = DType::bf16}, Framework{}, 8, Strategy(Fsdp{.sharding_factor = factor}));
      const LiveBytes live = after(p, {Section::init, Section::first});
      const double per_parameter =
          static_cast<double>(live.total().count * factor) / static_cast<double>(parameter_count(graph));
      CHECK(per_parameter == doctest::Approx(12).epsilon(0.01));  // padding of units to F and 16 bytes
      CHECK(live.now(Category::gradients) == Bytes{});
    }
}

TEST_CASE("full sharding holds ZeRO-3's 16 bytes per parameter over F when gradients are complete") {
  // ZeRO, arXiv:1910.02054, section 3: parameters, gradients and optimizer state; fp32 here: 4 + 4 + 8.
  const OpGraph graph = small_gpt(bf16_on_shards);
  const Program p =
      compile(graph, {.reduce = DType::bf16}, Framework{}, 8, Strategy(Fsdp{.sharding_factor = 8}));
  LiveBytes live = after(p, {Section::init, Section::first});
  std::int64_t shards = 0;
  for_each(p, Section::steady, [&](const Instruction& i) {
    if (const auto* alloc = std::get_if<Alloc>(&i))
      if (p.labels[p.tensors[alloc->tensor].label].ends_with("gradient shard"))
        shards += p.tensors[alloc->tensor].bytes.count;
  });
  const double per_parameter =
      static_cast<double>((live.total().count + shards) * 8) / static_cast<double>(parameter_count(graph));
  CHECK(per_parameter == doctest::Approx(16).epsilon(0.01));
}

TEST_CASE("between steps DDP holds 16 bytes per parameter: parameters, buckets, Adam's moments") {
  const OpGraph graph = small_gpt();
  const Program p = compile(graph, {}, Framework{}, 8, Strategy(Ddp{}));
  const LiveBytes live = after(p, {Section::init, Section::first, Section::second});
  CHECK(live.total() == elements(parameter_count(graph), DType::fp32) * 4);
}

TEST_CASE("gradients as bucket views save one copy of the gradients") {
  const OpGraph graph = small_gpt();
  const auto peak = [&](bool view) {
    const Program p = compile(graph, {}, Framework{}, 8, Strategy(Ddp{.gradient_as_bucket_view = view}));
    LiveBytes live = after(p, {Section::init, Section::first, Section::second});
    return live.peak(Category::gradients);
  };
  CHECK(peak(false) >= elements(parameter_count(graph), DType::fp32));
  std::int64_t largest = 0;  // one parameter's gradient on its way (the tied table's two parts, for a moment)
  for (const Parameter& p : graph.parameters) largest = std::max(largest, p.elements);
  CHECK(peak(true) <= elements(2 * largest + 4 * kib, DType::fp32));
}

TEST_CASE("full sharding moves each unit twice forward and once back, the root once and once") {
  for (const DType reduce : {DType::bf16, DType::fp32}) {
    const OpGraph graph = small_t5(bf16_on_shards);
    const Program p = compile(graph, {.reduce = reduce, .gradient_clipping = false}, Framework{}, 8,
                              Strategy(Fsdp{.sharding_factor = 8, .use_orig_params = false}));
    const Counts c = count(p, Section::steady);
    const std::int64_t all = parameter_count(graph), root = parameter_count(graph, ModuleId{0});
    const std::int64_t units = static_cast<std::int64_t>(graph.modules.size());
    CHECK(c[CollectiveKind::all_gather].count == 2 * units - 1);
    CHECK(c[CollectiveKind::reduce_scatter].count == units);
    // Units are padded to a multiple of F.
    const Bytes slack = elements(8 * units, DType::fp32) * 2;
    CHECK(c[CollectiveKind::all_gather].bytes >= elements(2 * all - root, DType::bf16));
    CHECK(c[CollectiveKind::all_gather].bytes <= elements(2 * all - root, DType::bf16) + slack);
    CHECK(c[CollectiveKind::reduce_scatter].bytes >= elements(all, reduce));
    CHECK(c[CollectiveKind::reduce_scatter].bytes <= elements(all, reduce) + slack);
  }
}

TEST_CASE("F = 1 moves what DDP's all-reduce moves, before padding") {
  const OpGraph graph = small_gpt();
  const Training training{.gradient_clipping = false};
  const Program ddp = compile(graph, training, Framework{}, 8, Strategy(Ddp{}));
  const Program replicated = compile(graph, training, Framework{}, 8,
                                     Strategy(Fsdp{.sharding_factor = 1, .use_orig_params = false}));
  CHECK(count(ddp, Section::steady)[CollectiveKind::all_reduce].bytes ==
        elements(parameter_count(graph), DType::fp32));
  CHECK(count(replicated, Section::steady)[CollectiveKind::all_reduce].bytes ==
        count(ddp, Section::steady)[CollectiveKind::all_reduce].bytes);
}

TEST_CASE("hybrid sharding all-reduces 1/F of the gradients") {
  const OpGraph graph = small_gpt(bf16_on_shards);
  const Program p = compile(graph, {.reduce = DType::bf16, .gradient_clipping = false}, Framework{}, 8,
                            Strategy(Fsdp{.sharding_factor = 4}));
  const Counts c = count(p, Section::steady);
  CHECK(c[CollectiveKind::all_reduce].bytes * 4 == c[CollectiveKind::reduce_scatter].bytes);
}

TEST_CASE("without checkpointing the kernels execute model FLOP, with it one forward of the blocks more") {
  const OpGraph graph = small_gpt();
  const double forward = forward_flop(graph).count;
  const auto executed = [&](Checkpointing c, const Strategy& s) {
    return count(compile(graph, {.checkpointing = c}, Framework{}, 4, s), Section::steady).executed.count;
  };
  for (const Strategy& s :
       {Strategy(Ddp{}), Strategy(Fsdp{.sharding_factor = 4}), Strategy(Fsdp{.sharding_factor = 2})}) {
    CHECK(executed(Checkpointing::none, s) == doctest::Approx(3 * forward));
    const double head = 2.0 * 2 * 128 * 256 * 2048;  // not in a block: never recomputed
    CHECK(executed(Checkpointing::full, s) == doctest::Approx(4 * forward - head));
  }
}

TEST_CASE("hardware FLOP of a program are what its kernels execute, when nothing is causal in one kernel") {
  for (const Checkpointing c : {Checkpointing::none, Checkpointing::full}) {
    const Program p =
        compile(small_t5(), {.micro_batches = 3, .checkpointing = c}, Framework{}, 4, Strategy(Ddp{}));
    CHECK(count(p, Section::steady).executed.count == doctest::Approx(p.flop.hardware.count));
    CHECK(p.flop.model.count <= p.flop.hardware.count);
  }
}

TEST_CASE("what a step allocates it frees, except Adam's state in step 1 and the buckets in step 2") {
  for (const auto& graph : {small_gpt(), small_t5(bf16_autocast)})
    for (const Strategy& s :
         {Strategy(Ddp{}), Strategy(Fsdp{.sharding_factor = 4}), Strategy(Fsdp{.sharding_factor = 1})}) {
      const Program p = compile(graph, {.micro_batches = 2}, Framework{}, 4, s);
      CHECK(count(p, Section::steady).allocated == count(p, Section::steady).freed);
      CHECK(count(p, Section::second).allocated == count(p, Section::second).freed);
      const Counts first = count(p, Section::first);
      CHECK(first.allocated - first.freed ==
            after(p, {Section::init, Section::first}).now(Category::optimizer_state));
    }
}

TEST_CASE("live bytes never fall when the batch, the sequence or the layers grow") {
  const auto peak = [](std::int64_t layers, std::int64_t batch, std::int64_t sequence, Checkpointing c) {
    const ModelSpec spec{.family = Family::gpt,
                         .layers = layers,
                         .hidden = 128,
                         .heads = 2,
                         .head_dim = 64,
                         .ffn = 512,
                         .vocab = 512,
                         .dropout = 0.1};
    const OpGraph graph =
        build(spec, {.micro_batch = batch, .sequence = sequence, .dropout = 0.1, .numerics = bf16_on_shards});
    const Program p = compile(graph, {.checkpointing = c, .reduce = DType::bf16}, Framework{}, 4,
                              Strategy(Fsdp{.sharding_factor = 4}));
    return after(p, {Section::init, Section::first, Section::second, Section::steady}).peak();
  };
  for (const Checkpointing c : {Checkpointing::none, Checkpointing::full})
    for (const std::int64_t n : {1, 2, 3, 5, 8}) {
      CHECK(peak(n + 1, 2, 64, c) >= peak(n, 2, 64, c));
      CHECK(peak(2, n + 1, 64, c) >= peak(2, n, 64, c));
      CHECK(peak(2, 2, 32 * (n + 1), c) >= peak(2, 2, 32 * n, c));
    }
}

TEST_CASE("checkpointing keeps one block input per block instead of all it saves") {
  const OpGraph graph = small_gpt(bf16_on_shards, 8);
  const auto peak = [&](Checkpointing c) {
    const Program p =
        compile(graph, {.checkpointing = c}, Framework{}, 4, Strategy(Fsdp{.sharding_factor = 4}));
    return after(p, {Section::init, Section::first}).peak(Category::activations);
  };
  CHECK(peak(Checkpointing::full).count < peak(Checkpointing::none).count * 2 / 3);
}

TEST_CASE(
    "under no_sync whole gradients accumulate: in the parameters' format under FSDP1, to reduce under "
    "FSDP2") {
  const OpGraph graph = small_gpt(bf16_on_shards);
  const double n = static_cast<double>(parameter_count(graph));
  const auto kept = [&](const Strategy& s, DType reduce, Category c) {
    const Program p =
        compile(graph, {.micro_batches = 4, .reduce = reduce, .no_sync = true}, Framework{}, 4, s);
    LiveBytes live = after(p, {Section::init});
    live.run(p[Section::first].front().body);
    return static_cast<double>(live.now(c).count) / n;
  };
  const Fsdp2 fully_shard{.sharding_factor = 4, .reshard = 4};
  CHECK(kept(Fsdp{.sharding_factor = 4}, DType::fp32, Category::communication_buffers) ==
        doctest::Approx(2).epsilon(0.001));  // padding of the flat parameters
  CHECK(kept(fully_shard, DType::fp32, Category::gradients) == doctest::Approx(4));
  CHECK(kept(fully_shard, DType::bf16, Category::gradients) == doctest::Approx(2));
}

TEST_CASE(
    "accumulated or offloaded, reduced shards of a unit are added or moved before the next unit's come") {
  const OpGraph graph = small_gpt(bf16_on_shards);
  const auto peak = [&](std::int64_t micro_batches, const Strategy& s) {
    const Program p =
        compile(graph, {.micro_batches = micro_batches, .reduce = DType::bf16}, Framework{}, 4, s);
    return after(p, {Section::init, Section::first, Section::second}).peak(Category::gradients);
  };
  const std::int64_t root = parameter_count(graph, ModuleId{0}), block = parameter_count(graph, ModuleId{1});
  const Bytes shard = elements(std::max(root, block) / 4 + 64, DType::fp32);  // with padding
  const Fsdp2 fully_shard{.sharding_factor = 4, .reshard = 4};
  const Bytes unreduced = elements(root + block, DType::bf16),
              shards = elements(parameter_count(graph) / 4 + 512, DType::fp32);
  CHECK(peak(1, fully_shard) <= shards + unreduced);
  CHECK(peak(3, fully_shard) <= shards + unreduced + shard);
  // The tied embedding's gradient of the head waits for the embedding's.
  const Fsdp2 offloaded{.sharding_factor = 4, .reshard = 4, .cpu_offload = true};
  CHECK(peak(1, offloaded) <= unreduced + shard);
  CHECK(peak(3, offloaded) == peak(1, offloaded));
}

TEST_CASE("offloaded, the GPU keeps nothing between steps and the host 16 bytes per parameter over F") {
  const OpGraph graph = small_gpt(bf16_on_shards);
  for (const Strategy& s : {Strategy(Fsdp{.sharding_factor = 4, .cpu_offload = true}),
                            Strategy(Fsdp2{.sharding_factor = 4, .reshard = 4, .cpu_offload = true})}) {
    const Program p = compile(graph, {.reduce = DType::bf16}, Framework{}, 4, s);
    CHECK(after(p, {Section::init, Section::first}).total() == Bytes{});
    LiveBytes host(p, true);
    host.run(Section::init);
    host.run(Section::first);
    CHECK(static_cast<double>(host.total().count) * 4 / static_cast<double>(parameter_count(graph)) ==
          doctest::Approx(16).epsilon(0.01));
    // Each gather reads the shard from the host, each reduction writes its gradient back.
    Bytes to_device, from_device;
    for_each(p, Section::steady, [&](const Instruction& i) {
      if (const auto* copy = std::get_if<Copy>(&i); copy != nullptr && copy->bytes > Bytes{8 << 10})
        (copy->direction == CopyDirection::host_to_device ? to_device : from_device) += copy->bytes;
    });
    const std::int64_t root = parameter_count(graph, ModuleId{0}), all = parameter_count(graph);
    CHECK(static_cast<double>(from_device.count) == doctest::Approx(static_cast<double>(all)).epsilon(0.01));
    CHECK(static_cast<double>(to_device.count) ==
          doctest::Approx(static_cast<double>(2 * all - root)).epsilon(0.01));
  }
}

TEST_CASE("pure 16-bit training holds half of everything: 8 bytes per parameter with gradients and Adam") {
  const OpGraph graph = small_gpt(Numerics{DType::bf16, DType::bf16, DType::bf16, false});
  const auto bytes_per_parameter = [&](const Strategy& s, std::int64_t share) {
    const Training training{.stored = DType::bf16, .reduce = DType::bf16};
    const Program p = compile(graph, training, Framework{}, 4, s);
    const LiveBytes live = after(p, {Section::init, Section::first, Section::second});
    return static_cast<double>((live.now(Category::parameters) + live.now(Category::optimizer_state)).count *
                               share) /
           static_cast<double>(parameter_count(graph));
  };
  CHECK(bytes_per_parameter(Ddp{}, 1) == doctest::Approx(6));
  CHECK(bytes_per_parameter(Fsdp{.sharding_factor = 4}, 4) == doctest::Approx(6).epsilon(0.01));
  CHECK(bytes_per_parameter(Fsdp2{.sharding_factor = 4, .reshard = 4}, 4) ==
        doctest::Approx(6).epsilon(0.01));
}

}  // namespace
}  // namespace shardsim
