// Parts of the simulator alone: the event queue, the solver of shared links, the caching allocator, the
// compiler of programs, and the messages of collectives.

#include "sim/base/random.h"
#include "sim/engine/agenda.h"
#include "sim/engine/max_min.h"
#include "sim/memory/caching_allocator.h"
#include "sim/simulate/chunk_level.h"
#include "sim/topology/device_links.h"

#include "tools/bench/bench.h"

namespace shardsim {
namespace {

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

void compile_program(benchmark::State& state) {
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

// The chunk network alone: FSDP's collectives of a few blocks of 470 MB among 512 ranks, NVLink at 300 GB/s,
// a NIC of 25 GB/s for every GPU. 12 collectives of 512 x 511 messages. Others' traffic makes messages queue.
void messages(benchmark::State& state, double others_gb_per_s) {
  constexpr int ranks = 512, blocks = 4;
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
  double sent = 0;
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
    sent += static_cast<double>(network.messages());
  }
  state.counters["messages/s"] = benchmark::Counter(sent, benchmark::Counter::kIsRate);
}

}  // namespace

void add_parts() {
  using benchmark::RegisterBenchmark;
  RegisterBenchmark("agenda", agenda)->Arg(10)->Arg(1'000)->Arg(100'000);
  RegisterBenchmark("max_min", max_min)->Arg(8)->Arg(64);
  RegisterBenchmark("allocator", allocator)->Arg(0)->Arg(1)->Unit(benchmark::kMillisecond);
  RegisterBenchmark("compile", compile_program)->Unit(benchmark::kMillisecond);
  RegisterBenchmark("messages/alone", messages, 0.0)->Unit(benchmark::kMillisecond);
  RegisterBenchmark("messages/shared-nics", messages, 10.0)->Unit(benchmark::kMillisecond);
}

}  // namespace shardsim
