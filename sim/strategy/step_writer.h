// What every strategy writes alike: the passes of a micro-batch, the optimizer's step, the host's waits.
#pragma once

#include <functional>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "sim/program/builder.h"
#include "sim/strategy/autograd.h"
#include "sim/strategy/optimizer.h"
#include "sim/strategy/options.h"

namespace shardsim {

// One micro-batch of a step under gradient accumulation.
struct MicroBatch {
  bool first;    // its gradients are the first of the step, later ones are added to them
  bool reduces;  // with no_sync only the last one does
};

class StepWriter {
 public:
  StepWriter(const OpGraph& graph, const Training& training, const Framework& framework, Mesh mesh,
             MemorySpace optimizer_space = MemorySpace::device);

  const OpGraph& graph;
  const Training& training;
  const Framework& framework;
  ProgramBuilder program;
  const Optimizer optimizer;

  // Each has tensors of its own: micro-batches whose gradients are alive at the same time need two. What it
  // runs again is part of the program's FLOP.
  Autograd make_autograd();

  // A parameter as the framework stores it, of [rows, columns].
  Trained trained(const std::string& name, std::int64_t rows, std::int64_t columns = 1);

  // The micro-batches of a step, in order, each kind written once. `last_apart`: only the last of them
  // reduces.
  using Pass = std::function<void(MicroBatch)>;
  std::vector<Repeat> micro_batches(bool last_apart, const Pass& forward, const Pass& backward);
  void append(Section section, const std::vector<Repeat>& bodies, BodyId update);
  // The first step, and every further one.
  void append_steps(const std::vector<Repeat>& first, BodyId first_update, const std::vector<Repeat>& later,
                    BodyId update);
  // Gradients that later micro-batches do not reduce have to be kept whole.
  bool accumulates_unreduced() const { return training.no_sync && training.micro_batches > 1; }

  // AccumulateGrad: the first micro-batch's gradient becomes the tensor's, later ones are added to it.
  void accumulate(Trained& to, TensorId gradient, bool later);

  // The body of section `init`: parameters, cuBLAS workspace, and what else the caller allocates before it
  // begins the next body.
  void begin_init(std::span<const Trained> parameters);

  // The body after the last micro-batch: unscale, clip, update, free the gradients; in the `first` step the
  // state appears. `norm_group`: whose ranks hold different parts of the gradient.
  BodyId optimizer_body(std::span<const Trained> tensors, bool first, std::optional<GroupId> norm_group);
  // Its parts, for strategies that do more in between.
  void unscale_and_clip(std::int64_t elements, DType dtype, std::size_t tensors,
                        std::optional<GroupId> norm_group);
  void all_reduce_scalar(GroupId group, std::string_view what);
  void wait_for_scalar(std::string_view what);  // .item()
  void end_step();                              // loss.item()

  // A collective of ProcessGroupNCCL, as `stream` sees it: the group's own stream waits for this one, this
  // one for that; older versions mark the tensors as used there.
  void communicate(GroupId group, StreamId stream, CollectiveKind kind, DType dtype, Bytes bytes,
                   std::string_view label, std::initializer_list<TensorId> tensors = {});
  void mark_used_by(GroupId group, TensorId tensor);

  // One pass over the elements of a tensor or of all of them.
  void pass(std::string_view label, std::int64_t elements, std::int64_t bytes_per_element, HostWork work,
            StreamId stream = default_stream);

  Program finish() &&;

 private:
  void update_masters(std::span<const Trained> tensors, bool first);

  std::vector<Trained> masters_;  // of `training.master_copies`, as many as there are parameters
};

}  // namespace shardsim
