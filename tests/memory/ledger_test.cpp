// Does the ledger know who owned what when the most was owned?
#include "sim/memory/ledger.h"

#include <doctest/doctest.h>

#include "sim/base/random.h"

#include "tests/support/print.h"
#include "tests/support/seed.h"

namespace shardsim {
namespace {
using namespace literals;

Bytes of(const ByCategory& by, Category c) { return by[static_cast<std::size_t>(c)]; }
Bytes total(const ByCategory& by) {
  Bytes sum;
  for (const Bytes b : by) sum += b;
  return sum;
}

TEST_CASE("a new ledger is empty, now and at its peak") {
  CHECK(total(Ledger().now()) == 0_B);
  CHECK(total(Ledger().at_peak()) == 0_B);
}

TEST_CASE("what is added and removed is booked under its category") {
  Ledger ledger;
  ledger.add(Category::parameters, 5_GiB);
  ledger.add(Category::temporaries, 3_GiB);
  ledger.remove(Category::temporaries, 1_GiB);
  CHECK(of(ledger.now(), Category::parameters) == 5_GiB);
  CHECK(of(ledger.now(), Category::temporaries) == 2_GiB);
  CHECK(total(ledger.now()) == 7_GiB);
}

// Gradients replace activations without a higher total: the peak stays as it was when it was first reached.
TEST_CASE("the peak is the first instant of the highest total") {
  Ledger ledger;
  ledger.add(Category::activations, 4_GiB);
  ledger.remove(Category::activations, 4_GiB);
  ledger.add(Category::gradients, 4_GiB);
  CHECK(of(ledger.at_peak(), Category::activations) == 4_GiB);
  CHECK(of(ledger.at_peak(), Category::gradients) == 0_B);
  ledger.add(Category::temporaries, 1_B);
  CHECK(of(ledger.at_peak(), Category::activations) == 0_B);
  CHECK(of(ledger.at_peak(), Category::gradients) == 4_GiB);
  CHECK(of(ledger.at_peak(), Category::temporaries) == 1_B);
}

TEST_CASE("after any history the peak is what a list of all instants says") {
  for_each_seed(100, [&](Random& random) {
    Ledger ledger;
    ByCategory now{}, highest{};
    for (int step = 0; step < 100; ++step) {
      const auto c = static_cast<std::size_t>(random.between(0, categories - 1));
      const Bytes bytes{random.between(1, 4)};  // few sizes, many ties
      if (random.chance(2) || now[c] < bytes) {
        ledger.add(static_cast<Category>(c), bytes);
        now[c] += bytes;
      } else {
        ledger.remove(static_cast<Category>(c), bytes);
        now[c] -= bytes;
      }
      if (total(now) > total(highest)) highest = now;
      REQUIRE(ledger.now() == now);
      REQUIRE(ledger.at_peak() == highest);
    }
  });
}

}  // namespace
}  // namespace shardsim
