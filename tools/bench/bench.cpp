// Benchmarks; each checks its own answer. Run them with `build/release/tools/bench/shardsim_bench`.
//
//   agenda       move one of n wake-ups and pop the next: the event queue alone
//   max_min      share n links among n flows: the network's solver alone
//   allocator    replay the allocator calls of a step of T5-11B: the caching allocator alone
//   compile      T5-11B to a step program
//   folded       one run, ranks folded: T5-11B on 512 GPUs, minGPT-175B on 512
//   unfolded     T5-11B with every rank simulated, 8 to 64 GPUs
//   chunk        the collectives of an FSDP step, message by message: 48 blocks of 470 MB gathered twice and
//                reduced once by 512 ranks; alone, and beside other jobs' traffic on every NIC
//
// Counters: messages/s are chunks sent; events/s are state changes popped from the agenda, calls/s allocator
// calls, of all simulated steps.

#include <cstdlib>

#include <benchmark/benchmark.h>

#include "sim/base/random.h"
#include "sim/engine/agenda.h"
#include "sim/engine/max_min.h"
#include "sim/memory/caching_allocator.h"
#include "sim/scenario/scenario.h"
#include "sim/simulate/chunk_level.h"
#include "sim/simulate/simulate.h"
#include "sim/topology/device_links.h"

namespace shardsim {
namespace {

void expect(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "wrong answer: %s\n", what);
  std::exit(1);
}

Scenario scenario(const std::string& model, std::int64_t gpus, std::int64_t micro_batch) {
  ScenarioFile file;
  file.settings.scenario = {"bench"};
  for (const std::string& set :
       {"model=" + model, std::string("topology=a100-80gb-roce-2000"), "cluster.gpus=" + std::to_string(gpus),
        "training.micro_batch=" + std::to_string(micro_batch),
        std::string("training.activation_checkpointing=full"), std::string("training.stack=eager-2022")})
    assign(file, set);
  return resolve(file.settings, Library({SHARDSIM_SOURCE_DIR}));
}

void agenda(benchmark::State& state) {
  const auto agents = static_cast<int>(state.range(0));
  Agenda queue(agents);
  Random random(1);
  for (int i = 0; i < agents; ++i) queue.set({i}, Time{random.between(0, 1'000'000)});
  std::vector<Agent> due;
  Time last{};
  for (auto _ : state) {
    due.clear();
    const Time now = *queue.next();
    expect(now >= last, "time goes forward");
    last = now;
    queue.take(now, due);
    for (const Agent a : due) queue.set(a, now + Time{random.between(1, 1'000'000)});
  }
  state.counters["events/s"] =
      benchmark::Counter(static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
}
BENCHMARK(agenda)->Arg(10)->Arg(1'000)->Arg(100'000);

void max_min(benchmark::State& state) {
  const auto n = static_cast<int>(state.range(0));
  Random random(1);
  std::vector<Bandwidth> capacity(static_cast<std::size_t>(n), Bandwidth{100'000'000'000});
  std::vector<std::vector<LinkShare>> shares;
  std::vector<Flow> flows;
  for (int f = 0; f < n; ++f) {
    shares.emplace_back();
    for (int hop = 0; hop < 4; ++hop)
      shares.back().push_back({static_cast<int>(random.between(0, n - 1)), random.between(1, 4)});
  }
  for (const auto& s : shares) flows.push_back({4, Bandwidth{100'000'000'000}, s});
  MaxMin solver;
  for (auto _ : state) {
    const auto rates = solver.solve(capacity, flows);
    std::int64_t used = 0;
    for (int f = 0; f < n; ++f)
      for (const LinkShare& s : shares[static_cast<std::size_t>(f)])
        if (s.link == 0) used += rates[static_cast<std::size_t>(f)].count * s.weight / 4;
    expect(used <= capacity[0].count, "no link over capacity");
  }
  state.counters["solves/s"] =
      benchmark::Counter(static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
}
BENCHMARK(max_min)->Arg(8)->Arg(64);

// One call of a program to the allocator.
struct AllocatorCall {
  enum class Kind : std::uint8_t { allocate, record_use, free } kind;
  TensorId tensor;
  StreamId stream{};
  Bytes bytes{};
};

std::vector<AllocatorCall> recorded(const Program& program, Section section) {
  std::vector<AllocatorCall> calls;
  for (const Repeat& repeat : program[section])
    for (const Instruction& instruction : program.bodies[repeat.body]) {
      if (const auto* i = std::get_if<Alloc>(&instruction)) {
        const Tensor& t = program.tensors[i->tensor];
        calls.push_back({AllocatorCall::Kind::allocate, i->tensor, t.stream, t.bytes});
      } else if (const auto* f = std::get_if<Free>(&instruction)) {
        calls.push_back({AllocatorCall::Kind::free, f->tensor});
      } else if (const auto* u = std::get_if<RecordUse>(&instruction)) {
        calls.push_back({AllocatorCall::Kind::record_use, u->tensor, u->stream});
      }
    }
  return calls;
}

// Arg: expandable segments.
void allocator(benchmark::State& state) {
  const Program program = compile(scenario("t5-11b", 512, 8));
  CachingAllocator memory(Bytes{std::int64_t{80} << 30}, static_cast<int>(program.streams.size()),
                          {.expandable_segments = state.range(0) != 0});
  IdVector<TensorId, BlockId> block(program.tensors.size());
  const auto replay = [&](const std::vector<AllocatorCall>& calls) {
    for (const AllocatorCall& call : calls) switch (call.kind) {
        case AllocatorCall::Kind::allocate:
          block[call.tensor] = *memory.allocate(call.bytes, call.stream).block;
          break;
        case AllocatorCall::Kind::record_use: memory.record_use(block[call.tensor], call.stream); break;
        case AllocatorCall::Kind::free:
          if (memory.free(block[call.tensor]) != 0) memory.retire(block[call.tensor]);
          break;
      }
  };
  replay(recorded(program, Section::init));
  replay(recorded(program, Section::first));
  const std::vector<AllocatorCall> step = recorded(program, Section::steady);
  const Bytes between_steps = memory.stats().allocated;
  const std::int64_t before = memory.stats().calls;
  for (auto _ : state) replay(step);
  expect(memory.stats().allocated == between_steps, "a steady step leaves no memory behind");
  state.counters["calls/s"] =
      benchmark::Counter(static_cast<double>(memory.stats().calls - before), benchmark::Counter::kIsRate);
}
BENCHMARK(allocator)->Arg(0)->Arg(1)->Unit(benchmark::kMillisecond);

void compile_t5(benchmark::State& state) {
  const Scenario s = scenario("t5-11b", 512, 8);
  std::size_t instructions = 0;
  for (auto _ : state) {
    const Program program = compile(s);
    instructions = 0;
    for (const Body& body : program.bodies) instructions += body.size();
  }
  expect(instructions > 50'000, "the program is there");
  state.counters["instructions/s"] =
      benchmark::Counter(static_cast<double>(instructions) * static_cast<double>(state.iterations()),
                         benchmark::Counter::kIsRate);
}
BENCHMARK(compile_t5)->Name("compile")->Unit(benchmark::kMillisecond);

void whole_run(benchmark::State& state, const std::string& model, std::int64_t gpus, std::int64_t micro_batch,
               bool fold) {
  const Scenario s = scenario(model, gpus, micro_batch);
  const Program program = compile(s);
  const Topology topology(s.topology, s.gpu, static_cast<int>(s.gpus), s.degraded_links);
  const Cluster cluster{topology, s.gpu, s.stack, {}};
  const Result expected = simulate(program, cluster);
  double events = 0, calls = 0;
  for (auto _ : state) {
    const Result result = simulate(program, cluster, {.fold = fold});
    expect(result.step_time == expected.step_time && result.steady, "the step time of the folded run");
    events += static_cast<double>(result.engine.events);
    calls += static_cast<double>(result.engine.allocator_calls);
  }
  state.counters["events/s"] = benchmark::Counter(events, benchmark::Counter::kIsRate);
  state.counters["calls/s"] = benchmark::Counter(calls, benchmark::Counter::kIsRate);
  state.counters["events"] = events / static_cast<double>(state.iterations());
}
BENCHMARK_CAPTURE(whole_run, t5_11b_512, "t5-11b", 512, 8, true)
    ->Name("folded/t5-11b/512")
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(whole_run, gpt_175b_512, "mingpt-175b", 512, 1, true)
    ->Name("folded/mingpt-175b/512")
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(whole_run, t5_11b_8, "t5-11b", 8, 8, false)
    ->Name("unfolded/t5-11b/8")
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(whole_run, t5_11b_64, "t5-11b", 64, 8, false)
    ->Name("unfolded/t5-11b/64")
    ->Unit(benchmark::kMillisecond);

// NVLink at 300 GB/s, a NIC of 25 GB/s for every GPU. 144 collectives of 512 x 511 messages: 38 million.
void chunk_level(benchmark::State& state, int blocks, double others_gb_per_s) {
  constexpr int ranks = 512;
  Scenario s = scenario("t5-11b", ranks, 8);
  s.gpu.nvlinks = 12;
  s.gpu.nvlink = Bandwidth{25'000'000'000};
  s.gpu.nvlink_efficiency = 1;
  s.topology.node.nic = Bandwidth{25'000'000'000};
  s.topology.node.transport.efficiency = 1;
  const Topology topology(s.topology, s.gpu, ranks);
  std::vector<Rank> members;
  for (int r = 0; r < ranks; ++r) members.push_back({r});
  const RingFabric fabric = ring_fabric(topology, members);
  const CollectiveModel model{s.stack.nccl, s.gpu.architecture, s.topology.node.transport,
                              s.topology.node.network_overhead};
  std::vector<Bandwidth> capacity;
  for (int l = 0; l < topology.links(); ++l) capacity.push_back(topology.capacity({l}));
  std::vector<Background> others;
  if (others_gb_per_s > 0)
    for (int node = 0; node < topology.nodes(); ++node)
      for (int nic = 0; nic < topology.node().nics; ++nic)
        others.push_back(
            {links_of_nic(topology, node, nic).front().index, 2, from_gb_per_s(others_gb_per_s)});
  double messages = 0;
  for (auto _ : state) {
    ChunkNetwork network(capacity, {ring_pattern(topology, members)}, others);
    Time now;
    for (int i = 0; i < blocks; ++i)
      for (const CollectiveKind kind :
           {CollectiveKind::all_gather, CollectiveKind::all_gather, CollectiveKind::reduce_scatter}) {
        constexpr Bytes bytes{470'000'000};
        const Plan p = plan(model, fabric, kind, bytes);
        const Time first = now + before_messages(p, fabric, kind);
        network.start({0}, message_load(p, fabric, kind, bytes, p.cap), first);
        const Time end = network.advance(std::nullopt).front().at;
        const double took = ratio(end - now, p.alone());
        expect(took > 0.99 && (others_gb_per_s > 0 || took < 1.01), "a ring alone takes what its plan says");
        now = end;
      }
    messages += static_cast<double>(network.messages());
  }
  state.counters["messages/s"] = benchmark::Counter(messages, benchmark::Counter::kIsRate);
}
BENCHMARK_CAPTURE(chunk_level, fsdp_512, 48, 0)
    ->Name("chunk/fsdp-step/512")
    ->Iterations(1)
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(chunk_level, shared_512, 4, 10)
    ->Name("chunk/shared-nics/512")
    ->Iterations(1)
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace shardsim

BENCHMARK_MAIN();
