// Do messages queue, pipeline and finish as they must: a lone ring in closed form, links shared in turn,
// nothing lost?
#include "sim/network/chunk_network.h"

#include <numeric>

#include <doctest/doctest.h>

#include "sim/base/random.h"

#include "tests/support/print.h"
#include "tests/support/seed.h"

namespace shardsim {
namespace {
using namespace literals;

std::size_t at(int i) { return static_cast<std::size_t>(i); }

constexpr Bandwidth byte_per_ps{1'000'000'000'000};

// Rank p sends to rank p + 1 over a link of its own, or all over one link.
MessagePattern ring(int ranks, int first_link = 0, bool one_link = false) {
  MessagePattern pattern{.channels = 1, .lag = 1, .cut_through = false, .streams = {}};
  for (int p = 0; p < ranks; ++p)
    pattern.streams.push_back(
        {{{one_link ? first_link : first_link + p, 1}}, false, {(p + ranks - 1) % ranks}});
  return pattern;
}
MessagePattern line(int link) {
  return {.channels = 1, .lag = 0, .cut_through = false, .streams = {{{{link, 1}}, false, {}}}};
}
std::vector<Bandwidth> links(int n, Bandwidth capacity = byte_per_ps) {
  return std::vector<Bandwidth>(at(n), capacity);
}
MessageLoad load(int messages, std::int64_t bytes, std::int64_t chunk, Time latency = {},
                 Bandwidth pace = byte_per_ps) {
  return {.messages = messages,
          .bytes = Bytes{bytes},
          .chunk = Bytes{chunk},
          .pace = pace,
          .inside = latency,
          .between = latency};
}
// When each transfer ends, by pattern.
std::vector<Time> run(ChunkNetwork& network, int patterns) {
  std::vector<Time> ends(at(patterns));
  for (int ended = 0; ended < patterns;)
    for (const auto& end : network.advance(std::nullopt)) {
      ends[at(end.pattern.index)] = end.at;
      ++ended;
    }
  return ends;
}

TEST_CASE("a lone ring takes its latency once and its bytes at the pace, to the picosecond") {
  for (const int ranks : {2, 3, 8, 17})
    for (const std::int64_t rounds : {1, 2, 5})
      for (const std::int64_t pace : {1, 2, 5}) {  // picoseconds per byte
        const std::int64_t bytes = 1000 * rounds;
        ChunkNetwork network(links(ranks), {ring(ranks)});
        network.start({0}, load(ranks - 1, bytes, 1000, 70_ps, Bandwidth{byte_per_ps.count / pace}), 5_ps);
        CHECK(run(network, 1)[0] == 5_ps + Time{(ranks - 1) * (70 + bytes * pace)});
        CHECK(network.messages() == ranks * (ranks - 1) * rounds);
      }
}

TEST_CASE("the last chunk is as small as what is left") {
  ChunkNetwork network(links(4), {ring(4)});
  network.start({0}, load(3, 2500, 1000), Time{});
  CHECK(run(network, 1)[0] == 7500_ps);
}

TEST_CASE("one slow link holds up a ring as if all were slow") {
  // The chunk that crosses it last has gone all the way before.
  for (int slow = 0; slow < 6; ++slow) {
    auto capacity = links(6);
    capacity[at(slow)] = Bandwidth{byte_per_ps.count / 4};
    ChunkNetwork network(capacity, {ring(6)});
    network.start({0}, load(5, 1000, 1000), Time{});
    const Time end = run(network, 1)[0];
    CHECK(end >= 5_ps * 4000);
    CHECK(end <= 5_ps * 4000 + 1000_ps);
  }
}

TEST_CASE("two transfers on a link take turns; what the faster leaves goes to the other") {
  ChunkNetwork network(links(1), {line(0), line(0)});
  network.start({0}, load(1, 10'000, 100), Time{});
  network.start({1}, load(1, 5'000, 100), Time{});
  const auto ends = run(network, 2);
  CHECK(ends[1] == 10'000_ps);
  CHECK(ends[0] == 15'000_ps);
  ChunkNetwork paced(links(1), {line(0), line(0)});
  paced.start({0}, load(1, 1'000, 100, {}, Bandwidth{byte_per_ps.count / 10}), Time{});
  paced.start({1}, load(1, 9'000, 100), Time{});
  const auto paced_ends = run(paced, 2);
  CHECK(paced_ends[0] <= 11'000_ps);  // its own pace, and a turn at the end
  CHECK(paced_ends[1] <= 10'200_ps);  // the link never rests: 10,000 bytes, and a turn
}

TEST_CASE("a change of pace counts for the messages that leave after it") {
  ChunkNetwork network(links(1), {line(0)});
  network.start({0}, load(1, 1000, 100), Time{});
  CHECK(network.advance(450_ps).empty());  // five have left
  network.set_pace({0}, Bandwidth{byte_per_ps.count / 2});
  CHECK(run(network, 1)[0] == 500_ps + 1000_ps);
}

TEST_CASE("cut-through: a chain passes a message on as it comes in") {
  MessagePattern chain{.channels = 1, .lag = 0, .cut_through = true, .streams = {}};
  for (int i = 0; i < 5; ++i)
    chain.streams.push_back({{{i, 1}}, false, i == 0 ? std::vector<int>{} : std::vector<int>{i - 1}});
  ChunkNetwork network(links(5), {chain});
  network.start({0}, load(1, 20'000, 1000, 10_ps), Time{});
  CHECK(run(network, 1)[0] == 20'000_ps + 50_ps);
}

TEST_CASE("other jobs take what they offer, and no more than their share of a full link") {
  const auto beside = [](Bandwidth offered, std::int64_t flows) {
    ChunkNetwork network(links(1), {line(0)}, {{0, flows, offered}});
    network.start({0}, load(1, 1'000'000, 1000), 777_ps);
    return run(network, 1)[0] - 777_ps;
  };
  const auto near = [](Time a, Time b) { return std::abs((a - b).count) <= 4000; };  // two turns each
  CHECK(near(beside(Bandwidth{byte_per_ps.count / 5}, 1), 1'250'000_ps));
  CHECK(near(beside(byte_per_ps, 1), 2'000'000_ps));
  CHECK(near(beside(byte_per_ps, 3), 4'000'000_ps));
  CHECK(near(beside(Bandwidth{byte_per_ps.count / 2}, 3), 2'000'000_ps));
}

// Rings over random links, some shared: with one transfer after the other or several at once.
TEST_CASE(
    "the end does not depend on how far the network is played at a time, nor on links that never bind") {
  for (std::uint64_t i = 0; i < 60; ++i) {
    const std::uint64_t seed = seed_of_run(i);
    CAPTURE(seed);
    Random random(seed);
    std::vector<MessagePattern> patterns;
    std::vector<MessageLoad> loads;
    const int transfers = static_cast<int>(random.between(1, 4)),
              shared = static_cast<int>(random.between(1, 5));
    for (int t = 0; t < transfers; ++t) {
      const int ranks = static_cast<int>(random.between(2, 7));
      patterns.push_back(ring(ranks));
      for (MessageStream& s : patterns.back().streams) {
        s.links = {{static_cast<int>(random.between(0, shared - 1)), 1}};
        if (random.chance(2)) s.between_nodes = true;
      }
      loads.push_back(load(ranks - 1, random.between(1, 100'000), random.between(500, 20'000)));
      loads.back().inside = Time{random.between(0, 3000)};
      loads.back().between = Time{random.between(0, 3000)};
    }
    const auto capacity = links(2 * shared, Bandwidth{random.between(1, 40) * byte_per_ps.count / 20});
    const auto ends_of = [&](bool with_idle_links, std::int64_t step) {
      auto all = patterns;
      for (MessagePattern& p : all)
        for (MessageStream& s : p.streams)
          if (with_idle_links)
            s.links.push_back({shared + s.links.front().link, 1});  // in series with the first
      ChunkNetwork network(capacity, all);
      for (int t = 0; t < transfers; ++t) network.start({t}, loads[at(t)], Time{});
      if (step == 0) return run(network, transfers);
      std::vector<Time> ends(at(transfers));
      int ended = 0;
      for (Time now; ended < transfers; now += Time{step})
        for (auto found = network.advance(now); !found.empty(); found = network.advance(now))
          for (const auto& end : found) ends[at(end.pattern.index)] = end.at, ++ended;
      return ends;
    };
    const auto ends = ends_of(false, 0);
    CHECK(ends == ends_of(false, 4321));
    CHECK(ends == ends_of(true, 0));
    for (int t = 0; t < transfers; ++t) {
      const int steps = loads[at(t)].messages;
      CHECK(ends[at(t)] >= loads[at(t)].bytes * steps / byte_per_ps);
    }
  }
}

}  // namespace
}  // namespace shardsim
