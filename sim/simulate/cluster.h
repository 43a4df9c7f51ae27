// What a program runs on: the hardware, and how its software is set up.
#pragma once

#include <vector>

#include "sim/base/id.h"
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

struct Cluster {
  const Topology& topology;
  const Gpu& gpu;
  const Stack& stack;
  std::vector<Straggler> stragglers;
  AllocatorConfig allocator{};
};

}  // namespace shardsim
