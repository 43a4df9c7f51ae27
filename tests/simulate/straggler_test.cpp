// What does one slow GPU cost a job that all ranks step through together?
//   source  the slowest rank sets the pace of synchronous data parallelism: Chen et al., "Revisiting
//           distributed synchronous SGD", 2016, arXiv:1604.00981, section 2
#include <doctest/doctest.h>

#include "tests/support/free_of_charge.h"
#include "tests/support/ideal_world.h"
#include "tests/support/print.h"
#include "tests/support/random_scenario.h"

namespace shardsim {
namespace {

using namespace literals;

Time spent(const Result& r, Spent s) { return r.breakdown[static_cast<std::size_t>(s)]; }

constexpr std::int64_t compute = 1'000'000;

// Four kernels with a collective after each, on the axes of DDP, FSDP and hybrid sharding.
Program synchronous(Mesh mesh) {
  return program_of(mesh, [&](ProgramBuilder& b) {
    std::vector<GroupId> groups;
    if (mesh.shard > 1) groups.push_back(b.group(Axis::shard));
    if (mesh.shard < mesh.world) groups.push_back(b.group(mesh.shard == 1 ? Axis::world : Axis::replica));
    for (int i = 0; i < 4; ++i) {
      b.launch(default_stream, kernel_of(compute / 4), HostWork::forward_op, "compute");
      for (const GroupId g : groups) {
        b.wait_stream(b.stream_of(g), default_stream);
        b.collective(g, CollectiveKind::all_reduce, DType::fp32, 8_B, "synchronise");
        b.wait_stream(default_stream, b.stream_of(g));
      }
    }
  });
}

TEST_CASE("a straggler stretches compute to 1/f, and the others wait for exactly the difference") {
  for (const std::int64_t factor : {1, 2, 8})  // DDP, hybrid, full sharding
    for (const double scale : {0.5, 0.8, 0.9}) {
      CAPTURE(factor);
      CAPTURE(scale);
      IdealWorld world(8);
      const Program p = synchronous({8, factor});
      const Result equal = world.run(p);
      world.stragglers = {{Rank{5}, scale}};
      const Result slow = world.run(p);
      const Time difference = (from_picoseconds(compute / 4 / scale) - Time{compute / 4}) * 4;
      CHECK(slow.step_time == equal.step_time + difference);
      REQUIRE(slow.slowest == Rank{0});  // all take equally long; the lowest is described
      CHECK(spent(slow, Spent::straggler_wait) == difference);
      CHECK(spent(slow, Spent::compute) == Time{compute});
      CHECK(world.run(p, false).breakdown == slow.breakdown);

      world.stragglers = {{Rank{0}, scale}};  // it waits for nobody
      const Result itself = world.run(p);
      CHECK(itself.step_time == slow.step_time);
      CHECK(spent(itself, Spent::straggler_wait) == 0_ps);
      CHECK(spent(itself, Spent::compute) == Time{compute} + difference);
    }
}

// Without latencies, host costs and interference, and with links so fast that only computing takes time.
Scenario bound_by_compute(const std::vector<std::pair<std::string, Scalar>>& sets) {
  Settings settings;
  settings.scenario = {"test"};
  const auto set = [&](const std::string& key, const Scalar& value) {
    settings.set(key, value, {Origin::Kind::file, {"test"}, {}});
  };
  set("model", std::string("gpt2"));
  set("topology", std::string("dgx-a100-80gb"));
  set("cluster.gpus", std::int64_t{16});
  set("training.micro_batch", std::int64_t{2});
  for (const auto& [key, value] : sets) set(key, value);
  Scenario s = resolve(settings, test_library());
  free_host(s);
  free_communication(s);
  s.jitter.step_sigma = 0;
  s.gpu.sms = 1'000'000'000;  // the few that a waiting collective holds do not matter
  return s;
}

TEST_CASE("so do compiled strategies: DDP, FSDP and hybrid sharding") {
  const std::vector<std::vector<std::pair<std::string, Scalar>>> strategies = {
      {{"strategy.kind", std::string("ddp")}},
      {{"strategy.kind", std::string("fsdp")}},
      {{"strategy.kind", std::string("fsdp")}, {"strategy.sharding_factor", std::int64_t{8}}}};
  for (const auto& strategy : strategies) {
    Scenario s = bound_by_compute(strategy);
    INFO(s.strategy_name);
    const Result equal = run(s).result;
    const Time kernels = spent(equal, Spent::compute) + spent(equal, Spent::optimizer);
    REQUIRE(seconds(kernels) > 0.999 * seconds(equal.step_time));
    s.stragglers = {{Rank{11}, 0.8}};
    const Result slow = run(s).result;
    REQUIRE(slow.slowest == Rank{0});
    // Left over: transfers at 4 PB/s, and durations rounded per kernel.
    CHECK(seconds(slow.step_time) == doctest::Approx(seconds(equal.step_time) / 0.8).epsilon(0.001));
    CHECK(seconds(spent(slow, Spent::straggler_wait)) ==
          doctest::Approx(seconds(slow.step_time - equal.step_time)).epsilon(0.004));
  }
}

}  // namespace
}  // namespace shardsim
