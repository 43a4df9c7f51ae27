// What a topology file says: one kind of node, its links, and the fabric between nodes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "sim/base/error.h"
#include "sim/base/units.h"

namespace shardsim {

// How bytes leave a node: constants of the transport and its NICs. topologies/transports/*.toml.
struct Transport {
  std::string name;
  double efficiency{};                // payload over line rate for large messages
  double efficiency_many_leaves = 1;  // further factor once a group spans several leaf switches
  double half_rate_mib{};  // bytes per channel and ring step at which a NIC reaches half its rate, MiB
  // What the fabric adds to that under load (congestion, slow proxies), unknown to NCCL when it chooses.
  double fabric_half_rate_mib = 0;
  Time hop_latency;   // of one network hop beyond NCCL's own constant
  bool ll128 = true;  // NIC path close enough to the GPU for NCCL to allow protocol LL128
};

enum class Intra : std::uint8_t { nvswitch, hybrid_cube_mesh, pcie, links };
constexpr std::string_view name(Intra intra) {
  constexpr std::string_view names[] = {"nvswitch", "hybrid-cube-mesh", "pcie", "links"};
  return names[static_cast<int>(intra)];
}

// One link of an explicit list, both directions. Devices are gpu0 .. gpuN-1 and any other names (switches).
struct ExplicitLink {
  std::string a, b;
  Bandwidth bandwidth;  // one direction
  Place place;          // for messages
};

struct NodeSpec {
  int gpus{};
  Intra intra{};
  std::vector<ExplicitLink> links;  // intra = links
  int gpus_per_pcie_switch = 2;
  int nics{};             // 0: the node has no network
  Bandwidth nic;          // line rate of each
  Time network_overhead;  // of the host CPU per ring step once a group spans nodes (NCCL: AMD 2 us, Intel 1
                          // us)
  Transport transport;
  Bytes host_memory;         // of the node
  Bandwidth host_bandwidth;  // that all its cores together reach in streaming passes
  Place gpus_place;
};

enum class FabricKind : std::uint8_t { single_switch, fat_tree, rail_fat_tree };
constexpr std::string_view name(FabricKind kind) {
  constexpr std::string_view names[] = {"single-switch", "fat-tree", "rail-fat-tree"};
  return names[static_cast<int>(kind)];
}

struct FabricSpec {
  FabricKind kind = FabricKind::single_switch;
  int nodes_per_leaf = 1;
  double oversubscription = 1.0;  // downlink over uplink capacity of a leaf
  double step_jitter = 0;         // std over mean of a rank's step time from one step and rank to the next
};

struct TopologySpec {
  std::string name;
  std::string source;
  std::string gpu;  // a name in topologies/gpus
  NodeSpec node;
  FabricSpec fabric;
};

}  // namespace shardsim
