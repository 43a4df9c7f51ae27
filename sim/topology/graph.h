// Graph algorithms on the links of a node or a cluster; the door to Boost.Graph.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "sim/topology/topology.h"

namespace shardsim {

// Links of the shortest path (fewest hops, then lowest device) between each pair of the first `gpus` of
// `devices` devices: result[a][b], indices into `links`; empty when a == b or b cannot be reached from a.
std::vector<std::vector<std::vector<int>>> shortest_routes(int devices, int gpus,
                                                           std::span<const LocalLink> links);

// The cluster's first node, its NICs and the fabric above them, in Graphviz' language.
std::string graphviz(const Topology& topology);

}  // namespace shardsim
