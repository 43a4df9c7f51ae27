#include "sim/topology/device_links.h"

namespace shardsim {

std::vector<LinkId> nvlinks_of_gpu(const Topology& topology, int node, int gpu) {
  std::vector<LinkId> result;
  const auto& links = topology.node(node).links;
  for (std::size_t l = 0; l < links.size(); ++l)
    if (links[l].kind == LinkClass::nvlink && (links[l].from == gpu || links[l].to == gpu))
      result.push_back(topology.link(node, static_cast<int>(l)));
  return result;
}

std::vector<LinkId> links_of_nic(const Topology& topology, int node, int nic) {
  const auto n = static_cast<std::size_t>(nic);
  return {topology.link(node, topology.node(node).nic_out[n]),
          topology.link(node, topology.node(node).nic_in[n])};
}

std::vector<LinkId> uplinks_of_leaf(const Topology& topology, int leaf) {
  const int first = topology.links() - 2 * topology.leaves();
  return {{first + 2 * leaf}, {first + 2 * leaf + 1}};
}

}  // namespace shardsim
