// A software stack as numbers: what PyTorch's host thread, allocator and NCCL cost in one set of versions.
// The numbers come from topologies/stacks/*.toml, each with its source.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sim/base/host_work.h"
#include "sim/base/kernel.h"
#include "sim/base/units.h"
#include "sim/hardware/gpu.h"

namespace shardsim {

enum class Protocol : std::uint8_t { ll, ll128, simple };
using PerProtocol = std::array<Time, 3>;

// All-reduces that NVSwitches add up and multicast (NVLink SHARP): alone on one node, under a tree over
// several.
struct Nvls {
  int channels{};
  double efficiency{};           // of the rate that rings get out of the same links
  Bytes chunk;                   // per channel and rank in one round of the pipeline
  Time latency;                  // once per collective
  Time network_latency;          // per level of the tree, up or down
  double tree_step_floor_mib{};  // as Nccl's, of the tree between nodes
};

// NCCL's tuning constants of one GPU generation. NVIDIA/nccl, src/graph/tuning.cc.
struct NcclArchitecture {
  Bandwidth ll_max_one_node, ll_max_nodes;  // ceiling of protocol LL
  Bandwidth tree_channel_two_nodes;         // ceiling of a tree channel over two nodes
  Bandwidth tree_channel_nodes;             // over three nodes or more
  Bandwidth tree_channel_ll128;             // in protocol LL128
  double ring_plateau{};  // latency factor of a ring all-reduce between nodes, protocol Simple
  Bytes first_use;        // outside the allocator, once per process
  std::optional<Nvls> nvls;
};

struct Nccl {
  PerProtocol ring_base, tree_base;      // once per collective
  PerProtocol ring_nvlink, tree_nvlink;  // per step inside a node
  PerProtocol ring_network, tree_network;
  Time launch;                // kernel launch and synchronisation of the ranks
  double ll128_efficiency{};  // of the link rate, measured over a ring
  // Share of the NVLink rate a ring reaches, by MiB per channel and step; log-linear between knots.
  std::vector<std::array<double, 2>> nvlink_efficiency;
  // Share of its rate a tree reaches, by protocol and log2(bytes / 64).
  std::array<std::vector<double>, 3> tree_correction;
  // MiB per channel and step that a tree's shrinking chunks make up for: its NICs never fall to no rate at
  // all.
  double tree_step_floor_mib{};
  std::array<NcclArchitecture, architectures> architecture;
  Bytes per_connection;  // outside the allocator, per channel and connection of a communicator
  int connections{};     // per channel: ring and tree

  const NcclArchitecture& of(Architecture a) const { return architecture[static_cast<std::size_t>(a)]; }
};

struct Stack {
  std::string name;
  std::string versions;  // for people: PyTorch, NCCL, CUDA
  std::array<Time, host_works> host;
  Time launch_latency;  // from the launch on the host to the earliest start on the GPU
  Time host_wake;       // from the completion of an event to the host thread going on
  int launch_queue{};   // launches a stream holds before the host blocks
  Time cuda_malloc, cuda_malloc_per_gib, cuda_free;   // driver calls of the caching allocator
  std::array<Bytes, architectures> cublas_workspace;  // in the allocator, per handle and stream that multiply
  bool collectives_record_streams{};     // c10d marks tensors as used by the NCCL stream (PyTorch <= 2.1)
  bool compiles{};                       // torch.compile
  std::vector<AttentionKind> attention;  // implementations the stack has, best first
  std::string optimizer_impl;            // the default
  std::string mixed_precision;           // the default of data parallelism: autocast or o2
  bool no_sync{};                        // the default under accumulation
  int train_metrics{};                   // the default
  bool fused_softmax{};                  // of unfused attention: scale, mask and softmax are one kernel
  // Rate of the libraries' matrix products over that of the GPU file, which knows the libraries of 2024.
  std::array<double, architectures> gemm_efficiency{};
  // Share of the usable memory bandwidth that its kernels reach on 16-bit elements.
  double narrow_efficiency{};
  bool limit_all_gathers{};  // the default
  Nccl nccl;

  Time cost(HostWork work) const { return host[static_cast<std::size_t>(work)]; }
};

}  // namespace shardsim
