// Scenarios in which something costs nothing.
#pragma once

#include "sim/scenario/scenario.h"

namespace shardsim {

// Host, launch and driver.
inline void free_host(Scenario& s) {
  s.stack.host.fill({});
  s.stack.launch_latency = s.stack.host_wake = s.stack.cuda_malloc = s.stack.cuda_malloc_per_gib =
      s.stack.cuda_free = {};
}

// No latencies, no interference, and links of 4 PB/s.
inline void free_communication(Scenario& s) {
  s.gpu.interference = {};
  s.gpu.pcie = s.gpu.nvlink = s.topology.node.nic = Bandwidth{4'000'000'000'000'000};
  Nccl& n = s.stack.nccl;
  for (PerProtocol* p :
       {&n.ring_base, &n.tree_base, &n.ring_nvlink, &n.tree_nvlink, &n.ring_network, &n.tree_network})
    p->fill({});
  n.launch = s.topology.node.network_overhead = s.topology.node.transport.hop_latency = {};
  n.nvlink_efficiency = {{1, 1.0}};
  s.topology.node.transport.half_rate_mib = 0;
}

}  // namespace shardsim
