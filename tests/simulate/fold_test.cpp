// Does simulating one rank of each class give what simulating every rank gives, byte for byte?
#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "sim/engine/parallel.h"
#include "sim/report/json.h"
#include "sim/simulate/job.h"

#include "tests/support/ideal_world.h"
#include "tests/support/print.h"
#include "tests/support/random_scenario.h"
#include "tests/support/scenario_of.h"
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
  for (int i = 0; i < random_runs(180); ++i) {
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
  CHECK(with_classes > random_runs(60));  // the comparison has bite
  CHECK(mixed > random_runs(15));
}

// Up to 64 GPUs, with whatever breaks the symmetry of nodes.
Settings on_more_gpus(const Settings& small, Random& random) {
  Settings s;
  s.scenario = small.scenario;
  const auto dropped = [](const std::string& key) {
    return key == "cluster.gpus" || key == "topology.node.nics" || key.starts_with("topology.fabric") ||
           key.starts_with("strategy") || key.starts_with("straggler") || key.starts_with("degraded_link") ||
           key.starts_with("background_job");
  };
  for (const auto& [key, setting] : small.all())
    if (!dropped(key)) s.set(key, setting.value, setting.origin);
  const auto set = [&](const std::string& key, Scalar value) {
    s.set(key, std::move(value), {Origin::Kind::file, {"random"}, {}});
  };
  const std::int64_t node = std::get<std::int64_t>(small.find("topology.node.gpus")->value);
  const bool one_node = node > 1 && random.chance(8);  // partly filled
  const std::int64_t gpus = one_node ? random.between(1, node) : node * random.between(2, 64 / node);
  const std::int64_t nodes = (gpus + node - 1) / node;
  set("cluster.gpus", gpus);
  const std::int64_t nics = random.chance(2) ? node : (node + 1) / 2;
  set("topology.node.nics", nics);
  const std::int64_t kind = random.between(0, 2), per_leaf = random.between(1, 6);
  set("topology.fabric.kind", std::string(name(static_cast<FabricKind>(kind))));
  if (kind > 0) {
    set("topology.fabric.nodes_per_leaf", per_leaf);
    set("topology.fabric.oversubscription", random.chance(2) ? 1.0 : 3.0);
  }
  std::vector<std::int64_t> factors;
  for (std::int64_t f = 1; f <= gpus; ++f)
    if (gpus % f == 0) factors.push_back(f);
  const auto factor =
      factors[static_cast<std::size_t>(random.between(0, static_cast<std::int64_t>(factors.size()) - 1))];
  const bool fsdp2 = random.chance(2);
  set("strategy.kind", std::string(fsdp2 ? "fsdp2" : "fsdp"));
  set("strategy.sharding_factor", factor);
  if (fsdp2 && random.chance(2))
    for (std::int64_t r = random.between(2, 16); r < factor; ++r)
      if (factor % r == 0) {
        set("strategy.reshard_after_forward", r);
        break;
      }
  if (random.chance(2)) {
    set("straggler[0].gpu", random.between(0, gpus - 1));
    set("straggler[0].compute_scale", 0.8);
  }
  const auto on_some_node = [&](const std::string& key, const char* device, std::int64_t count) {
    set(key + "node", random.between(0, nodes - 1));
    set(key + "device", device + std::to_string(random.between(0, count - 1)));
  };
  if (random.chance(3)) {
    on_some_node("degraded_link[0].", "nic", nics);
    set("degraded_link[0].scale", 0.5);
  } else if (random.chance(3) && gpus > 1 && node > 1) {
    on_some_node("degraded_link[0].", "gpu", std::min(gpus, node));
    set("degraded_link[0].scale", 0.5);
  }
  const std::int64_t pods = (nodes + per_leaf - 1) / per_leaf;
  if (kind > 0 && random.chance(3)) {
    set("background_job[0].gb_per_s", 20.0);
    if (random.chance(2)) set("background_job[0].leaf", random.between(0, pods - 1));
  } else if (random.chance(4)) {
    on_some_node("background_job[0].", "nic", nics);
    set("background_job[0].gb_per_s", 10.0);
  }
  return s;
}

// Random jobs on up to 64 GPUs, until `count` of them were of use to `check`.
template <class Check>
void for_jobs_on_more_gpus(std::uint64_t fallback, int count, const Check& check) {
  const std::uint64_t seed = seed_of_run(fallback);
  ScenarioGenerator generator(seed);
  Random random(seed + 2);
  const Library library = test_library();
  for (int i = 0, used = 0; used < count; ++i) {
    Settings settings = on_more_gpus(generator.next_uniform(), random);
    CAPTURE(seed);
    CAPTURE(i);
    if (settings.list_size("degraded_link") + settings.list_size("background_job") == 0 && random.chance(2))
      settings = generator.mixed(settings);
    INFO(describe(settings));
    used += check(resolve(settings, library)) ? 1 : 0;
  }
}

TEST_CASE("folded equals unfolded on clusters with leaves, hybrid sharding, odd sizes and what-ifs") {
  int folded_away = 0;
  for_jobs_on_more_gpus(7411, random_runs(60), [&](const Scenario& scenario) {
    REQUIRE(report_of(scenario, true) == report_of(scenario, false));
    const Result folded = run(scenario).result;
    if (2 * folded.engine.rank_classes <= folded.engine.ranks) ++folded_away;
    return true;
  });
  CHECK(folded_away > random_runs(20));
}

// With the engine's counts, too.
std::string unfolded(const Scenario& scenario, int threads) {
  std::string report;
  with_threads(threads, [&] {
    auto json = nlohmann::ordered_json::parse(to_json(run(scenario, {.fold = false}), {"", ""}));
    json["engine"].erase("wall_s");
    report = json.dump();
  });
  return report;
}

TEST_CASE("every rank gives the same on any number of threads") {
  for_jobs_on_more_gpus(5150, random_runs(12), [&](const Scenario& scenario) {
    if (scenario.gpus < 48) return false;  // too few for several lanes
    REQUIRE(unfolded(scenario, 1) == unfolded(scenario, 3));
    return true;
  });
  const Library library = test_library();
  for (const char* of_strategy :
       {"strategy.cpu_offload=parameters", "network.detail=chunk", "jitter.mode=sampled",
        "training.micro_batch=512"}) {  // the last is out of memory
    INFO(of_strategy);
    const Scenario scenario = resolve(scenario_of({"model=gpt2", "topology=dgx-a100-40gb", "cluster.gpus=48",
                                                   "strategy.kind=fsdp", of_strategy})
                                          .settings,
                                      library);
    CHECK(unfolded(scenario, 1) == unfolded(scenario, 4));
  }
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
