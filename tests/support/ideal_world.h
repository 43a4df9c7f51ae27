// Hardware on which times can be done in the head: a kernel that moves n bytes takes n picoseconds, an
// all-gather of n bytes over R ranks moves n (R-1)/R bytes at the link rate, and everything else is free
// unless a test says so.
#pragma once

#include <string>
#include <vector>

#include "sim/program/builder.h"
#include "sim/simulate/simulate.h"

namespace shardsim {

struct IdealWorld {
  Gpu gpu;
  Stack stack;
  TopologySpec spec;
  std::vector<Straggler> stragglers;
  AllocatorConfig allocator{};
  Jitter jitter{};
  int gpus;

  explicit IdealWorld(int ranks, int gpus_per_node = 0) : gpus(ranks) {
    gpu.name = "ideal";
    gpu.architecture = Architecture::ampere;
    gpu.sms = 1'000'000'000;  // so many that the few a collective takes do not matter
    gpu.memory = Bytes{std::int64_t{1} << 40};
    gpu.memory_bandwidth = Bandwidth{1'000'000'000'000};
    gpu.memory_efficiency = 1;
    gpu.nvlinks = 1;
    gpu.nvlink = Bandwidth{1'000'000'000'000};  // 1 byte per picosecond
    gpu.nvlink_efficiency = 1;
    gpu.pcie = Bandwidth{1'000'000'000'000};
    for (const DType t : {DType::fp32, DType::tf32, DType::fp16, DType::bf16})
      gpu.gemm[static_cast<std::size_t>(t)] = GemmProfile{.peak = {1e18},
                                                          .sustained = {1e15},  // 1000 FLOP per picosecond
                                                          .tile_efficiency = {1, 1, 1, 1, 1},
                                                          .prologue = {},
                                                          .memory_efficiency = 1e6};
    stack.name = "ideal";
    stack.launch_queue = 1 << 20;
    stack.nccl.ll128_efficiency = 1e-3;  // never worth it
    stack.nccl.nvlink_efficiency = {{1, 1.0}};
    for (auto& correction : stack.nccl.tree_correction) correction = {1e-3};
    for (auto& a : stack.nccl.architecture)
      a = {.ll_max_one_node = {1},
           .ll_max_nodes = {1},
           .tree_channel_two_nodes = {1},
           .tree_channel_nodes = {1},
           .tree_channel_ll128 = {1},
           .ring_plateau = 1,
           .first_use = {},
           .nvls = {}};
    stack.nccl.connections = 1;
    spec.name = "ideal";
    spec.node.gpus = gpus_per_node == 0 ? ranks : gpus_per_node;
    spec.node.intra = Intra::nvswitch;
    spec.node.nics = gpus_per_node == 0 ? 0 : gpus_per_node;
    spec.node.gpus_per_pcie_switch = 1;
    spec.node.nic = Bandwidth{100'000'000'000};  // 10 picoseconds per byte
    spec.node.host_memory = Bytes{std::int64_t{1} << 50};
    spec.node.host_bandwidth = Bandwidth{1'000'000'000'000};
    spec.node.transport = {.name = "ideal",
                           .efficiency = 1,
                           .efficiency_many_leaves = 1,
                           .half_rate_mib = 0,
                           .hop_latency = {},
                           .ll128 = false};
  }

  Result run(const Program& program, bool fold = true, std::vector<Span>* timeline = nullptr) const {
    const Topology topology(spec, gpu, gpus);
    return simulate(program, Cluster{topology, gpu, stack, stragglers, allocator, jitter},
                    {.fold = fold, .timeline = timeline});
  }
};

// A kernel that takes so many picoseconds on ideal hardware.
inline Kernel kernel_of(std::int64_t picoseconds) { return MemoryBound{Bytes{picoseconds}}; }

// A program whose steps all run the instructions that `write` emits.
template <class Write>
Program program_of(Mesh mesh, const Write& write) {
  ProgramBuilder b(mesh);
  const BodyId body = b.begin_body();
  write(b);
  for (const Section s : {Section::first, Section::second, Section::steady}) b.append_to(s, body);
  return std::move(b).finish();
}

}  // namespace shardsim
