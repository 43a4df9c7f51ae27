// Does a program take the time it must on hardware where times can be done in the head?
#include <doctest/doctest.h>

#include "sim/base/error.h"

#include "tests/support/ideal_world.h"
#include "tests/support/print.h"

namespace shardsim {
namespace {

using namespace literals;

constexpr HostWork op = HostWork::forward_op;
Time spent(const Result& r, Spent s) { return r.breakdown[static_cast<std::size_t>(s)]; }

TEST_CASE("kernels of a stream run one after the other") {
  const Program p = program_of({1, 1}, [](ProgramBuilder& b) {
    b.launch(default_stream, kernel_of(300), op, "a");
    b.launch(default_stream, kernel_of(500), op, "b");
  });
  const Result r = IdealWorld(1).run(p);
  CHECK(r.step_time == 800_ps);
  CHECK(spent(r, Spent::compute) == 800_ps);
  CHECK(r.steady);
  CHECK(r.steps == 3);
}

TEST_CASE("work that takes longer than time can hold is refused, not wrapped") {
  const auto run = [](Time kernel, int kernels) {
    IdealWorld(1).run(program_of({1, 1}, [&](ProgramBuilder& b) {
      for (int i = 0; i < kernels; ++i) b.launch(default_stream, kernel_of(kernel.count), op, "slow");
    }));
  };
  CHECK_NOTHROW(run(longest_work - 1000_ms, 1));
  CHECK_THROWS_AS(run(longest_work, 1), InputError);
  CHECK_THROWS_AS(run(longest_work - 1000_ms, 40), InputError);
}

TEST_CASE("kernels of two streams share the GPU: together they take the sum") {
  const Program p = program_of({1, 1}, [](ProgramBuilder& b) {
    const StreamId side = b.stream("side");
    b.wait_stream(side, default_stream);
    b.launch(side, kernel_of(1000), op, "side");
    b.launch(default_stream, kernel_of(400), op, "short");
    b.launch(default_stream, kernel_of(600), op, "long");
    b.wait_stream(default_stream, side);
  });
  std::vector<Span> timeline;
  const Result r = IdealWorld(1).run(p, true, &timeline);
  CHECK(r.step_time == 2000_ps);
  REQUIRE(timeline.size() >= 3);
  CHECK(timeline[0].end - timeline[0].begin == 800_ps);  // "short", at half speed
}

TEST_CASE("a stream that waits for an event of another starts when that one is done") {
  const Program p = program_of({1, 1}, [](ProgramBuilder& b) {
    const StreamId side = b.stream("side");
    b.wait_stream(side, default_stream);
    b.launch(side, kernel_of(700), op, "side");
    b.wait_stream(default_stream, side);
    b.launch(default_stream, kernel_of(100), op, "after");
  });
  const Result r = IdealWorld(1).run(p);
  CHECK(r.step_time == 800_ps);
  CHECK(spent(r, Spent::exposed_other) == 700_ps);
  CHECK(spent(r, Spent::compute) == 100_ps);
}

// An all-gather of 4000 bytes over 4 ranks moves 3000 bytes per rank, 1 ps each.
TEST_CASE("a collective alone takes its wire bytes over the link rate") {
  const Program p = program_of({4, 4}, [](ProgramBuilder& b) {
    const GroupId g = b.group(Axis::shard);
    b.wait_stream(b.stream_of(g), default_stream);
    b.collective(g, CollectiveKind::all_gather, DType::fp32, 4000_B, "gather");
    b.wait_stream(default_stream, b.stream_of(g));
  });
  const Result r = IdealWorld(4).run(p);
  CHECK(r.step_time == 3000_ps);
  CHECK(spent(r, Spent::exposed_all_gather) == 3000_ps);
  CHECK(r.communication[0].busy == 3000_ps);
  CHECK(r.communication[0].wire == 3000_B);
}

TEST_CASE("computing hides a collective; what sticks out is exposed") {
  const auto step = [](std::int64_t compute) {
    return program_of({4, 4}, [&](ProgramBuilder& b) {
      const GroupId g = b.group(Axis::shard);
      b.wait_stream(b.stream_of(g), default_stream);
      b.collective(g, CollectiveKind::reduce_scatter, DType::fp32, 4000_B, "reduce");
      b.launch(default_stream, kernel_of(compute), op, "compute");
      b.wait_stream(default_stream, b.stream_of(g));
    });
  };
  const IdealWorld world(4);
  CHECK(world.run(step(5000)).step_time == 5000_ps);
  const Result shorter = world.run(step(1000));
  CHECK(shorter.step_time == 3000_ps);
  CHECK(spent(shorter, Spent::exposed_reduce_scatter) == 2000_ps);
}

TEST_CASE("collectives of one group queue; those of two groups share the links") {
  // Hybrid mesh of 2 x 2 in one node: the shard and the replica ring cross the same NVLinks.
  const auto step = [](bool two_groups) {
    return program_of({4, 2}, [&](ProgramBuilder& b) {
      const GroupId shard = b.group(Axis::shard), other = two_groups ? b.group(Axis::replica) : shard;
      for (const GroupId g : {shard, other}) {
        b.wait_stream(b.stream_of(g), default_stream);
        b.collective(g, CollectiveKind::all_gather, DType::fp32, 4000_B, "gather");
      }
      for (const GroupId g : {shard, other}) b.wait_stream(default_stream, b.stream_of(g));
    });
  };
  // 2000 bytes on the wire each: alone 2000 ps, one after the other or at half the rate 4000 ps.
  CHECK(IdealWorld(4).run(step(false)).step_time == 4000_ps);
  CHECK(IdealWorld(4).run(step(true)).step_time == 4000_ps);
}

TEST_CASE("between nodes the NIC is the bottleneck") {
  const Program p = program_of({4, 4}, [](ProgramBuilder& b) {
    const GroupId g = b.group(Axis::shard);
    b.wait_stream(b.stream_of(g), default_stream);
    b.collective(g, CollectiveKind::all_gather, DType::fp32, 4000_B, "gather");
    b.wait_stream(default_stream, b.stream_of(g));
  });
  // Two nodes of two GPUs, a NIC each: the ring runs over both NICs, 0.2 bytes per ps in all.
  CHECK(IdealWorld(4, 2).run(p).step_time == 15000_ps);
}

TEST_CASE("a collective waits for its slowest member, and the others for it") {
  const Program p = program_of({4, 4}, [](ProgramBuilder& b) {
    const GroupId g = b.group(Axis::shard);
    b.launch(default_stream, kernel_of(1000), op, "compute");
    b.wait_stream(b.stream_of(g), default_stream);
    b.collective(g, CollectiveKind::all_gather, DType::fp32, 4000_B, "gather");
    b.wait_stream(default_stream, b.stream_of(g));
  });
  IdealWorld world(4);
  world.stragglers = {{Rank{2}, 0.5}};
  const Result r = world.run(p);
  CHECK(r.step_time == 5000_ps);  // 2000 on the slow GPU, 3000 on the wire
  CHECK(r.engine.rank_classes == 2);
  // All ranks have the same step; the first of them is shown, which waited 1000 ps for the straggler.
  CHECK(r.slowest == Rank{0});
  CHECK(spent(r, Spent::straggler_wait) == 1000_ps);
}

TEST_CASE("a host that is slower than its kernels sets the pace") {
  IdealWorld world(1);
  world.stack.host[static_cast<std::size_t>(op)] = 1000_ps;
  const Program p = program_of({1, 1}, [](ProgramBuilder& b) {
    for (int i = 0; i < 10; ++i) b.launch(default_stream, kernel_of(100), op, "small");
  });
  const Result r = world.run(p);
  CHECK(r.step_time == 10'000_ps);
  CHECK(spent(r, Spent::compute) == 1000_ps);
  CHECK(spent(r, Spent::host_stall) == 9000_ps);
}

TEST_CASE("the host runs ahead until the launch queue is full") {
  const auto stall_after_wait = [](int queue) {
    IdealWorld world(1);
    world.stack.launch_queue = queue;
    world.stack.host[static_cast<std::size_t>(op)] = 10_ps;
    world.stack.host[static_cast<std::size_t>(HostWork::unit_hook)] = 1000_ps;
    const Program p = program_of({1, 1}, [](ProgramBuilder& b) {
      for (int i = 0; i < 8; ++i) b.launch(default_stream, kernel_of(200), op, "kernel");
      b.host(HostWork::unit_hook);
    });
    return world.run(p).breakdown[static_cast<std::size_t>(Spent::host_stall)];
  };
  CHECK(stall_after_wait(1 << 20) == 0_ps);  // a deep queue hides the hook of 1000 ps
  CHECK(stall_after_wait(2) > 0_ps);
}

TEST_CASE("host_wait blocks the host until the GPU has passed the event") {
  const Program p = program_of({1, 1}, [](ProgramBuilder& b) {
    const EventId e = b.event();
    b.launch(default_stream, kernel_of(1000), op, "first");
    b.record(e, default_stream);
    b.host_wait(e);
    b.host(HostWork::unit_hook);
    b.launch(default_stream, kernel_of(100), op, "second");
    b.record(e, default_stream);
    b.host_wait(e);
  });
  IdealWorld world(1);
  world.stack.host[static_cast<std::size_t>(HostWork::unit_hook)] = 300_ps;
  world.stack.host_wake = 7_ps;
  CHECK(world.run(p).step_time == 1000_ps + 7_ps + 300_ps + 100_ps + 7_ps);
}

TEST_CASE("launch latency delays the start of an idle stream, once") {
  IdealWorld world(1);
  world.stack.launch_latency = 50_ps;
  const Program p = program_of({1, 1}, [](ProgramBuilder& b) {
    const EventId e = b.event();
    for (int i = 0; i < 3; ++i) b.launch(default_stream, kernel_of(100), op, "kernel");
    b.record(e, default_stream);
    b.host_wait(e);
  });
  CHECK(world.run(p).step_time == 350_ps);
}

TEST_CASE("copies take their bytes over the PCIe rate") {
  IdealWorld world(1);
  world.gpu.pcie = Bandwidth{10'000'000'000};  // 100 ps per byte
  const Program p = program_of(
      {1, 1}, [](ProgramBuilder& b) { b.copy(default_stream, CopyDirection::host_to_device, 30_B, "ids"); });
  const Result r = world.run(p);
  CHECK(r.step_time == 3000_ps);
  CHECK(spent(r, Spent::copies) == 3000_ps);
}

TEST_CASE("a collective takes SMs and memory bandwidth from the kernels beside it") {
  IdealWorld world(4);
  world.gpu.interference = {
      .hbm_bytes_per_bus_byte = 0.5, .hbm_share_max = 0.6, .gemm_sensitivity = 0, .collective_slowdown = 0};
  const Program p = program_of({4, 4}, [](ProgramBuilder& b) {
    const GroupId g = b.group(Axis::shard);
    b.wait_stream(b.stream_of(g), default_stream);
    b.collective(g, CollectiveKind::all_gather, DType::fp32, 4000_B, "gather");
    b.launch(default_stream, kernel_of(5000), op, "compute");
    b.wait_stream(default_stream, b.stream_of(g));
  });
  // For 3000 ps the collective takes half of the bandwidth: 1500 ps of work are done, 3500 remain.
  CHECK(world.run(p).step_time == 6500_ps);
}

TEST_CASE("a collective is slower while a GPU of its group computes") {
  IdealWorld world(4);
  world.gpu.interference.collective_slowdown = 0.25;
  const Program p = program_of({4, 4}, [](ProgramBuilder& b) {
    const GroupId g = b.group(Axis::shard);
    b.wait_stream(b.stream_of(g), default_stream);
    b.collective(g, CollectiveKind::all_gather, DType::fp32, 4000_B, "gather");
    b.launch(default_stream, kernel_of(2000), op, "compute");
    b.wait_stream(default_stream, b.stream_of(g));
  });
  // 2000 ps at 3/4 of the rate: 1500 of 3000 bytes; the rest at the full rate.
  CHECK(world.run(p).step_time == 3500_ps);
}

TEST_CASE("a step without anything to do takes no time") {
  const Result r = IdealWorld(1).run(program_of({1, 1}, [](ProgramBuilder&) {}));
  CHECK(r.step_time == 0_ps);
  CHECK(r.steady);
}

}  // namespace
}  // namespace shardsim
