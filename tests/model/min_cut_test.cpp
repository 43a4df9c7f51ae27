// Is what is kept enough, and is nothing cheaper enough?
#include "sim/model/min_cut.h"

#include <limits>

#include <doctest/doctest.h>

#include "sim/base/random.h"

#include "tests/support/seed.h"

namespace shardsim {
namespace {

std::size_t at(int i) { return static_cast<std::size_t>(i); }

// Everything wanted is kept, or made from what is kept; what is given can only be kept.
bool enough(const KeepGraph& g, const std::vector<bool>& kept) {
  std::vector<bool> there = kept;
  const auto makes = [&](auto&& self, int v) -> bool {
    if (there[at(v)]) return true;
    if (g.vertices[at(v)].given) return false;
    for (const auto& [from, to] : g.edges)
      if (to == v && !self(self, from)) return false;
    return true;
  };
  for (int v = 0; v < static_cast<int>(g.vertices.size()); ++v)
    if (g.vertices[at(v)].wanted && !makes(makes, v)) return false;
  return true;
}

TEST_CASE("kept values are enough to make all that is wanted, and no cheaper set is") {
  const std::uint64_t seed = seed_of_run(2024);
  INFO("SHARDSIM_SEED=" << seed);
  Random random(seed);
  for (int round = 0; round < 300; ++round) {
    KeepGraph g;
    const int n = static_cast<int>(random.between(1, 9));
    for (int v = 0; v < n; ++v)
      g.vertices.push_back({random.between(0, 20), random.between(0, 2) == 0, random.between(0, 2) == 0});
    for (int to = 1; to < n; ++to)
      for (int from = 0; from < to; ++from)
        if (random.between(0, 2) == 0) g.edges.emplace_back(from, to);
    std::int64_t best = std::numeric_limits<std::int64_t>::max();
    for (int set = 0; set < (1 << n); ++set) {
      std::vector<bool> kept(at(n));
      std::int64_t cost = 0;
      for (int v = 0; v < n; ++v)
        if ((set >> v & 1) != 0) kept[at(v)] = true, cost += g.vertices[at(v)].cost;
      if (enough(g, kept)) best = std::min(best, cost);
    }
    std::vector<bool> kept(at(n), false);
    std::int64_t cost = 0;
    for (const int v : cheapest_to_keep(g)) kept[at(v)] = true, cost += g.vertices[at(v)].cost;
    REQUIRE(enough(g, kept));
    REQUIRE(cost == best);
  }
}

TEST_CASE("of equally cheap sets the one nearest to what is given is kept") {
  CHECK(cheapest_to_keep({{{5, true, false}, {5, false, false}, {5, false, true}}, {{0, 1}, {1, 2}}}) ==
        std::vector<int>{0});
}

}  // namespace
}  // namespace shardsim
