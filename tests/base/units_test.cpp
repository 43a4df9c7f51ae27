// Do the units keep their promises: exact, rounded once, not to be mixed up?
#include "sim/base/units.h"

#include <cmath>

#include <doctest/doctest.h>

namespace shardsim {
using namespace literals;

template <class A, class B>
concept addable = requires(A a, B b) {
  a + b;
};
template <class A, class B>
concept divisible = requires(A a, B b) {
  a / b;
};

static_assert(addable<Time, Time> && addable<Bytes, Bytes>);
static_assert(!addable<Time, Bytes> && !addable<Bytes, Bandwidth> && !addable<Flop, FlopRate>);
static_assert(divisible<Bytes, Bandwidth> && divisible<Flop, FlopRate>);
static_assert(!divisible<Bytes, FlopRate> && !divisible<Flop, Bandwidth> && !divisible<Time, Bytes>);
static_assert((1_GiB).count == 1073741824 && (1_GBps).count == 1'000'000'000);

TEST_CASE("bytes over bandwidth is an exact ceiling") {
  CHECK(1_B / 900_GBps == 2_ps);
  CHECK(900_B / 900_GBps == 1000_ps);
  CHECK(901_B / 900_GBps == 1002_ps);
  CHECK(80_GiB / 900_GBps == Time{95'443'717'689});
}

TEST_CASE("a transfer of more than 9 MB does not overflow") {
  CHECK(seconds((1_GiB * 1024) / 1_GBps) == doctest::Approx(1099.511627776));
}

TEST_CASE("work that takes longer than the longest is cut, never wrapped") {
  CHECK(1_GiB * 1'000'000'000 / Bandwidth{1} == longest_work);
  CHECK(Flop{1e30} / FlopRate{1} == longest_work);
  CHECK(from_seconds(1e300) == longest_work);
  CHECK(from_seconds(std::nan("")) == longest_work);
  CHECK(work_time(longest_work.count - 1) == longest_work - 1_ps);
}

TEST_CASE("real numbers are rounded to the nearest unit once") {
  CHECK(from_microseconds(2.5) == 2500_ns);
  CHECK(from_seconds(1e-12) == 1_ps);
  CHECK(from_gb_per_s(0.5) == Bandwidth{500'000'000});
  CHECK(Flop{1e12} / FlopRate{1e12} == from_seconds(1));
}

}  // namespace shardsim
