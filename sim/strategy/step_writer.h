// What every strategy writes alike: the passes of a micro-batch, the optimizer's step, the host's waits.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "sim/program/builder.h"
#include "sim/strategy/autograd.h"
#include "sim/strategy/options.h"

namespace shardsim {

inline constexpr TensorId no_tensor{-1};

// A tensor the optimizer updates: a parameter, or the flat shard of an FSDP unit. fp32 throughout.
struct Trained {
  std::int64_t elements;
  TensorId parameter;
  TensorId gradient;  // set by the strategy; if any, alive when the optimizer starts and freed by it
  TensorId first_moment, second_moment;
  TensorId root, denominator;  // temporaries of Adam
};

class StepWriter {
 public:
  StepWriter(const OpGraph& graph, const Training& training, const Framework& framework, Mesh mesh);

  const OpGraph& graph;
  const Training& training;
  const Framework& framework;
  ProgramBuilder program;

  // Each has tensors of its own: micro-batches whose gradients are alive at the same time need two.
  Autograd make_autograd();

  // A tensor with the optimizer's state and temporaries, none of them allocated yet.
  Trained trained(const std::string& name, std::int64_t elements);

  // AccumulateGrad: the first micro-batch's gradient becomes the tensor's, later ones are added to it.
  void accumulate(Trained& to, TensorId gradient, bool later);

  // The body of section `init`: parameters, cuBLAS workspace, and what else the caller allocates before it
  // begins the next body.
  void begin_init(std::span<const Trained> parameters);

  // The body after the last micro-batch: unscale, clip, update, free the gradients; in the `first` step the
  // state appears. `norm_group`: whose ranks hold different parts of the gradient.
  BodyId optimizer_body(std::span<const Trained> tensors, bool first, std::optional<GroupId> norm_group);

  // One pass over the elements of a tensor or of all of them.
  void pass(std::string_view label, std::int64_t elements, int bytes_per_element, HostWork work,
            StreamId stream = default_stream);

  Program finish() &&;

 private:
  void clip(std::span<const Trained> tensors, std::optional<GroupId> norm_group);
  void unscale(std::span<const Trained> tensors, std::optional<GroupId> norm_group);
  void adam(std::span<const Trained> tensors);
  void adam_one_by_one(const Trained& tensor);
  void adam_foreach(std::span<const Trained> tensors);
  void wait_for_scalar(std::string_view what);  // .item()
  std::int64_t total(std::span<const Trained> tensors) const;

  EventId scalar_ready_;
};

}  // namespace shardsim
