// Is the whole program of a small model, instruction by instruction, what the framework issues? The goldens
// follow PyTorch's source (torch/distributed/fsdp/_runtime_utils.py,
// torch/csrc/distributed/c10d/reducer.cpp), and are to be read beside it.
#include "tests/support/golden.h"

#include <doctest/doctest.h>

#include "sim/program/dump.h"
#include "sim/strategy/strategy.h"

#include "tests/support/tiny_model.h"

namespace shardsim {
namespace {

constexpr Framework framework{.collectives_record_streams = true, .cublas_workspace = {}};

Program fsdp(std::int64_t factor) {
  const OpGraph graph = TinyModel{.numerics = bf16_on_shards}.build();
  return compile(graph, Training{.reduce = DType::bf16}, framework, 4,
                 Strategy(Fsdp{.sharding_factor = factor}));
}

TEST_CASE("full sharding, steady step") {
  check_golden(dump(fsdp(4), Section::steady), "strategy/golden/fsdp_full.txt");
}

TEST_CASE("full sharding, set-up: each unit is materialised, flattened and cut") {
  check_golden(dump(fsdp(4), Section::init), "strategy/golden/fsdp_init.txt");
}

TEST_CASE("hybrid sharding, steady step") {
  check_golden(dump(fsdp(2), Section::steady), "strategy/golden/fsdp_hybrid.txt");
}

TEST_CASE("DDP, second step: the buckets are rebuilt, then reduced as they fill") {
  const OpGraph graph = TinyModel{}.build();
  const Ddp small_buckets{.bucket_cap = Bytes{16 << 10}};
  const Program program = compile(graph, Training{}, framework, 4, Strategy(small_buckets));
  check_golden(dump(program, Section::second), "strategy/golden/ddp.txt");
}

TEST_CASE("offload of checkpointed blocks: one segment later the memory is free, one ahead it is back") {
  const OpGraph graph = TinyModel{.blocks = 3}.build();
  const Training training{.checkpointing = Checkpointing::full, .activation_offload = true};
  check_golden(dump(compile(graph, training, framework, 1, Strategy(Ddp{})), Section::steady),
               "strategy/golden/offload.txt");
}

TEST_CASE("two blocks under one checkpoint, fully sharded: the first is gathered, run and resharded again") {
  const OpGraph graph = TinyModel{.numerics = bf16_on_shards}.build();
  const Training training{
      .checkpointing = Checkpointing::every_k, .checkpoint_every = 2, .reduce = DType::bf16};
  check_golden(
      dump(compile(graph, training, framework, 4, Strategy(Fsdp{.sharding_factor = 4})), Section::steady),
      "strategy/golden/fsdp_every_2.txt");
}

}  // namespace
}  // namespace shardsim
