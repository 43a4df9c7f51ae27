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
  bool nvlink = false;       // its ranks of one node talk over NVLink, on every node
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

// The rings of a group hop by hop. Every ring visits the ranks of one node after those of another, so
// position p of all rings is the p-th visit and they may be told of together: what one position sends to the
// next crosses, for each ring, the links of its hop.
class RingRoutes {
 public:
  // Channels that visit the GPUs of a node in one order and, where the group spans nodes, use one NIC.
  struct NodeRing {
    std::vector<int> order;
    int channels;
    int nic = -1, out = -1;  // out: GPU through which the ring leaves the node
  };
  using Links = std::vector<ChannelsOnLink>;  // in the order of the way, ring by ring

  // Requires: members ascending, at least one.
  RingRoutes(const Topology& topology, std::span<const Rank> members);

  int channels() const { return channels_; }
  int positions() const { return positions_; }
  int nodes() const { return static_cast<int>(nodes_.size()); }
  int head(int node) const { return nodes_[static_cast<std::size_t>(node)].head; }  // first position there
  bool leaves_node(int position) const;
  Links hop(int position) const;       // to the next position; the last is followed by the first
  Links hop_back(int position) const;  // from the next position of the same node
  Links between_heads(int from_node, int to_node) const;

 private:
  struct Node {
    int node, head;
    std::vector<NodeRing> rings;
  };
  static void cross(Links& links, LinkId link, int channels);
  void cross_node(Links& links, int node, int from, int to, int channels, bool backward) const;
  void cross_host(Links& links, int node, int nic, int gpu, int channels, bool in) const;
  Links inside(int position, bool backward) const;
  Links between(int from, int to, bool by_last) const;

  const Topology& topology_;
  std::vector<Node> nodes_;
  std::vector<int> node_of_;  // by position
  int positions_ = 0, channels_ = 0;
};

// Requires: members ascending, at least one.
RingFabric ring_fabric(const Topology& topology, std::span<const Rank> members);

}  // namespace shardsim
