// Do the collectives of each strategy go out in the order the framework issues them?
#include <doctest/doctest.h>

#include "sim/strategy/strategy.h"

#include "tests/support/programs.h"
#include "tests/support/tiny_model.h"

namespace shardsim {
namespace {

Program program(const Fsdp& options, std::int64_t world = 4,
                const Training& training = {.reduce = DType::bf16, .gradient_clipping = false}) {
  const OpGraph graph = TinyModel{.blocks = 3, .numerics = bf16_on_shards}.build();
  return compile(graph, training, Framework{}, world, Strategy(options));
}

// torch/distributed/fsdp: forward gathers in order; the root stays; BACKWARD_PRE gathers the next unit before
// the current one's gradients are reduced.
TEST_CASE("full sharding: forward gathers, then gathers run one ahead of reductions") {
  const Program p = program({.sharding_factor = 4});
  CHECK(collectives_of(p, Section::steady, Axis::shard) ==
        "AG root, AG block 1, AG block 2, AG block 3, "
        "AG block 3, AG block 2, RS block 3, AG block 1, RS block 2, RS block 1, RS root");
  CHECK(collectives_of(p, Section::first, Axis::shard) == collectives_of(p, Section::steady, Axis::shard));
}

TEST_CASE("BACKWARD_POST gathers the next unit after the gradients, before their reduction") {
  CHECK(collectives_of(program({.sharding_factor = 4, .backward_prefetch = BackwardPrefetch::post}),
                       Section::steady, Axis::shard) ==
        "AG root, AG block 1, AG block 2, AG block 3, "
        "AG block 3, AG block 2, RS block 3, AG block 1, RS block 2, RS block 1, RS root");
}

TEST_CASE("without prefetching each gather queues behind the reduction before it") {
  CHECK(collectives_of(program({.sharding_factor = 4, .backward_prefetch = BackwardPrefetch::none}),
                       Section::steady, Axis::shard) ==
        "AG root, AG block 1, AG block 2, AG block 3, "
        "AG block 3, RS block 3, AG block 2, RS block 2, AG block 1, RS block 1, RS root");
}

TEST_CASE("SHARD_GRAD_OP gathers once") {
  CHECK(collectives_of(program({.sharding_factor = 4, .reshard_after_forward = false}), Section::steady,
                       Axis::shard) ==
        "AG root, AG block 1, AG block 2, AG block 3, RS block 3, RS block 2, RS block 1, RS root");
}

TEST_CASE("hybrid sharding reduces each shard over the replicas, in a group of its own") {
  const Program p = program({.sharding_factor = 2});
  CHECK(collectives_of(p, Section::steady, Axis::shard) ==
        "AG root, AG block 1, AG block 2, AG block 3, "
        "AG block 3, AG block 2, RS block 3, AG block 1, RS block 2, RS block 1, RS root");
  CHECK(collectives_of(p, Section::steady, Axis::replica) == "AR block 3, AR block 2, AR block 1, AR root");
}

Program fully_shard(const Fsdp2& options, std::int64_t world = 4) {
  const OpGraph graph = TinyModel{.blocks = 3, .numerics = bf16_on_shards}.build();
  return compile(graph, {.reduce = DType::bf16, .gradient_clipping = false}, Framework{}, world,
                 Strategy(options));
}

// torch/distributed/fsdp/_fully_shard: as FSDP1 with BACKWARD_PRE.
TEST_CASE("fully_shard gathers twice, its backward one ahead of the reductions") {
  CHECK(collectives_of(fully_shard({.sharding_factor = 4, .reshard = 4}), Section::steady, Axis::shard) ==
        "AG root, AG block 1, AG block 2, AG block 3, "
        "AG block 3, AG block 2, RS block 3, AG block 1, RS block 2, RS block 1, RS root");
}

TEST_CASE("fully_shard keeps the last block when told to: backward needs it first") {
  CHECK(collectives_of(fully_shard({.sharding_factor = 4, .reshard = 4, .reshard_last_block = false}),
                       Section::steady, Axis::shard) ==
        "AG root, AG block 1, AG block 2, AG block 3, "
        "AG block 2, RS block 3, AG block 1, RS block 2, RS block 1, RS root");
}

TEST_CASE("fully_shard resharded to fewer ranks gathers among them in backward") {
  const Program p = fully_shard({.sharding_factor = 4, .reshard = 2});
  CHECK(collectives_of(p, Section::steady, Axis::shard) ==
        "AG root, AG block 1, AG block 2, AG block 3, RS block 3, RS block 2, RS block 1, RS root");
  CHECK(collectives_of(p, Section::steady, Axis::reshard) == "AG block 3, AG block 2, AG block 1");
}

TEST_CASE("full replication reduces whole gradients and gathers nothing") {
  const Program p = program({.sharding_factor = 1});
  CHECK(collectives_of(p, Section::steady, Axis::world) == "AR block 3, AR block 2, AR block 1, AR root");
  CHECK(collectives_of(p, Section::steady, Axis::shard).empty());
}

TEST_CASE("forward prefetch starts in step 2: the next gather goes out before the unit computes") {
  // Instructions before the gather of block 2, in the body of a micro-batch.
  const auto position = [](const Program& p, Section section) {
    const Body& body = p.bodies[p[section].front().body];
    const auto gather = std::find_if(body.begin(), body.end(), [&](const Instruction& i) {
      const auto* c = std::get_if<Collective>(&i);
      return c != nullptr && p.labels[c->label] == "block 2";
    });
    return gather - body.begin();
  };
  const Program without = program({.sharding_factor = 4}),
                with = program({.sharding_factor = 4, .forward_prefetch = true});
  CHECK(collectives_of(with, Section::steady, Axis::shard) ==
        collectives_of(without, Section::steady, Axis::shard));
  CHECK(position(with, Section::first) == position(without, Section::first));
  CHECK(position(with, Section::steady) < position(without, Section::steady));
}

TEST_CASE("one unit for the whole model: one gather, one reduction") {
  CHECK(collectives_of(program({.sharding_factor = 4, .wrap = Wrap::model}), Section::steady, Axis::shard) ==
        "AG root, RS root");
}

TEST_CASE("accumulation without no_sync reduces every micro-batch") {
  const Training twice{.micro_batches = 2, .reduce = DType::bf16, .gradient_clipping = false};
  const std::string once = collectives_of(program({.sharding_factor = 4}), Section::steady, Axis::shard);
  CHECK(collectives_of(program({.sharding_factor = 4}, 4, twice), Section::steady, Axis::shard) ==
        once + ", " + once);
}

TEST_CASE("clipping adds one scalar all-reduce over the ranks that hold different parts") {
  const std::string order = collectives_of(program({.sharding_factor = 4}, 4, {.reduce = DType::bf16}),
                                           Section::steady, Axis::shard);
  CHECK(order.ends_with("RS root, AR gradient norm"));
}

TEST_CASE("DDP: one bucket at the end of step 1, then buckets in the order in which gradients arrived") {
  const OpGraph graph = TinyModel{.blocks = 3}.build();
  const Ddp options{.bucket_cap = Bytes{16 << 10}};
  const Program p = compile(graph, Training{}, Framework{}, 4, Strategy(options));
  CHECK(collectives_of(p, Section::first, Axis::world) == "AR bucket of all gradients");
  CHECK(collectives_of(p, Section::steady, Axis::world) ==
        "AR bucket 0, AR bucket 1, AR bucket 2, AR bucket 3");
}

TEST_CASE("on one GPU every strategy is plain training") {
  const OpGraph graph = TinyModel{}.build();
  for (const Strategy& strategy : {Strategy(Ddp{}), Strategy(Fsdp{.sharding_factor = 1})}) {
    const Program p = compile(graph, Training{}, Framework{}, 1, strategy);
    CHECK(p.groups.empty());
    CHECK(p.streams.size() == 1);
  }
}

TEST_CASE("no_sync reduces in the last micro-batch only; full sharding still gathers in each") {
  const Training training{
      .micro_batches = 3, .reduce = DType::bf16, .gradient_clipping = false, .no_sync = true};
  const OpGraph graph = TinyModel{.blocks = 1, .numerics = bf16_on_shards}.build();
  const auto order = [&](const Strategy& s, Axis axis) {
    return collectives_of(compile(graph, training, Framework{}, 4, s), Section::steady, axis);
  };
  const std::string full = "AG root, AG block 1, AG block 1, ";
  CHECK(order(Fsdp{.sharding_factor = 4}, Axis::shard) == full + full + full + "RS block 1, RS root");
  CHECK(order(Fsdp2{.sharding_factor = 4, .reshard = 4}, Axis::shard) ==
        full + full + full + "RS block 1, RS root");
  // Unless forward frees it, a parameter stays unsharded until it is reduced.
  CHECK(order(Fsdp{.sharding_factor = 4, .reshard_after_forward = false}, Axis::shard) ==
        "AG root, AG block 1, RS block 1, RS root");
  CHECK(order(Fsdp{.sharding_factor = 1}, Axis::world) == "AR block 1, AR root");
  CHECK(order(Ddp{}, Axis::world) == "AR bucket 0");
  CHECK(order(Ddp{.gradient_as_bucket_view = true}, Axis::world) == "AR bucket 0");
}

}  // namespace
}  // namespace shardsim
