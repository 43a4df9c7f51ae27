// A cluster's devices and links, and the links a message takes.
//
// Every link is directed. A cluster is one node shape repeated, plus leaf uplinks, so link ids, capacities
// and routes follow by arithmetic and a cluster of any size is a few hundred bytes:
//   link id of a node    node * links_per_node + local link
//   link id of a leaf    after all nodes: 2 * leaf (up to the spine), 2 * leaf + 1 (down)
// What-ifs (degraded links) are a short list of exceptions beside the arithmetic.
// Leaves out: adaptive routing and congestion inside the spine (it is non-blocking), NUMA hops, several rails
// of one NIC.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "sim/base/id.h"
#include "sim/base/units.h"
#include "sim/hardware/gpu.h"
#include "sim/topology/spec.h"

namespace shardsim {

using LinkId = Id<struct LinkTag>;

enum class LinkClass : std::uint8_t { nvlink, pcie, nic, leaf };
constexpr std::string_view name(LinkClass c) {
  constexpr std::string_view names[] = {"nvlink", "pcie", "nic", "leaf"};
  return names[static_cast<int>(c)];
}

// One direction of a link inside a node; `from` and `to` index NodeShape::devices, network = outside.
struct LocalLink {
  int from, to;
  LinkClass kind;
  Bandwidth capacity;  // payload: wire rate times the efficiency of its class
};

struct NodeShape {
  static constexpr int network = -1;

  int gpus = 0, nics = 0;
  std::vector<std::string> devices;  // the first `gpus` of them are the GPUs
  std::vector<LocalLink> links;
  std::vector<int> nic_out, nic_in;   // local links of each NIC to and from its leaf
  std::vector<int> nic_up, nic_down;  // local links of each NIC to and from its PCIe switch
  std::vector<int> pcie_out,
      pcie_in;               // local links of each GPU to and from its PCIe switch; empty without PCIe
  std::vector<int> host_up;  // local links of each PCIe switch to the host, each followed by the way down
  std::vector<std::vector<int>> nic_gpus;            // GPUs on the PCIe switch of each NIC
  std::vector<std::vector<std::vector<int>>> route;  // local links from GPU a to GPU b
  std::vector<std::vector<int>> lanes;  // direct links between two GPUs, in units of the thinnest; 0 = none
  bool switched = false;                // every GPU reaches every other at its full rate
  int nvlinks = 0;                      // of one GPU
};

// A link that has only a part of its capacity.
struct DegradedLink {
  LinkId link;
  double scale = 1.0;  // > 0
};

class Topology {
 public:
  // Ranks fill nodes one after the other. Throws InputError when an explicit link list does not connect the
  // GPUs. Requires: gpus <= spec.node.gpus or a multiple of it; no link is degraded twice.
  Topology(TopologySpec spec, const Gpu& gpu, int gpus, const std::vector<DegradedLink>& degraded = {});

  int gpus() const { return gpus_; }
  int nodes() const { return nodes_; }
  int gpus_per_node() const { return spec_.node.gpus; }
  const TopologySpec& spec() const { return spec_; }
  const NodeShape& node() const { return shape_; }

  int node_of(Rank rank) const { return rank.index / spec_.node.gpus; }
  int local_gpu(Rank rank) const { return rank.index % spec_.node.gpus; }

  int links() const { return nodes_ * links_per_node() + 2 * leaves(); }
  LinkId link(int node, int local) const { return {node * links_per_node() + local}; }
  Bandwidth capacity(LinkId link) const;
  bool has_degraded_links(int node) const;
  LinkClass link_class(LinkId link) const;
  std::string link_name(LinkId link) const;  // "node3.gpu0 -> nvswitch"

  // Leaf switch that a NIC of a node hangs on; -1 when one switch joins all nodes.
  int leaf_of(int node, int nic) const;
  int leaves() const;
  // Appends the links from a NIC of one node to a NIC of another, both NICs' own links included.
  void route_between(int from_node, int from_nic, int to_node, int to_nic, std::vector<LinkId>& out) const;

 private:
  int links_per_node() const { return static_cast<int>(shape_.links.size()); }
  Bandwidth leaf_capacity() const;
  Bandwidth full_capacity(LinkId link) const;

  TopologySpec spec_;
  NodeShape shape_;
  int gpus_, nodes_;
  std::vector<std::pair<LinkId, Bandwidth>> degraded_;  // sorted
};

}  // namespace shardsim
