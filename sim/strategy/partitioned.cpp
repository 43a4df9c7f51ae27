#include "sim/strategy/partitioned.h"

namespace shardsim {

void issue(StepWriter& step, const CollectiveCall& call, EventId done,
           std::initializer_list<TensorId> tensors) {
  ProgramBuilder& program = step.program;
  if (!call.group) {
    program.record(done, call.stream);
    return;
  }
  const StreamId nccl = program.stream_of(*call.group);
  program.wait_stream(nccl, call.stream);
  program.collective(*call.group, call.kind, call.dtype, call.bytes, call.label);
  program.record(done, nccl);
  for (const TensorId t : tensors) step.mark_used_by(*call.group, t);
}

namespace {

void all_reduce_scalar(StepWriter& step, std::optional<GroupId> group, std::string_view what) {
  if (group) step.all_reduce_scalar(*group, what);
}

}  // namespace

void check_gradients(StepWriter& step, std::optional<GroupId> group, Bytes partition) {
  const auto read = [&](std::string_view label) {
    step.program.launch(default_stream, MemoryBound{partition}, HostWork::optimizer_op, label);
  };
  if (step.training.loss_scaling) {
    read("find infinities");
    all_reduce_scalar(step, group, "found infinity");
    step.wait_for_scalar("found infinity");
  }
  read("gradient norm");
  all_reduce_scalar(step, group, "gradient norm");
}

void check_gradients_on_host(StepWriter& step, std::optional<GroupId> group) {
  if (step.training.loss_scaling) {
    all_reduce_scalar(step, group, "found infinity");
    step.wait_for_scalar("found infinity");
  }
  all_reduce_scalar(step, group, "gradient norm");
  step.wait_for_scalar("gradient norm");
}

}  // namespace shardsim
