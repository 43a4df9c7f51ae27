// Are routes shortest chains of links, the same every time, and does the drawing show every device?
#include "sim/topology/graph.h"

#include <algorithm>
#include <set>

#include <doctest/doctest.h>

#include "sim/base/random.h"

#include "tests/support/hardware.h"
#include "tests/support/seed.h"

namespace shardsim {
namespace {
using namespace literals;

std::size_t at(int i) { return static_cast<std::size_t>(i); }

// --- routes -----------------------------------------------------------------------------------------------

struct Net {
  int devices, gpus;
  std::vector<LocalLink> links;
};

// A few devices, joined by no link, by some, by parallel ones; some links leave the node.
Net random_net(Random& random) {
  Net net{.devices = static_cast<int>(random.between(1, 9)), .gpus = 0, .links = {}};
  net.gpus = static_cast<int>(random.between(1, net.devices));
  const auto device = [&] {
    return random.chance(8) ? NodeShape::network : static_cast<int>(random.between(0, net.devices - 1));
  };
  for (std::int64_t n = random.between(0, 3 * net.devices); n > 0; --n) {
    const int a = device(), b = device();
    if (a != b) net.links.push_back({a, b, LinkClass::nvlink, 1_GBps});
  }
  return net;
}

constexpr int unreachable = 1'000'000;

// Hops between all devices: Floyd and Warshall.
std::vector<std::vector<int>> distances(const Net& net) {
  std::vector<std::vector<int>> hops(at(net.devices), std::vector<int>(at(net.devices), unreachable));
  for (int a = 0; a < net.devices; ++a) hops[at(a)][at(a)] = 0;
  for (const LocalLink& link : net.links)
    if (link.from != NodeShape::network && link.to != NodeShape::network)
      hops[at(link.from)][at(link.to)] = 1;
  for (std::size_t via = 0; via < hops.size(); ++via)
    for (auto& row : hops)
      for (std::size_t b = 0; b < hops.size(); ++b) row[b] = std::min(row[b], row[via] + hops[via][b]);
  return hops;
}

template <class Law>
void for_all_nets(std::uint64_t fallback_seed, const Law& law) {
  const std::uint64_t seed = seed_of_run(fallback_seed);
  CAPTURE(seed);
  Random random(seed);
  for (int i = 0; i < 2000; ++i) law(random_net(random), random);
}

TEST_CASE("routes have as many links as the shortest path, and none where there is no path") {
  for_all_nets(1, [](const Net& net, Random&) {
    const auto routes = shortest_routes(net.devices, net.gpus, net.links);
    const auto hops = distances(net);
    REQUIRE(routes.size() == at(net.gpus));
    for (std::size_t a = 0; a < routes.size(); ++a) {
      REQUIRE(routes[a].size() == at(net.gpus));
      for (std::size_t b = 0; b < routes.size(); ++b)
        CHECK(routes[a][b].size() == (hops[a][b] == unreachable ? 0 : at(hops[a][b])));
    }
  });
}

TEST_CASE("a route is a chain of links from its first device to its last") {
  for_all_nets(2, [](const Net& net, Random&) {
    const auto routes = shortest_routes(net.devices, net.gpus, net.links);
    for (int a = 0; a < net.gpus; ++a)
      for (int b = 0; b < net.gpus; ++b) {
        int here = a;
        for (const int l : routes[at(a)][at(b)]) {
          CHECK(net.links[at(l)].from == here);
          here = net.links[at(l)].to;
        }
        if (!routes[at(a)][at(b)].empty()) CHECK(here == b);
      }
  });
}

TEST_CASE(
    "of several shortest routes over links in ascending order the one over the lowest devices is taken") {
  for_all_nets(3, [](Net net, Random&) {
    std::sort(net.links.begin(), net.links.end(), [](const LocalLink& a, const LocalLink& b) {
      return std::pair(a.from, a.to) < std::pair(b.from, b.to);
    });
    const auto routes = shortest_routes(net.devices, net.gpus, net.links);
    const auto hops = distances(net);
    for (int a = 0; a < net.gpus; ++a)
      for (int b = 0; b < net.gpus; ++b) {
        int here = a;
        for (const int l : routes[at(a)][at(b)]) {
          int lowest = 0;  // neighbour from which b is one hop nearer
          while (hops[at(here)][at(lowest)] != 1 || hops[at(lowest)][at(b)] != hops[at(here)][at(b)] - 1)
            ++lowest;
          here = net.links[at(l)].to;
          CHECK(here == lowest);
        }
      }
  });
}

TEST_CASE("links out of the node and devices no route needs change nothing") {
  for_all_nets(4, [](const Net& net, Random& random) {
    Net more = net;
    more.devices += static_cast<int>(random.between(1, 3));
    more.links.push_back({0, more.devices - 1, LinkClass::pcie, 1_GBps});  // a dead end
    more.links.push_back({more.devices - 1, NodeShape::network, LinkClass::nic, 1_GBps});
    CHECK(shortest_routes(more.devices, more.gpus, more.links) ==
          shortest_routes(net.devices, net.gpus, net.links));
  });
}

// --- the drawing ------------------------------------------------------------------------------------------

std::vector<Topology> clusters() {
  std::vector<Topology> all;
  for (const Intra intra : {Intra::nvswitch, Intra::hybrid_cube_mesh, Intra::pcie, Intra::links})
    for (const FabricKind kind : {FabricKind::single_switch, FabricKind::fat_tree, FabricKind::rail_fat_tree})
      for (const int nics : {0, 1, 8}) {
        TopologySpec spec;
        spec.node.gpus = 8;
        spec.node.intra = intra;
        if (intra == Intra::links)
          for (int g = 0; g < 8; ++g)
            spec.node.links.push_back({"gpu" + std::to_string(g), "ring switch", 50_GBps, {}});
        spec.node.nics = nics;
        spec.node.nic = 25_GBps;
        spec.node.transport.efficiency = 1;
        spec.fabric = {kind, 2, 1.0};
        all.emplace_back(spec, gpu_named("a100-sxm-80gb"), nics == 0 ? 8 : 32);
      }
  return all;
}

std::size_t occurrences(const std::string& text, std::string_view what) {
  std::size_t count = 0;
  for (auto found = text.find(what); found != std::string::npos; found = text.find(what, found + what.size()))
    ++count;
  return count;
}

TEST_CASE("the drawing shows every device of a node once and every link as one edge") {
  for (const Topology& t : clusters()) {
    const std::string drawing = graphviz(t);
    for (const std::string& device : t.node().devices)
      CHECK(occurrences(drawing, "[label=\"" + device + "\"]") == 1);
    std::set<int> leaves;
    for (int nic = 0; nic < t.node().nics; ++nic)
      if (t.leaves() > 0) leaves.insert(t.leaf_of(0, nic));
    const auto uplinks = occurrences(drawing, "uplink");
    CHECK(uplinks == leaves.size());
    CHECK(occurrences(drawing, "\"spine\"") == (leaves.empty() ? 0 : 1));
    CHECK(occurrences(drawing, "--") == t.node().links.size() / 2 + uplinks);
  }
}

TEST_CASE("the drawing shows the leaves of the node's NICs") {
  for (const Topology& t : clusters()) {
    const std::string drawing = graphviz(t);
    for (int nic = 0; nic < t.node().nics; ++nic) {
      const int leaf = t.leaf_of(0, nic);
      const std::string label = leaf < 0 ? "fabric switch" : "leaf" + std::to_string(leaf);
      CHECK(occurrences(drawing, "[label=\"" + label + "\"]") == 1);
    }
  }
}

TEST_CASE("the drawing is one graph in balanced text") {
  for (const Topology& t : clusters()) {
    const std::string drawing = graphviz(t);
    CHECK(drawing.starts_with("graph "));
    CHECK(drawing.ends_with("}\n"));
    CHECK(occurrences(drawing, "{") == 1);
    CHECK(occurrences(drawing, "}") == 1);
    CHECK(occurrences(drawing, "[") == occurrences(drawing, "]"));
    CHECK(occurrences(drawing, "\"") == 2 * occurrences(drawing, "[label="));
  }
}

}  // namespace
}  // namespace shardsim
