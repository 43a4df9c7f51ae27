// DeepSpeed ZeRO-2 with overlap_comm, written by hand for a model of two layers: proof that the instruction
// set can say it plainly, before there is a compiler for it.
//   source  deepspeed/runtime/zero/stage_1_and_2.py: gradients are copied into an IPG buffer and dropped; a
//   full
//           buffer is reduced on the reduction stream while the other one fills; each rank keeps its slice.
#pragma once

#include <string>

#include "sim/program/builder.h"

namespace shardsim {

inline Program zero2_by_hand() {
  constexpr std::int64_t layer = 1 << 20;  // parameters of a layer, 16-bit: 2 MiB
  constexpr std::int64_t ranks = 4;
  const auto fp16 = [](std::int64_t n) { return storage(n, DType::fp16); };
  const auto fp32 = [](std::int64_t n) { return storage(n, DType::fp32); };

  ProgramBuilder b{Mesh{ranks, 1}};
  const StreamId reduction = b.stream("reduction");
  const GroupId world = b.group(Axis::world);
  const StreamId nccl = b.stream_of(world);
  const auto tensor = [&](const std::string& name, Bytes bytes, Category c) {
    return b.tensor(name, bytes, c);
  };
  const TensorId weights = tensor("16-bit weights", fp16(2 * layer), Category::parameters);
  const TensorId master = tensor("fp32 partition", fp32(2 * layer / ranks), Category::optimizer_state);
  const TensorId moments = tensor("Adam moments", fp32(2 * 2 * layer / ranks), Category::optimizer_state);
  const TensorId partition = tensor("gradient partition", fp16(2 * layer / ranks), Category::gradients);
  const TensorId flat = tensor("fp32 gradient partition", fp32(2 * layer / ranks), Category::gradients);
  TensorId ipg[2], gradient[2], saved[2];
  for (const int i : {0, 1}) {
    const std::string n = std::to_string(i + 1);
    ipg[i] = tensor("IPG buffer " + n, fp16(layer), Category::communication_buffers);
    gradient[i] = tensor("layer " + n + " gradient", fp16(layer), Category::gradients);
    saved[i] = tensor("layer " + n + " activations", Bytes{4 << 20}, Category::activations);
  }
  const auto launch = [&](StreamId s, const Kernel& k, HostWork w, const char* label) {
    b.launch(s, k, w, label);
  };
  const auto product = Gemm{1, 1024, 1024, 1024, DType::fp16};

  b.append_to(Section::init, b.begin_body());
  for (const TensorId t : {weights, master}) b.alloc(t);

  const auto step = [&](bool first) {
    const BodyId body = b.begin_body();
    b.begin_mark("forward");
    for (const int i : {0, 1}) {
      b.alloc(saved[i]);
      launch(default_stream, product, HostWork::forward_op, "layer");
    }
    b.end_mark();
    b.begin_mark("backward");
    b.alloc(partition);
    for (const TensorId buffer : ipg) b.alloc(buffer);
    for (const int i : {1, 0}) {
      b.alloc(gradient[i]);
      launch(default_stream, product, HostWork::backward_op, "layer");
      b.free(saved[i]);
      launch(default_stream, MemoryBound{fp16(2 * layer)}, HostWork::backward_op, "copy to IPG buffer");
      b.free(gradient[i]);
      b.host(HostWork::bucket_hook);  // the buffer is full: reduce it, fill the other one meanwhile
      b.wait_stream(reduction, default_stream);
      b.wait_stream(nccl, reduction);
      b.collective(world, CollectiveKind::reduce_scatter, DType::fp16, fp16(layer),
                   "IPG buffer " + std::to_string(i + 1));
      b.wait_stream(reduction, nccl);
      launch(reduction, MemoryBound{fp16(2 * layer / ranks)}, HostWork::backward_op, "copy own slice");
      b.record_use(ipg[i], reduction);
    }
    b.wait_stream(default_stream, reduction);
    for (const TensorId buffer : ipg) b.free(buffer);
    b.end_mark();
    b.begin_mark("optimizer");
    b.alloc(flat);
    launch(default_stream, MemoryBound{Bytes{6 * 2 * layer / ranks}}, HostWork::optimizer_op,
           "gradients to fp32");
    if (first) b.alloc(moments);
    launch(default_stream, MemoryBound{Bytes{28 * 2 * layer / ranks}}, HostWork::optimizer_op, "fused adam");
    b.free(flat);
    b.free(partition);
    b.wait_stream(nccl, default_stream);
    b.collective(world, CollectiveKind::all_gather, DType::fp16, fp16(2 * layer), "16-bit weights");
    b.wait_stream(default_stream, nccl);
    b.end_mark();
    return body;
  };
  b.append_to(Section::first, step(true));
  const BodyId steady = step(false);
  b.append_to(Section::second, steady);
  b.append_to(Section::steady, steady);
  return std::move(b).finish();
}

}  // namespace shardsim
