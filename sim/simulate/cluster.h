// What a program runs on: the hardware, and how its software is set up.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "sim/base/id.h"
#include "sim/collective/plan.h"
#include "sim/hardware/gpu.h"
#include "sim/hardware/stack.h"
#include "sim/memory/caching_allocator.h"
#include "sim/topology/topology.h"

namespace shardsim {

// A GPU that computes slower (scale < 1) or faster than the others.
struct Straggler {
  Rank rank;
  double compute_scale = 1.0;  // of its kernels' speed, > 0
};

// Ranks that are nominally equal do not take equally long: the step time of a rank varies around its mean
// from one step and rank to the next.
struct Jitter {
  // expected-maximum adds to the step what the slowest of all ranks needs more on average, once: the step
  // synchronises them. sampled gives each rank a compute speed of its own, drawn from the seed.
  enum class Mode : std::uint8_t { expected_maximum, sampled };
  Mode mode = Mode::expected_maximum;
  double step_sigma = 0;  // standard deviation over mean of a rank's step time
  std::uint64_t seed = 0;
};
constexpr std::string_view name(Jitter::Mode mode) {
  return mode == Jitter::Mode::sampled ? "sampled" : "expected-maximum";
}
// What other jobs put on a link: at the fluid level one transfer that never ends, at the chunk level messages
// without end.
struct BackgroundTraffic {
  LinkId link;
  Bandwidth rate;          // offered; it gets less where the link is full
  std::int64_t flows = 2;  // its weight against a collective's channels on the link
};

enum class NetworkDetail : std::uint8_t { fluid, chunk };
constexpr std::string_view name(NetworkDetail detail) {
  return detail == NetworkDetail::fluid ? "fluid" : "chunk";
}

struct Cluster {
  const Topology& topology;
  const Gpu& gpu;
  const Stack& stack;
  std::vector<Straggler> stragglers;
  AllocatorConfig allocator{};
  Jitter jitter{};
  std::vector<BackgroundTraffic> background{};
  NetworkDetail detail = NetworkDetail::fluid;
  std::vector<const Gpu*> gpu_of_part{};  // of each part of the topology; empty = `gpu` everywhere

  const Gpu& gpu_of(int part) const {
    return gpu_of_part.empty() ? gpu : *gpu_of_part[static_cast<std::size_t>(part)];
  }
  const Part& part(int index) const { return topology.parts()[static_cast<std::size_t>(index)]; }
};

// How collectives run in a group whose members are on these parts.
CollectiveModel collective_model(const Cluster& cluster, std::span<const int> parts);

}  // namespace shardsim
