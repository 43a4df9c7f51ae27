// One FSDP step that other simulators were measured on: 48 blocks of 470 MB on nodes of 8 GPUs, NVLink at
// 300 GB/s, a NIC of 25 GB/s per GPU. README.md explains their times beside ours.
//
// Assumed, to be like for like:
//   a block is gathered before its forward and again before its backward, and its gradient reduced after it;
//     a gather begins when the block two before begins to compute (prefetch 2), all collectives of a rank one
//     after the other
//   5 ms of compute after the last reduction: what the peer's times contain beyond blocks and exposed
//     communication, the same at every size
//   no latencies, no cost of host or memory, kernels and collectives do not slow each other
//   one step from a cold start is simulated, as by the peer: the first gather and the last reduction are
//   exposed

#include <algorithm>
#include <array>
#include <string>

#include "tests/support/ideal_world.h"

#include "tools/bench/bench.h"

namespace shardsim {
namespace {

using namespace literals;

constexpr int blocks = 48, prefetch = 2, gpus_per_node = 8, collectives = 3 * blocks;
constexpr Bytes block{470'000'000};
constexpr Bandwidth nvlink = 300_GBps, nic = 25_GBps;
constexpr std::int64_t optimizer_us = 5'000;

struct PeersCase {
  const char* name;
  int ranks;
  std::int64_t forward_us, backward_us;  // of a block
  NetworkDetail detail;
  bool fold;
  double peer_ms;  // 0: not known
};
constexpr PeersCase cases[] = {
    {"peers/chunk/8", 8, 12'833, 25'667, NetworkDetail::chunk, false, 1857.97},
    {"peers/chunk/64", 64, 12'833, 25'667, NetworkDetail::chunk, false, 1861.73},
    {"peers/chunk/512", 512, 12'833, 25'667, NetworkDetail::chunk, false, 1862.81},
    {"peers/chunk/8/communication-bound", 8, 1'604, 3'208, NetworkDetail::chunk, false, 257.57},
    {"peers/chunk/64/communication-bound", 64, 1'604, 3'208, NetworkDetail::chunk, false, 426.43},
    {"peers/chunk/512/communication-bound", 512, 1'604, 3'208, NetworkDetail::chunk, false, 478.37},
    {"peers/fluid/512", 512, 12'833, 25'667, NetworkDetail::fluid, false, 1862.81},
    {"peers/fluid/1024", 1'024, 12'833, 25'667, NetworkDetail::fluid, false, 0},
    {"peers/folded/512", 512, 12'833, 25'667, NetworkDetail::fluid, true, 1862.81},
    {"peers/folded/1024", 1'024, 12'833, 25'667, NetworkDetail::fluid, true, 0},
};

IdealWorld world_of(int ranks) {
  IdealWorld world(ranks, gpus_per_node);
  world.gpu.sms = 108;
  world.gpu.nvlink = nvlink;
  world.spec.node.nic = nic;
  return world;
}

// Takes so long on the ideal GPU whatever collectives run beside it: its products sustain 1e15 FLOP/s.
Kernel busy(std::int64_t microseconds) {
  return Gemm{.m = microseconds, .n = 20'000, .k = 25'000, .dtype = DType::bf16};
}

Program fsdp_step(const PeersCase& of) {
  ProgramBuilder b({.world = of.ranks, .shard = of.ranks});
  const GroupId all = b.group(Axis::world);
  const StreamId network = b.stream_of(all);
  const BodyId body = b.begin_body();
  std::vector<EventId> gathered;
  for (std::size_t use = 0; use < 2 * blocks; ++use) {
    for (; gathered.size() < std::min<std::size_t>(2 * blocks, use + 1 + prefetch);
         gathered.push_back(b.event()), b.record(gathered.back(), network)) {
      b.wait_stream(network, default_stream);
      b.collective(all, CollectiveKind::all_gather, DType::bf16, block, "gather");
    }
    const bool forward = use < blocks;
    b.wait(default_stream, gathered[use]);
    b.launch(default_stream, busy(forward ? of.forward_us : of.backward_us), HostWork::forward_op, "block");
    if (forward) continue;
    b.wait_stream(network, default_stream);
    b.collective(all, CollectiveKind::reduce_scatter, DType::bf16, block, "reduce");
  }
  b.wait_stream(default_stream, network);
  b.launch(default_stream, busy(optimizer_us), HostWork::optimizer_op, "optimizer");
  b.append_to(Section::first, body);  // further steps are empty
  return std::move(b).finish();
}

// Between all links busy at once and one after the other; the first gather and the last reduction have
// nothing to hide behind.
void expect_in_bounds(const PeersCase& of, Time step) {
  const int nodes = of.ranks / gpus_per_node;
  const Time inside = Bytes{block.count / gpus_per_node * (gpus_per_node - 1)} / nvlink;
  const Time between = Bytes{block.count / gpus_per_node / nodes * (nodes - 1)} / nic;
  const Time least = std::max(inside, between), most = inside + between;
  const Time optimizer = 1_us * optimizer_us;
  const Time compute = 1_us * (blocks * (of.forward_us + of.backward_us)) + optimizer;
  expect(step >= std::max(compute + least * 2, least * collectives + optimizer),
         "no faster than compute and links allow");
  expect(step <= compute + most * collectives, "no slower than everything one after the other");
}

// Every rank passes on all parts but one of every collective, in chunks of NCCL's four slots per channel.
std::int64_t messages_of(const Topology& topology, int ranks) {
  std::vector<Rank> members;
  for (int r = 0; r < ranks; ++r) members.push_back({r});
  const std::int64_t chunk = (2_MiB).count * ring_fabric(topology, members).channels;
  const std::int64_t part = (block.count + ranks - 1) / ranks;
  return std::int64_t{collectives} * ranks * (ranks - 1) * ((part + chunk - 1) / chunk);
}

void peers(benchmark::State& state, const PeersCase& of) {
  const Program program = fsdp_step(of);
  const IdealWorld world = world_of(of.ranks);
  const Topology topology(world.spec, world.gpu, world.gpus);
  Cluster cluster{topology, world.gpu, world.stack, {}};
  const Result folded = simulate(program, cluster);
  cluster.detail = of.detail;
  const std::int64_t messages = of.detail == NetworkDetail::chunk ? messages_of(topology, of.ranks) : 0;
  Work work;
  Time step;
  for (auto _ : state) {
    const Result result = simulate(program, cluster, {.fold = of.fold});
    step = result.step_times.front();
    expect_in_bounds(of, step);
    const double agreement = ratio(step, folded.step_times.front());
    expect(of.detail == NetworkDetail::fluid ? agreement == 1 : std::abs(agreement - 1) < 0.01,
           "folding changes nothing, detail little");
    expect(result.engine.messages == messages, "every message is sent once");
    work.add(result);
  }
  work.report(state);
  state.counters["simulated ms"] = seconds(step) * 1e3;
  if (of.peer_ms > 0) state.counters["peer's ms"] = of.peer_ms;
}

}  // namespace

void add_peers() {
  for (const PeersCase& of : cases) {
    auto* added = benchmark::RegisterBenchmark(of.name, peers, of)->Unit(benchmark::kMillisecond);
    if (!of.fold) added->UseRealTime();  // it may use several cores
    if (of.detail == NetworkDetail::chunk && of.ranks >= 512) added->Iterations(1);
  }
}

}  // namespace shardsim
