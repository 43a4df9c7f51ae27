// Are ids dense, and distinct from the ids of other things?
#include "sim/base/id.h"

#include <concepts>
#include <string>

#include <doctest/doctest.h>

#include "tests/support/print.h"

namespace shardsim {
namespace {

using Apple = Id<struct AppleTag>;
using Pear = Id<struct PearTag>;

template <class V, class I>
concept indexed_by = requires(V v, I i) {
  v[i];
};

static_assert(std::equality_comparable<Apple> && !std::equality_comparable_with<Apple, Pear>);
static_assert(!std::convertible_to<Apple, Pear> && !std::convertible_to<int, Apple>);
static_assert(indexed_by<IdVector<Apple, int>, Apple>);
static_assert(!indexed_by<IdVector<Apple, int>, Pear> && !indexed_by<IdVector<Apple, int>, int>);
static_assert(Apple{1} < Apple{2} && Apple{} == Apple{0});

TEST_CASE("add returns the id that next_id promised, and the value is found under it") {
  IdVector<Apple, std::string> names;
  for (const std::string name : {"one", "two", "three"}) {
    const Apple promised = names.next_id();
    const Apple id = names.add(name);
    CHECK(id == promised);
    CHECK(names[id] == name);
  }
  CHECK(names.size() == 3);
  CHECK(names[Apple{0}] == "one");
}

TEST_CASE("ids are all indices in ascending order") {
  const IdVector<Apple, int> squares{0, 1, 4, 9};
  int expected = 0;
  for (const Apple id : ids(squares)) {
    CHECK(id.index == expected);
    CHECK(squares[id] == expected * expected);
    ++expected;
  }
  CHECK(expected == 4);
}

TEST_CASE("an empty vector has no ids") {
  const IdVector<Apple, int> none;
  CHECK(none.empty());
  CHECK(none.next_id() == Apple{0});
  for ([[maybe_unused]] const Apple id : ids(none)) FAIL("an id of nothing");
}

TEST_CASE("vectors are equal when their values are") {
  CHECK(IdVector<Apple, int>(3, 7) == IdVector<Apple, int>{7, 7, 7});
  CHECK_FALSE(IdVector<Apple, int>{1, 2} == IdVector<Apple, int>{2, 1});
}

}  // namespace
}  // namespace shardsim
