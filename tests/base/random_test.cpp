// Are random numbers the same everywhere, and in the range that was asked for?
#include "sim/base/random.h"

#include <set>

#include <doctest/doctest.h>

#include "tests/support/seed.h"

namespace shardsim {
namespace {

// From the reference implementation, https://prng.di.unimi.it/splitmix64.c, seed 0; also at compile time.
constexpr bool golden() {
  Random random(0);
  return random.next() == 0xe220a8397b1dcdafu && random.next() == 0x6e789e6aa1b965f4u &&
         random.next() == 0x06c45d188009454fu;
}
static_assert(golden());

TEST_CASE("numbers are those of SplitMix64") { CHECK(golden()); }

TEST_CASE("equal seeds give equal numbers, other seeds give others") {
  Random a(42), b(42), c(43);
  for (int i = 0; i < 100; ++i) {
    const std::uint64_t number = a.next();
    CHECK(number == b.next());
    CHECK(number != c.next());
  }
}

TEST_CASE("a range includes both its ends and nothing else") {
  const std::uint64_t seed = seed_of_run(1);
  CAPTURE(seed);
  Random random(seed);
  std::set<std::int64_t> seen;
  for (int i = 0; i < 1000; ++i) seen.insert(random.between(-3, 3));
  CHECK(seen == std::set<std::int64_t>{-3, -2, -1, 0, 1, 2, 3});
}

TEST_CASE("a range of one number is that number") {
  Random random(1);
  for (const std::int64_t n : {std::int64_t{0}, std::int64_t{-5}, INT64_MAX, INT64_MIN})
    CHECK(random.between(n, n) == n);
}

TEST_CASE("a chance of one in one always comes, of one in two neither always nor never") {
  const std::uint64_t seed = seed_of_run(1);
  CAPTURE(seed);
  Random random(seed);
  int came = 0;
  for (int i = 0; i < 100; ++i) {
    CHECK(random.chance(1));
    came += random.chance(2);
  }
  CHECK(came > 0);
  CHECK(came < 100);
}

}  // namespace
}  // namespace shardsim
