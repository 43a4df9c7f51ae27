// Does a cluster of several kinds of GPUs behave as its kinds do, each on its own and together?
#include <algorithm>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "sim/report/json.h"
#include "sim/simulate/job.h"

#include "tests/support/ideal_world.h"
#include "tests/support/print.h"
#include "tests/support/random_scenario.h"
#include "tests/support/seed.h"

namespace shardsim {
namespace {

using nlohmann::json;

json report_of(const Scenario& scenario) { return json::parse(to_json(run(scenario), {"", ""})); }
Scenario scenario_of(const std::string& text) {
  return resolve(read_scenario_text(text, "mixed.toml").settings, test_library());
}

TEST_CASE("a cluster in two parts that are alike is the undivided cluster") {
  const std::uint64_t seed = seed_of_run(41);
  ScenarioGenerator generator(seed);
  Random random(seed);
  int compared = 0;
  for (int i = 0; i < random_runs(100); ++i) {
    const Settings uniform = generator.next_uniform();
    CAPTURE(seed);
    CAPTURE(i);
    INFO(describe(uniform));
    const Scenario whole = resolve(uniform, test_library());
    const std::int64_t nodes = whole.gpus / whole.topology.node.gpus;
    if (nodes < 2) continue;
    const Scenario parts = resolve(in_parts(uniform, random.between(1, nodes - 1)), test_library());
    json a = report_of(whole), b = report_of(parts);
    CHECK(b["parts"].size() == 2);
    for (json* j : {&a, &b})
      for (const char* differs : {"scenario", "scenario_hash", "title", "engine", "parts"}) j->erase(differs);
    REQUIRE(a == b);
    ++compared;
  }
  CHECK(compared > random_runs(25));
}

std::string two_parts(const std::string& first, const std::string& second, const std::string& rest) {
  const auto part = [](const std::string& topology) {
    return "[[cluster.part]]\ntopology = \"" + topology + "\"\ngpus = 16\n";
  };
  return "model = \"gpt2\"\ntopology.fabric.kind = \"single-switch\"\n" + part(first) + part(second) +
         "[training]\nsequence_length = 256\nmicro_batch = 2\n" + rest;
}

TEST_CASE("exchanging parts under one switch changes nothing but the names of ranks") {
  for (const std::string rest : {"", "grad_accum = 3\n[strategy]\nkind = \"ddp\"\n",
                                 "[strategy]\nsharding_factor = 8\n", "[strategy]\nkind = \"zero2\"\n"}) {
    json a = report_of(scenario_of(two_parts("dgx1-v100-32gb", "dgx-a100-40gb", rest)));
    json b = report_of(scenario_of(two_parts("dgx-a100-40gb", "dgx1-v100-32gb", rest)));
    CAPTURE(rest);
    CHECK(a["step_time_s"] == b["step_time_s"]);
    CHECK(a["mfu"] == b["mfu"]);
    REQUIRE(a["parts"].size() == 2);
    for (const char* key : {"topology", "gpu", "gpus", "step_time_s", "breakdown_s"})
      for (int p : {0, 1}) CHECK(a["parts"][p][key] == b["parts"][1 - p][key]);
    for (const int p : {0, 1}) {
      json m = a["parts"][p]["memory_bytes"], n = b["parts"][1 - p]["memory_bytes"];
      m.erase("rank"), n.erase("rank");
      CHECK(m == n);
    }
  }
}

// Two kinds of ideal GPUs, 8 of each in nodes of 4: the second takes `slower` times as long for every kernel.
struct MixedWorld : IdealWorld {
  Gpu other;

  explicit MixedWorld(std::int64_t slower) : IdealWorld(16, 4), other(gpu) {
    other.name = "slower";
    other.memory_bandwidth.count /= slower;
  }
  Result run_mixed(const Program& program, bool slow_first, bool fold = true) const {
    const Gpu &first = slow_first ? other : gpu, &second = slow_first ? gpu : other;
    const Topology topology(spec, {{spec.node, first, 8}, {spec.node, second, 8}});
    return simulate(program,
                    Cluster{topology, gpu, stack, {}, {}, {}, {}, NetworkDetail::fluid, {&first, &second}},
                    {.fold = fold});
  }
  Result run_all(const Program& program, const Gpu& kind) const {
    const Topology topology(spec, kind, 16);
    return simulate(program, Cluster{topology, kind, stack, {}}, {});
  }
};

// Kernels of random lengths, with a small all-reduce of all ranks after each.
Program synchronous_program(Random& random) {
  return program_of({16, 16}, [&](ProgramBuilder& b) {
    const GroupId world = b.group(Axis::shard);
    for (int i = 0; i < 4; ++i) {
      b.launch(default_stream, kernel_of(1000 * random.between(1, 1000)), HostWork::forward_op, "work");
      b.wait_stream(b.stream_of(world), default_stream);
      b.collective(world, CollectiveKind::all_reduce, DType::fp32, Bytes{1600}, "sync");
      b.wait_stream(default_stream, b.stream_of(world));
    }
  });
}

Time spent(const Breakdown& b, Spent on) { return b[static_cast<std::size_t>(on)]; }

TEST_CASE("a synchronous step takes what it takes the slower kind alone, and the faster kind waits for it") {
  const std::uint64_t seed = seed_of_run(42);
  Random random(seed);
  for (int i = 0; i < 20; ++i) {
    CAPTURE(seed);
    CAPTURE(i);
    const MixedWorld world(random.between(2, 5));
    const Program program = synchronous_program(random);
    const Result fast = world.run_all(program, world.gpu), slow = world.run_all(program, world.other);
    for (const bool slow_first : {true, false}) {
      const Result mixed = world.run_mixed(program, slow_first);
      REQUIRE(mixed.step_time == slow.step_time);
      REQUIRE(mixed.step_time > fast.step_time);
      REQUIRE(mixed.parts.size() == 2);
      const PartResult &slower = mixed.parts[slow_first ? 0 : 1], &faster = mixed.parts[slow_first ? 1 : 0];
      REQUIRE(slower.step_time == faster.step_time);
      REQUIRE(spent(slower.breakdown, Spent::straggler_wait) == Time{});
      REQUIRE(spent(faster.breakdown, Spent::compute) == spent(fast.breakdown, Spent::compute));
      REQUIRE(spent(faster.breakdown, Spent::straggler_wait) ==
              spent(slow.breakdown, Spent::compute) - spent(fast.breakdown, Spent::compute));
      const Result unfolded = world.run_mixed(program, slow_first, false);
      REQUIRE(unfolded.step_time == mixed.step_time);
      REQUIRE(unfolded.breakdown == mixed.breakdown);
    }
  }
}

TEST_CASE("every part is a class of its own, and what is alike in it is simulated once") {
  const MixedWorld world(2);
  for (const std::int64_t factor : {1, 4, 8, 16}) {
    const Program p = program_of({16, factor}, [&](ProgramBuilder& b) {
      if (factor > 1) b.group(Axis::shard);
      if (factor < 16) b.group(factor == 1 ? Axis::world : Axis::replica);
    });
    const Topology topology(world.spec, {{world.spec.node, world.gpu, 8}, {world.spec.node, world.other, 8}});
    const Job job = place(p,
                          Cluster{topology,
                                  world.gpu,
                                  world.stack,
                                  {},
                                  {},
                                  {},
                                  {},
                                  NetworkDetail::fluid,
                                  {&world.gpu, &world.other}},
                          true);
    CAPTURE(factor);
    REQUIRE(job.ranks.size() == 2);
    for (const RankClass& r : job.ranks) {
      CHECK(r.count == 8);
      CHECK(r.rank.index == 8 * r.part);
    }
    for (const Communicator& c : job.communicators) {
      const bool spans = factor == 16 || job.communicators.size() == 1 || c.count == factor;
      CHECK(c.parts == (spans ? std::vector<int>{0, 1} : std::vector<int>{c.members[0].index}));
    }
  }
}

TEST_CASE("a group on several parts is as the oldest GPU and the worst transport of them") {
  MixedWorld world(2);
  world.other.architecture = Architecture::volta;
  NodeSpec poor = world.spec.node;
  poor.transport.half_rate_mib = 2;
  poor.transport.ll128 = true;
  poor.network_overhead = Time{7};
  const Topology topology(world.spec, {{world.spec.node, world.gpu, 8}, {poor, world.other, 8}});
  const Cluster cluster{
      topology, world.gpu, world.stack, {}, {}, {}, {}, NetworkDetail::fluid, {&world.gpu, &world.other}};
  for (const std::vector<int>& parts : {std::vector<int>{0, 1}, std::vector<int>{1}, std::vector<int>{0}}) {
    const CollectiveModel m = collective_model(cluster, parts);
    const bool has_poor = parts.back() == 1;
    CHECK(m.architecture == (has_poor ? Architecture::volta : Architecture::ampere));
    CHECK(m.transport.half_rate_mib == (has_poor ? 2 : 0));
    CHECK(m.network_overhead == Time{has_poor ? 7 : 0});
    CHECK(m.transport.ll128 == (parts.front() == 1));
  }
}

// --- memory -----------------------------------------------------------------------------------------------

std::string ddp_on(const std::string& first, const std::string& second, int micro_batch) {
  return "model = \"gpt2-xl\"\n[[cluster.part]]\ntopology = \"" + first +
         "\"\ngpus = 8\n[[cluster.part]]\ntopology = \"" + second +
         "\"\ngpus = 8\n[training]\nprecision = \"fp16-mixed\"\nattention = \"unfused\"\n"
         "sequence_length = 512\nmicro_batch = " +
         std::to_string(micro_batch) + "\n[strategy]\nkind = \"ddp\"\n";
}

TEST_CASE("memory runs out on the part whose GPUs are too small, wherever it stands") {
  const Result second = run(scenario_of(ddp_on("dgx-a100-80gb", "dgx1-v100-16gb", 4))).result;
  REQUIRE(second.out_of_memory());
  CHECK(second.oom->rank == Rank{8});
  const Result first = run(scenario_of(ddp_on("dgx1-v100-16gb", "dgx-a100-80gb", 4))).result;
  REQUIRE(first.out_of_memory());
  CHECK(first.oom->rank == Rank{0});
  CHECK_FALSE(run(scenario_of(ddp_on("dgx-a100-80gb", "dgx-a100-80gb", 4))).result.out_of_memory());
}

TEST_CASE("the fullest rank is the one nearest to its own capacity") {
  for (const bool small_first : {true, false}) {
    const std::string small = "dgx-a100-40gb", large = "dgx-a100-80gb";
    const Result r =
        run(scenario_of(ddp_on(small_first ? small : large, small_first ? large : small, 1))).result;
    REQUIRE_FALSE(r.out_of_memory());
    const std::size_t part = small_first ? 0 : 1;
    CHECK(r.memory.rank == Rank{small_first ? 0 : 8});
    CHECK(r.memory.capacity == gpu_named("a100-sxm-40gb").memory);
    CHECK(r.parts[part].memory.peak_reserved == r.memory.peak_reserved);
    CHECK(r.parts[1 - part].memory.capacity == gpu_named("a100-sxm-80gb").memory);
    CHECK(r.parts[1 - part].memory.rank == Rank{small_first ? 8 : 0});
  }
}

TEST_CASE("long accumulation on a mixed cluster is continued, not replayed, with the same figures per part") {
  const std::string text = two_parts("dgx1-v100-32gb", "dgx-a100-40gb", "grad_accum = 40\n");
  const Scenario s = scenario_of(text);
  const Program program = compile(s);
  const Topology topology = make_topology(s);
  std::vector<Span> timeline;  // a timeline is replayed in full
  const Result full = simulate(program, make_cluster(s, topology), {.timeline = &timeline});
  const Result continued = simulate(program, make_cluster(s, topology));
  CHECK(continued.engine.events < full.engine.events);
  CHECK(continued.step_time == full.step_time);
  REQUIRE(continued.parts.size() == 2);
  for (const std::size_t p : {0u, 1u}) {
    CHECK(continued.parts[p].step_time == full.parts[p].step_time);
    CHECK(continued.parts[p].breakdown == full.parts[p].breakdown);
  }
}

}  // namespace
}  // namespace shardsim
