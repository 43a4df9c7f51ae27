// Do the topologies that come with the program carry what their nodes were measured to carry, over as many
// channels as NCCL lays, and do concurrent groups share it?
#include <cmath>
#include <numeric>

#include <doctest/doctest.h>

#include "sim/collective/plan.h"
#include "sim/engine/max_min.h"
#include "sim/scenario/scenario.h"
#include "sim/simulate/job.h"

#include "tests/support/hardware.h"
#include "tests/support/print.h"

namespace shardsim {
namespace {
using namespace literals;

Topology nodes_of(const Scenario& s, int nodes) { return {s.topology, s.gpu, s.topology.node.gpus * nodes}; }
RingFabric whole(const Topology& t) {
  std::vector<Rank> ranks;
  for (int r = 0; r < t.gpus(); ++r) ranks.push_back({r});
  return ring_fabric(t, ranks);
}

// Bus bandwidth of rings, GB/s, and channels, inside a node and between nodes (0: no network).
//   source  published measurements of the node types, in each topology's file; channels: NVIDIA/nccl
//           src/graph/search.cc, connect.cc (a search of n rings, duplicated), NVIDIA/nccl#689 for DGX A100
struct Expected {
  const char* topology;
  double intra, inter;
  int intra_channels, inter_channels;
};
constexpr Expected table[] = {
    {"dgx1-v100-16gb", 122, 47, 12, 8},
    {"dgx1-v100-32gb", 122, 47, 12, 8},
    {"dgx2-v100-32gb", 120, 96, 12, 16},
    {"aws-p3dn", 120, 7.0, 12, 2},
    {"dgx-a100-40gb", 232, 192, 24, 16},
    {"dgx-a100-80gb", 232, 192, 24, 16},
    {"azure-ndv4", 231, 187, 24, 16},
    {"a100-40gb-roce-1600", 232, 170, 24, 16},
    {"a100-80gb-roce-800", 232, 85, 24, 16},
    {"a100-80gb-roce-400", 232, 43, 24, 8},
    {"a100-80gb-800gbps", 232, 94, 24, 8},
    {"a100-80gb-400gbps", 232, 47, 24, 4},
    {"aws-p4d", 231, 42, 24, 8},
    {"aws-p4de", 231, 42, 24, 8},
    {"gcp-a2-highgpu-8g", 231, 9.5, 24, 2},
    {"a100-80gb-pcie", 24, 24, 2, 4},
    {"dgx-h100", 361, 370, 24, 16},
    {"dgx-h200", 361, 370, 24, 16},
    {"aws-p5", 361, 340, 24, 16},
    {"h100-80gb-roce-3200", 361, 360, 24, 16},
    {"h100-80gb-roce-1600", 361, 190, 24, 16},
    {"h100-80gb-800gbps", 361, 94, 24, 8},
};

TEST_CASE("nodes carry what was measured, over as many channels as NCCL lays") {
  for (const Expected& e : table) {
    CAPTURE(e.topology);
    const Scenario s = scenario_on(e.topology);
    const RingFabric one = whole(nodes_of(s, 1)), two = whole(nodes_of(s, 2));
    CHECK(gb_per_s(*one.node_rate) == doctest::Approx(e.intra).epsilon(0.05));
    CHECK(one.channels == e.intra_channels);
    const Bandwidth between = std::min(*two.node_rate, *two.network_rate);
    CHECK(gb_per_s(between) == doctest::Approx(e.inter).epsilon(0.10));
    CHECK(two.channels == e.inter_channels);
  }
}

TEST_CASE("every topology loads, with a source, and runs every collective") {
  for (const std::string& name : test_library().names("topologies")) {
    CAPTURE(name);
    const Scenario s = scenario_on(name);
    CHECK_FALSE(s.topology.source.empty());
    const Topology t = nodes_of(s, s.topology.node.nics > 0 ? 4 : 1);
    if (t.gpus() == 1) continue;
    const CollectiveModel model{s.stack.nccl, s.gpu.architecture, s.topology.node.transport,
                                s.topology.node.network_overhead};
    for (const auto kind :
         {CollectiveKind::all_gather, CollectiveKind::reduce_scatter, CollectiveKind::all_reduce})
      for (const Plan& plan : candidates(model, whole(t), kind, 64_MiB)) {
        CHECK(plan.alone() > 10_us);
        CHECK(plan.sms > 0);
        CHECK(plan.channels > 0);
      }
  }
}

TEST_CASE("a GPU without a NIC beside it reaches the nearest over the host") {
  const Scenario s = scenario_on("gcp-a2-highgpu-8g");
  const Topology t = nodes_of(s, 4);
  for (int gpu = 0; gpu < 8; ++gpu) {
    const RingFabric fabric = ring_fabric(t, std::vector<Rank>{{gpu}, {8 + gpu}, {16 + gpu}, {24 + gpu}});
    CHECK(fabric.channels == 2);
    CHECK(*fabric.network_rate == Bandwidth{9'750'000'000});
    const bool beside = gpu < 2;
    CHECK(fabric.links.size() == 4u * (beside ? 6 : 10));
  }
}

// Rates of the groups of an axis, all at once.
std::vector<Bandwidth> together(const Topology& t, const Mesh& mesh, Axis axis) {
  std::vector<Bandwidth> capacity;
  for (int l = 0; l < t.links(); ++l) capacity.push_back(t.capacity({l}));
  std::vector<RingFabric> fabrics;
  for (const auto& group : members(mesh, axis)) fabrics.push_back(ring_fabric(t, group));
  std::vector<std::vector<LinkShare>> shares(fabrics.size());
  std::vector<Flow> flows;
  for (std::size_t f = 0; f < fabrics.size(); ++f) {
    for (const ChannelsOnLink& on : fabrics[f].links) shares[f].push_back({on.link.index, on.channels});
    flows.push_back({fabrics[f].channels, 1000_GBps, shares[f]});
  }
  MaxMin solver;
  const auto rates = solver.solve(capacity, flows);
  return {rates.begin(), rates.end()};
}

TEST_CASE("hybrid sharding: all-reduces between nodes, one GPU of each, share the node's NICs evenly") {
  // G groups at once get 1/G each of what one group over all GPUs gets from the NICs.
  for (const char* name : {"dgx1-v100-32gb", "dgx-a100-80gb", "aws-p4d", "a100-80gb-400gbps", "dgx-h100",
                           "gcp-a2-highgpu-8g", "aws-p3dn", "dgx2-v100-32gb"}) {
    CAPTURE(name);
    const Scenario s = scenario_on(name);
    const Topology t = nodes_of(s, 4);
    const int gpus = t.gpus_per_node();
    const double all = gb_per_s(*whole(t).network_rate);
    const auto rates = together(t, Mesh{.world = t.gpus(), .shard = gpus}, Axis::replica);
    CHECK(rates.size() == static_cast<std::size_t>(gpus));
    for (const Bandwidth rate : rates) CHECK(gb_per_s(rate) == doctest::Approx(all / gpus).epsilon(1e-6));
  }
}

TEST_CASE("groups of two nodes each do not meet under one switch") {
  const Scenario s = scenario_on("aws-p4d");
  const Topology t = nodes_of(s, 4);
  for (const Bandwidth rate : together(t, Mesh{.world = 32, .shard = 16}, Axis::shard))
    CHECK(rate == *whole(t).network_rate);
}

}  // namespace
}  // namespace shardsim
