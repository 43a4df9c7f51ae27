// Does a cluster of several parts keep its ids, links and leaves apart, and is one in equal parts a whole?
#include <set>

#include <doctest/doctest.h>

#include "sim/base/random.h"
#include "sim/topology/topology.h"

#include "tests/support/hardware.h"
#include "tests/support/print.h"
#include "tests/support/seed.h"

namespace shardsim {
namespace {
using namespace literals;

NodeSpec node_of(Intra intra, int gpus, int nics, Bandwidth nic, double efficiency = 0.96) {
  NodeSpec node;
  node.gpus = gpus;
  node.intra = intra;
  node.nics = nics;
  node.nic = nic;
  node.transport.efficiency = efficiency;
  return node;
}
TopologySpec joined(FabricKind kind, int nodes_per_leaf = 1, double oversubscription = 1) {
  TopologySpec spec;
  spec.fabric = {kind, nodes_per_leaf, oversubscription};
  return spec;
}
constexpr FabricKind fabrics[] = {FabricKind::single_switch, FabricKind::fat_tree, FabricKind::rail_fat_tree};

TEST_CASE("a cluster in parts that are alike is the undivided cluster") {
  const Gpu gpu = gpu_named("a100-sxm-40gb");
  const NodeSpec node = node_of(Intra::nvswitch, 8, 7, 25_GBps, 0.881);
  for (const FabricKind kind : fabrics)
    for (const int nodes_per_leaf : {1, 2, 3, 5})
      for (const int first : {1, 2, 3, 4}) {
        TopologySpec spec = joined(kind, nodes_per_leaf, 1.7);
        const Topology parts(spec, {{node, gpu, 8 * first}, {node, gpu, 8 * (5 - first)}});
        spec.node = node;
        const Topology whole(spec, gpu, 40);
        REQUIRE(parts.gpus() == 40);
        REQUIRE(parts.links() == whole.links());
        for (int l = 0; l < whole.links(); ++l) {
          REQUIRE(parts.link_name({l}) == whole.link_name({l}));
          REQUIRE(parts.capacity({l}) == whole.capacity({l}));
          REQUIRE(parts.link_class({l}) == whole.link_class({l}));
        }
        for (int r = 0; r < 40; ++r) {
          REQUIRE(parts.node_of({r}) == whole.node_of({r}));
          REQUIRE(parts.local_gpu({r}) == whole.local_gpu({r}));
        }
        for (int a = 0; a < 5; ++a)
          for (int b = 0; b < 5; ++b) {
            std::vector<LinkId> in_parts, in_whole;
            parts.route_between(a, 1, b, 6, in_parts);
            whole.route_between(a, 1, b, 6, in_whole);
            REQUIRE(in_parts == in_whole);
          }
      }
}

Topology three_parts(FabricKind kind, int nodes_per_leaf) {
  return {joined(kind, nodes_per_leaf),
          {{node_of(Intra::hybrid_cube_mesh, 8, 4, 12_GBps), gpu_named("v100-sxm-32gb"), 24},
           {node_of(Intra::nvswitch, 4, 2, 25_GBps), gpu_named("a100-sxm-40gb"), 8},
           {node_of(Intra::pcie, 2, 1, 5_GBps), gpu_named("titan-rtx-24gb"), 2}}};
}

TEST_CASE("ranks and nodes are laid out part by part") {
  const Topology t = three_parts(FabricKind::single_switch, 1);
  CHECK(t.gpus() == 34);
  CHECK(t.nodes() == 6);
  std::vector<int> nodes, parts;
  for (const int r : {0, 7, 8, 23, 24, 27, 28, 31, 32, 33}) {
    nodes.push_back(t.node_of({r}));
    parts.push_back(t.part_of({r}));
  }
  CHECK(nodes == std::vector<int>{0, 0, 1, 2, 3, 3, 4, 4, 5, 5});
  CHECK(parts == std::vector<int>{0, 0, 0, 0, 1, 1, 1, 1, 2, 2});
  CHECK(t.local_gpu({27}) == 3);
  CHECK(t.local_gpu({28}) == 0);
  CHECK(t.node(2).nics == 4);
  CHECK(t.node(3).nics == 2);
  CHECK(t.gpus_per_node(5) == 2);
}

TEST_CASE("every link of every node has an id, a name, the class and the capacity of its own") {
  for (const FabricKind kind : fabrics) {
    const Topology t = three_parts(kind, 4);
    std::set<int> ids;
    std::set<std::string> names;
    for (int node = 0; node < t.nodes(); ++node)
      for (std::size_t l = 0; l < t.node(node).links.size(); ++l) {
        const LinkId link = t.link(node, static_cast<int>(l));
        ids.insert(link.index);
        names.insert(t.link_name(link));
        REQUIRE(t.capacity(link) == t.node(node).links[l].capacity);
        REQUIRE(t.link_class(link) == t.node(node).links[l].kind);
        REQUIRE(t.link_name(link).starts_with("node" + std::to_string(node) + "."));
      }
    const int leaf_links = 2 * t.leaves();
    CHECK(static_cast<int>(ids.size()) + leaf_links == t.links());
    CHECK(ids.size() == names.size());
    CHECK(*ids.rbegin() == t.links() - leaf_links - 1);
  }
}

TEST_CASE("a leaf's uplink carries the downlinks of the nodes on it, of whatever part") {
  for (const FabricKind kind : {FabricKind::fat_tree, FabricKind::rail_fat_tree})
    for (const int nodes_per_leaf : {1, 2, 3, 6}) {  // that fill the leaves
      const Topology t = three_parts(kind, nodes_per_leaf);
      std::vector<std::int64_t> down(static_cast<std::size_t>(t.leaves()), 0);
      for (int node = 0; node < t.nodes(); ++node)
        for (int nic = 0; nic < t.node(node).nics; ++nic)
          down[static_cast<std::size_t>(t.leaf_of(node, nic))] +=
              t.capacity(t.link(node, t.node(node).nic_out[static_cast<std::size_t>(nic)])).count;
      const int inside = t.links() - 2 * t.leaves();
      for (int leaf = 0; leaf < t.leaves(); ++leaf) {
        CAPTURE(leaf);
        CHECK(t.capacity({inside + 2 * leaf}).count == down[static_cast<std::size_t>(leaf)]);
      }
    }
}

TEST_CASE("a million GPUs in two parts are a matter of arithmetic") {
  const int gpus = 1 << 19;
  const Gpu v100 = gpu_named("v100-sxm-32gb"), a100 = gpu_named("a100-sxm-40gb");
  const Topology t(joined(FabricKind::rail_fat_tree, 32),
                   {{node_of(Intra::hybrid_cube_mesh, 8, 4, 12_GBps), v100, gpus},
                    {node_of(Intra::nvswitch, 8, 8, 25_GBps), a100, gpus}});
  CHECK(t.gpus() == 1 << 20);
  CHECK(t.node_of({gpus - 1}) == gpus / 8 - 1);
  CHECK(t.node_of({gpus}) == gpus / 8);
  CHECK(t.capacity(t.link(t.nodes() - 1, t.node(t.nodes() - 1).nic_in[7])) == 24_GBps);
}

}  // namespace
}  // namespace shardsim
