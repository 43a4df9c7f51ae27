// Is the memory timeline compact, and exact all the same?
#include "sim/result/memory_timeline.h"

#include <doctest/doctest.h>

#include "tests/support/print.h"

namespace shardsim {
namespace {
using namespace literals;

std::vector<MemoryRow> rows_of(const std::vector<MemoryRow>& changes) {
  std::vector<MemoryRow> rows;
  for (const MemoryRow& change : changes) append(rows, change);
  return rows;
}
MemoryRow row(Time at, Bytes bytes, int step = 1) {
  return {.step = step, .at = at, .allocated = bytes, .active = bytes, .reserved = bytes};
}

TEST_CASE("changes of one instant that go one way are one row, the last") {
  const auto rows = rows_of({row(0_ns, 1_MiB), row(5_ns, 2_MiB), row(5_ns, 3_MiB), row(5_ns, 4_MiB)});
  REQUIRE(rows.size() == 2);
  CHECK(rows.back().allocated == 4_MiB);
}

TEST_CASE("a maximum within an instant stays") {
  const auto rows = rows_of({row(0_ns, 1_MiB), row(5_ns, 4_MiB), row(5_ns, 3_MiB), row(5_ns, 2_MiB)});
  REQUIRE(rows.size() == 3);
  CHECK(rows[1].allocated == 4_MiB);
  CHECK(rows[2].allocated == 2_MiB);
}

TEST_CASE("rows of other instants or steps stay") {
  CHECK(rows_of({row(0_ns, 1_MiB), row(5_ns, 2_MiB), row(6_ns, 3_MiB)}).size() == 3);
  CHECK(rows_of({row(0_ns, 1_MiB), row(5_ns, 2_MiB), row(5_ns, 3_MiB, 2)}).size() == 3);
}

TEST_CASE("what rises in one quantity and falls in another stays") {
  MemoryRow freed = row(5_ns, 2_MiB), released = row(5_ns, 2_MiB);
  freed.reserved = 9_MiB;
  released.active = released.allocated = 3_MiB;
  CHECK(rows_of({row(0_ns, 1_MiB), freed, released}).size() == 3);
}

}  // namespace
}  // namespace shardsim
