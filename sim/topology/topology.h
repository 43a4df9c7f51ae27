// A cluster's devices and links, and the links a message takes.
//
// Every link is directed. A cluster is one part or a few, one after the other, and a part is one node shape
// repeated; leaves join nodes whatever their part. So link ids, capacities and routes follow by arithmetic
// and a cluster of any size is a few hundred bytes:
//   link id of a node    first link of its part + node in the part * links of such a node + local link
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

// So many GPUs in nodes of one kind.
struct PartSpec {
  NodeSpec node;
  const Gpu& gpu;
  int gpus;
};

// The same, laid out: its ranks, nodes and links have consecutive numbers.
struct Part {
  NodeSpec spec;
  NodeShape shape;
  int gpus = 0, nodes = 0;
  int first_rank = 0, first_node = 0, first_link = 0;

  int ranks_of_a_node() const { return gpus < spec.gpus ? gpus : spec.gpus; }
};

// first .. end - 1.
struct NodeRange {
  int first, end;
};

class Topology {
 public:
  // Ranks fill nodes one after the other. Throws InputError when an explicit link list does not connect the
  // GPUs or there are more links than ids. Requires: gpus <= spec.node.gpus or a multiple of it; no link is
  // degraded twice.
  Topology(TopologySpec spec, const Gpu& gpu, int gpus, const std::vector<DegradedLink>& degraded = {});
  // Parts in the order of their ranks, joined by spec.fabric. Requires: the same of the GPUs of each part.
  Topology(TopologySpec spec, const std::vector<PartSpec>& parts,
           const std::vector<DegradedLink>& degraded = {});

  int gpus() const { return parts_.back().first_rank + parts_.back().gpus; }
  int nodes() const { return parts_.back().first_node + parts_.back().nodes; }
  const TopologySpec& spec() const { return spec_; }  // its node is that of the first part
  const std::vector<Part>& parts() const { return parts_; }
  int part_of(Rank rank) const { return part_with(&Part::first_rank, rank.index); }
  int part_of_node(int node) const { return part_with(&Part::first_node, node); }
  const Part& part_at_node(int node) const { return parts_[static_cast<std::size_t>(part_of_node(node))]; }
  const NodeShape& node(int node = 0) const { return part_at_node(node).shape; }
  int gpus_per_node(int node = 0) const { return part_at_node(node).spec.gpus; }

  int node_of(Rank rank) const {
    const Part& part = parts_[static_cast<std::size_t>(part_of(rank))];
    return part.first_node + (rank.index - part.first_rank) / part.spec.gpus;
  }
  int local_gpu(Rank rank) const {
    const Part& part = parts_[static_cast<std::size_t>(part_of(rank))];
    return (rank.index - part.first_rank) % part.spec.gpus;
  }

  Rank rank_at(int node, int gpu) const {
    const Part& part = part_at_node(node);
    return {part.first_rank + (node - part.first_node) * part.spec.gpus + gpu};
  }

  int links() const { return links_of_nodes() + 2 * leaves(); }
  LinkId link(int node, int local) const {
    const Part& part = part_at_node(node);
    return {part.first_link + (node - part.first_node) * links_per_node(part) + local};
  }
  Bandwidth capacity(LinkId link) const;
  bool has_degraded_links(int node) const;
  const std::vector<std::pair<LinkId, Bandwidth>>& degraded_links() const { return degraded_; }  // sorted
  NodeRange nodes_at(LinkId link) const;  // the node it is in, or those on the leaf it joins to the spine
  LinkClass link_class(LinkId link) const;
  std::string link_name(LinkId link) const;  // "node3.gpu0 -> nvswitch"

  // Leaf switch that a NIC of a node hangs on; -1 when one switch joins all nodes.
  int leaf_of(int node, int nic) const;
  int leaves() const;
  // Appends the links from a NIC of one node to a NIC of another, both NICs' own links included.
  void route_between(int from_node, int from_nic, int to_node, int to_nic, std::vector<LinkId>& out) const;

 private:
  static int links_per_node(const Part& part) { return static_cast<int>(part.shape.links.size()); }
  // The part in which a number falls, by the first number of each.
  int part_with(int Part::*first, int number) const {
    std::size_t part = parts_.size() - 1;
    while (part > 0 && parts_[part].*first > number) --part;
    return static_cast<int>(part);
  }
  const Part& of_link(LinkId link) const {
    return parts_[static_cast<std::size_t>(part_with(&Part::first_link, link.index))];
  }
  const LocalLink& local_link(LinkId link) const;  // of a node
  int links_of_nodes() const;
  int rails() const;  // the most NICs of a node
  Bandwidth leaf_capacity(int leaf) const;
  Bandwidth full_capacity(LinkId link) const;

  TopologySpec spec_;
  std::vector<Part> parts_;
  std::vector<std::pair<LinkId, Bandwidth>> degraded_;  // sorted
};

}  // namespace shardsim
