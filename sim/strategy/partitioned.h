// What strategies with a partitioned optimizer share: DeepSpeed's ZeRO and Megatron-LM's distributed
// optimizer.
#pragma once

#include <initializer_list>
#include <optional>

#include "sim/strategy/step_writer.h"

namespace shardsim {

// ProcessGroupNCCL's part of a collective issued on `stream`: its own stream waits, runs, and may mark the
// tensors. `done` is recorded after it. A single rank has no group and nothing to communicate.
struct CollectiveCall {
  std::optional<GroupId> group;
  StreamId stream;
  CollectiveKind kind;
  DType dtype;
  Bytes bytes;
  std::string_view label;
};
void issue(StepWriter& step, const CollectiveCall& call, EventId done,
           std::initializer_list<TensorId> tensors);

// The optimizer before it touches the partition of the gradients that this rank holds: infinities (fp16) and
// the norm, each agreed on by all ranks of the group.
void check_gradients(StepWriter& step, std::optional<GroupId> group, Bytes partition);
// The same when parameters were checked one by one on their way to the host, which needs the results.
void check_gradients_on_host(StepWriter& step, std::optional<GroupId> group);

}  // namespace shardsim
