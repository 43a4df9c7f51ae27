#include "sim/topology/topology.h"

#include <algorithm>
#include <cmath>

#include "sim/base/check.h"
#include "sim/topology/node_shape.h"

namespace shardsim {

Topology::Topology(TopologySpec spec, const Gpu& gpu, int gpus, const std::vector<DegradedLink>& degraded)
    : spec_(std::move(spec)),
      shape_(make_node_shape(spec_.node, gpu)),
      gpus_(gpus),
      nodes_((gpus + spec_.node.gpus - 1) / spec_.node.gpus) {
  require(gpus > 0 && (gpus <= spec_.node.gpus || gpus % spec_.node.gpus == 0), "nodes are filled whole");
  for (const DegradedLink& d : degraded) {
    require(d.link.index >= 0 && d.link.index < links() && d.scale > 0, "a degraded link exists");
    const double part = static_cast<double>(full_capacity(d.link).count) * d.scale;
    degraded_.emplace_back(d.link, Bandwidth{std::max<std::int64_t>(1, std::llround(part))});
  }
  std::sort(degraded_.begin(), degraded_.end());
}

int Topology::leaves() const {
  if (shape_.nics == 0 || spec_.fabric.kind == FabricKind::single_switch) return 0;
  const int pods = (nodes_ + spec_.fabric.nodes_per_leaf - 1) / spec_.fabric.nodes_per_leaf;
  return spec_.fabric.kind == FabricKind::rail_fat_tree ? pods * shape_.nics : pods;
}

int Topology::leaf_of(int node, int nic) const {
  const int pod = node / spec_.fabric.nodes_per_leaf;
  switch (spec_.fabric.kind) {
    case FabricKind::single_switch: return -1;
    case FabricKind::fat_tree: return pod;
    case FabricKind::rail_fat_tree: return pod * shape_.nics + nic;
  }
  return -1;
}

Bandwidth Topology::leaf_capacity() const {
  const int nics = spec_.fabric.kind == FabricKind::rail_fat_tree ? 1 : shape_.nics;
  const double downlinks = static_cast<double>(spec_.node.nic.count) * spec_.node.transport.efficiency *
                           nics * spec_.fabric.nodes_per_leaf;
  return {std::llround(downlinks / spec_.fabric.oversubscription)};
}

Bandwidth Topology::capacity(LinkId link) const {
  if (!degraded_.empty()) {
    const auto found = std::lower_bound(degraded_.begin(), degraded_.end(), std::pair(link, Bandwidth{}));
    if (found != degraded_.end() && found->first == link) return found->second;
  }
  return full_capacity(link);
}

bool Topology::has_degraded_links(int node) const {
  const auto first =
      std::lower_bound(degraded_.begin(), degraded_.end(), std::pair(link(node, 0), Bandwidth{}));
  return first != degraded_.end() && first->first < link(node + 1, 0);
}

Bandwidth Topology::full_capacity(LinkId link) const {
  if (link.index >= nodes_ * links_per_node()) return leaf_capacity();
  return shape_.links[static_cast<std::size_t>(link.index % links_per_node())].capacity;
}

LinkClass Topology::link_class(LinkId link) const {
  if (link.index >= nodes_ * links_per_node()) return LinkClass::leaf;
  return shape_.links[static_cast<std::size_t>(link.index % links_per_node())].kind;
}

std::string Topology::link_name(LinkId link) const {
  const int inside = nodes_ * links_per_node();
  if (link.index >= inside) {
    const int leaf = (link.index - inside) / 2;
    const bool up = (link.index - inside) % 2 == 0;
    return "leaf" + std::to_string(leaf) + (up ? " -> spine" : " <- spine");
  }
  const LocalLink& local = shape_.links[static_cast<std::size_t>(link.index % links_per_node())];
  const auto device = [&](int d) {
    return d == NodeShape::network ? std::string("network") : shape_.devices[static_cast<std::size_t>(d)];
  };
  return "node" + std::to_string(link.index / links_per_node()) + "." + device(local.from) + " -> " +
         device(local.to);
}

void Topology::route_between(int from_node, int from_nic, int to_node, int to_nic,
                             std::vector<LinkId>& out) const {
  out.push_back(link(from_node, shape_.nic_out[static_cast<std::size_t>(from_nic)]));
  const int up = leaf_of(from_node, from_nic), down = leaf_of(to_node, to_nic);
  if (up != down) {
    const int inside = nodes_ * links_per_node();
    out.push_back({inside + 2 * up});
    out.push_back({inside + 2 * down + 1});
  }
  out.push_back(link(to_node, shape_.nic_in[static_cast<std::size_t>(to_nic)]));
}

}  // namespace shardsim
