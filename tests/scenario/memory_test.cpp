// Does a scenario's memory add up: the allocator's options, what is outside it, and the timeline?
#include <doctest/doctest.h>

#include "sim/scenario/scenario.h"

#include "tests/support/print.h"
#include "tests/support/random_scenario.h"
#include "tests/support/scenario_of.h"
#include "tests/support/seed.h"

namespace shardsim {
namespace {
using namespace literals;

Scenario scenario(const std::vector<std::string>& sets) {
  return resolve(scenario_of(sets).settings, test_library());
}
Scenario small(std::vector<std::string> sets) {
  sets.insert(sets.begin(), {"model=t5-small", "topology=dgx-a100-80gb", "cluster.gpus=16"});
  return scenario(sets);
}

TEST_CASE("the allocator's options are PyTorch's unless given") {
  const AllocatorConfig usual = small({}).allocator;
  CHECK_FALSE(usual.expandable_segments);
  CHECK(usual.max_split_size == AllocatorConfig::unlimited);
  CHECK(usual.garbage_collection_threshold == 0);
  CHECK_FALSE(usual.memory_fraction);
  CHECK(usual.roundup_power2_divisions == 0);
  const AllocatorConfig given =
      small({"allocator.max_split_size_mb=64", "allocator.memory_fraction=1",
             "allocator.garbage_collection_threshold=0.75", "allocator.roundup_power2_divisions=4"})
          .allocator;
  CHECK(given.max_split_size == 64_MiB);
  CHECK(given.memory_fraction == 1);
  CHECK(given.garbage_collection_threshold == 0.75);
  CHECK(given.roundup_power2_divisions == 4);
  CHECK(small({"allocator.expandable_segments=true"}).allocator.expandable_segments);
}

// aten/src/ATen/cuda/CublasHandlePool.cpp, parseChosenWorkspaceSize
TEST_CASE("cuBLAS takes 8.125 MiB per thread that multiplies, on Hopper 32") {
  for (const char* name : {"eager-2022", "eager-2023"}) {
    const Stack stack = stack_named(name);
    const auto workspace = [&](Architecture a) {
      return stack.cublas_workspace[static_cast<std::size_t>(a)];
    };
    CHECK(workspace(Architecture::volta) == 8_MiB + 128_KiB);
    CHECK(workspace(Architecture::ampere) == 8_MiB + 128_KiB);
    CHECK(workspace(Architecture::hopper) == 32_MiB);
  }
  Bytes workspaces;
  const Program program = compile(small({"strategy.kind=ddp"}));
  for (const Tensor& t : program.tensors)
    if (program.labels[t.label].starts_with("cuBLAS workspace")) workspaces += t.bytes;
  CHECK(workspaces == 2 * (8_MiB + 128_KiB));
}

// One for the data-parallel group; hybrid sharding has one to shard and one to replicate; FSDP2 gets another
// when it reshards to fewer ranks.
TEST_CASE("every process group of a strategy has NCCL memory of its own, and only those") {
  struct Expected {
    std::vector<std::string> sets;
    std::int64_t communicators;
  };
  for (const Expected& e : {Expected{{"strategy.kind=ddp"}, 1},
                            {{"strategy.kind=fsdp"}, 1},
                            {{"strategy.kind=fsdp", "strategy.sharding_factor=8"}, 2},
                            {{"strategy.kind=fsdp2"}, 1},
                            {{"strategy.kind=fsdp2", "strategy.sharding_factor=8"}, 2}}) {
    CAPTURE(e.sets);
    const Scenario s = small(e.sets);
    CHECK(static_cast<std::int64_t>(compile(s).groups.size()) == e.communicators);
    const Bytes outside = run(s).result.memory.outside_allocator;
    const Bytes buffers = outside - s.gpu.context - s.stack.nccl.of(s.gpu.architecture).first_use;
    const Bytes channel = s.stack.nccl.per_connection * s.stack.nccl.connections;
    CHECK(buffers.count % channel.count == 0);
    CHECK(buffers >= channel * e.communicators);
  }
}

void check_timeline(const Scenario& s) {
  MemoryTimeline memory;
  const Result r = run(s, {.memory = &memory}).result;
  REQUIRE_FALSE(memory.rows.empty());
  CHECK(memory.rank == r.memory.rank);
  Bytes allocated, active, reserved;
  const MemoryRow* previous = &memory.rows.front();
  for (const MemoryRow& row : memory.rows) {
    REQUIRE(row.at >= previous->at);
    REQUIRE(row.step >= previous->step);
    REQUIRE(row.allocated <= row.active);
    REQUIRE(row.active <= row.reserved);
    Bytes sum;
    for (const Bytes b : row.live) {
      REQUIRE(b >= 0_B);
      sum += b;
    }
    REQUIRE(sum == row.allocated);
    allocated = std::max(allocated, row.allocated);
    active = std::max(active, row.active);
    reserved = std::max(reserved, row.reserved);
    previous = &row;
  }
  CHECK(allocated == r.memory.peak_allocated);
  CHECK(active == r.memory.peak_active);
  CHECK(reserved == r.memory.peak_reserved);
  CHECK(memory.rows.front().step == 0);
  if (!r.out_of_memory()) CHECK(memory.rows.back().step >= r.steps);
}

TEST_CASE("the memory timeline reaches the reported peaks to the byte, and its categories sum in every row") {
  bool died = false, retried = false;
  for (std::uint64_t i = 0; i < 40; ++i) {
    const std::uint64_t seed = seed_of_run(i);
    CAPTURE(seed);
    Random random(seed);
    Settings settings = ScenarioGenerator(seed).next();
    const auto set = [&](const std::string& key, const Scalar& value) {
      settings.set(key, value, {Origin::Kind::file, {"random"}, {}});
    };
    if (random.chance(2)) {  // of 32 or 80 GiB: from far too little to enough
      set("allocator.memory_fraction", 0.001 * static_cast<double>(random.between(2, 30)));
      if (random.chance(2)) set("allocator.garbage_collection_threshold", 0.5);
    }
    if (random.chance(3)) set("allocator.expandable_segments", true);
    CAPTURE(describe(settings));
    const Scenario s = resolve(settings, test_library());
    check_timeline(s);
    const Result r = run(s).result;
    died |= r.out_of_memory();
    retried |= r.memory.alloc_retries > 0 && !r.out_of_memory();
  }
  if (std::getenv("SHARDSIM_SEED") == nullptr) {  // the seeds above reach both
    CHECK(died);
    CHECK(retried);
  }
}

TEST_CASE("a run that records its memory gives the same result") {
  const Scenario s = small({});
  MemoryTimeline memory;
  const Result plain = run(s).result, recorded = run(s, {.memory = &memory}).result;
  CHECK(plain.step_time == recorded.step_time);
  CHECK(plain.memory.peak_reserved == recorded.memory.peak_reserved);
  CHECK(plain.engine.events == recorded.engine.events);
}

}  // namespace
}  // namespace shardsim
