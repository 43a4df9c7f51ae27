// Is a group that spans two kinds of nodes bounded by the poorer one?
#include <algorithm>
#include <numeric>

#include <doctest/doctest.h>

#include "sim/collective/rings.h"

#include "tests/support/hardware.h"
#include "tests/support/print.h"

namespace shardsim {
namespace {
using namespace literals;

NodeSpec node_of(Intra intra, int nics, Bandwidth nic) {
  NodeSpec node;
  node.gpus = 8;
  node.intra = intra;
  node.nics = nics;
  node.nic = nic;
  node.transport.efficiency = 1;
  return node;
}
struct Kind {
  NodeSpec node;
  Gpu gpu;
};
std::vector<Kind> kinds() {
  return {{node_of(Intra::nvswitch, 8, 25_GBps), gpu_named("a100-sxm-80gb")},
          {node_of(Intra::nvswitch, 8, 12_GBps), gpu_named("a100-sxm-80gb")},
          {node_of(Intra::nvswitch, 4, 25_GBps), gpu_named("a100-sxm-40gb")},
          {node_of(Intra::hybrid_cube_mesh, 4, 12_GBps), gpu_named("v100-sxm-32gb")},
          {node_of(Intra::pcie, 1, 5_GBps), gpu_named("titan-rtx-24gb")}};
}
RingFabric rings_of_all(const Topology& t) {
  std::vector<Rank> ranks;
  for (int r = 0; r < t.gpus(); ++r) ranks.push_back({r});
  return ring_fabric(t, ranks);
}

TEST_CASE("a group on two kinds has the channels and at most the rates of the poorer") {
  for (const Kind& a : kinds())
    for (const Kind& b : kinds()) {
      const RingFabric mixed =
          rings_of_all(Topology(TopologySpec{}, {{a.node, a.gpu, 16}, {b.node, b.gpu, 16}}));
      const auto alone = [](const Kind& kind) {
        return rings_of_all(Topology(TopologySpec{}, {{kind.node, kind.gpu, 32}}));
      };
      const RingFabric only_a = alone(a), only_b = alone(b);
      CHECK(mixed.ranks == 32);
      CHECK(mixed.nodes == 4);
      CHECK(mixed.channels == std::min(only_a.channels, only_b.channels));
      CHECK(mixed.node_rate == std::min(only_a.node_rate, only_b.node_rate));
      CHECK(*mixed.network_rate <= std::min(*only_a.network_rate, *only_b.network_rate));
      CHECK(mixed.nvlink == (only_a.nvlink && only_b.nvlink));
    }
}

TEST_CASE("of two kinds that differ in the line rate of their NICs, the slower sets the rate") {
  const std::vector<Kind> all = kinds();
  const Kind &fast = all[0], &slow = all[1];
  const RingFabric mixed =
      rings_of_all(Topology(TopologySpec{}, {{fast.node, fast.gpu, 16}, {slow.node, slow.gpu, 16}}));
  const RingFabric uniform = rings_of_all(Topology(TopologySpec{}, {{slow.node, slow.gpu, 32}}));
  CHECK(mixed.network_rate == uniform.network_rate);
  CHECK(mixed.links == uniform.links);
}

TEST_CASE("a group inside one part does not feel the others") {
  const std::vector<Kind> all = kinds();
  for (const Kind& other : all) {
    const Topology mixed(TopologySpec{}, {{other.node, other.gpu, 16}, {all[0].node, all[0].gpu, 16}});
    const Topology alone(TopologySpec{}, {{all[0].node, all[0].gpu, 16}});
    std::vector<Rank> there, here;
    for (int r = 0; r < 16; ++r) there.push_back({16 + r}), here.push_back({r});
    const RingFabric a = ring_fabric(mixed, there), b = ring_fabric(alone, here);
    CHECK(a.channels == b.channels);
    CHECK(a.node_rate == b.node_rate);
    CHECK(a.network_rate == b.network_rate);
    CHECK(a.links.size() == b.links.size());
  }
}

}  // namespace
}  // namespace shardsim
