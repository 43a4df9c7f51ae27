// Are lists by id what separate vectors would be?
#include "sim/base/id_lists.h"

#include <random>

#include <doctest/doctest.h>

#include "tests/support/seed.h"

namespace shardsim {
namespace {

using Row = Id<struct RowTag>;

TEST_CASE("lists keep the order of their entries, whatever the order of the ids") {
  const std::uint64_t seed = seed_of_run(7);
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  for (int round = 0; round < 100; ++round) {
    const std::size_t n = random() % 6;
    std::vector<std::vector<int>> expected(n);
    std::vector<std::pair<Row, int>> entries;
    for (int e = 0; n > 0 && e < static_cast<int>(random() % 20); ++e) {
      const auto id = static_cast<std::int32_t>(random() % n);
      entries.emplace_back(Row{id}, e);
      expected[static_cast<std::size_t>(id)].push_back(e);
    }
    IdLists<Row, int> lists(n, entries);
    for (std::size_t i = 0; i < n; ++i) {
      const auto list = lists[Row{static_cast<std::int32_t>(i)}];
      CHECK(std::vector<int>(list.begin(), list.end()) == expected[i]);
    }
  }
}

TEST_CASE("an element may change, its neighbours stay") {
  IdLists<Row, int> lists(2, {{Row{1}, 1}, {Row{0}, 2}, {Row{1}, 3}});
  lists[Row{0}][0] = 5;
  CHECK(lists[Row{0}][0] == 5);
  CHECK(lists[Row{1}][0] == 1);
  CHECK(lists[Row{1}][1] == 3);
}

}  // namespace
}  // namespace shardsim
