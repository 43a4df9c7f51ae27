// Do mistakes name their place, and do misspelt names find the name that was meant?
#include "sim/base/error.h"

#include <utility>

#include <doctest/doctest.h>

#include "sim/base/random.h"

#include "tests/support/seed.h"

namespace shardsim {
namespace {

const std::vector<std::string> strategies{"ddp", "zero1", "zero2", "zero3", "fsdp", "fsdp2"};

TEST_CASE("a place is source, line and column, or the source alone when there is no line") {
  CHECK(to_string(Place{"a.toml", 12, 3}) == "a.toml:12:3");
  CHECK(to_string(Place{"--set", 0, 0}) == "--set");
  CHECK(to_string(Place{}).empty());
}

TEST_CASE("an input error says its place before its message") {
  const InputError error({"a.toml", 12, 3}, "unknown key \"prefech\"");
  CHECK(error.text() == "a.toml:12:3: unknown key \"prefech\"");
  CHECK(error.what() == error.text());
  CHECK(error.place().line == 12);
  CHECK(InputError({"--gpus", 0, 0}, "not a number").text() == "--gpus: not a number");
}

TEST_CASE("an input error without a place is its message") {
  CHECK(InputError({}, "no such model").text() == "no such model");
}

TEST_CASE("a known name is nearest to itself, and the first of equally near names wins") {
  for (const std::string& name : strategies) CHECK(nearest(name, strategies) == name);
  CHECK(nearest("zero", strategies) == "zero1");
  CHECK(nearest("zero4", {"zero3", "zero2"}) == "zero3");
}

TEST_CASE("neighbours in the wrong order are one mistake, not two") {
  CHECK(nearest("dpd", {"ddp"}) == "ddp");
  CHECK(nearest("fdsp", {"fsdp"}) == "fsdp");
  CHECK(nearest("ab", {"ba"}) == "ba");
  CHECK(nearest("badcfe", {"abcdef"}).empty());  // three swaps in six letters are too many
}

TEST_CASE("any single mistake is forgiven") {
  for_each_seed(500, [&](Random& random) {
    std::string name;
    for (std::int64_t n = random.between(2, 12); n > 0; --n)
      name += static_cast<char>('a' + random.between(0, 25));
    std::string misspelt = name;
    const auto at = static_cast<std::size_t>(random.between(0, static_cast<std::int64_t>(name.size()) - 2));
    switch (random.between(0, 3)) {
      case 0: misspelt.erase(at, 1); break;
      case 1: misspelt.insert(at, 1, 'x'); break;
      case 2: misspelt[at] = '_'; break;
      default: std::swap(misspelt[at], misspelt[at + 1]);
    }
    CAPTURE(misspelt);
    CHECK(nearest(misspelt, {"----------------", name}) == name);
  });
}

TEST_CASE("a name may differ in a third of its letters, in one if it is short, and not in more") {
  CHECK(nearest("abc123", {"abcd__"}).empty());
  CHECK(nearest("abcd12", {"abcd__"}) == "abcd__");
  CHECK(nearest("a", {"b"}) == "b");
  CHECK(nearest("ab", {"cd"}).empty());
  CHECK(nearest("llama", strategies).empty());
}

TEST_CASE("nothing is near when nothing is known") {
  CHECK(nearest("ddp", {}).empty());
  CHECK(nearest("", {}).empty());
  CHECK(nearest("", strategies).empty());
}

TEST_CASE("a name of a megabyte is near nothing") {
  const std::string huge(1 << 20, 'z');
  CHECK(nearest(huge, strategies).empty());
  CHECK(suggestion(huge, strategies) == suggestion("nothing like it", strategies));
}

TEST_CASE("a suggestion is the near name, else all known names, else nothing") {
  CHECK(suggestion("fspd", strategies) == "; did you mean \"fsdp\"?");
  CHECK(suggestion("pipeline", {"ddp", "fsdp"}) == "; known: ddp, fsdp");
  CHECK(suggestion("pipeline", {"ddp"}) == "; known: ddp");
  CHECK(suggestion("pipeline", {}).empty());
}

}  // namespace
}  // namespace shardsim
