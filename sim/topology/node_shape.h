// The devices and links of one node, from its spec.
#pragma once

#include "sim/hardware/gpu.h"
#include "sim/topology/spec.h"
#include "sim/topology/topology.h"

namespace shardsim {

// Throws InputError at the place of an explicit link that is wrong, or of node.gpus when a GPU is
// unreachable.
NodeShape make_node_shape(const NodeSpec& spec, const Gpu& gpu);

}  // namespace shardsim
