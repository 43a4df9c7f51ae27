// Do the laws hold on random small scenarios: conservation, causality, limits?
#include <map>

#include <doctest/doctest.h>

#include "sim/program/count.h"
#include "sim/report/json.h"
#include "sim/simulate/simulate.h"

#include "tests/support/free_of_charge.h"
#include "tests/support/print.h"
#include "tests/support/random_scenario.h"
#include "tests/support/seed.h"

namespace shardsim {
namespace {

Time total(const Breakdown& b) {
  Time sum;
  for (const Time t : b) sum += t;
  return sum;
}

struct World {
  Scenario scenario;
  Program program;
  Topology topology;

  explicit World(const Scenario& s) : scenario(s), program(compile(s)), topology(make_topology(s)) {}
  Cluster cluster() const { return make_cluster(scenario, topology); }
  Result run(std::vector<Span>* timeline = nullptr) const {
    return simulate(program, cluster(), {.timeline = timeline});
  }
};

template <class Check>
void for_random_scenarios(std::uint64_t seed, int count, const Check& check) {
  const std::uint64_t used = seed_of_run(seed);
  ScenarioGenerator generator(used);
  const Library library = test_library();
  for (int i = 0; i < random_runs(count); ++i) {
    const Settings settings = generator.next();
    CAPTURE(used);
    CAPTURE(i);
    INFO(describe(settings));
    check(resolve(settings, library));
  }
}

TEST_CASE("every picosecond of the step is attributed once") {
  for_random_scenarios(1, 60, [](const Scenario& s) {
    const Result r = run(s).result;
    REQUIRE_FALSE(r.out_of_memory());
    REQUIRE(total(r.breakdown) == r.step_time);
    Time phases;
    for (const Phase& p : r.phases) phases += p.time;
    REQUIRE(phases <= r.step_time);
  });
}

TEST_CASE("a stream runs one thing at a time, and kernels do not run before they are launched") {
  for_random_scenarios(2, 30, [](const Scenario& s) {
    std::vector<Span> timeline;
    World(s).run(&timeline);
    std::map<std::pair<int, int>, Time> busy_until;
    for (const Span& span : timeline) {
      REQUIRE(span.begin <= span.end);
      Time& until = busy_until[{span.rank.index, span.stream}];
      REQUIRE(span.begin >= until);
      until = span.end;
    }
  });
}

TEST_CASE("all ranks of a collective end together, and none ends before the last arrives") {
  for_random_scenarios(3, 30, [](const Scenario& s) {
    std::vector<Span> timeline;
    const World world(s);
    simulate(world.program, world.cluster(), {.fold = false, .timeline = &timeline});
    // The k-th collective of each rank on each stream, in the order of issue.
    std::map<std::pair<int, int>, int> count;
    std::map<std::pair<int, int>, std::vector<Span>> of;  // (stream, k) -> spans
    for (const Span& span : timeline)
      if (span.kind == Span::Kind::collective)
        of[{span.stream, count[{span.rank.index, span.stream}]++}].push_back(span);
    const Mesh& mesh = world.program.mesh;
    const bool one_group_per_axis = mesh.shard == 1 || mesh.shard == mesh.world;
    if (!one_group_per_axis) return;  // several groups of an axis need not be in step
    for (const auto& [key, spans] : of) {
      Time last_arrival;
      for (const Span& span : spans) last_arrival = std::max(last_arrival, span.begin);
      for (const Span& span : spans) {
        REQUIRE(span.end == spans.front().end);
        REQUIRE(span.end >= last_arrival);
      }
    }
  });
}

TEST_CASE("bytes on the wire are what the algorithms must move") {
  for_random_scenarios(4, 40, [](const Scenario& s) {
    const World world(s);
    const Result r = world.run();
    const Counts counts = count(world.program, Section::steady);
    for (const CollectiveKind kind :
         {CollectiveKind::all_gather, CollectiveKind::reduce_scatter, CollectiveKind::all_reduce}) {
      const Communication& c = r.communication[static_cast<std::size_t>(kind)];
      REQUIRE(c.count == counts[kind].count);
      REQUIRE(c.bytes == counts[kind].bytes);
      // A ring moves (R-1)/R of the data once, or twice for an all-reduce; a tree all of it twice.
      const std::int64_t passes = kind == CollectiveKind::all_reduce ? 2 : 1;
      REQUIRE(c.wire <= c.bytes * 2);
      REQUIRE(c.wire * 2 >= c.bytes * passes);
    }
  });
}

TEST_CASE("allocated <= active <= reserved <= what CUDA can give, and live requests fit in allocated") {
  for_random_scenarios(5, 60, [](const Scenario& s) {
    const Memory& m = run(s).result.memory;
    REQUIRE(m.peak_allocated <= m.peak_active);
    REQUIRE(m.peak_active <= m.peak_reserved);
    REQUIRE(m.peak_reserved + m.outside_allocator <= m.capacity);
    Bytes sum;
    for (const Bytes b : m.at_peak) sum += b;
    REQUIRE(sum == m.peak_allocated);
  });
}

TEST_CASE("the same input gives the same bytes") {
  for_random_scenarios(6, 20, [](const Scenario& s) {
    RunRecord a = run(s), b = run(s);
    a.wall_s = b.wall_s = 0;
    REQUIRE(to_json(a, {"", ""}) == to_json(b, {"", ""}));
  });
}

TEST_CASE("one GPU has no collectives") {
  for_random_scenarios(7, 80, [](const Scenario& s) {
    if (s.gpus > 1) return;
    const Result r = run(s).result;
    for (const Communication& c : r.communication) REQUIRE(c.count == 0);
  });
}

TEST_CASE("with free communication and a free host a step takes its kernels' time") {
  for_random_scenarios(8, 60, [](Scenario s) {
    if (!s.parts.empty()) return;
    free_host(s);
    free_communication(s);
    s.stragglers.clear();
    s.training.sync_each_step = true;  // the timeline ends with the step
    std::vector<Span> timeline;
    const Result r = World(s).run(&timeline);
    const Time begin = timeline.back().end - r.step_time;
    Time kernels;
    for (const Span& span : timeline)
      if (span.kind == Span::Kind::kernel && span.rank == r.slowest && span.stream == 0 &&
          span.begin >= begin)
        kernels += span.end - span.begin;
    // The transfers left are tiny: 4 PB/s.
    REQUIRE(seconds(r.step_time) == doctest::Approx(seconds(kernels)).epsilon(0.02));
  });
}

TEST_CASE("with free kernels and a free host a step takes its collectives' time") {
  for_random_scenarios(9, 60, [](Scenario s) {
    if (s.gpus == 1 || !s.parts.empty()) return;
    free_host(s);
    s.gpu.interference = {};
    s.gpu.memory_fixed = s.gpu.gemm_fixed = {};
    s.gpu.memory_bandwidth = Bandwidth{1'000'000'000'000'000'000};
    for (auto& profile : s.gpu.gemm)
      if (profile) profile->peak.count = profile->sustained.count = 1e24, profile->prologue = {};
    s.gpu.pcie = Bandwidth{24'000'000'000};
    s.stragglers.clear();
    const Result r = World(s).run();
    // In one group collectives queue; several groups overlap and wait for each other.
    const auto* fsdp = std::get_if<Fsdp>(&s.strategy);
    if (fsdp != nullptr && fsdp->sharding_factor != 1 && fsdp->sharding_factor != s.gpus) return;
    Time busy;
    for (const Communication& c : r.communication) busy += c.busy;
    REQUIRE(seconds(r.step_time) == doctest::Approx(seconds(busy)).epsilon(0.05));
  });
}

TEST_CASE("a slower GPU never makes the step shorter, with contention off") {
  for_random_scenarios(10, 45, [](Scenario s) {
    if (!s.parts.empty()) return;
    s.gpu.interference = {};
    s.gpu.sms = 1'000'000'000;
    s.stragglers.clear();
    const Time before = World(s).run().step_time;
    s.stragglers = {{Rank{0}, 0.7}};
    const Time after = World(s).run().step_time;
    REQUIRE(after >= before);
    REQUIRE(seconds(after) <= seconds(before) / 0.7 * 1.0001);
  });
}

}  // namespace
}  // namespace shardsim
