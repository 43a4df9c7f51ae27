// Can the instruction set say ZeRO-2, which no compiler writes yet?
#include <doctest/doctest.h>

#include "sim/program/count.h"
#include "sim/program/dump.h"
#include "sim/program/verify.h"

#include "tests/support/golden.h"
#include "tests/support/programs.h"
#include "tests/support/zero2_program.h"

namespace shardsim {
namespace {

TEST_CASE("ZeRO-2 by hand is a sound program") { CHECK(verify(zero2_by_hand()) == ""); }

TEST_CASE("ZeRO-2 by hand, steady step") {
  check_golden(dump(zero2_by_hand(), Section::steady), "program/golden/zero2.txt");
}

TEST_CASE("ZeRO-2 reduces twice and gathers once, at the end of the step") {
  CHECK(collectives_of(zero2_by_hand(), Section::steady, Axis::world) ==
        "RS IPG buffer 2, RS IPG buffer 1, AG 16-bit weights");
}

TEST_CASE("between steps ZeRO-2 holds 2 + 12/N bytes per parameter") {
  // ZeRO, arXiv:1910.02054, table 1: P_os+g, K = 12 without the gradients' 2/N.
  const Program p = zero2_by_hand();
  LiveBytes live(p);
  live.run(Section::init);
  live.run(Section::first);
  CHECK(live.total().count == (2 * 4 + 12) * (2 << 20) / 4);
}

}  // namespace
}  // namespace shardsim
