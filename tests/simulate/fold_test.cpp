// Does simulating one rank of each class give what simulating every rank gives, byte for byte?
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

// Everything a report shows, without the engine's own statistics.
std::string report_of(const Scenario& scenario, bool fold) {
  auto json = nlohmann::ordered_json::parse(to_json(run(scenario, {.fold = fold}), {"", ""}));
  json.erase("engine");
  return json.dump();
}

TEST_CASE("folded equals unfolded on random small clusters") {
  const std::uint64_t seed = seed_of_run(20231);
  ScenarioGenerator generator(seed);
  const Library library = test_library();
  int with_classes = 0, mixed = 0;
  for (int i = 0; i < 180; ++i) {
    const Settings settings = generator.next();
    CAPTURE(seed);
    CAPTURE(i);
    INFO(describe(settings));
    const Scenario scenario = resolve(settings, library);
    REQUIRE(report_of(scenario, true) == report_of(scenario, false));
    const Result folded = run(scenario).result;
    if (folded.engine.rank_classes == folded.engine.ranks) continue;
    ++with_classes;
    if (!scenario.parts.empty()) ++mixed;
  }
  CHECK(with_classes > 60);  // the comparison has bite
  CHECK(mixed > 15);
}

Job job_of(int ranks, int per_node, std::int64_t factor, std::vector<Straggler> stragglers = {},
           bool fold = true) {
  IdealWorld world(ranks, per_node);
  const Topology topology(world.spec, world.gpu, ranks);
  const Program p = program_of({ranks, factor}, [&](ProgramBuilder& b) {
    if (factor > 1) b.group(Axis::shard);
    if (factor < ranks) b.group(factor == 1 ? Axis::world : Axis::replica);
  });
  return place(p, Cluster{topology, world.gpu, world.stack, std::move(stragglers)}, fold);
}

TEST_CASE("ranks that are all alike are one class, of any number of GPUs and any sharding factor") {
  for (const int nodes : {1, 2, 8, 64})
    for (const std::int64_t factor : {1, 8, 8 * nodes}) {
      const Job job = job_of(8 * nodes, 8, factor);
      CAPTURE(nodes);
      CAPTURE(factor);
      REQUIRE(job.ranks.size() == 1);
      CHECK(job.ranks[RankClassId{0}].count == 8 * nodes);
    }
}

TEST_CASE("without folding every rank is a class") {
  const Job job = job_of(16, 8, 8, {}, false);
  CHECK(job.ranks.size() == 16);
  CHECK(job.communicators.size() == 2 + 8);
}

TEST_CASE("one straggler under full sharding makes two classes") {
  const Job job = job_of(64, 8, 64, {{Rank{17}, 0.9}});
  REQUIRE(job.ranks.size() == 2);
  CHECK(job.ranks[RankClassId{0}].count == 63);
  CHECK(job.ranks[RankClassId{1}].rank == Rank{17});
}

TEST_CASE("one straggler under hybrid sharding: itself, its node, its replicas, the rest") {
  const Job job = job_of(64, 8, 8, {{Rank{17}, 0.9}});
  REQUIRE(job.ranks.size() == 4);
  std::vector<std::int64_t> counts;
  for (const RankClass& r : job.ranks) counts.push_back(r.count);
  std::sort(counts.begin(), counts.end());
  CHECK(counts == std::vector<std::int64_t>{1, 7, 7, 49});
}

TEST_CASE("groups tile the ranks on every axis") {
  for (const std::int64_t world : {1, 6, 12, 16})
    for (std::int64_t factor = 1; factor <= world; ++factor) {
      if (world % factor != 0) continue;
      for (const Axis axis : {Axis::world, Axis::shard, Axis::replica}) {
        std::vector<int> seen(static_cast<std::size_t>(world), 0);
        for (const auto& group : members({world, factor}, axis))
          for (const Rank r : group) ++seen[static_cast<std::size_t>(r.index)];
        CHECK(std::all_of(seen.begin(), seen.end(), [](int n) { return n == 1; }));
      }
    }
}

}  // namespace
}  // namespace shardsim
