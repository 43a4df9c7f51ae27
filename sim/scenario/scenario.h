// A scenario in full: every value resolved, checked against the others, and traceable to its origin.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sim/hardware/gpu.h"
#include "sim/hardware/stack.h"
#include "sim/memory/caching_allocator.h"
#include "sim/model/fusion.h"
#include "sim/model/spec.h"
#include "sim/model/workload.h"
#include "sim/result/memory_snapshot.h"
#include "sim/result/memory_timeline.h"
#include "sim/result/record.h"
#include "sim/scenario/library.h"
#include "sim/scenario/settings.h"
#include "sim/simulate/cluster.h"
#include "sim/strategy/strategy.h"
#include "sim/topology/spec.h"

namespace shardsim {

// GPUs of a mixed cluster that are alike, in nodes of one kind.
struct ClusterPart {
  TopologySpec topology;
  Gpu gpu;
  std::int64_t gpus = 0;
};

struct Scenario {
  ModelSpec model;
  TopologySpec topology;           // of a mixed cluster: its fabric, and the nodes of the first part
  Gpu gpu;                         // the first part's
  std::vector<ClusterPart> parts;  // of a mixed cluster, in the order of the ranks; else none
  Stack stack;
  std::int64_t gpus = 0;
  Workload workload;
  Training training;
  std::optional<CompileScope> compiled;  // by torch.compile
  Strategy strategy;
  std::string strategy_name;  // "ddp", "fsdp F=8"
  std::string precision;      // as in the scenario
  std::vector<Straggler> stragglers;
  Jitter jitter;
  std::vector<DegradedLink> degraded_links;
  std::vector<BackgroundTraffic> background;
  NetworkDetail detail{};
  AllocatorConfig allocator;
  std::int64_t global_batch = 0;         // sequences
  std::int64_t global_batch_tokens = 0;  // encoder + decoder
  std::vector<RecordedValue> values;     // in the order of the key table
  std::uint64_t hash = 0;                // of the values
};

// Fills every default and checks legality. Throws InputError with the place of what is wrong. `overlay` comes
// on top of the one that the settings name.
Scenario resolve(const Settings& settings, const Library& library, const Overlay& overlay = {});

struct RunOptions {
  bool fold = true;
  bool critical_path = false;
  std::vector<Span>* timeline = nullptr;
  MemoryTimeline* memory = nullptr;
  MemorySnapshot* snapshot = nullptr;
};

// The whole chain: op graph, program, simulation, and the throughput that follows.
RunRecord run(const Scenario& scenario, const RunOptions& options = {});

// What it runs on. The cluster refers to the scenario and the topology.
Topology make_topology(const Scenario& scenario);
Cluster make_cluster(const Scenario& scenario, const Topology& topology);
std::vector<const Gpu*> gpu_types(const Scenario& scenario);  // of each part; at least one

// The program a scenario compiles to. One for all ranks: tensors whose size depends on the GPU (cuBLAS'
// workspace) have the largest on every part.
Program compile(const Scenario& scenario);

}  // namespace shardsim
