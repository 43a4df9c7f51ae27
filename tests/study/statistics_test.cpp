// Do the small statistics agree with what can be counted by hand?
#include "sim/study/statistics.h"

#include <doctest/doctest.h>

namespace shardsim {
namespace {

TEST_CASE("mean, median and quantiles of small samples") {
  const std::vector<double> x = {4, 1, 3, 2};
  CHECK(mean(x) == 2.5);
  CHECK(median({4, 1, 3, 2}) == 2.5);
  CHECK(median({3, 1, 2}) == 2);
  CHECK(quantile({4, 1, 3, 2}, 0) == 1);
  CHECK(quantile({4, 1, 3, 2}, 1) == 4);
  CHECK(quantile({0, 10}, 0.25) == 2.5);
  CHECK(quantile({7}, 0.9) == 7);
}

TEST_CASE("rank correlation sees order only, and shares the ranks of ties") {
  const std::vector<double> up = {1, 2, 3, 4}, steep = {1, 10, 100, 1000}, down = {9, 8, 7, 1},
                            flat = {1, 1, 1, 1};
  CHECK(spearman(up, steep) == doctest::Approx(1));
  CHECK(spearman(up, down) == doctest::Approx(-1));
  CHECK(spearman(up, flat) == 0);
  CHECK(spearman(std::vector<double>{1}, std::vector<double>{2}) == 0);
  // Ranks 0, 1.5, 1.5, 3 against 0, 1, 2, 3: 4.5 / sqrt(4.5 * 5).
  CHECK(spearman(std::vector<double>{1, 2, 2, 3}, up) == doctest::Approx(0.948683).epsilon(1e-5));
}

}  // namespace
}  // namespace shardsim
