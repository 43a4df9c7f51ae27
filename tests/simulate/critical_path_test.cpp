// Is the critical path contiguous, as long as the step, and made of what really was in the way?
#include <doctest/doctest.h>
#include <fmt/format.h>

#include "tests/support/ideal_world.h"
#include "tests/support/print.h"
#include "tests/support/random_scenario.h"
#include "tests/support/seed.h"

namespace shardsim {
namespace {

using namespace literals;

constexpr HostWork op = HostWork::forward_op;

Result run_path(const IdealWorld& world, const Program& program, bool fold = true) {
  const Topology topology(world.spec, world.gpu, world.gpus);
  return simulate(program,
                  Cluster{topology, world.gpu, world.stack, world.stragglers, world.allocator, world.jitter},
                  {.fold = fold, .critical_path = true});
}

// "compute 300 a: stream order; ..."
std::string text(const Result& r) {
  std::string out;
  for (const PathSegment& s : r.critical_path->segments)
    out +=
        fmt::format("{}{} {} {}: {}", out.empty() ? "" : "; ", name(s.kind), s.time.count, s.label, s.reason);
  return out;
}

// Contiguous from the start of the step to its end.
void check_contiguous(const Result& r) {
  REQUIRE(r.critical_path.has_value());
  Time at;
  for (const PathSegment& s : r.critical_path->segments) {
    REQUIRE(s.begin == at);
    REQUIRE(s.time > 0_ps);
    REQUIRE(s.latency >= 0_ps);
    REQUIRE(s.slowed >= 0_ps);
    REQUIRE(s.latency + s.slowed <= s.time);
    at += s.time;
  }
  REQUIRE(at == r.step_time);
  Time grouped, at_once, by_kind;
  for (const PathStretch& stretch : stretches(*r.critical_path))
    for (const PathPart& p : stretch.parts) grouped += p.time;
  for (const PathStretch& stretch : stretches_at_once(*r.critical_path))
    for (const PathPart& p : stretch.parts) at_once += p.time;
  for (const PathPart& p : totals(*r.critical_path)) by_kind += p.time;
  REQUIRE(grouped == r.step_time);
  REQUIRE(at_once == r.step_time);
  REQUIRE(by_kind == r.step_time);
}

TEST_CASE("kernels one after the other are one segment") {
  const Program p = program_of({1, 1}, [](ProgramBuilder& b) {
    b.launch(default_stream, kernel_of(300), op, "a");
    b.launch(default_stream, kernel_of(500), op, "a");
  });
  const Result r = run_path(IdealWorld(1), p);
  check_contiguous(r);
  CHECK(text(r) == "compute 800 a: stream order");
}

TEST_CASE("a slow host is on the path, with the latency of its launches") {
  IdealWorld world(1);
  world.stack.host[static_cast<std::size_t>(op)] = 1000_ps;
  world.stack.launch_latency = 50_ps;
  const Program p = program_of({1, 1}, [](ProgramBuilder& b) {
    b.launch(default_stream, kernel_of(100), op, "a");
    b.launch(default_stream, kernel_of(200), op, "b");
    b.host_wait_stream(default_stream);
  });
  const Result r = run_path(world, p);
  check_contiguous(r);
  // It sees the end of the step before 50 earlier than the stream passes the mark, which has to be launched.
  CHECK(
      text(r) ==
      "host 2000 issues work: the host waits for the step before; compute 200 b: the host had not issued it "
      "yet; host 50 issues work: the host waits for compute of b");
  CHECK(r.step_time == 2250_ps);
}

TEST_CASE("a collective that compute waits for, and compute that a collective waits for") {
  const Program p = program_of({4, 4}, [](ProgramBuilder& b) {
    const GroupId g = b.group(Axis::shard);
    b.launch(default_stream, kernel_of(700), op, "a");
    b.wait_stream(b.stream_of(g), default_stream);
    b.collective(g, CollectiveKind::all_gather, DType::fp32, 4000_B, "unit");
    b.launch(default_stream, kernel_of(500), op, "beside");
    b.wait_stream(default_stream, b.stream_of(g));
    b.launch(default_stream, kernel_of(100), op, "c");
  });
  const Result r = run_path(IdealWorld(4), p);
  check_contiguous(r);
  CHECK(text(r) ==
        "compute 700 a: stream order; all_gather 3000 all-gather of unit: waits for compute of a; "
        "compute 100 c: waits for all-gather of unit");
}

TEST_CASE("where a rank waits for a slower one the path goes on there, what it is slower by apart") {
  const Program p = program_of({4, 4}, [](ProgramBuilder& b) {
    const GroupId g = b.group(Axis::shard);
    b.begin_mark("forward");
    b.launch(default_stream, kernel_of(800), op, "a");
    b.end_mark();
    b.wait_stream(b.stream_of(g), default_stream);
    b.collective(g, CollectiveKind::all_gather, DType::fp32, 4000_B, "unit");
    b.wait_stream(default_stream, b.stream_of(g));
  });
  IdealWorld world(4);
  world.stragglers = {{Rank{2}, 0.5}};
  for (const bool fold : {true, false}) {
    const Result r = run_path(world, p, fold);
    check_contiguous(r);
    CHECK(text(r) ==
          "compute 800 a: waits for all-gather of unit; straggler 800 rank 2: computes at 0.5 of the speed; "
          "all_gather 3000 all-gather of unit: rank 2 arrived last");
    CHECK(r.critical_path->rank == Rank{0});
    CHECK(r.critical_path->segments.front().rank == Rank{2});
    CHECK(r.critical_path->segments.back().rank == Rank{0});
  }
}

TEST_CASE("a full launch queue, and the launch that it waits for") {
  IdealWorld world(1);
  world.stack.launch_queue = 1;
  world.stack.host[static_cast<std::size_t>(op)] = 10_ps;
  const Program p = program_of({1, 1}, [](ProgramBuilder& b) {
    for (int i = 0; i < 4; ++i) b.launch(default_stream, kernel_of(100), op, "k");
  });
  check_contiguous(run_path(world, p));
}

TEST_CASE("latency, and what sharing a link costs, are told apart") {
  const auto segment = [](bool beside) {
    const Program p = program_of({4, 2}, [&](ProgramBuilder& b) {
      const GroupId world = b.group(Axis::world), shard = b.group(Axis::shard);
      for (const GroupId g : {world, shard}) b.wait_stream(b.stream_of(g), default_stream);
      b.collective(world, CollectiveKind::all_gather, DType::fp32, 4000_B, "unit");
      if (beside) b.collective(shard, CollectiveKind::all_gather, DType::fp32, 1000_B, "other");
      for (const GroupId g : {shard, world}) b.wait_stream(default_stream, b.stream_of(g));
    });
    IdealWorld world(4);
    world.stack.nccl.launch = 77_ps;
    const Result r = run_path(world, p);
    check_contiguous(r);
    return r.critical_path->segments.back();
  };
  const PathSegment alone = segment(false), shared = segment(true);
  CHECK(alone.time == 3077_ps);
  CHECK(alone.latency == 77_ps);
  CHECK(alone.slowed == 0_ps);
  CHECK(shared.label == "all-gather of unit");
  CHECK(shared.latency == 77_ps);
  CHECK(shared.slowed == shared.time - alone.time);
  CHECK(shared.slowed >= 400_ps);
}

TEST_CASE("expected jitter ends the path") {
  IdealWorld world(2);
  world.jitter.step_sigma = 0.1;
  const Program p =
      program_of({2, 2}, [](ProgramBuilder& b) { b.launch(default_stream, kernel_of(1000), op, "a"); });
  const Result r = run_path(world, p);
  check_contiguous(r);
  CHECK(r.critical_path->segments.back().kind == PathKind::jitter);
}

TEST_CASE("the path is recorded only if asked for, and changes nothing") {
  const Program p =
      program_of({2, 2}, [](ProgramBuilder& b) { b.launch(default_stream, kernel_of(1000), op, "a"); });
  CHECK_FALSE(IdealWorld(2).run(p).critical_path.has_value());
  CHECK(IdealWorld(2).run(p).step_time == run_path(IdealWorld(2), p).step_time);
}

TEST_CASE("on random scenarios the path is contiguous, sums to the step, and is the same folded and not") {
  const std::uint64_t seed = seed_of_run(31);
  ScenarioGenerator generator(seed);
  const Library library = test_library();
  for (int i = 0; i < random_runs(120); ++i) {
    const Settings settings = generator.next();
    CAPTURE(seed);
    CAPTURE(i);
    INFO(describe(settings));
    Scenario scenario = resolve(settings, library);
    if (i % 5 == 0) scenario.stack.launch_queue = 20;
    const Result folded = run(scenario, {.critical_path = true}).result;
    check_contiguous(folded);
    const Result unfolded = run(scenario, {.fold = false, .critical_path = true}).result;
    check_contiguous(unfolded);
    REQUIRE(text(folded) == text(unfolded));
    REQUIRE(by_rank(*folded.critical_path) == by_rank(*unfolded.critical_path));
    const Result plain = run(scenario).result;
    REQUIRE(plain.step_time == folded.step_time);
    REQUIRE(plain.breakdown == folded.breakdown);
  }
}

}  // namespace
}  // namespace shardsim
