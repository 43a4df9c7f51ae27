#include "sim/strategy/wrap.h"

namespace shardsim {

Wrapping wrap_modules(const OpGraph& graph, Wrap wrap) {
  Wrapping w{{ModuleId{0}}, IdVector<ModuleId, std::size_t>(graph.modules.size(), 0)};
  for (const ModuleId m : ids(graph.modules)) {
    if (!graph.modules[m].block || wrap == Wrap::model) continue;
    w.unit_of[m] = w.units.size();
    w.units.push_back(m);
  }
  return w;
}

}  // namespace shardsim
