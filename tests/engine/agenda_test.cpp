// Does the agenda wake the right agents at the right times, whatever was moved or cancelled before?
#include "sim/engine/agenda.h"

#include <algorithm>
#include <map>

#include <doctest/doctest.h>

#include "sim/base/random.h"

#include "tests/support/print.h"
#include "tests/support/seed.h"

namespace shardsim {
namespace {

using Agents = std::vector<Agent>;

Agents take_next(Agenda& agenda) {
  Agents due;
  agenda.take(*agenda.next(), due);
  return due;
}

// The agenda as plainly as it can be: each agent's time, searched from end to end.
struct Oracle {
  std::map<Agent, Time> at;

  std::optional<Time> next() const {
    std::optional<Time> first;
    for (const auto& [agent, time] : at)
      if (!first || time < *first) first = time;
    return first;
  }
  Agents take(Time now) {
    Agents due;
    for (const auto& [agent, time] : at)
      if (time == now) due.push_back(agent);
    for (const Agent agent : due) at.erase(agent);
    return due;
  }
};

TEST_CASE("an empty agenda has no next time, and cancelling there does nothing") {
  Agenda agenda(3);
  CHECK_FALSE(agenda.next());
  agenda.cancel({1});
  CHECK_FALSE(agenda.next());
  agenda.set({1}, Time{5});
  agenda.cancel({1});
  CHECK_FALSE(agenda.next());
  CHECK_FALSE(Agenda(0).next());
}

TEST_CASE("agents due at one time come together in ascending id, however they were set") {
  Agenda agenda(6);
  for (const int i : {4, 0, 5, 2}) agenda.set({i}, Time{7});
  agenda.set({3}, Time{8});
  agenda.set({1}, Time{9});
  agenda.set({1}, Time{7});
  CHECK(take_next(agenda) == Agents{{0}, {1}, {2}, {4}, {5}});
  CHECK(take_next(agenda) == Agents{{3}});
  CHECK_FALSE(agenda.next());
}

TEST_CASE("a wake-up moves earlier and later, and an agent has only one") {
  Agenda agenda(2);
  agenda.set({0}, Time{10});
  agenda.set({1}, Time{20});
  agenda.set({1}, Time{5});
  CHECK(*agenda.next() == Time{5});
  agenda.set({1}, Time{30});
  CHECK(*agenda.next() == Time{10});
  CHECK(take_next(agenda) == Agents{{0}});
  CHECK(*agenda.next() == Time{30});
  CHECK(take_next(agenda) == Agents{{1}});
  CHECK_FALSE(agenda.next());
}

TEST_CASE("before the next time nobody is due") {
  Agenda agenda(1);
  agenda.set({0}, Time{10});
  Agents due;
  agenda.take(Time{9}, due);
  CHECK(due.empty());
  CHECK(*agenda.next() == Time{10});
}

TEST_CASE("who is due is appended to what the caller already has") {
  Agenda agenda(3);
  agenda.set({0}, Time{1});
  agenda.set({2}, Time{1});
  Agents due{{1}};
  agenda.take(Time{1}, due);
  CHECK(due == Agents{{1}, {0}, {2}});
}

TEST_CASE("after thousands of moves the agenda agrees with a map searched from end to end") {
  for_each_seed(60, [&](Random& random) {
    const int agents = static_cast<int>(random.between(1, 60));
    const std::int64_t horizon = random.chance(2) ? 10 : 1'000'000'000'000'000;  // many ties, or hardly any
    const int sets_per_take = static_cast<int>(random.between(1, 8));
    Agenda agenda(agents);
    Oracle oracle;
    for (int step = 0; step < 1000; ++step) {
      const Agent agent{static_cast<std::int32_t>(random.between(0, agents - 1))};
      if (random.chance(6)) {
        agenda.cancel(agent);
        oracle.at.erase(agent);
      } else if (!random.chance(1 + sets_per_take)) {
        const Time at{random.between(0, horizon)};
        agenda.set(agent, at);
        oracle.at[agent] = at;
      } else if (const auto now = oracle.next()) {
        REQUIRE(take_next(agenda) == oracle.take(*now));
      }
      REQUIRE(agenda.next() == oracle.next());
    }
    while (const auto now = oracle.next()) {
      REQUIRE(agenda.next() == now);
      REQUIRE(take_next(agenda) == oracle.take(*now));
    }
    CHECK_FALSE(agenda.next());
  });
}

}  // namespace
}  // namespace shardsim
