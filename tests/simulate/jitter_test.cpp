// Does jitter lengthen a step by what the slowest of its ranks needs more, in both ways to say so?
#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "sim/base/normal.h"
#include "sim/report/json.h"

#include "tests/support/ideal_world.h"
#include "tests/support/print.h"
#include "tests/support/random_scenario.h"
#include "tests/support/seed.h"

namespace shardsim {
namespace {

using namespace literals;

Time jitter_of(const Result& r) { return r.breakdown[static_cast<std::size_t>(Spent::jitter)]; }

// A kernel, then an all-reduce of a byte: bound by compute, and all ranks wait for the slowest.
Program compute_bound(int ranks) {
  return program_of({ranks, 1}, [](ProgramBuilder& b) {
    const GroupId g = b.group(Axis::world);
    b.launch(default_stream, kernel_of(1'000'000'000), HostWork::forward_op, "compute");
    b.wait_stream(b.stream_of(g), default_stream);
    b.collective(g, CollectiveKind::all_reduce, DType::fp32, 1_B, "synchronise");
    b.wait_stream(default_stream, b.stream_of(g));
  });
}

TEST_CASE("expected jitter is sigma times the expected maximum, on a line of its own") {
  IdealWorld world(4);
  const Program p = compute_bound(4);
  const Result without = world.run(p);
  CHECK(jitter_of(without) == 0_ps);
  world.jitter.step_sigma = 0.01;
  const Result with = world.run(p);
  CHECK(jitter_of(with) == from_picoseconds(static_cast<double>(without.step_time.count) * 0.01 *
                                            expected_maximum_of_normals(4)));
  CHECK(with.step_time == without.step_time + jitter_of(with));
  CHECK(with.step_times.back() == with.step_time);
  Time sum;
  for (const Time t : with.breakdown) sum += t;
  CHECK(sum == with.step_time);
  CHECK(with.engine.folded);
}

TEST_CASE("one GPU waits for nobody") {
  IdealWorld world(1);
  world.jitter.step_sigma = 0.1;
  const Program p = program_of({1, 1}, [](ProgramBuilder& b) {
    b.launch(default_stream, kernel_of(1000), HostWork::forward_op, "compute");
  });
  CHECK(world.run(p).step_time == 1000_ps);
}

TEST_CASE(
    "sampled jitter: a class per rank, the same seed gives the same step, and another a different one") {
  IdealWorld world(8);
  const Program p = compute_bound(8);
  world.jitter = {.mode = Jitter::Mode::sampled, .step_sigma = 0.02, .seed = 7};
  const Result a = world.run(p), b = world.run(p);
  CHECK(a.step_time == b.step_time);
  CHECK(a.breakdown == b.breakdown);
  CHECK(a.sampled_jitter);
  CHECK_FALSE(a.engine.folded);
  CHECK(a.engine.rank_classes == 8);
  CHECK(jitter_of(a) == 0_ps);  // it shows as waiting for the slowest
  world.jitter.seed = 8;
  CHECK(world.run(p).step_time != a.step_time);
  world.jitter.step_sigma = 0;  // nothing to draw
  CHECK(world.run(p).engine.rank_classes == 1);
}

TEST_CASE("sampled and expected jitter agree over seeds when a job is bound by compute") {
  const std::uint64_t seed = seed_of_run(100);
  CAPTURE(seed);
  constexpr double sigma = 0.02;
  constexpr int runs = 300, ranks = 8;
  IdealWorld world(ranks);
  const Program p = compute_bound(ranks);
  const double equal = seconds(world.run(p).step_time);
  double sum = 0;
  for (int i = 0; i < runs; ++i) {
    world.jitter = {
        .mode = Jitter::Mode::sampled, .step_sigma = sigma, .seed = seed + static_cast<std::uint64_t>(i)};
    sum += seconds(world.run(p).step_time) / equal - 1;
  }
  world.jitter = {.step_sigma = sigma};
  const double expected = seconds(world.run(p).step_time) / equal - 1;
  CHECK(expected == doctest::Approx(sigma * expected_maximum_of_normals(ranks)).epsilon(1e-6));
  // Five standard errors; the maximum of 8 normals deviates by 0.61.
  CHECK(std::abs(sum / runs - expected) < 5 * 0.61 * sigma / std::sqrt(runs));
}

TEST_CASE("with jitter, too, the breakdown sums to the step, and a report is the same every time") {
  const std::uint64_t seed = seed_of_run(2024);
  ScenarioGenerator generator(seed);
  const Library library = test_library();
  for (int i = 0; i < 30; ++i) {
    Settings settings = generator.next();
    const Origin origin{Origin::Kind::file, {"random"}, {}};
    settings.set("jitter.step_sigma", 0.03, origin);
    if (i % 2 == 0) settings.set("jitter.mode", std::string("sampled"), origin);
    CAPTURE(seed);
    CAPTURE(i);
    INFO(describe(settings));
    const Scenario scenario = resolve(settings, library);
    RunRecord a = run(scenario), b = run(scenario, {.fold = false});
    Time sum;
    for (const Time t : a.result.breakdown) sum += t;
    REQUIRE(sum == a.result.step_time);
    a.wall_s = b.wall_s = 0;
    a.result.engine = b.result.engine = {};
    REQUIRE(to_json(a, {"", ""}) == to_json(b, {"", ""}));
  }
}

}  // namespace
}  // namespace shardsim
