// Do the rings use what the fabric has: every NVLink lane once, every NIC alike, at the rates NCCL reaches?
#include "sim/collective/rings.h"

#include <algorithm>
#include <map>
#include <numeric>

#include <doctest/doctest.h>

#include "sim/base/random.h"
#include "sim/topology/device_links.h"

#include "tests/support/hardware.h"
#include "tests/support/print.h"
#include "tests/support/seed.h"

namespace shardsim {
namespace {
using namespace literals;

using Cycles = std::vector<std::vector<int>>;

std::size_t at(int i) { return static_cast<std::size_t>(i); }

TopologySpec cluster(Intra intra, int nics, Bandwidth nic, double efficiency) {
  TopologySpec spec;
  spec.node.gpus = 8;
  spec.node.intra = intra;
  spec.node.nics = nics;
  spec.node.nic = nic;
  spec.node.transport.efficiency = efficiency;
  return spec;
}
Topology dgx1(int gpus) {  // 4 x EDR; NCCL gets 47 to 48 GB/s out of them (NVIDIA/nccl#307, #319)
  return {cluster(Intra::hybrid_cube_mesh, 4, Bandwidth{12'500'000'000}, 0.96), gpu_named("v100-sxm-32gb"),
          gpus};
}
Topology dgx_a100(int gpus) {  // 8 x HDR
  return {cluster(Intra::nvswitch, 8, 25_GBps, 0.96), gpu_named("a100-sxm-80gb"), gpus};
}
Topology a100_roce(int gpus) {  // 8 x 200 Gbit/s, 22 GB/s each
  return {cluster(Intra::nvswitch, 8, 25_GBps, 0.88), gpu_named("a100-sxm-80gb"), gpus};
}

std::vector<int> first(int n) {
  std::vector<int> numbers(at(n));
  std::iota(numbers.begin(), numbers.end(), 0);
  return numbers;
}
RingFabric rings(const Topology& t, const std::vector<int>& members) {
  std::vector<Rank> ranks;
  for (const int member : members) ranks.push_back({member});
  return ring_fabric(t, ranks);
}
RingFabric rings_of_all(const Topology& t) { return rings(t, first(t.gpus())); }

std::map<LinkId, std::int64_t> channels_by_link(const RingFabric& fabric) {
  std::map<LinkId, std::int64_t> channels;
  for (const ChannelsOnLink& on : fabric.links) channels[on.link] = on.channels;
  return channels;
}

// --- cycles inside a node ---------------------------------------------------------------------------------

bool visits_all(const std::vector<int>& cycle, std::vector<int> members) {
  std::vector<int> visited = cycle;
  std::sort(visited.begin(), visited.end());
  return visited == members;
}
// Lanes of each direct link left over by the cycles; negative where they share one.
std::vector<std::vector<int>> lanes_left(const NodeShape& node, const Cycles& cycles) {
  auto lanes = node.lanes;
  for (const auto& cycle : cycles)
    for (std::size_t i = 0; i < cycle.size(); ++i) --lanes[at(cycle[i])][at(cycle[(i + 1) % cycle.size()])];
  return lanes;
}
bool none_shared(const NodeShape& node, const Cycles& cycles) {
  for (const auto& row : lanes_left(node, cycles))
    if (std::any_of(row.begin(), row.end(), [](int left) { return left < 0; })) return false;
  return true;
}

TEST_CASE("six rings use every NVLink lane of a DGX-1V once in each direction") {
  // NCCL finds 6 rings of 20 GB/s: NVIDIA/nccl src/graph/search.cc on a DGX-1V.
  const Topology t = dgx1(8);
  const Cycles cycles = node_cycles(t.node(), first(8));
  CHECK(cycles.size() == 6);
  for (const auto& cycle : cycles) CHECK(visits_all(cycle, first(8)));
  for (const auto& row : lanes_left(t.node(), cycles)) CHECK(row == std::vector<int>(8, 0));
}

TEST_CASE("four GPUs of one half of a DGX-1V have four rings, two have one for each lane between them") {
  const NodeShape node = dgx1(8).node();
  for (const auto& half : Cycles{{0, 1, 2, 3}, {4, 5, 6, 7}}) {
    const Cycles cycles = node_cycles(node, half);
    CHECK(cycles.size() == 4);  // as many as lanes of GPU 0 and 1 inside the half
    for (const auto& cycle : cycles) CHECK(visits_all(cycle, half));
    CHECK(none_shared(node, cycles));
  }
  CHECK(node_cycles(node, std::vector{0, 3}) == Cycles{{0, 3}, {0, 3}});
  CHECK(node_cycles(node, std::vector{0, 1}) == Cycles{{0, 1}});
}

TEST_CASE("any GPUs of a DGX-1V have rings over lanes of their own, or one over the shortest routes") {
  const NodeShape node = dgx1(8).node();
  for (unsigned subset = 1; subset < 256; ++subset) {
    std::vector<int> members;
    for (int g = 0; g < 8; ++g)
      if ((subset >> g & 1) != 0) members.push_back(g);
    CAPTURE(subset);
    const Cycles cycles = node_cycles(node, members);
    REQUIRE_FALSE(cycles.empty());
    for (const auto& cycle : cycles) CHECK(visits_all(cycle, members));
    if (members.size() == 1 || !none_shared(node, cycles)) {
      CHECK(cycles == Cycles{members});
      continue;
    }
    if (members.size() == 2) continue;
    for (const auto& cycle :
         cycles) {  // both directions of a link are lanes: every ring can be run backwards
      std::vector<int> back = cycle;
      std::reverse(back.begin(), back.end());
      CHECK(std::count(cycles.begin(), cycles.end(), cycle) ==
            std::count(cycles.begin(), cycles.end(), back));
    }
  }
}

TEST_CASE("GPUs without a link between them share one ring over others") {
  const Topology t = dgx1(8);
  CHECK(node_cycles(t.node(), std::vector{0, 5}) == Cycles{{0, 5}});
  const RingFabric fabric = rings(t, {0, 5});
  CHECK(fabric.channels == 2);
  CHECK(fabric.links.size() == 4);  // two hops there, two back
}

TEST_CASE("a switch needs one order only, for as many channels as fill it") {
  const Topology t = dgx_a100(8);
  CHECK(node_cycles(t.node(), first(8)) == Cycles{first(8)});
  // DGX A100 and H100 logs: 24 thread blocks (NVIDIA developer forum 337991).
  CHECK(rings_of_all(t).channels == 24);
  CHECK(rings(t, {2, 5}).channels == 24);
  Gpu gpu = gpu_named("a100-sxm-80gb");
  gpu.nvlinks = 18;  // as H100
  CHECK(rings_of_all({t.spec(), gpu, 8}).channels == 24);
}

TEST_CASE("each ring is ridden by two channels") {
  CHECK(rings_of_all(dgx1(8)).channels == 12);
  CHECK(rings(dgx1(8), {0, 1, 2, 3}).channels == 8);
  CHECK(rings(dgx1(8), {0, 3}).channels == 4);
  CHECK(rings(dgx1(8), {0, 1}).channels == 2);
}

// --- rates ------------------------------------------------------------------------------------------------

TEST_CASE("inside a node a ring reaches 231 GB/s on A100s and 120 GB/s on V100s") {
  // 231 to 235: stas00/ml-engineering, Azure/AI-benchmarking-guide. 120 to 122: NVIDIA GTC24 S62129.
  CHECK(rings_of_all(dgx_a100(8)).node_rate == 231_GBps);
  CHECK(rings(dgx_a100(8), {1, 6}).node_rate == 231_GBps);
  CHECK(rings_of_all(dgx1(8)).node_rate == 120_GBps);
  CHECK(rings(dgx1(8), {0, 1, 2, 3}).node_rate == 80_GBps);
  CHECK(rings(dgx1(8), {0, 3}).node_rate == 40_GBps);
  CHECK(rings(dgx1(8), {0, 1}).node_rate == 20_GBps);
}

TEST_CASE("between nodes a ring reaches what all NICs of a node do together") {
  CHECK(rings_of_all(dgx_a100(32)).network_rate == 24_GBps * 8);  // 192 GB/s: NVIDIA GTC24 S62129
  CHECK(rings_of_all(a100_roce(32)).network_rate == 22_GBps * 8);
  CHECK(rings_of_all(dgx1(32)).network_rate == 12_GBps * 4);  // 100 Gbit/s at 0.96, and PCIe gen 3
  CHECK(rings_of_all(dgx_a100(32)).node_rate == 231_GBps);
  CHECK(rings_of_all(dgx1(32)).node_rate == 120_GBps);
}

TEST_CASE("a group on one node has no network rate, a rank alone has no ring at all") {
  CHECK_FALSE(rings_of_all(dgx_a100(8)).network_rate.has_value());
  const RingFabric alone = rings(dgx_a100(16), {11});
  CHECK(alone.ranks == 1);
  CHECK(alone.links.empty());
  CHECK_FALSE(alone.node_rate.has_value());
  CHECK_FALSE(alone.network_rate.has_value());
}

TEST_CASE("one GPU of each node needs no NVLink and is bound by its own PCIe link") {
  const Topology t = dgx_a100(32);
  for (int gpu = 0; gpu < 8; ++gpu) {
    const RingFabric fabric = rings(t, {gpu, 8 + gpu, 16 + gpu, 24 + gpu});
    CHECK(fabric.nodes == 4);
    CHECK(fabric.ranks_per_node == 1);
    CHECK_FALSE(fabric.node_rate.has_value());
    CHECK(fabric.channels == 4);            // two NICs are on its switch
    CHECK(fabric.network_rate == 24_GBps);  // PCIe gen 4 x16
    for (const ChannelsOnLink& on : fabric.links) CHECK(t.link_class(on.link) != LinkClass::nvlink);
  }
}

TEST_CASE("a group's shape is counted on its fullest node") {
  const RingFabric fabric = rings(dgx_a100(24), {0, 1, 8, 9, 10, 16});
  CHECK(fabric.ranks == 6);
  CHECK(fabric.nodes == 3);
  CHECK(fabric.ranks_per_node == 3);
  CHECK(rings(dgx1(16), {0, 8, 9, 10, 11}).node_rate == 80_GBps);
}

TEST_CASE("GPUs talk over NVLink unless PCIe is all there is") {
  const Topology pcie(cluster(Intra::pcie, 8, 25_GBps, 0.96), gpu_named("a100-sxm-80gb"), 8);
  CHECK_FALSE(rings_of_all(pcie).nvlink);
  CHECK(rings_of_all(pcie).channels == 2);
  CHECK(rings_of_all(dgx1(8)).nvlink);
  CHECK(rings_of_all(dgx_a100(8)).nvlink);
}

TEST_CASE("a group spans several leaves only when its nodes hang on different ones") {
  for (const FabricKind kind : {FabricKind::fat_tree, FabricKind::rail_fat_tree}) {
    TopologySpec spec = cluster(Intra::nvswitch, 8, 25_GBps, 0.96);
    spec.fabric = {kind, 2, 1.0};
    const Topology t(spec, gpu_named("a100-sxm-80gb"), 32);
    CHECK_FALSE(rings(t, {0, 8}).many_leaves);
    CHECK_FALSE(rings(t, {16, 17, 24}).many_leaves);
    CHECK(rings(t, {8, 16}).many_leaves);
    CHECK(rings_of_all(t).many_leaves);
  }
  CHECK_FALSE(rings_of_all(dgx_a100(32)).many_leaves);
}

// --- loads ------------------------------------------------------------------------------------------------

TEST_CASE("between nodes every NIC carries two channels each way") {
  for (const Topology& t : {dgx1(24), dgx_a100(24), a100_roce(16)}) {
    const RingFabric fabric = rings_of_all(t);
    CHECK(fabric.channels == 2 * t.node().nics);
    auto channels = channels_by_link(fabric);
    for (int node = 0; node < t.nodes(); ++node)
      for (int nic = 0; nic < t.node().nics; ++nic) {
        CHECK(channels[t.link(node, t.node().nic_out[at(nic)])] == 2);
        CHECK(channels[t.link(node, t.node().nic_in[at(nic)])] == 2);
      }
  }
}

TEST_CASE("with a NIC for every GPU, all GPUs of an NVSwitch carry the same load") {
  const Topology t = dgx_a100(24);
  for (const ChannelsOnLink& on : rings_of_all(t).links)
    if (t.link_class(on.link) == LinkClass::nvlink)
      CHECK(on.channels == 2 * 7);  // 8 rings, each ends once here
  for (const ChannelsOnLink& on : rings_of_all(dgx_a100(8)).links) CHECK(on.channels == 24);
}

TEST_CASE("between nodes of DGX-1V no NVLink lane carries more than one ring") {
  const Topology t = dgx1(16);
  for (const ChannelsOnLink& on : rings_of_all(t).links)
    if (t.link_class(on.link) == LinkClass::nvlink)
      CHECK(on.channels <= 2 * ratio(t.capacity(on.link), 20_GBps));
}

TEST_CASE("every rank receives each channel once where a switch joins the GPUs") {
  for (const int gpus : {8, 16, 40}) {
    const Topology t = dgx_a100(gpus);
    const RingFabric fabric = rings_of_all(t);
    std::map<std::string, std::int64_t> into;  // "node1.gpu3"
    for (const ChannelsOnLink& on : fabric.links) {
      const auto& local = t.node().links;
      const std::size_t l = at(on.link.index) % local.size();
      if (local[l].to >= 0 && local[l].to < 8)
        into["node" + std::to_string(at(on.link.index) / local.size()) + ".gpu" +
             std::to_string(local[l].to)] += on.channels;
    }
    CHECK(into.size() == at(gpus));
    for (const auto& [gpu, channels] : into) CHECK(channels == fabric.channels);
  }
}

// --- laws, on random groups of random clusters ------------------------------------------------------------

Topology random_cluster(Random& random) {
  constexpr Intra intras[] = {Intra::nvswitch, Intra::hybrid_cube_mesh, Intra::pcie, Intra::links};
  constexpr FabricKind fabrics[] = {FabricKind::single_switch, FabricKind::fat_tree,
                                    FabricKind::rail_fat_tree};
  TopologySpec spec =
      cluster(intras[random.between(0, 3)], 8, Bandwidth{random.between(1, 50) * 1'000'000'000},
              0.01 * static_cast<double>(random.between(50, 100)));
  spec.node.gpus_per_pcie_switch = 1 << random.between(0, 3);
  const int switches = 8 / spec.node.gpus_per_pcie_switch;
  spec.node.nics = random.chance(2) ? 8 : switches;  // a NIC beside every GPU
  if (spec.node.intra == Intra::links) {
    for (int g = 0; g < 8; ++g) {
      const std::string gpu = "gpu" + std::to_string(g);
      spec.node.links.push_back(
          {gpu, "gpu" + std::to_string((g + 1) % 8), 25_GBps * random.between(1, 3), {}});
      if (random.chance(2)) spec.node.links.push_back({gpu, "switch", 25_GBps, {}});
    }
  }
  spec.fabric = {fabrics[random.between(0, 2)], static_cast<int>(random.between(1, 3)), 1.0};
  const int gpus = 8 * static_cast<int>(random.between(1, 4));
  return {spec, gpu_named(random.chance(2) ? "v100-sxm-32gb" : "a100-sxm-80gb"), gpus};
}
std::vector<int> random_group(Random& random, const Topology& t) {
  std::vector<int> members;
  const int one_in = static_cast<int>(random.between(1, 4));
  for (int rank = 0; rank < t.gpus(); ++rank)
    if (random.chance(one_in)) members.push_back(rank);
  if (members.empty()) members.push_back(static_cast<int>(random.between(0, t.gpus() - 1)));
  return members;
}
template <class Law>
void for_all_groups(std::uint64_t fallback_seed, const Law& law) {
  const std::uint64_t seed = seed_of_run(fallback_seed);
  CAPTURE(seed);
  Random random(seed);
  for (int i = 0; i < 300; ++i) {
    const Topology t = random_cluster(random);
    const std::vector<int> members = random_group(random, t);
    CAPTURE(i);
    law(t, members, rings(t, members));
  }
}

TEST_CASE("what flows into a device flows out of it: rings are closed") {
  for_all_groups(1, [](const Topology& t, const std::vector<int>&, const RingFabric& fabric) {
    const auto& local = t.node().links;
    std::map<std::pair<std::size_t, int>, std::int64_t> surplus;  // by node and device
    std::int64_t into_network = 0;
    std::map<int, std::int64_t> up_and_down;
    for (const ChannelsOnLink& on : fabric.links) {
      const std::size_t node = at(on.link.index) / local.size();
      if (t.link_class(on.link) == LinkClass::leaf) {
        const int leaf_link = on.link.index - t.nodes() * static_cast<int>(local.size());
        up_and_down[leaf_link % 2] += on.channels;
        continue;
      }
      const LocalLink& link = local[at(on.link.index) % local.size()];
      if (link.to == NodeShape::network)
        into_network += on.channels;
      else
        surplus[{node, link.to}] += on.channels;
      if (link.from == NodeShape::network)
        into_network -= on.channels;
      else
        surplus[{node, link.from}] -= on.channels;
    }
    for (const auto& [device, channels] : surplus) CHECK(channels == 0);
    CHECK(into_network == 0);
    CHECK(up_and_down[0] == up_and_down[1]);
  });
}

TEST_CASE("links are listed once, in order, with at least one channel") {
  for_all_groups(2, [](const Topology& t, const std::vector<int>& members, const RingFabric& fabric) {
    CHECK(fabric.links.empty() == (members.size() == 1));
    for (std::size_t i = 0; i < fabric.links.size(); ++i) {
      CHECK(fabric.links[i].channels > 0);
      CHECK(fabric.links[i].link.index < t.links());
      if (i > 0) CHECK(fabric.links[i - 1].link < fabric.links[i].link);
    }
  });
}

TEST_CASE("alone at its rate a group fills its narrowest link and no other beyond its capacity") {
  for_all_groups(3, [](const Topology& t, const std::vector<int>& members, const RingFabric& fabric) {
    if (members.size() == 1) return;
    const bool spans = fabric.nodes > 1;
    const Bandwidth rate = spans ? *fabric.network_rate : *fabric.node_rate;
    bool tight = false;
    for (const ChannelsOnLink& on : fabric.links) {
      if (spans && t.link_class(on.link) == LinkClass::nvlink) continue;  // that is the node rate's business
      const Wide capacity = Wide{t.capacity(on.link).count} * fabric.channels;
      CHECK(Wide{rate.count} * on.channels <= capacity);
      tight = tight || Wide{rate.count + 1} * on.channels > capacity;
    }
    CHECK(tight);
  });
}

TEST_CASE("where one switch joins the nodes, the same GPUs of other nodes have the same rings") {
  for_all_groups(4, [](const Topology& t, const std::vector<int>& members, const RingFabric& fabric) {
    const int shift = t.nodes() - 1 - members.back() / 8;
    if (shift == 0 || t.leaves() > 0) return;
    std::vector<int> shifted;
    for (const int member : members) shifted.push_back(member + 8 * shift);
    const RingFabric other = rings(t, shifted);
    CHECK(other.channels == fabric.channels);
    CHECK(other.node_rate == fabric.node_rate);
    CHECK(other.network_rate == fabric.network_rate);
    std::vector<ChannelsOnLink> links = fabric.links;
    for (ChannelsOnLink& on : links) on.link.index += shift * static_cast<int>(t.node().links.size());
    CHECK(other.links == links);
  });
}

// --- degraded links ---------------------------------------------------------------------------------------

Topology dgx_a100(int gpus, const std::vector<LinkId>& links, double scale) {
  std::vector<DegradedLink> degraded;
  for (const LinkId l : links) degraded.push_back({l, scale});
  return {cluster(Intra::nvswitch, 8, 25_GBps, 0.96), gpu_named("a100-sxm-80gb"), gpus, degraded};
}

TEST_CASE("a degraded NIC or GPU slows the rings that cross it, on whatever node it is, and no others") {
  const Topology whole = dgx_a100(24);
  const RingFabric before = rings_of_all(whole);
  for (int node = 0; node < 3; ++node) {
    const Topology slow_nic = dgx_a100(24, links_of_nic(whole, node, 5), 0.5);
    CHECK(rings_of_all(slow_nic).network_rate == Bandwidth{before.network_rate->count / 2});
    CHECK(rings_of_all(slow_nic).node_rate == before.node_rate);
    const Topology slow_gpu = dgx_a100(24, nvlinks_of_gpu(whole, node, 3), 0.25);
    CHECK(rings_of_all(slow_gpu).node_rate == Bandwidth{before.node_rate->count / 4});
    CHECK(rings_of_all(slow_gpu).network_rate == before.network_rate);
    for (int other = 0; other < 3; ++other) {
      std::vector<int> members(8);
      std::iota(members.begin(), members.end(), 8 * other);
      const Bandwidth alone = *rings(whole, members).node_rate;
      CHECK(rings(slow_gpu, members).node_rate == Bandwidth{other == node ? alone.count / 4 : alone.count});
    }
  }
}

}  // namespace
}  // namespace shardsim
