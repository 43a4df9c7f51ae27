// The links that people mean by a device, for what-ifs.
#pragma once

#include <vector>

#include "sim/topology/topology.h"

namespace shardsim {

// Both directions of the NVLinks of a GPU; none where GPUs talk over PCIe.
std::vector<LinkId> nvlinks_of_gpu(const Topology& topology, int node, int gpu);
// Both directions between a NIC and its leaf switch.
std::vector<LinkId> links_of_nic(const Topology& topology, int node, int nic);
// From a leaf switch up to the spine, and down.
std::vector<LinkId> uplinks_of_leaf(const Topology& topology, int leaf);

}  // namespace shardsim
