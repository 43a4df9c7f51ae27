// The rings NCCL would lay over a group of ranks: which links they cross, with how many channels.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "sim/base/id.h"
#include "sim/topology/topology.h"

namespace shardsim {

struct ChannelsOnLink {
  LinkId link;
  std::int64_t channels;
  friend auto operator<=>(const ChannelsOnLink&, const ChannelsOnLink&) = default;
};

// How a group lies on the fabric, and its rings. Channels are NCCL's: each keeps one SM busy on every GPU.
struct RingFabric {
  int ranks = 1, nodes = 1;
  int ranks_per_node = 1;    // most of the group on one node
  bool many_leaves = false;  // spans several leaf switches
  bool nvlink = false;       // its ranks of one node talk over NVLink
  bool nvswitch = false;     // through switches that join them all
  int channels = 1;
  std::vector<ChannelsOnLink> links;  // sorted by link
  // Wire rate of the group alone on its links: bytes per second that each rank sends to the next. The slowest
  // node and the slowest link of the group count.
  std::optional<Bandwidth> node_rate;     // inside a node; none with one rank per node
  std::optional<Bandwidth> network_rate;  // between nodes; none with one node
};

// Orders in which rings visit `members` (GPUs of one node): one order where a switch joins them all, else
// link-disjoint Hamiltonian cycles over the direct links, else one cycle over the shortest routes. Each order
// is ridden by two channels, in NCCL as here.
std::vector<std::vector<int>> node_cycles(const NodeShape& node, std::span<const int> members);

// Requires: members ascending, at least one.
RingFabric ring_fabric(const Topology& topology, std::span<const Rank> members);

}  // namespace shardsim
