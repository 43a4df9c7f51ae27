// Is the whole program of a small model, instruction by instruction, what the framework issues? The goldens
// follow PyTorch's source (torch/distributed/fsdp/_runtime_utils.py,
// torch/csrc/distributed/c10d/reducer.cpp); each was compared with it by hand, line by line.
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

}  // namespace
}  // namespace shardsim
