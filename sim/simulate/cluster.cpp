#include "sim/simulate/cluster.h"

#include <algorithm>

namespace shardsim {
namespace {

// Steps over a hop between two kinds of node go at the pace of the slower end.
Transport worst_of(Transport a, const Transport& b) {
  if (a.name != b.name) a.name += " + " + b.name;
  a.efficiency = std::min(a.efficiency, b.efficiency);
  a.efficiency_many_leaves = std::min(a.efficiency_many_leaves, b.efficiency_many_leaves);
  a.half_rate_mib = std::max(a.half_rate_mib, b.half_rate_mib);
  a.fabric_half_rate_mib = std::max(a.fabric_half_rate_mib, b.fabric_half_rate_mib);
  a.hop_latency = std::max(a.hop_latency, b.hop_latency);
  a.ll128 = a.ll128 && b.ll128;
  return a;
}

}  // namespace

CollectiveModel collective_model(const Cluster& cluster, std::span<const int> parts) {
  const auto spec = [&](int p) -> const NodeSpec& { return cluster.part(p).spec; };
  CollectiveModel model{cluster.stack.nccl, cluster.gpu_of(parts.front()).architecture,
                        spec(parts.front()).transport, spec(parts.front()).network_overhead};
  for (const int p : parts.subspan(1)) {
    model.architecture = std::min(model.architecture, cluster.gpu_of(p).architecture);
    model.transport = worst_of(model.transport, spec(p).transport);
    model.network_overhead = std::max(model.network_overhead, spec(p).network_overhead);
  }
  return model;
}

}  // namespace shardsim
