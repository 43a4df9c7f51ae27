#include "sim/engine/fifo.h"

#include <deque>

#include <doctest/doctest.h>

#include "sim/base/random.h"

namespace shardsim {
namespace {

TEST_CASE("a fifo gives back what a deque does, however it grew and wrapped") {
  Random random(7);
  Fifo<std::int64_t> fifo;
  std::deque<std::int64_t> expected;
  for (std::int64_t i = 0; i < 20'000; ++i) {
    if (expected.empty() || random.between(0, 99) < (i % 2'000 < 1'000 ? 60 : 40)) {
      fifo.push(i);
      expected.push_back(i);
    } else {
      fifo.pop();
      expected.pop_front();
    }
    REQUIRE(fifo.size() == expected.size());
    REQUIRE(fifo.empty() == expected.empty());
    if (expected.empty()) continue;
    REQUIRE(fifo.front() == expected.front());
    REQUIRE(fifo[expected.size() - 1] == expected.back());
  }
}

}  // namespace
}  // namespace shardsim
