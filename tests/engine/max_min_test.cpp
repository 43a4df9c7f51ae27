// Is capacity shared max-min: nothing wasted, nobody preferred, to the byte, in whatever order it is asked?
#include "sim/engine/max_min.h"

#include <algorithm>
#include <numeric>

#include <doctest/doctest.h>

#include "sim/base/random.h"

#include "tests/support/seed.h"

namespace shardsim {
namespace {

constexpr std::int64_t no_cap = INT64_MAX;

// A sharing problem that owns its links, in plain numbers.
struct Problem {
  struct OneFlow {
    std::int64_t channels, cap;
    std::vector<LinkShare> links;
  };
  std::vector<std::int64_t> capacity;
  std::vector<OneFlow> flows;
};
using Rates = std::vector<std::int64_t>;

Rates solve(MaxMin& solver, const Problem& problem) {
  std::vector<Bandwidth> capacity;
  for (const std::int64_t c : problem.capacity) capacity.push_back({c});
  std::vector<Flow> flows;
  for (const auto& flow : problem.flows) flows.push_back({flow.channels, {flow.cap}, flow.links});
  Rates rates;
  for (const Bandwidth rate : solver.solve(capacity, flows)) rates.push_back(rate.count);
  return rates;
}
Rates solve(const Problem& problem) {
  MaxMin solver;
  return solve(solver, problem);
}

constexpr std::int64_t channel_counts[] = {1, 2, 3, 4, 6, 8, 12, 16, 24};
constexpr std::int64_t common = 48;  // a multiple of them all, to compare fractions exactly

std::int64_t some_channels(Random& random) { return channel_counts[random.between(0, 8)]; }
// Round numbers of bytes per second, which often tie, odd ones, and those of real links.
std::int64_t some_capacity(Random& random, std::int64_t least) {
  switch (random.between(0, 2)) {
    case 0: return least * random.between(1, 4);
    case 1: return least + random.between(0, 2'000);
    default: return random.between(1'000'000'000, 900'000'000'000);
  }
}
std::int64_t some_cap(Random& random, std::int64_t least) {
  return random.chance(3) ? some_capacity(random, least) : no_cap;
}

Problem random_problem(Random& random, std::int64_t least = 1) {
  Problem problem;
  const auto links = static_cast<int>(random.between(1, 8));
  for (int l = 0; l < links; ++l) problem.capacity.push_back(some_capacity(random, least));
  const std::int64_t one_in = random.between(1, 4);
  for (std::int64_t n = random.between(1, 12); n > 0; --n) {
    Problem::OneFlow flow{some_channels(random), some_cap(random, least), {}};
    for (int l = 0; l < links; ++l) {
      if (random.between(1, one_in) != 1) continue;
      // Flows that one stands for may cross a link with different numbers of channels: then it is listed
      // twice.
      for (int ways = random.chance(6) ? 2 : 1; ways > 0; --ways)
        flow.links.push_back(
            {l, random.between(1, flow.channels), random.chance(4) ? random.between(2, 5) : 1});
    }
    if (flow.links.empty()) flow.cap = some_capacity(random, least);
    problem.flows.push_back(std::move(flow));
  }
  return problem;
}

// A random order of 0 .. n-1.
std::vector<std::size_t> shuffled(std::size_t n, Random& random) {
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), std::size_t{0});
  for (std::size_t i = n; i > 1; --i)
    std::swap(order[i - 1],
              order[static_cast<std::size_t>(random.between(0, static_cast<std::int64_t>(i) - 1))]);
  return order;
}

// --- small cases ------------------------------------------------------------------------------------------

TEST_CASE("no flows share nothing, and a flow without links runs at its cap") {
  CHECK(solve({.capacity = {10}, .flows = {}}).empty());
  CHECK(solve({.capacity = {}, .flows = {{4, 7, {}}}}) == Rates{7});
}

TEST_CASE("a flow alone gets its narrowest link or its cap") {
  CHECK(solve({.capacity = {10, 4, 7}, .flows = {{1, no_cap, {{0, 1}, {1, 1}, {2, 1}}}}}) == Rates{4});
  CHECK(solve({.capacity = {10, 4, 7}, .flows = {{1, 3, {{0, 1}, {1, 1}, {2, 1}}}}}) == Rates{3});
}

// One flow crosses both links, and each link has one flow of its own. Link 1 fills first, at 4 / 2 = 2 each;
// link 0 then has 10 - 2 = 8 left for its own flow.
TEST_CASE("what a flow cannot use elsewhere, its neighbours get") {
  const Problem problem{
      .capacity = {10, 4},
      .flows = {{1, no_cap, {{0, 1}}}, {1, no_cap, {{0, 1}, {1, 1}}}, {1, no_cap, {{1, 1}}}}};
  CHECK(solve(problem) == Rates{8, 2, 2});
}

// The equal share would be 10 / 3; the cap stops one flow at 2, so the others get (10 - 2) / 2.
TEST_CASE("what a cap leaves over is shared by the others") {
  const Problem problem{.capacity = {10},
                        .flows = {{1, no_cap, {{0, 1}}}, {1, 2, {{0, 1}}}, {1, no_cap, {{0, 1}}}}};
  CHECK(solve(problem) == Rates{4, 2, 4});
}

// 4 + 2 channels on 12: each channel gets 2.
TEST_CASE("capacity is shared by channel, not by flow") {
  CHECK(solve({.capacity = {12}, .flows = {{4, no_cap, {{0, 4}}}, {2, no_cap, {{0, 2}}}}}) == Rates{8, 4});
}

// Both flows have 4 channels; one puts all of them on the link, the other only 1. A channel gets
// 10 / (4 + 1) = 2, so both run at 4 * 2 = 8, of which the second puts a quarter on this link.
TEST_CASE("channels that go elsewhere leave the link to others") {
  CHECK(solve({.capacity = {10}, .flows = {{4, no_cap, {{0, 4}}}, {4, no_cap, {{0, 1}}}}}) == Rates{8, 8});
}

// 10 / 3 = 3 1/3, and nobody gets the byte that is left.
TEST_CASE("shares that are no integers are rounded down for all alike") {
  CHECK(solve({.capacity = {10},
               .flows = {{1, no_cap, {{0, 1}}}, {1, no_cap, {{0, 1}}}, {1, no_cap, {{0, 1}}}}}) ==
        Rates{3, 3, 3});
}

// Half the channels of each flow cross the link, so a channel gets 11 / 2 and a flow 2 * 11 / 2, although
// neither flow puts a whole number of bytes per second on the link.
TEST_CASE("a share is a fraction until it is a rate") {
  CHECK(solve({.capacity = {11}, .flows = {{2, no_cap, {{0, 1}}}, {2, no_cap, {{0, 1}}}}}) == Rates{11, 11});
}

// Each link fills at 6 / 2; filling one before the other would not give the middle flow less.
TEST_CASE("links that fill at the same time are filled together") {
  const Problem problem{
      .capacity = {6, 6},
      .flows = {{1, no_cap, {{0, 1}}}, {1, no_cap, {{0, 1}, {1, 1}}}, {1, no_cap, {{1, 1}}}}};
  CHECK(solve(problem) == Rates{3, 3, 3});
}

// So that every transfer ends; the one case in which a link carries more than its capacity.
TEST_CASE("a flow is never starved, even where there is less than a byte per second for each") {
  CHECK(solve({.capacity = {1}, .flows = {{1, no_cap, {{0, 1}}}, {1, no_cap, {{0, 1}}}}}) == Rates{1, 1});
}

// --- laws -------------------------------------------------------------------------------------------------

// The certificate of max-min fairness, in exact fractions. Rounding costs each flow less than one byte per
// second on each link it crosses, so a link with n flows counts as full when less than n is left, and levels
// on it (rates per channel) as equal when they differ by less than n.
void check_certificate(const Problem& problem, const Rates& rates) {
  std::vector<Wide> used(problem.capacity.size());  // 1/48 byte per second
  std::vector<std::int64_t> crossing(problem.capacity.size());
  std::vector<Wide> top(problem.capacity.size());  // highest level, 1/48 byte per second per channel
  for (std::size_t f = 0; f < rates.size(); ++f) {
    const auto& flow = problem.flows[f];
    const Wide level = Wide{rates[f]} * (common / flow.channels);
    for (const LinkShare& share : flow.links) {
      const auto l = static_cast<std::size_t>(share.link);
      used[l] += level * share.weight * share.count;
      crossing[l] += share.count;
      top[l] = std::max(top[l], level);
    }
  }
  for (std::size_t l = 0; l < used.size(); ++l) CHECK(used[l] <= Wide{problem.capacity[l]} * common);
  for (std::size_t f = 0; f < rates.size(); ++f) {
    const auto& flow = problem.flows[f];
    const Wide level = Wide{rates[f]} * (common / flow.channels);
    const bool blocked = std::any_of(flow.links.begin(), flow.links.end(), [&](const LinkShare& share) {
      const auto l = static_cast<std::size_t>(share.link);
      const Wide rounding = Wide{crossing[l]} * common;
      return Wide{problem.capacity[l]} * common - used[l] < rounding && top[l] - level < rounding;
    });
    CAPTURE(f);
    CHECK(rates[f] > 0);
    CHECK(rates[f] <= flow.cap);
    CHECK((rates[f] == flow.cap || blocked));
  }
}

TEST_CASE("no link is over capacity, and every flow is at its cap or highest on a full link") {
  for_each_seed(2000, [&](Random& random) {
    // At most 12 flows cross a link in two ways, five times 24 channels each: a channel gets hundreds of
    // bytes.
    const Problem problem = random_problem(random, 1'000'000);
    check_certificate(problem, solve(problem));
  });
}

TEST_CASE("the order of links and flows changes nothing, nor does what was solved before") {
  MaxMin used_before;
  for_each_seed(1000, [&](Random& random) {
    const Problem problem = random_problem(random);
    const auto new_link = shuffled(problem.capacity.size(), random);  // by old link
    const auto old_flow = shuffled(problem.flows.size(), random);     // by new flow
    Problem renamed{problem.capacity, {}};
    for (std::size_t l = 0; l < new_link.size(); ++l) renamed.capacity[new_link[l]] = problem.capacity[l];
    for (const std::size_t f : old_flow) {
      renamed.flows.push_back(problem.flows[f]);
      auto& links = renamed.flows.back().links;
      for (LinkShare& share : links)
        share.link = static_cast<int>(new_link[static_cast<std::size_t>(share.link)]);
      std::reverse(links.begin(), links.end());
    }
    const Rates rates = solve(problem);
    const Rates renamed_rates = solve(used_before, renamed);
    for (std::size_t f = 0; f < rates.size(); ++f) CHECK(renamed_rates[f] == rates[old_flow[f]]);
  });
}

TEST_CASE("twins get equal rates to the byte") {
  for_each_seed(500, [&](Random& random) {
    Problem problem = random_problem(random);
    const std::size_t n = problem.flows.size();
    for (std::size_t f = 0; f < n; ++f) problem.flows.push_back(problem.flows[f]);
    const Rates rates = solve(problem);
    for (std::size_t f = 0; f < n; ++f) CHECK(rates[f] == rates[f + n]);
  });
}

// `copies` equal parts in a circle. A common link exists once and is crossed by all copies of a flow; a link
// of a part exists in each part, and copy i of a flow crosses the one of part i + shift.
struct Symmetric {
  Problem folded;    // one part for all
  Problem unfolded;  // copy i of flow f is flow f * copies + i
  std::size_t copies;
};

Symmetric random_symmetric(Random& random) {
  const auto copies = static_cast<int>(random.between(1, 6));
  const auto common_links = static_cast<int>(random.between(0, 3));
  const auto part_links = static_cast<int>(random.between(1, 4));
  Symmetric s{{}, {}, static_cast<std::size_t>(copies)};
  for (int l = 0; l < common_links + part_links; ++l) {
    const std::int64_t capacity = some_capacity(random, 1);
    s.folded.capacity.push_back(capacity);
    s.unfolded.capacity.insert(s.unfolded.capacity.end(), l < common_links ? 1 : s.copies, capacity);
  }
  for (std::int64_t n = random.between(1, 5); n > 0; --n) {
    Problem::OneFlow one{some_channels(random), some_cap(random, 1), {}};
    std::vector<Problem::OneFlow> each(s.copies, one);
    for (int l = 0; l < common_links; ++l) {
      if (random.chance(2)) continue;
      const std::int64_t weight = random.between(1, one.channels);
      one.links.push_back({l, weight, copies});
      for (auto& flow : each) flow.links.push_back({l, weight});
    }
    for (std::int64_t crossings = random.between(1, 5); crossings > 0; --crossings) {
      const auto l = static_cast<int>(random.between(0, part_links - 1));
      const auto shift = static_cast<int>(random.between(0, copies - 1));
      const std::int64_t weight = random.between(1, one.channels);
      one.links.push_back({common_links + l, weight});
      for (int i = 0; i < copies; ++i)
        each[static_cast<std::size_t>(i)].links.push_back(
            {common_links + l * copies + (i + shift) % copies, weight});
    }
    s.folded.flows.push_back(one);
    s.unfolded.flows.insert(s.unfolded.flows.end(), each.begin(), each.end());
  }
  return s;
}

// Three flows of 2 channels on 1000: 1000 / 6 per channel is no integer, and 333 1/3 per flow neither.
TEST_CASE("a flow that stands for three gets the rate of each of the three") {
  const Problem::OneFlow one{2, no_cap, {{0, 2}}}, three_in_one{2, no_cap, {{0, 2, 3}}};
  CHECK(solve({.capacity = {1000}, .flows = {one, one, one}}) == Rates{333, 333, 333});
  CHECK(solve({.capacity = {1000}, .flows = {three_in_one}}) == Rates{333});
}

TEST_CASE("folding equal parts into one changes no rate") {
  for_each_seed(2000, [&](Random& random) {
    const Symmetric s = random_symmetric(random);
    const Rates folded = solve(s.folded), unfolded = solve(s.unfolded);
    for (std::size_t f = 0; f < unfolded.size(); ++f) CHECK(unfolded[f] == folded[f / s.copies]);
  });
}

}  // namespace
}  // namespace shardsim
