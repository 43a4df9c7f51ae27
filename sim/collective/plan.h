// How NCCL would run one collective on one group, and what that costs on an idle fabric.
//
// A collective is a latency phase, then a transfer phase that moves `wire` bytes per rank at up to `cap`;
// alone on its links it takes latency + wire / cap, rounded up. The algorithm and the protocol with the least
// such time are chosen once, from the group's shape; neighbours on the links slow the transfer, not the
// choice.
//   source  the recommended model of NVIDIA/nccl src/graph/tuning.cc with message-size efficiencies fitted to
//           nccl-tests results (stas00/ml-engineering, Azure/AI-benchmarking-guide)
//   leaves out  NVLS, CollNet / SHARP, PAT
#pragma once

#include <string_view>

#include "sim/base/collective_kind.h"
#include "sim/base/units.h"
#include "sim/collective/rings.h"
#include "sim/hardware/stack.h"

namespace shardsim {

enum class Algorithm : std::uint8_t { ring, tree };
constexpr std::string_view name(Algorithm a) { return a == Algorithm::ring ? "ring" : "tree"; }
constexpr std::string_view name(Protocol p) {
  constexpr std::string_view names[] = {"LL", "LL128", "Simple"};
  return names[static_cast<int>(p)];
}

struct Plan {
  Algorithm algorithm{};
  Protocol protocol{};
  Time latency{};
  Bytes wire{};  // that each rank sends to its neighbour: bus bytes of nccl-tests
  Bandwidth
      cap{};    // of the bus bandwidth: bottleneck of the route times message-size and protocol efficiency
  int sms = 0;  // held on every GPU from start to end
  bool halves_network = false;  // a tree over two nodes sends each byte once per direction, not twice

  Time alone() const { return latency + wire / cap; }
};

// Everything about one GPU generation, stack and transport that the choice depends on.
struct CollectiveModel {
  const Nccl& nccl;
  Architecture architecture;
  const Transport& transport;
  Time network_overhead;
};

// Requires: group.ranks > 1, bytes > 0.
Plan plan(const CollectiveModel& model, const RingFabric& group, CollectiveKind kind, Bytes bytes);

// The candidates `plan` chooses from; a new algorithm is one function and one line in collective/plan.cpp.
std::vector<Plan> candidates(const CollectiveModel& model, const RingFabric& group, CollectiveKind kind,
                             Bytes bytes);

}  // namespace shardsim
