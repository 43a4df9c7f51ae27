// What `shardsim show` prints.
#pragma once

#include <string>

#include "sim/scenario/library.h"
#include "sim/topology/topology.h"

namespace shardsim {

std::string show_list(const Library& library, const std::string& kind);
std::string show_topology(const Library& library, const std::string& name);
std::string show_topology_graphviz(const Library& library, const std::string& name);
std::string show_model(const Library& library, const std::string& name);

}  // namespace shardsim
