// Is each piece done once, is what fails the same on any number of threads, and are all threads used?
#include "sim/engine/parallel.h"

#include <atomic>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

namespace shardsim {
namespace {

TEST_CASE("each piece is done once, nested ones too") {
  for (const int threads : {0, 1, 2, 5}) {
    std::vector<std::atomic<int>> done(40 * 30);
    with_threads(threads, [&] {
      in_parallel(40, [&](std::size_t i) { in_parallel(30, [&](std::size_t j) { ++done[30 * i + j]; }); });
    });
    for (const auto& times : done) CHECK(times == 1);
  }
  in_parallel(0, [](std::size_t) { FAIL("there is none"); });
}

TEST_CASE("one thread goes in order") {
  std::vector<std::size_t> order;
  with_threads(1, [&] { in_parallel(9, [&](std::size_t i) { order.push_back(i); }); });
  CHECK(order == std::vector<std::size_t>{0, 1, 2, 3, 4, 5, 6, 7, 8});
}

TEST_CASE("so many threads as asked for work at once, also more than there are cores") {
  constexpr int threads = 5;
  std::atomic<int> here{0};
  with_threads(threads, [&] {
    in_parallel(threads, [&](std::size_t) {
      ++here;
      while (here < threads) std::this_thread::yield();  // ends only when all have come
    });
  });
  CHECK(here == threads);
}

TEST_CASE("of several errors the first is thrown, and nothing begins after one") {
  for (const int threads : {1, 2, 5}) {
    std::atomic<int> begun{0};
    const auto fail = [&] {
      with_threads(threads, [&] {
        in_parallel(10'000, [&](std::size_t i) {
          ++begun;
          if (i >= 50) throw std::runtime_error(std::to_string(i));
        });
      });
    };
    CHECK_THROWS_WITH_AS(fail(), "50", std::runtime_error);
    CHECK(begun <= 50 + threads);
  }
}

TEST_CASE("progress counts every piece once, one call at a time") {
  std::vector<std::size_t> counts;
  with_threads(5, [&] {
    in_parallel(
        100, [](std::size_t) {}, [&](std::size_t, std::size_t done) { counts.push_back(done); });
  });
  REQUIRE(counts.size() == 100);
  for (std::size_t n = 0; n < counts.size(); ++n) CHECK(counts[n] == n + 1);
}

}  // namespace
}  // namespace shardsim
