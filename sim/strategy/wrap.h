// Which modules FSDP makes units of.
#pragma once

#include <vector>

#include "sim/model/op_graph.h"
#include "sim/strategy/options.h"

namespace shardsim {

struct Wrapping {
  std::vector<ModuleId> units;              // the root first, which holds what no block does
  IdVector<ModuleId, std::size_t> unit_of;  // its index in `units`
};
Wrapping wrap_modules(const OpGraph& graph, Wrap wrap);

}  // namespace shardsim
