// Runs a step program on a cluster: the one entry to the simulation.
#pragma once

#include <vector>

#include "sim/program/program.h"
#include "sim/result/memory_snapshot.h"
#include "sim/result/memory_timeline.h"
#include "sim/result/result.h"
#include "sim/simulate/cluster.h"

namespace shardsim {

struct SimulateOptions {
  bool fold = true;  // simulate one rank of each class; false gives the same result, slower. The chunk level
                     // of the network never folds: the order of a ring tells its ranks apart.
  std::vector<Span>* timeline = nullptr;  // if set, receives every kernel, collective and copy
  bool critical_path = false;             // in the result: what the reported step consists of, in order
  // If set, receive the memory of the fullest rank, and every event of its allocator; everything runs twice.
  MemoryTimeline* memory = nullptr;
  MemorySnapshot* snapshot = nullptr;
};

// Steps run until duration and allocator state repeat: at least 3, at most 8, else `steady` is false. The
// result describes the last of them; peaks cover all. Running out of memory ends the run and is a result.
// `throughput` is left to the caller, who knows what a step means.
// Throws InputError when a kernel or transfer takes longer than longest_work, or the steps end after `latest`
// (time_range.h).
// Requires: verify(program) is empty; program.mesh.world == cluster.topology.gpus().
Result simulate(const Program& program, const Cluster& cluster, const SimulateOptions& options = {});

}  // namespace shardsim
