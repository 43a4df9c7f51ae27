// Does verify find every way in which a program can be unsound, and say where?
#include "sim/program/verify.h"

#include <doctest/doctest.h>

#include "sim/program/builder.h"

namespace shardsim {
namespace {

struct Bench {
  ProgramBuilder b{Mesh{2, 2}};
  TensorId tensor = b.tensor("activations of block 3", Bytes{1024}, Category::activations);
  EventId event = b.event();

  Bench() { b.append_to(Section::init, b.begin_body()); }
  // A body that every step runs.
  void step(std::int64_t times = 1) {
    const BodyId body = b.begin_body();
    for (const Section s : {Section::first, Section::second, Section::steady}) b.append_to(s, body, times);
  }
  std::string verdict() { return verify(std::move(b).finish()); }
};

TEST_CASE("a sound program passes") {
  Bench x;
  x.step();
  x.b.alloc(x.tensor);
  x.b.record(x.event, default_stream);
  x.b.wait(default_stream, x.event);
  x.b.host_wait(x.event);
  x.b.free(x.tensor);
  CHECK(x.verdict() == "");
}

TEST_CASE("double allocation") {
  Bench x;
  x.step();
  x.b.alloc(x.tensor);
  x.b.alloc(x.tensor);
  CHECK(x.verdict() == "first step, instruction 1: allocated twice: activations of block 3");
}

TEST_CASE("double free") {
  Bench x;
  x.step();
  x.b.alloc(x.tensor);
  x.b.free(x.tensor);
  x.b.free(x.tensor);
  CHECK(x.verdict() == "first step, instruction 2: freed but not live: activations of block 3");
}

TEST_CASE("use after free") {
  Bench x;
  x.step();
  x.b.record_use(x.tensor, default_stream);
  CHECK(x.verdict() == "first step, instruction 0: used but not live: activations of block 3");
}

TEST_CASE("a leak in the steady step") {
  Bench x;
  const BodyId nothing = x.b.begin_body(), leak = x.b.begin_body();
  x.b.alloc(x.tensor);
  x.b.append_to(Section::first, nothing);
  x.b.append_to(Section::steady, leak);
  CHECK(x.verdict() == "a steady step changes what is live: activations of block 3");
}

TEST_CASE("a repeated body that changes what is live") {
  Bench x;
  x.step(3);
  x.b.alloc(x.tensor);
  CHECK(x.verdict() == "a repeated body changes what is live: activations of block 3");
}

TEST_CASE("a stream waits for an event nobody has recorded yet") {
  Bench x;
  x.step();
  x.b.wait(default_stream, x.event);
  x.b.record(x.event, default_stream);
  CHECK(x.verdict() == "first step, instruction 0: a stream waits for an event nobody has recorded");
}

TEST_CASE(
    "the host may wait for an event that is recorded later, as in CUDA, but not for one that never is") {
  Bench later;
  later.step();
  later.b.host_wait(later.event);
  later.b.record(later.event, default_stream);
  CHECK(later.verdict() == "");

  Bench never;
  never.step();
  never.b.host_wait(never.event);
  CHECK(never.verdict() == "first step, instruction 0: the host waits for an event nobody ever records");
}

TEST_CASE("marks must nest within a body") {
  Bench open;
  open.step();
  open.b.begin_mark("forward");
  CHECK(open.verdict() == "first step, instruction 1: a mark is left open");

  Bench closed;
  closed.step();
  closed.b.end_mark();
  CHECK(closed.verdict() == "first step, instruction 0: a mark ends that never began");
}

TEST_CASE("only collectives run on the stream of a group") {
  Bench x;
  const GroupId group = x.b.group(Axis::world);
  x.step();
  x.b.launch(x.b.stream_of(group), MemoryBound{Bytes{64}}, HostWork::forward_op, "stray");
  CHECK(x.verdict() == "first step, instruction 0: a kernel on the stream of a group");
}

}  // namespace
}  // namespace shardsim
