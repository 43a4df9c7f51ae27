// Is the expected maximum of normals the one in the tables, and do draws have it?
#include "sim/base/normal.h"

#include <doctest/doctest.h>

#include "sim/base/random.h"

#include "tests/support/seed.h"

namespace shardsim {
namespace {

// Harter, Biometrika 48 (1961), table 1; the first are 1/sqrt(pi) and 3/(2 sqrt(pi)).
TEST_CASE("the expected maximum of normals is that of the tables") {
  CHECK(expected_maximum_of_normals(1) == 0.0);
  for (const auto& [n, expected] : {std::pair(2, 0.56418958354775629), std::pair(3, 0.84628437532163443)})
    CHECK(expected_maximum_of_normals(n) == doctest::Approx(expected).epsilon(1e-13));
  for (const auto& [n, expected] :
       {std::pair(4, 1.02938), std::pair(5, 1.16296), std::pair(10, 1.53875), std::pair(20, 1.86748),
        std::pair(50, 2.24907), std::pair(100, 2.50759), std::pair(400, 2.96818)})
    CHECK(std::abs(expected_maximum_of_normals(n) - expected) <= 0.5e-5);
}

// Blom, "Statistical estimates and transformed beta variables", 1958: the quantile at (n - 3/8) / (n + 1/4)
// is a good approximation; here as: the probability of lying above the expected maximum.
TEST_CASE("up to millions it grows, near Blom's approximation and below the usual bound") {
  double last = 0;
  for (std::int64_t n = 2; n <= 1 << 22; n *= 2) {
    const double e = expected_maximum_of_normals(n);
    CAPTURE(n);
    CHECK(e > last);
    CHECK(e < std::sqrt(2 * std::log(static_cast<double>(n))));
    const double above = 0.5 * std::erfc(e / std::sqrt(2.0));
    CHECK(above == doctest::Approx(0.625 / (static_cast<double>(n) + 0.25)).epsilon(0.11));
    last = e;
  }
}

TEST_CASE("normal draws have mean 0, deviation 1, and the expected maximum") {
  const std::uint64_t seed = seed_of_run(5);
  CAPTURE(seed);
  Random random(seed);
  constexpr int groups = 4000, n = 16;
  double sum = 0, squares = 0, maxima = 0;
  for (int g = 0; g < groups; ++g) {
    double largest = -100;
    for (int i = 0; i < n; ++i) {
      const double z = random.normal();
      sum += z, squares += z * z, largest = std::max(largest, z);
    }
    maxima += largest;
  }
  constexpr double draws = groups * n;  // tolerances: five standard errors; a maximum of 16 deviates by 0.54
  CHECK(std::abs(sum / draws) < 5 / std::sqrt(draws));
  CHECK(std::abs(squares / draws - 1) < 5 * std::sqrt(2 / draws));
  CHECK(std::abs(maxima / groups - expected_maximum_of_normals(n)) < 5 * 0.54 / std::sqrt(groups));
}

}  // namespace
}  // namespace shardsim
