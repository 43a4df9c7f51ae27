// Does the executor agree with a slow and obvious one on random programs? Without contention every duration
// is known when an operation is issued, so one pass over the program in host order gives every time.
#include <doctest/doctest.h>

#include "sim/base/random.h"
#include "sim/program/verify.h"

#include "tests/support/ideal_world.h"
#include "tests/support/print.h"
#include "tests/support/programs.h"
#include "tests/support/seed.h"

namespace shardsim {
namespace {

struct Oracle {
  const Program& program;
  Time launch_latency, host_unit;
  Time host{};
  std::vector<Time> stream_free, event_done;
  std::vector<std::pair<Time, Time>> spans;  // of kernels and collectives, in order of issue

  Oracle(const Program& p, Time latency, Time unit) : program(p), launch_latency(latency), host_unit(unit) {
    stream_free.resize(p.streams.size());
    event_done.resize(static_cast<std::size_t>(p.events));
  }
  Time& at(StreamId s) { return stream_free[static_cast<std::size_t>(s.index)]; }
  Time& at(EventId e) { return event_done[static_cast<std::size_t>(e.index)]; }

  // An operation begins when the launch has arrived and the stream is free.
  void occupy(StreamId s, Time duration) {
    const Time begin = std::max(at(s), host + launch_latency);
    at(s) = begin + duration;
    spans.emplace_back(begin, at(s));
  }
  void operator()(const Launch& i) {
    host += host_unit;
    occupy(i.stream, Time{std::get<MemoryBound>(program.kernels[i.kernel]).traffic.count});
  }
  void operator()(const Collective& i) {
    const CollectiveOp& op = program.collectives[i.what];
    const std::int64_t passes = op.kind == CollectiveKind::all_reduce ? 2 : 1;
    occupy(program.groups[op.group].stream,
           Time{(op.bytes.count * passes + 1) / 2});  // two ranks, 1 ps per byte
  }
  void operator()(const Record& i) {
    at(i.event) = at(i.stream) = std::max(at(i.stream), host + launch_latency);
  }
  void operator()(const Wait& i) {
    at(i.stream) = std::max({at(i.stream), host + launch_latency, at(i.event)});
  }
  void operator()(const HostWait& i) { host = std::max(host, at(i.event)); }
  void operator()(const HostBusy& i) {
    if (i.work == HostWork::unit_hook) host += host_unit * i.amount;
  }
  template <class Other>
  void operator()(const Other&) {}
};

Program random_program(Random& random) {
  return program_of({2, 2}, [&](ProgramBuilder& b) {
    const GroupId group = b.group(Axis::shard);
    std::vector<StreamId> streams{default_stream, b.stream("a"), b.stream("b"), b.stream_of(group)};
    std::vector<EventId> recorded;
    for (std::int64_t n = random.between(5, 60); n > 0; --n) {
      const StreamId s = streams[static_cast<std::size_t>(random.between(0, 3))];
      switch (random.between(0, 6)) {
        case 0:
        case 1:
          b.launch(default_stream, kernel_of(random.between(1, 500)), HostWork::forward_op, "kernel");
          break;
        case 2:
          b.collective(group, static_cast<CollectiveKind>(random.between(0, 2)), DType::fp32,
                       Bytes{random.between(1, 900)}, "collective");
          break;
        case 3:
          recorded.push_back(b.event());
          b.record(recorded.back(), s);
          break;
        case 4:
          if (!recorded.empty())
            b.wait(s, recorded[static_cast<std::size_t>(
                          random.between(0, static_cast<std::int64_t>(recorded.size()) - 1))]);
          break;
        case 5:
          if (!recorded.empty() && random.chance(4)) b.host_wait(recorded.back());
          break;
        case 6: b.host(HostWork::unit_hook, static_cast<std::int32_t>(random.between(1, 20))); break;
      }
    }
    for (const StreamId s : streams)
      if (s != default_stream) b.wait_stream(default_stream, s);
    const EventId end = b.event();  // so that steps do not overlap
    b.record(end, default_stream);
    b.host_wait(end);
  });
}

TEST_CASE("random programs take the times of the one-pass oracle") {
  const std::uint64_t seed = seed_of_run(77);
  Random random(seed);
  for (int i = 0; i < 400; ++i) {
    CAPTURE(seed);
    CAPTURE(i);
    const Program p = random_program(random);
    REQUIRE(verify(p) == "");
    IdealWorld world(2);
    world.stack.launch_latency = Time{random.between(0, 30)};
    const Time unit{random.between(0, 60)};
    world.stack.host[static_cast<std::size_t>(HostWork::forward_op)] = unit;
    world.stack.host[static_cast<std::size_t>(HostWork::unit_hook)] = unit;
    std::vector<Span> timeline;
    const Result r = world.run(p, true, &timeline);

    Oracle oracle(p, world.stack.launch_latency, unit);
    for (int step = 0; step < r.steps; ++step)
      for_each(p, Section::steady, [&](const Instruction& instruction) { std::visit(oracle, instruction); });
    std::vector<std::pair<Time, Time>> got;
    for (const Span& span : timeline) got.emplace_back(span.begin, span.end);
    std::sort(got.begin(), got.end());
    std::sort(oracle.spans.begin(), oracle.spans.end());
    REQUIRE(got == oracle.spans);
  }
}

}  // namespace
}  // namespace shardsim
