#include "sim/topology/topology.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "sim/base/check.h"
#include "sim/topology/node_shape.h"

namespace shardsim {

Topology::Topology(TopologySpec spec, const Gpu& gpu, int gpus, const std::vector<DegradedLink>& degraded)
    : Topology(spec, std::vector<PartSpec>{{spec.node, gpu, gpus}}, degraded) {}

Topology::Topology(TopologySpec spec, const std::vector<PartSpec>& parts,
                   const std::vector<DegradedLink>& degraded)
    : spec_(std::move(spec)) {
  require(!parts.empty(), "a cluster without parts");
  std::int64_t link_ids = 0, most_nics = 0;  // link_ids: an upper bound, with a leaf for every NIC
  for (const PartSpec& p : parts) most_nics = std::max<std::int64_t>(most_nics, p.node.nics);
  for (const PartSpec& p : parts) {
    const int per_node = p.node.gpus;
    require(p.gpus > 0 && (p.gpus <= per_node || p.gpus % per_node == 0), "nodes are filled whole");
    const bool first = parts_.empty();
    Part part{.spec = p.node,
              .shape = make_node_shape(p.node, p.gpu),
              .gpus = p.gpus,
              .nodes = (p.gpus + per_node - 1) / per_node,
              .first_rank = first ? 0 : gpus(),
              .first_node = first ? 0 : nodes(),
              .first_link = first ? 0 : links_of_nodes()};
    link_ids += part.nodes * (static_cast<std::int64_t>(part.shape.links.size()) + 2 * most_nics);
    if (link_ids > std::numeric_limits<std::int32_t>::max())
      throw InputError(p.node.gpus_place,
                       std::to_string(link_ids) + " links of nodes and leaves are too many");
    parts_.push_back(std::move(part));
  }
  spec_.node = parts_.front().spec;
  for (const DegradedLink& d : degraded) {
    require(d.link.index >= 0 && d.link.index < links() && d.scale > 0, "a degraded link exists");
    const double part = static_cast<double>(full_capacity(d.link).count) * d.scale;
    degraded_.emplace_back(d.link, Bandwidth{std::max<std::int64_t>(1, std::llround(part))});
  }
  std::sort(degraded_.begin(), degraded_.end());
}

int Topology::links_of_nodes() const {
  const Part& last = parts_.back();
  return last.first_link + last.nodes * links_per_node(last);
}

int Topology::rails() const {
  int most = 0;
  for (const Part& part : parts_) most = std::max(most, part.shape.nics);
  return most;
}

int Topology::leaves() const {
  const int rails_of_pod = rails();
  if (rails_of_pod == 0 || spec_.fabric.kind == FabricKind::single_switch) return 0;
  const int pods = (nodes() + spec_.fabric.nodes_per_leaf - 1) / spec_.fabric.nodes_per_leaf;
  return spec_.fabric.kind == FabricKind::rail_fat_tree ? pods * rails_of_pod : pods;
}

int Topology::leaf_of(int node, int nic) const {
  const int pod = node / spec_.fabric.nodes_per_leaf;
  switch (spec_.fabric.kind) {
    case FabricKind::single_switch: return -1;
    case FabricKind::fat_tree: return pod;
    case FabricKind::rail_fat_tree: return pod * rails() + nic;
  }
  return -1;
}

// Uplinks are bought for the ports of a leaf: nodes that are missing at the end count as the last part's.
Bandwidth Topology::leaf_capacity(int leaf) const {
  const bool by_rail = spec_.fabric.kind == FabricKind::rail_fat_tree;
  const int begin = (by_rail ? leaf / rails() : leaf) * spec_.fabric.nodes_per_leaf;
  const int end = begin + spec_.fabric.nodes_per_leaf, rail = leaf % rails();
  double downlinks = 0, of_one = 0;  // of so many nodes in a row the downlinks are the same
  int nodes = 0;
  for (const Part& part : parts_) {
    const int from = std::max(begin, part.first_node);
    const int to = &part == &parts_.back() ? end : std::min(end, part.first_node + part.nodes);
    if (from >= to) continue;
    const int nics = by_rail ? (rail < part.shape.nics ? 1 : 0) : part.shape.nics;
    const double one = static_cast<double>(part.spec.nic.count) * part.spec.transport.efficiency * nics;
    if (one != of_one) downlinks += of_one * std::exchange(nodes, 0);
    of_one = one;
    nodes += to - from;
  }
  downlinks += of_one * nodes;
  return {std::llround(downlinks / spec_.fabric.oversubscription)};
}

const LocalLink& Topology::local_link(LinkId link) const {
  const Part& part = of_link(link);
  const int local = (link.index - part.first_link) % links_per_node(part);
  return part.shape.links[static_cast<std::size_t>(local)];
}

Bandwidth Topology::capacity(LinkId link) const {
  if (!degraded_.empty()) {
    const auto found = std::lower_bound(degraded_.begin(), degraded_.end(), std::pair(link, Bandwidth{}));
    if (found != degraded_.end() && found->first == link) return found->second;
  }
  return full_capacity(link);
}

bool Topology::has_degraded_links(int node) const {
  const int begin = link(node, 0).index, end = begin + links_per_node(part_at_node(node));
  const auto first =
      std::lower_bound(degraded_.begin(), degraded_.end(), std::pair(LinkId{begin}, Bandwidth{}));
  return first != degraded_.end() && first->first < LinkId{end};
}

NodeRange Topology::nodes_at(LinkId link) const {
  if (link.index >= links_of_nodes()) {
    const int leaf = (link.index - links_of_nodes()) / 2, on_leaf = spec_.fabric.nodes_per_leaf;
    const int first = (spec_.fabric.kind == FabricKind::rail_fat_tree ? leaf / rails() : leaf) * on_leaf;
    return {first, first + std::min(on_leaf, nodes() - first)};
  }
  const Part& part = of_link(link);
  const int node = part.first_node + (link.index - part.first_link) / links_per_node(part);
  return {node, node + 1};
}

Bandwidth Topology::full_capacity(LinkId link) const {
  if (link.index >= links_of_nodes()) return leaf_capacity((link.index - links_of_nodes()) / 2);
  return local_link(link).capacity;
}

LinkClass Topology::link_class(LinkId link) const {
  if (link.index >= links_of_nodes()) return LinkClass::leaf;
  return local_link(link).kind;
}

std::string Topology::link_name(LinkId link) const {
  const int inside = links_of_nodes();
  if (link.index >= inside) {
    const int leaf = (link.index - inside) / 2;
    const bool up = (link.index - inside) % 2 == 0;
    return "leaf" + std::to_string(leaf) + (up ? " -> spine" : " <- spine");
  }
  const Part& part = of_link(link);
  const LocalLink& local = local_link(link);
  const auto device = [&](int d) {
    return d == NodeShape::network ? std::string("network") : part.shape.devices[static_cast<std::size_t>(d)];
  };
  return "node" + std::to_string(nodes_at(link).first) + "." + device(local.from) + " -> " + device(local.to);
}

void Topology::route_between(int from_node, int from_nic, int to_node, int to_nic,
                             std::vector<LinkId>& out) const {
  out.push_back(link(from_node, node(from_node).nic_out[static_cast<std::size_t>(from_nic)]));
  const int up = leaf_of(from_node, from_nic), down = leaf_of(to_node, to_nic);
  if (up != down) {
    const int inside = links_of_nodes();
    out.push_back({inside + 2 * up});
    out.push_back({inside + 2 * down + 1});
  }
  out.push_back(link(to_node, node(to_node).nic_in[static_cast<std::size_t>(to_nic)]));
}

}  // namespace shardsim
