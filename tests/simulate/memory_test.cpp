// Does memory behave as the caching allocator's rules say, when streams, retries and the end of memory come
// in?
#include <doctest/doctest.h>

#include "sim/program/verify.h"

#include "tests/support/ideal_world.h"
#include "tests/support/print.h"

namespace shardsim {
namespace {

using namespace literals;

constexpr HostWork op = HostWork::forward_op;

// Allocates a tensor on a side stream, marks it used by the default stream, frees it while a kernel of
// `busy_for` runs there, waits `pause` on the host and allocates another of the same size.
Program reuse(std::int64_t busy_for, bool host_waits) {
  return program_of({1, 1}, [&](ProgramBuilder& b) {
    const StreamId side = b.stream("side");
    const TensorId first = b.tensor("first", 32_MiB, Category::unsharded_parameters, side);
    const TensorId second = b.tensor("second", 32_MiB, Category::unsharded_parameters, side);
    const EventId done = b.event();
    b.alloc(first);
    b.launch(default_stream, kernel_of(busy_for), op, "use");
    b.record(done, default_stream);
    b.record_use(first, default_stream);
    b.free(first);
    if (host_waits) b.host_wait(done);
    b.alloc(second);
    b.free(second);
    b.host_wait(done);
  });
}

TEST_CASE("a block used on another stream is reused only when that stream has passed") {
  const Result early = IdealWorld(1).run(reuse(1000, false));
  CHECK(early.memory.peak_reserved == 64_MiB);
  CHECK(early.memory.peak_active == 64_MiB);
  CHECK(early.memory.peak_allocated == 32_MiB);
  const Result late = IdealWorld(1).run(reuse(1000, true));
  CHECK(late.memory.peak_reserved == 32_MiB);
}

TEST_CASE("on its own stream a block is reused at once, in host order") {
  const Program p = program_of({1, 1}, [](ProgramBuilder& b) {
    const TensorId first = b.tensor("first", 32_MiB, Category::activations);
    const TensorId second = b.tensor("second", 32_MiB, Category::activations);
    b.alloc(first);
    b.launch(default_stream, kernel_of(1000), op, "use");
    b.free(first);
    b.alloc(second);
    b.free(second);
  });
  CHECK(IdealWorld(1).run(p).memory.peak_reserved == 32_MiB);
}

TEST_CASE("when CUDA has no memory left the allocator drains the device, frees its cache and tries again") {
  IdealWorld world(1);
  world.gpu.memory = 80_MiB;
  world.stack.cuda_free = 10_ps;
  world.stack.cuda_malloc = 5_ps;
  // 48 MiB cached on one stream stand in the way of 64 MiB on another.
  const Program p = program_of({1, 1}, [](ProgramBuilder& b) {
    const StreamId side = b.stream("side");
    const TensorId first = b.tensor("first", 48_MiB, Category::activations);
    const TensorId second = b.tensor("second", 64_MiB, Category::activations, side);
    b.alloc(first);
    b.launch(default_stream, kernel_of(1000), op, "use");
    b.free(first);
    b.alloc(second);
    b.launch(default_stream, kernel_of(100), op, "more");
    b.free(second);
  });
  const Result r = world.run(p);
  CHECK_FALSE(r.out_of_memory());
  CHECK(r.memory.alloc_retries >= 3);
  CHECK(r.memory.peak_reserved == 64_MiB);
  CHECK(r.breakdown[static_cast<std::size_t>(Spent::allocator_retry)] > Time{});
}

TEST_CASE("memory runs out at a named tensor, phase and step, with the numbers behind it") {
  IdealWorld world(1);
  world.gpu.memory = 100_MiB;
  const Program p = [] {
    ProgramBuilder b({1, 1});
    const TensorId weights = b.tensor("weights", 40_MiB, Category::parameters);
    const TensorId state = b.tensor("state", 70_MiB, Category::optimizer_state);
    b.append_to(Section::init, b.begin_body());
    b.alloc(weights);
    const BodyId body = b.begin_body();
    b.launch(default_stream, kernel_of(500), op, "compute");
    b.begin_mark("optimizer");
    b.begin_mark("block 7");
    b.alloc(state);
    b.free(state);
    b.end_mark();
    b.end_mark();
    for (const Section s : {Section::first, Section::second, Section::steady}) b.append_to(s, body);
    return std::move(b).finish();
  }();
  REQUIRE(verify(p) == "");
  const Result r = world.run(p);
  REQUIRE(r.out_of_memory());
  CHECK(r.oom->step == 1);
  CHECK(r.oom->phase == "optimizer / block 7");
  CHECK(r.oom->tensor == "state");
  CHECK(r.oom->category == Category::optimizer_state);
  CHECK(r.oom->requested == 70_MiB);
  CHECK(r.oom->segment == 70_MiB);
  CHECK(r.oom->free == 60_MiB);
  CHECK(r.oom->at == 500_ps);  // after the device was drained
  CHECK(r.oom->live[static_cast<std::size_t>(Category::parameters)] == 40_MiB);
  REQUIRE(r.oom->largest_live.size() == 1);
  CHECK(r.oom->largest_live[0].tensor == "weights");
  CHECK(r.memory.alloc_retries == 1);
}

// A kernel of 500 ps uses 48 MiB, freed at once; then 60 MiB are asked for on another stream.
Program reserve_more() {
  return program_of({1, 1}, [](ProgramBuilder& b) {
    const TensorId first = b.tensor("first", 48_MiB, Category::activations);
    const TensorId second = b.tensor("second", 60_MiB, Category::activations, b.stream("side"));
    b.alloc(first);
    b.launch(default_stream, kernel_of(500), op, "use");
    b.free(first);
    b.alloc(second);
    b.free(second);
  });
}

TEST_CASE("memory_fraction limits what is reserved, and the record says so") {
  IdealWorld world(1);
  world.gpu.memory = 200_MiB;
  world.gpu.context = 20_MiB;
  world.allocator.memory_fraction = 0.25;
  const Result r = world.run(reserve_more());
  REQUIRE(r.out_of_memory());
  CHECK(r.oom->segment == 60_MiB);
  CHECK(r.oom->limit == 50_MiB);
  CHECK(r.oom->reserved == 0_B);
  CHECK(r.oom->allocated == 0_B);
  CHECK(r.oom->free == 180_MiB);  // the device has them
  CHECK(r.oom->fragmented == 0_B);
}

TEST_CASE("cached memory that cannot be returned is fragmented") {
  IdealWorld world(1);
  world.gpu.memory = 100_MiB;
  const Program p = program_of({1, 1}, [](ProgramBuilder& b) {
    const TensorId pair[] = {b.tensor("a", 6_MiB, Category::activations),
                             b.tensor("b", 6_MiB, Category::activations)};
    const TensorId large = b.tensor("c", 90_MiB, Category::activations);
    b.alloc(pair[0]);
    b.alloc(pair[1]);
    b.free(pair[0]);
    b.alloc(large);
    b.free(large);
    b.free(pair[1]);
  });
  const Result r = world.run(p);
  REQUIRE(r.out_of_memory());
  CHECK(r.oom->reserved == 20_MiB);
  CHECK(r.oom->allocated == 6_MiB);
  CHECK(r.oom->fragmented == 14_MiB);
  CHECK(r.oom->free == 80_MiB);
  CHECK(r.oom->limit == 100_MiB);
  world.allocator.expandable_segments = true;
  const Result expandable = world.run(p);
  REQUIRE(expandable.out_of_memory());
  CHECK(expandable.oom->segment == 100_MiB);  // 8 of 90 are there; the rest in pages of 20
  CHECK(expandable.oom->reserved == 20_MiB);
}

TEST_CASE("garbage collection waits for the device, as cudaFree does, and is no retry") {
  IdealWorld world(1);
  world.gpu.memory = 1_GiB;
  world.stack.cuda_free = 10_ps;
  world.allocator = {.garbage_collection_threshold = 0.01, .memory_fraction = 1.0};
  const Result r = world.run(reserve_more());
  REQUIRE_FALSE(r.out_of_memory());
  CHECK(r.memory.alloc_retries == 0);
  CHECK(r.memory.peak_reserved == 60_MiB);
  // Each step frees twice: after the kernel, and at the start of the next step, when the device is idle.
  CHECK(r.step_time >= 520_ps);
  CHECK(r.breakdown[static_cast<std::size_t>(Spent::allocator_retry)] == 20_ps);
}

TEST_CASE("pages of expandable segments go to another stream after a retry") {
  IdealWorld world(1);
  world.gpu.memory = 100_MiB;
  world.allocator.expandable_segments = true;
  const Result r = world.run(reserve_more());
  REQUIRE_FALSE(r.out_of_memory());
  CHECK(r.memory.alloc_retries >= 3);
  CHECK(r.memory.peak_reserved == 60_MiB);
}

TEST_CASE("a tensor larger than the GPU fails while the model is set up") {
  IdealWorld world(1);
  world.gpu.memory = 10_MiB;
  ProgramBuilder b({1, 1});
  const TensorId weights = b.tensor("weights", 40_MiB, Category::parameters);
  b.append_to(Section::init, b.begin_body());
  b.alloc(weights);
  const Result r = world.run(std::move(b).finish());
  REQUIRE(r.out_of_memory());
  CHECK(r.oom->step == 0);
  CHECK(r.oom->phase == "init");
}

TEST_CASE("context and communicators are taken from the allocator's share") {
  IdealWorld world(2);
  world.gpu.context = 3_MiB;
  for (NcclArchitecture& a : world.stack.nccl.architecture) a.first_use = 5_MiB;
  world.stack.nccl.per_connection = 1_MiB;
  world.stack.nccl.connections = 3;
  const Program alone = program_of({1, 1}, [](ProgramBuilder&) {});
  IdealWorld single(1);
  single.gpu.context = 3_MiB;
  single.stack.nccl = world.stack.nccl;
  CHECK(single.run(alone).memory.outside_allocator == 3_MiB);
  const Program grouped = program_of({2, 2}, [](ProgramBuilder& b) { b.group(Axis::shard); });
  // One communicator of two channels on one NVLink, three connections each.
  CHECK(world.run(grouped).memory.outside_allocator == 3_MiB + 5_MiB + 6_MiB);
}

TEST_CASE("what lives in host memory is counted there and takes nothing from the GPU") {
  const Program p = program_of({1, 1}, [](ProgramBuilder& b) {
    const TensorId x = b.tensor("x", 3_MiB, Category::activations);
    const TensorId pinned =
        b.tensor("pinned", 5_MiB, Category::activations, default_stream, MemorySpace::pinned);
    const TensorId pageable =
        b.tensor("pageable", 7_MiB, Category::parameters, default_stream, MemorySpace::host);
    b.alloc(pinned);
    b.alloc(x);
    b.free(pinned);
    b.alloc(pageable);
    b.free(x);
    b.free(pageable);
  });
  const Result r = IdealWorld(1).run(p);
  CHECK(r.memory.peak_host == 8_MiB + 7_MiB);  // a pinned block, kept after its tensor
  CHECK(r.memory.peak_allocated == 3_MiB);
}

TEST_CASE("the composition at the peak sums to the peak") {
  const Program p = program_of({1, 1}, [](ProgramBuilder& b) {
    const TensorId x = b.tensor("x", 3_MiB, Category::activations),
                   y = b.tensor("y", 5_MiB, Category::gradients);
    b.alloc(x);
    b.alloc(y);
    b.free(x);
    b.free(y);
  });
  const Result r = IdealWorld(1).run(p);
  Bytes sum;
  for (const Bytes b : r.memory.at_peak) sum += b;
  CHECK(sum == r.memory.peak_allocated);
  CHECK(r.memory.at_peak[static_cast<std::size_t>(Category::gradients)] == 5_MiB);
}

}  // namespace
}  // namespace shardsim
