// How NCCL would run one collective on one group, and what that costs on an idle fabric.
//
// A collective is a latency phase, then a transfer phase that moves `wire` bytes per rank at up to `cap`;
// alone on its links it takes latency + wire / cap, rounded up. The algorithm and the protocol with the least
// such time are chosen once, from the group's shape; neighbours on the links slow the transfer, not the
// choice.
//   source  the recommended model of NVIDIA/nccl src/graph/tuning.cc with message-size efficiencies fitted to
//           nccl-tests results (stas00/ml-engineering, Azure/AI-benchmarking-guide)
//   leaves out  CollNet / SHARP, PAT; the 1/G that NVLS adds to the load of NVLinks under a tree
#pragma once

#include <string_view>

#include "sim/base/collective_kind.h"
#include "sim/base/units.h"
#include "sim/collective/rings.h"
#include "sim/hardware/stack.h"

namespace shardsim {

enum class Algorithm : std::uint8_t { ring, tree, nvls, nvls_tree };
constexpr std::string_view name(Algorithm a) {
  constexpr std::string_view names[] = {"ring", "tree", "nvls", "nvls_tree"};
  return names[static_cast<int>(a)];
}
constexpr std::string_view name(Protocol p) {
  constexpr std::string_view names[] = {"LL", "LL128", "Simple"};
  return names[static_cast<int>(p)];
}

// Of a plan's transfer on the links of the group's rings, a multiple of the rings' channels there. A tree
// over two nodes sends each byte once per direction between them, a ring twice; under NVLS it is the NVLinks
// that carry each byte once.
enum class LinkLoad : std::uint8_t { even, node_twice, network_twice };
inline constexpr int link_loads = 3;

struct Plan {
  Algorithm algorithm{};
  Protocol protocol{};
  Time latency{};
  // Of the latency: what a step of the ring or an edge of the tree takes inside a node and between nodes.
  Time step_inside{}, step_between{};
  Bytes bus{};       // what nccl-tests divides by the time: the bytes a ring would send
  Bytes wire{};      // that each rank sends: a ring's to its neighbour, a tree's up and down
  Bandwidth cap{};   // of the wire: bottleneck of the route times message-size and protocol efficiency
  int sms = 0;       // held on every GPU from start to end
  int channels = 0;  // of the transfer: on a link it uses wire rate * channels there * load / these
  LinkLoad load{};

  Time alone() const { return latency + wire / cap; }
};

// Everything about one GPU generation, stack and transport that the choice depends on. Of a group on several
// kinds: the oldest generation, the worst of each constant of the transports.
struct CollectiveModel {
  const Nccl& nccl;
  Architecture architecture;
  Transport transport;
  Time network_overhead;
};

// Requires: group.ranks > 1, bytes > 0.
Plan plan(const CollectiveModel& model, const RingFabric& group, CollectiveKind kind, Bytes bytes);

// The candidates `plan` chooses from; a new algorithm is one function and one line in collective/plan.cpp.
std::vector<Plan> candidates(const CollectiveModel& model, const RingFabric& group, CollectiveKind kind,
                             Bytes bytes);

}  // namespace shardsim
