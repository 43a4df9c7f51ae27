#include "sim/model/op_graph.h"

#include <algorithm>
#include <set>

namespace shardsim {

Bytes bytes_of(const OpGraph& graph, ValueId value) {
  return storage(graph.values[value].elements, graph.values[value].dtype);
}

std::int64_t parameter_count(const OpGraph& graph) {
  std::int64_t count = 0;
  for (const Parameter& p : graph.parameters) count += p.elements;
  return count;
}

std::int64_t parameter_count(const OpGraph& graph, ModuleId module) {
  std::int64_t count = 0;
  for (const Parameter& p : graph.parameters)
    if (p.module == module) count += p.elements;
  return count;
}

Flop forward_flop(const OpGraph& graph) {
  Flop total;
  for (const Op& op : graph.ops) total += op.model_flop;
  return total;
}

Bytes saved_bytes(const OpGraph& graph, const Segment& segment, const std::vector<ValueId>& shared) {
  std::set<ValueId> storages;
  for (OpId op = segment.first; op < segment.last; ++op.index)
    for (const ValueId v : graph.ops[op].saved) storages.insert(graph.values[v].storage);
  for (const ValueId v : shared) storages.erase(v);
  Bytes total;
  for (const ValueId v : storages) total += bytes_of(graph, v);
  return total;
}

}  // namespace shardsim
