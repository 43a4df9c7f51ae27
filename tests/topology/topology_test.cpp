// Is a cluster what its file says: devices, links with their ids and capacities, and the way between two
// NICs?
#include "sim/topology/topology.h"

#include <numeric>
#include <set>

#include <doctest/doctest.h>

#include "sim/topology/device_links.h"

#include "tests/support/hardware.h"
#include "tests/support/print.h"

namespace shardsim {
namespace {
using namespace literals;

using Links = std::vector<LinkId>;

TopologySpec cluster(Intra intra, int gpus, int nics) {
  TopologySpec spec;
  spec.node.gpus = gpus;
  spec.node.intra = intra;
  spec.node.nics = nics;
  spec.node.nic = 25_GBps;
  spec.node.transport.efficiency = 0.96;
  return spec;
}
TopologySpec dgx1() { return cluster(Intra::hybrid_cube_mesh, 8, 4); }
TopologySpec dgx_a100() { return cluster(Intra::nvswitch, 8, 8); }
TopologySpec with_leaves(TopologySpec spec, FabricKind kind, int nodes_per_leaf,
                         double oversubscription = 1) {
  spec.fabric = {kind, nodes_per_leaf, oversubscription};
  return spec;
}

Gpu v100() { return gpu_named("v100-sxm-32gb"); }
Gpu a100() { return gpu_named("a100-sxm-80gb"); }

Links way(const Topology& t, int from_node, int from_nic, int to_node, int to_nic) {
  Links links;
  t.route_between(from_node, from_nic, to_node, to_nic, links);
  return links;
}
std::vector<std::string> names(const Topology& t, const Links& links) {
  std::vector<std::string> names;
  for (const LinkId link : links) names.push_back(t.link_name(link));
  return names;
}

// Every kind of cluster, for laws that hold for all of them.
std::vector<Topology> some_of_each() {
  std::vector<Topology> all;
  for (const Intra intra : {Intra::nvswitch, Intra::hybrid_cube_mesh, Intra::pcie})
    for (const int nics : {1, 4, 8})
      for (const FabricKind kind :
           {FabricKind::single_switch, FabricKind::fat_tree, FabricKind::rail_fat_tree})
        for (const int nodes : {1, 2, 5})
          all.emplace_back(with_leaves(cluster(intra, 8, nics), kind, 2, 1.5), a100(), nodes * 8);
  return all;
}

// --- inside a node ----------------------------------------------------------------------------------------

TEST_CASE("a DGX-1V has the NVLinks that nvidia-smi shows, six at every GPU") {
  // `nvidia-smi topo -m` on a p3.16xlarge (AWS); the NV1 and NV2 entries.
  const std::vector<std::vector<int>> matrix = {
      {0, 1, 1, 2, 2, 0, 0, 0}, {1, 0, 2, 1, 0, 2, 0, 0}, {1, 2, 0, 2, 0, 0, 1, 0}, {2, 1, 2, 0, 0, 0, 0, 1},
      {2, 0, 0, 0, 0, 1, 1, 2}, {0, 2, 0, 0, 1, 0, 2, 1}, {0, 0, 1, 0, 1, 2, 0, 2}, {0, 0, 0, 1, 2, 1, 2, 0}};
  const NodeShape node = Topology(dgx1(), v100(), 8).node();
  CHECK(node.lanes == matrix);
  for (std::size_t a = 0; a < 8; ++a) {
    CHECK(std::accumulate(node.lanes[a].begin(), node.lanes[a].end(), 0) == 6);
    for (std::size_t b = 0; b < 8; ++b) CHECK(node.lanes[a][b] == node.lanes[b][a]);
  }
  CHECK_FALSE(node.switched);
}

TEST_CASE("a direct link carries its lanes' payload") {
  const NodeShape node = Topology(dgx1(), v100(), 8).node();
  for (const LocalLink& link : node.links)
    if (link.kind == LinkClass::nvlink)  // 20 GB/s each: NCCL topo.h, SM70
      CHECK(link.capacity ==
            20_GBps * node.lanes[static_cast<std::size_t>(link.from)][static_cast<std::size_t>(link.to)]);
}

TEST_CASE("a GPU of a DGX-1V reaches the one across over the cube's edge, else over one GPU between") {
  const NodeShape node = Topology(dgx1(), v100(), 8).node();
  for (std::size_t a = 0; a < 8; ++a)
    for (std::size_t b = 0; b < 8; ++b)
      CHECK(node.route[a][b].size() == (a == b ? 0 : node.lanes[a][b] > 0 ? 1 : 2));
}

TEST_CASE("an NVSwitch joins all GPUs at the rate of all their NVLinks") {
  const NodeShape node = Topology(dgx_a100(), a100(), 8).node();
  CHECK(node.switched);
  CHECK(node.devices[8] == "nvswitch");
  CHECK(node.nvlinks == 12);
  for (std::size_t a = 0; a < 8; ++a)
    for (std::size_t b = 0; b < 8; ++b) {
      CHECK(node.lanes[a][b] == 0);
      if (a == b) continue;
      REQUIRE(node.route[a][b].size() == 2);
      for (const int l : node.route[a][b]) {
        // 12 x 25 GB/s, of which rings reach 77%: 231 GB/s (stas00/ml-engineering).
        CHECK(node.links[static_cast<std::size_t>(l)].capacity == 231_GBps);
        CHECK(node.links[static_cast<std::size_t>(l)].kind == LinkClass::nvlink);
      }
    }
}

TEST_CASE("every link has its way back right behind it, at the same rate") {
  for (const Topology& t : some_of_each()) {
    const auto& links = t.node().links;
    REQUIRE(links.size() % 2 == 0);
    for (std::size_t l = 0; l < links.size(); l += 2) {
      CHECK(links[l].from == links[l + 1].to);
      CHECK(links[l].to == links[l + 1].from);
      CHECK(links[l].kind == links[l + 1].kind);
      CHECK(links[l].capacity == links[l + 1].capacity);
    }
  }
}

TEST_CASE("a NIC hangs on the PCIe switch of the GPUs beside it") {
  for (const Topology& t : some_of_each()) {
    const NodeShape& node = t.node();
    const auto link = [&](int l) { return node.links[static_cast<std::size_t>(l)]; };
    for (std::size_t n = 0; n < static_cast<std::size_t>(node.nics); ++n) {
      CHECK(link(node.nic_out[n]).to == NodeShape::network);
      CHECK(link(node.nic_in[n]).from == NodeShape::network);
      CHECK(link(node.nic_out[n]).capacity == 24_GBps);
      CHECK(link(node.nic_down[n]).to == link(node.nic_out[n]).from);
      CHECK(link(node.nic_up[n]).from == link(node.nic_in[n]).to);
      for (const int gpu : node.nic_gpus[n]) {
        CHECK(link(node.pcie_out[static_cast<std::size_t>(gpu)]).to == link(node.nic_up[n]).to);
        CHECK(link(node.pcie_in[static_cast<std::size_t>(gpu)]).from == link(node.nic_down[n]).from);
      }
    }
  }
}

TEST_CASE("eight NICs are spread over the four PCIe switches of a DGX A100") {
  const NodeShape node = Topology(dgx_a100(), a100(), 8).node();
  for (int nic = 0; nic < 8; ++nic)
    CHECK(node.nic_gpus[static_cast<std::size_t>(nic)] == std::vector<int>{nic / 2 * 2, nic / 2 * 2 + 1});
}

TEST_CASE("ranks fill one node after the other") {
  const Topology t(dgx_a100(), a100(), 24);
  CHECK(t.nodes() == 3);
  CHECK(t.gpus() == 24);
  for (int rank = 0; rank < 24; ++rank) {
    CHECK(t.node_of({rank}) == rank / 8);
    CHECK(t.local_gpu({rank}) == rank % 8);
  }
}

TEST_CASE("a job may use a part of one node; the node stays whole") {
  const Topology part(dgx1(), v100(), 3), whole(dgx1(), v100(), 8);
  CHECK(part.gpus() == 3);
  CHECK(part.nodes() == 1);
  CHECK(part.gpus_per_node() == 8);
  CHECK(part.links() == whole.links());
  CHECK(part.node().lanes == whole.node().lanes);
}

// --- links by arithmetic ----------------------------------------------------------------------------------

TEST_CASE("links are those of the nodes one after the other, then two for each leaf") {
  for (const Topology& t : some_of_each()) {
    const auto& local = t.node().links;
    const int per_node = static_cast<int>(local.size());
    CHECK(t.links() == t.nodes() * per_node + 2 * t.leaves());
    for (int node = 0; node < t.nodes(); ++node)
      for (int l = 0; l < per_node; ++l) {
        const LinkId link = t.link(node, l);
        CHECK(link.index == node * per_node + l);
        CHECK(t.capacity(link) == local[static_cast<std::size_t>(l)].capacity);
        CHECK(t.link_class(link) == local[static_cast<std::size_t>(l)].kind);
      }
    for (int l = t.nodes() * per_node; l < t.links(); ++l) CHECK(t.link_class({l}) == LinkClass::leaf);
  }
}

TEST_CASE("every link has a name of its own and a capacity") {
  for (const Topology& t : some_of_each()) {
    std::set<std::string> seen;
    for (int l = 0; l < t.links(); ++l) {
      CHECK(seen.insert(t.link_name({l})).second);
      CHECK(t.capacity({l}) > Bandwidth{0});
    }
  }
}

TEST_CASE("names say where a link is") {
  const Topology t(with_leaves(dgx_a100(), FabricKind::fat_tree, 1), a100(), 32);
  CHECK(t.link_name(t.link(3, 0)) == "node3.gpu0 -> nvswitch");
  CHECK(t.link_name(t.link(3, 1)) == "node3.nvswitch -> gpu0");
  CHECK(t.link_name(t.link(2, t.node().nic_out[5])) == "node2.nic5 -> network");
  CHECK(t.link_name({t.links() - 2}) == "leaf3 -> spine");
  CHECK(t.link_name({t.links() - 1}) == "leaf3 <- spine");
}

// --- between nodes ----------------------------------------------------------------------------------------

TEST_CASE("one switch joins all nodes: a NIC's link out, another's link in") {
  const Topology t(dgx_a100(), a100(), 32);
  CHECK(t.leaves() == 0);
  CHECK(t.leaf_of(3, 7) == -1);
  CHECK(names(t, way(t, 0, 2, 3, 5)) ==
        std::vector<std::string>{"node0.nic2 -> network", "node3.network -> nic5"});
}

TEST_CASE("in a fat tree a leaf holds all NICs of its nodes") {
  const Topology t(with_leaves(dgx_a100(), FabricKind::fat_tree, 2), a100(), 40);
  CHECK(t.leaves() == 3);  // the last one holds a single node
  for (int node = 0; node < 5; ++node)
    for (int nic = 0; nic < 8; ++nic) CHECK(t.leaf_of(node, nic) == node / 2);
  CHECK(way(t, 0, 2, 1, 5).size() == 2);
  CHECK(names(t, way(t, 1, 2, 4, 5)) == std::vector<std::string>{"node1.nic2 -> network", "leaf0 -> spine",
                                                                 "leaf2 <- spine", "node4.network -> nic5"});
}

TEST_CASE("in a rail-optimised fat tree a leaf holds one NIC of each of its nodes") {
  const Topology t(with_leaves(dgx_a100(), FabricKind::rail_fat_tree, 2), a100(), 40);
  CHECK(t.leaves() == 3 * 8);
  for (int node = 0; node < 5; ++node)
    for (int nic = 0; nic < 8; ++nic) CHECK(t.leaf_of(node, nic) == node / 2 * 8 + nic);
  CHECK(way(t, 0, 2, 1, 2).size() == 2);
  CHECK(names(t, way(t, 0, 2, 1, 3)) == std::vector<std::string>{"node0.nic2 -> network", "leaf2 -> spine",
                                                                 "leaf3 <- spine", "node1.network -> nic3"});
  CHECK(names(t, way(t, 0, 2, 4, 2)) == std::vector<std::string>{"node0.nic2 -> network", "leaf2 -> spine",
                                                                 "leaf18 <- spine", "node4.network -> nic2"});
}

TEST_CASE("every way between NICs starts and ends at them and crosses the spine only to another leaf") {
  for (const Topology& t : some_of_each()) {
    const NodeShape& node = t.node();
    for (int a = 0; a < t.nodes(); ++a)
      for (int b = 0; b < t.nodes(); ++b)
        for (int i = 0; i < node.nics; ++i)
          for (int j = 0; j < node.nics; ++j) {
            const Links links = way(t, a, i, b, j);
            const bool spine = t.leaf_of(a, i) != t.leaf_of(b, j);
            REQUIRE(links.size() == (spine ? 4 : 2));
            CHECK(links.front() == t.link(a, node.nic_out[static_cast<std::size_t>(i)]));
            CHECK(links.back() == t.link(b, node.nic_in[static_cast<std::size_t>(j)]));
            if (!spine) continue;
            const int first_leaf_link = t.links() - 2 * t.leaves();
            CHECK(links[1].index == first_leaf_link + 2 * t.leaf_of(a, i));
            CHECK(links[2].index == first_leaf_link + 2 * t.leaf_of(b, j) + 1);
          }
  }
}

TEST_CASE("ways are appended to what is there") {
  const Topology t(dgx_a100(), a100(), 16);
  Links links{{77}};
  t.route_between(0, 0, 1, 0, links);
  CHECK(links.size() == 3);
  CHECK(links.front() == LinkId{77});
}

TEST_CASE("a leaf's uplinks carry what its NICs do, over the oversubscription") {
  const auto uplink = [](FabricKind kind, int nodes_per_leaf, double oversubscription) {
    const Topology t(with_leaves(dgx_a100(), kind, nodes_per_leaf, oversubscription), a100(), 64);
    const Bandwidth up = t.capacity({t.links() - 2}), down = t.capacity({t.links() - 1});
    CHECK(up == down);
    return up;
  };
  CHECK(uplink(FabricKind::fat_tree, 1, 1) == 24_GBps * 8);
  CHECK(uplink(FabricKind::fat_tree, 4, 1) == 24_GBps * 32);
  CHECK(uplink(FabricKind::fat_tree, 4, 3) == 8_GBps * 32);
  CHECK(uplink(FabricKind::rail_fat_tree, 4, 1) == 24_GBps * 4);
  CHECK(uplink(FabricKind::rail_fat_tree, 4, 1.5) == 16_GBps * 4);
}

TEST_CASE("nodes without NICs have no leaves") {
  const Topology t(with_leaves(cluster(Intra::nvswitch, 8, 0), FabricKind::fat_tree, 1), a100(), 8);
  CHECK(t.leaves() == 0);
  CHECK(t.links() == static_cast<int>(t.node().links.size()));
}

// --- explicit links ---------------------------------------------------------------------------------------

TopologySpec linked(int gpus, std::initializer_list<std::pair<const char*, const char*>> links) {
  TopologySpec spec = cluster(Intra::links, gpus, 0);
  spec.node.gpus_place = {"a.toml", 3, 8};
  int line = 10;
  for (const auto& [a, b] : links) spec.node.links.push_back({a, b, 50_GBps, {"a.toml", line++, 5}});
  return spec;
}
std::string complaint(const TopologySpec& spec) {
  try {
    const Topology t(spec, a100(), spec.node.gpus);
  } catch (const InputError& error) {
    return error.text();
  }
  return "";
}

TEST_CASE("explicit links may join GPUs directly and over switches") {
  const Topology t(linked(4, {{"gpu0", "gpu1"}, {"gpu1", "sw"}, {"sw", "gpu2"}, {"gpu2", "gpu3"}}), a100(),
                   4);
  const NodeShape& node = t.node();
  CHECK(node.devices[4] == "sw");
  CHECK(node.lanes[0][1] == 1);
  CHECK(node.lanes[1][2] == 0);
  CHECK(node.route[0][3].size() == 4);
  CHECK_FALSE(node.switched);
}

TEST_CASE("lanes of explicit links are counted in units of the thinnest") {
  TopologySpec spec = linked(3, {{"gpu0", "gpu1"}, {"gpu1", "gpu2"}, {"gpu0", "gpu1"}});
  spec.node.links[1].bandwidth = 150_GBps;
  const auto lanes = Topology(spec, a100(), 3).node().lanes;
  CHECK(lanes == std::vector<std::vector<int>>{{0, 2, 0}, {2, 0, 3}, {0, 3, 0}});
}

TEST_CASE("a link from a device to itself is refused where it stands") {
  CHECK(complaint(linked(2, {{"gpu0", "gpu1"}, {"gpu1", "gpu1"}})) ==
        "a.toml:11:5: \"gpu1\" is linked to itself; a link joins two devices");
}

TEST_CASE("a GPU that no link reaches is refused where the GPUs are counted") {
  CHECK(complaint(linked(4, {{"gpu0", "gpu1"}, {"gpu2", "gpu3"}})) ==
        "a.toml:3:8: gpu2 cannot be reached from gpu0 over the links of the node");
  CHECK(complaint(linked(3, {{"gpu0", "sw"}, {"gpu1", "sw"}})) ==
        "a.toml:3:8: gpu2 cannot be reached from gpu0 over the links of the node");
  CHECK(complaint(linked(3, {{"gpu0", "sw"}, {"gpu1", "sw"}, {"gpu2", "sw"}})).empty());
}

TEST_CASE("degraded links are exceptions: they and no others lose capacity, in both directions") {
  const TopologySpec spec = with_leaves(dgx_a100(), FabricKind::rail_fat_tree, 2, 2);
  const Topology whole(spec, a100(), 32);
  for (const auto& links :
       {nvlinks_of_gpu(whole, 1, 3), links_of_nic(whole, 3, 7), uplinks_of_leaf(whole, 12)}) {
    REQUIRE(links.size() == 2);
    const Topology degraded(spec, a100(), 32, {{links[1], 0.5}, {links[0], 0.5}});
    for (int l = 0; l < whole.links(); ++l) {
      const bool listed = links[0].index == l || links[1].index == l;
      CHECK(degraded.capacity({l}).count == whole.capacity({l}).count / (listed ? 2 : 1));
    }
    for (int node = 0; node < whole.nodes(); ++node)
      CHECK(degraded.has_degraded_links(node) == (node == 1 && links == nvlinks_of_gpu(whole, 1, 3)) +
                                                     (node == 3 && links == links_of_nic(whole, 3, 7)));
  }
  CHECK(whole.link_name(uplinks_of_leaf(whole, 12)[0]) == "leaf12 -> spine");
  CHECK(whole.link_name(links_of_nic(whole, 3, 7)[0]) == "node3.nic7 -> network");
}

TEST_CASE("the nodes at a link are the node it is in, or all that reach the spine over it") {
  for (const Topology& t : some_of_each()) {
    for (int node = 0; node < t.nodes(); ++node)
      for (int l = 0; l < static_cast<int>(t.node(node).links.size()); ++l) {
        CHECK(t.nodes_at(t.link(node, l)).first == node);
        CHECK(t.nodes_at(t.link(node, l)).end == node + 1);
      }
    for (int l = t.links() - 2 * t.leaves(); l < t.links(); ++l) {
      const NodeRange at = t.nodes_at({l});
      const int leaf = (l - t.links() + 2 * t.leaves()) / 2;
      for (int node = 0; node < t.nodes(); ++node) {
        bool on_leaf = false;
        for (int nic = 0; nic < t.node(node).nics; ++nic) on_leaf = on_leaf || t.leaf_of(node, nic) == leaf;
        CHECK(on_leaf == (at.first <= node && node < at.end));
      }
    }
  }
}

TEST_CASE("millions of GPUs have their links, or are refused") {
  const Topology t(with_leaves(dgx_a100(), FabricKind::rail_fat_tree, 32), a100(), 1 << 22);
  CHECK(t.leaf_of(t.nodes() - 1, 7) == t.leaves() - 1);
  CHECK(t.link(t.nodes() - 1, 0).index > 0);
  CHECK(t.nodes_at({t.links() - 1}).end == t.nodes());
  TopologySpec huge = cluster(Intra::links, 1, 1);
  for (int s = 0; s < 300; ++s) huge.node.links.push_back({"gpu0", "switch" + std::to_string(s), 1_GBps, {}});
  CHECK_THROWS_AS(Topology(huge, a100(), 1 << 22), InputError);
}

}  // namespace
}  // namespace shardsim
