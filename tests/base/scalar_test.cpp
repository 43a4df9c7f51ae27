// Do scalars print as a person would type them, without losing anything?
#include "sim/base/scalar.h"

#include <limits>

#include <doctest/doctest.h>

#include "sim/base/random.h"

#include "tests/support/seed.h"

namespace shardsim {
namespace {

TEST_CASE("each kind of scalar has its plain form") {
  CHECK(to_string(Scalar{true}) == "true");
  CHECK(to_string(Scalar{false}) == "false");
  CHECK(to_string(Scalar{std::int64_t{8}}) == "8");
  CHECK(to_string(Scalar{0.1}) == "0.1");
  CHECK(to_string(Scalar{"bf16-mixed"}) == "bf16-mixed");
  CHECK(to_string(Scalar{""}).empty());
}

TEST_CASE("a text that looks like another kind stays as it is") {
  for (const std::string text : {"true", "8", "0.10", "{}", " x "}) CHECK(to_string(Scalar{text}) == text);
}

TEST_CASE("integers keep all their digits") {
  CHECK(to_string(Scalar{std::numeric_limits<std::int64_t>::max()}) == "9223372036854775807");
  CHECK(to_string(Scalar{std::numeric_limits<std::int64_t>::min()}) == "-9223372036854775808");
}

TEST_CASE("a real number reads back as itself") {
  const std::uint64_t seed = seed_of_run(1);
  CAPTURE(seed);
  Random random(seed);
  for (int i = 0; i < 1000; ++i) {
    const double numerator = static_cast<double>(random.between(-1'000'000, 1'000'000));
    const double value = numerator / static_cast<double>(random.between(1, 1'000'000'000'000));
    CHECK(std::stod(to_string(Scalar{value})) == value);
  }
}

}  // namespace
}  // namespace shardsim
