// Does a rank hold of its node's memory what PyTorch would?
#include "sim/memory/host_memory.h"

#include <doctest/doctest.h>

#include "tests/support/print.h"

namespace shardsim {
namespace {

using namespace literals;

TEST_CASE("pageable memory is held while its tensor lives") {
  HostMemory host;
  host.allocate(3_MiB, false);
  host.allocate(2_MiB, false);
  host.free(3_MiB, false);
  CHECK(host.held() == 2_MiB);
  CHECK(host.peak() == 5_MiB);
}

TEST_CASE("pinned memory comes in powers of two, is reused and never given back") {
  HostMemory host;
  host.allocate(3_MiB, true);
  CHECK(host.held() == 4_MiB);
  host.free(3_MiB, true);
  CHECK(host.held() == 4_MiB);
  host.allocate(4_MiB, true);  // the same block
  CHECK(host.held() == 4_MiB);
  host.allocate(4_MiB, true);
  CHECK(host.held() == 8_MiB);
  host.allocate(1_B, true);
  CHECK(host.held() == 8_MiB + 1_B);
}

}  // namespace
}  // namespace shardsim
