// Are programs built, counted and printed as written?
#include "sim/program/program.h"

#include <doctest/doctest.h>

#include "sim/program/builder.h"
#include "sim/program/count.h"
#include "sim/program/dump.h"

namespace shardsim {
namespace {

TEST_CASE("labels, kernels, collectives and stream waits are interned") {
  ProgramBuilder b{Mesh{4, 2}};
  const StreamId side = b.stream("side");
  const GroupId group = b.group(Axis::shard);
  b.append_to(Section::first, b.begin_body());
  for (int i = 0; i < 3; ++i) {
    b.launch(side, MemoryBound{Bytes{64}}, HostWork::forward_op, "cast");
    b.collective(group, CollectiveKind::all_gather, DType::bf16, Bytes{128}, "block 1");
    b.wait_stream(default_stream, side);
  }
  b.wait_stream(default_stream, default_stream);  // nothing to wait for
  const Program p = std::move(b).finish();
  CHECK(p.kernels.size() == 1);
  CHECK(p.collectives.size() == 1);
  CHECK(p.events == 1);
  CHECK(p.bodies[BodyId{0}].size() == 3 * (1 + 2 + 2));
}

TEST_CASE("counts include repeats") {
  ProgramBuilder b{Mesh{4, 4}};
  const GroupId group = b.group(Axis::shard);
  const TensorId t = b.tensor("t", Bytes{100}, Category::temporaries);
  b.append_to(Section::steady, b.begin_body(), 5);
  b.alloc(t);
  b.launch(default_stream, Gemm{1, 2, 3, 4, DType::fp32}, HostWork::forward_op, "product");
  b.collective(group, CollectiveKind::reduce_scatter, DType::fp32, Bytes{64}, "g");
  b.free(t);
  const Counts c = count(std::move(b).finish(), Section::steady);
  CHECK(c.allocs == 5);
  CHECK(c.freed == Bytes{500});
  CHECK(c.launches == 5);
  CHECK(c.executed.count == 5 * 2 * 2 * 3 * 4);
  CHECK(c[CollectiveKind::reduce_scatter].count == 5);
  CHECK(c[CollectiveKind::reduce_scatter].bytes == Bytes{320});
  CHECK(c[CollectiveKind::all_gather].count == 0);
}

TEST_CASE("live bytes peak where tensors overlap, whichever section that is in") {
  ProgramBuilder b{Mesh{1, 1}};
  const TensorId weights = b.tensor("weights", Bytes{100}, Category::parameters);
  const TensorId state = b.tensor("state", Bytes{50}, Category::optimizer_state);
  const TensorId first = b.tensor("first", Bytes{30}, Category::activations);
  const TensorId second = b.tensor("second", Bytes{20}, Category::activations);
  b.append_to(Section::init, b.begin_body());
  b.alloc(weights);
  CHECK(peak_live_bytes(b.program()) == Bytes{100});
  const BodyId apart = b.begin_body();
  for (const TensorId t : {first, second}) b.alloc(t), b.free(t);
  b.append_to(Section::first, apart, 7);
  CHECK(peak_live_bytes(b.program()) == Bytes{130});
  const BodyId appears = b.begin_body();
  b.alloc(state);
  b.append_to(Section::first, appears);
  CHECK(peak_live_bytes(b.program()) == Bytes{150});
  const BodyId together = b.begin_body();
  b.alloc(first), b.alloc(second), b.free(first), b.free(second);
  b.append_to(Section::steady, together, 3);
  CHECK(peak_live_bytes(b.program()) == Bytes{200});
}

TEST_CASE("the dump shows every kind of instruction on a line of its own") {
  ProgramBuilder b{Mesh{2, 2}};
  const StreamId side = b.stream("side");
  const GroupId group = b.group(Axis::shard);
  const TensorId t = b.tensor("weights", Bytes{3 << 20}, Category::parameters, side);
  const EventId e = b.event();
  b.append_to(Section::init, b.begin_body(), 2);
  b.begin_mark("forward");
  b.alloc(t);
  b.record_use(t, default_stream);
  b.launch(side, Gemm{16, 128, 64, 32, DType::bf16}, HostWork::forward_op, "scores");
  b.launch(side, FusedAttention{AttentionKind::flash2, true, true, 8, 512, 512, 64, DType::bf16},
           HostWork::backward_op, "attention");
  b.collective(group, CollectiveKind::all_gather, DType::bf16, Bytes{512 << 20}, "decoder 3");
  b.copy(default_stream, CopyDirection::host_to_device, Bytes{100}, "ids");
  b.record(e, side);
  b.wait(default_stream, e);
  b.host_wait(e);
  b.free(t);
  b.end_mark();
  CHECK(dump(std::move(b).finish(), Section::init) ==
        "repeat 2\n"
        "  begin forward\n"
        "    alloc weights 3.00 MiB @side\n"
        "    record_use weights @default\n"
        "    launch @side gemm 16x 128x64x32 bf16  # scores\n"
        "    launch @side flash2 backward 8x 512x512x64 causal  # attention\n"
        "    host collective_enqueue 1\n"
        "    collective all_gather shard bf16 512.00 MiB @nccl shard  # decoder 3\n"
        "    copy @default host_to_device 100 B  # ids\n"
        "    record e0 @side\n"
        "    wait @default e0\n"
        "    host_wait e0\n"
        "    free weights\n"
        "  end\n");
}

}  // namespace
}  // namespace shardsim
