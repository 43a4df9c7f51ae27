// Are rates those of the whole network solved at once, and left alone where a change cannot reach?
#include "sim/network/network.h"

#include <map>

#include <doctest/doctest.h>

#include "sim/base/random.h"

#include "tests/support/print.h"
#include "tests/support/seed.h"

namespace shardsim {
namespace {

using Links = std::vector<LinkShare>;
using Changed = std::vector<TransferId>;

constexpr Bandwidth no_cap{INT64_MAX};
constexpr TransferId a{0}, b{1}, c{2};

Changed solve(Network& network) {
  const auto changed = network.solve();
  return {changed.begin(), changed.end()};
}

TEST_CASE("a transfer alone gets its narrowest link, two on one link get half each") {
  const Links both{{0, 1}, {1, 1}}, first{{0, 1}};
  Network network({{100}, {70}}, 2);
  network.start(a, 1, no_cap, both);
  CHECK(solve(network) == Changed{a});
  CHECK(network.rate(a) == Bandwidth{70});
  network.start(b, 1, no_cap, first);
  CHECK(solve(network) == Changed{a, b});
  CHECK(network.rate(a) == Bandwidth{50});
  CHECK(network.rate(b) == Bandwidth{50});
}

TEST_CASE("what a cap leaves over goes to the neighbour, until the cap is raised") {
  const Links link{{0, 1}};
  Network network({{100}}, 2);
  network.start(a, 1, Bandwidth{30}, link);
  network.start(b, 1, no_cap, link);
  network.solve();
  CHECK(network.rate(a) == Bandwidth{30});
  CHECK(network.rate(b) == Bandwidth{70});
  network.set_cap(a, Bandwidth{40});
  CHECK(solve(network) == Changed{a, b});
  CHECK(network.rate(a) == Bandwidth{40});
  CHECK(network.rate(b) == Bandwidth{60});
  network.set_cap(a, no_cap);
  network.solve();
  CHECK(network.rate(a) == Bandwidth{50});
}

TEST_CASE("a link is shared by channels") {
  const Links three{{0, 3}}, one{{0, 1}};
  Network network({{100}}, 2);
  network.start(a, 3, no_cap, three);
  network.start(b, 1, no_cap, one);
  network.solve();
  CHECK(network.rate(a) == Bandwidth{75});
  CHECK(network.rate(b) == Bandwidth{25});
}

TEST_CASE("a transfer that stands for several leaves as much as they would") {
  const Links three_times{{0, 1, 3}}, once{{0, 1}};
  Network network({{100}}, 2);
  network.start(a, 1, no_cap, three_times);
  network.start(b, 1, no_cap, once);
  network.solve();
  CHECK(network.rate(a) == Bandwidth{25});
  CHECK(network.rate(b) == Bandwidth{25});
}

// a and b meet on link 0, b and c on link 1: when a stops, b rises to what c leaves it, and c falls.
TEST_CASE("a stop frees capacity for neighbours, and for theirs to lose") {
  const Links left{{0, 1}}, middle{{0, 1}, {1, 1}}, right{{1, 1}};
  Network network({{40}, {100}}, 3);
  network.start(a, 1, no_cap, left);
  network.start(b, 1, no_cap, middle);
  network.start(c, 1, no_cap, right);
  network.solve();
  CHECK(network.rate(b) == Bandwidth{20});
  CHECK(network.rate(c) == Bandwidth{80});
  network.stop(a);
  CHECK(solve(network) == Changed{b, c});
  CHECK(network.rate(b) == Bandwidth{40});
  CHECK(network.rate(c) == Bandwidth{60});
}

TEST_CASE("a change touches nothing that shares no link with it, directly or over others") {
  const Links left{{0, 1}}, right{{1, 1}};
  Network network({{100}, {100}}, 3);
  network.start(a, 1, no_cap, left);
  network.start(c, 1, no_cap, right);
  CHECK(solve(network) == Changed{a, c});
  CHECK(network.solves() == 2);
  network.start(b, 1, no_cap, left);
  CHECK(solve(network) == Changed{a, b});
  CHECK(network.solves() == 3);
  CHECK(network.rate(c) == Bandwidth{100});
}

TEST_CASE("without a change nothing is solved, and a change of no consequence changes no rate") {
  const Links link{{0, 1}};
  Network network({{100}}, 1);
  CHECK(solve(network).empty());
  network.start(a, 1, Bandwidth{300}, link);
  network.solve();
  CHECK(solve(network).empty());
  network.set_cap(a, Bandwidth{300});
  CHECK(solve(network).empty());
  CHECK(network.solves() == 1);
  network.set_cap(a, Bandwidth{200});
  CHECK(solve(network).empty());
  CHECK(network.rate(a) == Bandwidth{100});
}

TEST_CASE("a transfer that stops and starts again within an instant is a new one") {
  const Links link{{0, 1}}, other{{1, 1}};
  Network network({{100}, {70}}, 1);
  network.start(a, 1, no_cap, link);
  network.solve();
  network.stop(a);
  network.start(a, 1, no_cap, link);
  CHECK(solve(network) == Changed{a});
  CHECK(network.rate(a) == Bandwidth{100});
  network.stop(a);
  network.start(a, 1, no_cap, other);
  CHECK(solve(network) == Changed{a});
  CHECK(network.rate(a) == Bandwidth{70});
}

TEST_CASE("a transfer that starts and stops within an instant was never there") {
  const Links link{{0, 1}};
  Network network({{100}}, 2);
  network.start(a, 1, no_cap, link);
  network.solve();
  network.start(b, 1, no_cap, link);
  network.stop(b);
  CHECK(solve(network).empty());
  CHECK(network.rate(a) == Bandwidth{100});
}

// --- against the whole system, solved at once -------------------------------------------------------------

struct Running {
  std::int64_t channels;
  Bandwidth cap;
  Bandwidth rate;  // before the calls of this instant; 0 = started in it
};

struct Model {
  std::vector<Bandwidth> capacity;
  std::vector<Links> links;  // by transfer
  std::map<TransferId, Running> running;

  // Solves for all running transfers; returns those whose rate changed.
  Changed solve_at_once() {
    std::vector<Flow> flows;
    for (const auto& [id, t] : running)
      flows.push_back({t.channels, t.cap, links[static_cast<std::size_t>(id.index)]});
    MaxMin solver;
    const auto rates = solver.solve(capacity, flows);
    Changed changed;
    std::size_t f = 0;
    for (auto& [id, t] : running) {
      if (t.rate != rates[f]) changed.push_back(id);
      t.rate = rates[f++];
    }
    return changed;
  }
};

Bandwidth some_cap(Random& random) {
  return random.chance(2) ? no_cap : Bandwidth{random.between(1'000, 2'000'000)};
}

TEST_CASE("after any starts, stops and caps the rates are those of the whole system solved at once") {
  for_each_seed(100, [&](Random& random) {
    const auto links = static_cast<int>(random.between(1, 12));
    const auto transfers = static_cast<int>(random.between(1, 16));
    const std::int64_t one_in = random.between(2, 8);  // from one component to many
    Model model;
    for (int l = 0; l < links; ++l) model.capacity.push_back({random.between(100'000, 1'000'000)});
    model.links.resize(static_cast<std::size_t>(transfers));
    Network network(model.capacity, transfers);
    for (int instant = 0; instant < 100; ++instant) {
      for (std::int64_t calls = random.between(1, 4); calls > 0; --calls) {
        const TransferId id{static_cast<std::int32_t>(random.between(0, transfers - 1))};
        const auto found = model.running.find(id);
        if (found == model.running.end()) {
          Links& crossed = model.links[static_cast<std::size_t>(id.index)];
          crossed.clear();
          const Running t{random.between(1, 8), some_cap(random), {}};
          for (int l = 0; l < links; ++l) {
            if (random.between(1, one_in) != 1) continue;
            for (int ways = random.chance(6) ? 2 : 1; ways > 0; --ways)  // a link may be listed twice
              crossed.push_back({l, random.between(1, t.channels), random.between(1, 3)});
          }
          network.start(id, t.channels, t.cap, crossed);
          model.running.emplace(id, t);
        } else if (random.chance(2)) {
          network.stop(id);
          model.running.erase(found);
        } else {
          found->second.cap = some_cap(random);
          network.set_cap(id, found->second.cap);
        }
      }
      CAPTURE(instant);
      REQUIRE(solve(network) == model.solve_at_once());
      for (const auto& [id, t] : model.running) REQUIRE(network.rate(id) == t.rate);
    }
  });
}

}  // namespace
}  // namespace shardsim
