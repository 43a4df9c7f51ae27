// Do the messages of each algorithm, sent in any order their dependencies allow, leave every rank with what
// the collective promises? Replayed on real integers.
#include "sim/collective/schedule.h"

#include <algorithm>
#include <numeric>

#include <doctest/doctest.h>

#include "sim/base/random.h"

#include "tests/support/seed.h"

namespace shardsim {
namespace {

std::size_t at(int i) { return static_cast<std::size_t>(i); }

// Sends all messages, a random one of those that may leave at a time; message k is delivered by
// deliver(stream, k) when it leaves, at the earliest moment the receiver could have it. Returns how many were
// sent.
template <class Deliver>
int replay(const Schedule& schedule, int rounds, Random& random, const Deliver& deliver) {
  const int total = schedule.messages * rounds;
  std::vector<int> sent(schedule.legs.size(), 0);
  int count = 0;
  for (;;) {
    std::vector<int> ready;
    for (std::size_t s = 0; s < schedule.legs.size(); ++s) {
      const Leg& stream = schedule.legs[s];
      const bool may = std::all_of(stream.sources.begin(), stream.sources.end(),
                                   [&](int from) { return sent[at(from)] > sent[s] - schedule.lag; });
      if (sent[s] < total && may) ready.push_back(static_cast<int>(s));
    }
    if (ready.empty()) return count;
    const int s = ready[at(static_cast<int>(random.between(0, static_cast<std::int64_t>(ready.size()) - 1)))];
    deliver(schedule.legs[at(s)], sent[at(s)]);
    ++sent[at(s)];
    ++count;
  }
}

using Data = std::vector<std::vector<std::int64_t>>;  // by position, then by part

// Values of which no two subsets have the same sum.
std::int64_t own(int position, int part) { return (std::int64_t{1} << (4 * position)) * (1 + part % 3); }

TEST_CASE("rings of 2 to 9 gather, scatter and reduce") {
  const std::uint64_t seed = seed_of_run(91);
  CAPTURE(seed);
  Random random(seed);
  for (const CollectiveKind kind :
       {CollectiveKind::all_gather, CollectiveKind::reduce_scatter, CollectiveKind::all_reduce})
    for (int n = 2; n <= 9; ++n)
      for (int rounds = 1; rounds <= 3; ++rounds) {
        CAPTURE(name(kind));
        CAPTURE(n);
        const Schedule schedule = ring_schedule(n, ring_messages(kind, n));
        const int parts = n * rounds;
        Data data(at(n), std::vector<std::int64_t>(at(parts), 0));
        std::vector<std::int64_t> sum(at(parts), 0);
        for (int p = 0; p < n; ++p)
          for (int c = 0; c < parts; ++c) {
            if (kind != CollectiveKind::all_gather || c % n == p) data[at(p)][at(c)] = own(p, c);
            sum[at(c)] += data[at(p)][at(c)];
          }
        const int sent = replay(schedule, rounds, random, [&](const Leg& s, int k) {
          const Payload payload = ring_payload(kind, n, s.from, k % schedule.messages);
          const std::size_t c = at(k / schedule.messages * n + payload.part);
          const std::int64_t value = data[at(s.from)][c];
          REQUIRE(value != 0);
          data[at(s.to)][c] = payload.reduce ? data[at(s.to)][c] + value : value;
        });
        REQUIRE(sent == n * ring_messages(kind, n) * rounds);
        for (int p = 0; p < n; ++p)
          for (int c = 0; c < parts; ++c)
            if (kind != CollectiveKind::reduce_scatter || c % n == p)
              REQUIRE(data[at(p)][at(c)] == sum[at(c)]);
      }
}

TEST_CASE("double trees over 2 to 9 nodes, each with up to three ranks, reduce") {
  const std::uint64_t seed = seed_of_run(92);
  CAPTURE(seed);
  Random random(seed);
  for (int nodes = 2; nodes <= 9; ++nodes)
    for (int rounds = 1; rounds <= 3; ++rounds) {
      CAPTURE(nodes);
      std::vector<int> positions;
      for (int v = 0; v < nodes; ++v) positions.push_back(static_cast<int>(random.between(1, 3)));
      const int n = std::accumulate(positions.begin(), positions.end(), 0);
      const Schedule schedule = tree_schedule(positions);
      Data data(at(n));
      std::vector<std::int64_t> sum(at(2 * rounds), 0);
      for (int p = 0; p < n; ++p)
        for (int c = 0; c < 2 * rounds; ++c) {
          data[at(p)].push_back(random.between(1, 1'000'000'000));
          sum[at(c)] += data[at(p)].back();
        }
      const int sent = replay(schedule, rounds, random, [&](const Leg& s, int k) {
        const bool up = s.way == Leg::Way::chain_up || s.way == Leg::Way::parent;
        std::int64_t& there = data[at(s.to)][at(2 * k + s.half)];
        const std::int64_t value = data[at(s.from)][at(2 * k + s.half)];
        there = up ? there + value : value;
      });
      REQUIRE(sent == 2 * 2 * (n - 1) * rounds);  // up and down every edge of each tree
      for (int p = 0; p < n; ++p)
        for (int c = 0; c < 2 * rounds; ++c) REQUIRE(data[at(p)][at(c)] == sum[at(c)]);
    }
}

TEST_CASE("both trees span the nodes, and an inner node of one is a leaf of the other") {
  for (int nodes = 2; nodes <= 70; ++nodes) {
    std::vector<std::vector<int>> children(2, std::vector<int>(at(nodes), 0));
    int tree = 0;
    for (const auto& parent : {first_tree(nodes), second_tree(nodes)}) {
      REQUIRE(std::count(parent.begin(), parent.end(), -1) == 1);
      for (int v = 0; v < nodes; ++v) {
        int depth = 0;
        for (int up = v; parent[at(up)] >= 0; up = parent[at(up)]) REQUIRE(++depth < nodes);
        REQUIRE((1 << std::max(0, depth - 1)) <= nodes);  // about log2 of the nodes deep
        if (parent[at(v)] >= 0) ++children[at(tree)][at(parent[at(v)])];
      }
      ++tree;
    }
    for (int v = 0; v < nodes; ++v) {
      CHECK(children[0][at(v)] <= 2);
      CHECK(children[1][at(v)] <= 2);
      CHECK(std::min(children[0][at(v)], children[1][at(v)]) <= 1);
    }
  }
}

}  // namespace
}  // namespace shardsim
