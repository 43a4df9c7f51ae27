// Writes the forward and backward pass of an op graph as eager PyTorch would execute it: each operation
// allocates its results, launches its kernels, and drops what nobody refers to any more.
//
// The rules of lifetime (PyTorch's autograd engine):
//   forward    a tensor dies with its last Python reference, unless a later backward node saved it
//   backward   a node allocates the gradients it makes, then drops what it saved, then the gradient it
//   consumed;
//              two gradients of one tensor are summed (in place if nobody else holds the first)
//   parameters gradients of all uses are summed before the parameter's hook sees the result
//   checkpoint a checkpointed segment keeps its inputs only and runs forward again inside its backward
#pragma once

#include <functional>
#include <utility>
#include <vector>

#include "sim/model/op_graph.h"
#include "sim/program/builder.h"

namespace shardsim {

// Called around every operation that runs, in forward, recomputation and backward: module hooks of strategies
// that work by operation.
struct OpHooks {
  std::function<void(OpId)> before_forward, after_forward, before_backward, after_backward;
};

class Autograd {
 public:
  // Called when the gradient of a parameter is complete; the callee owns the tensor.
  using OnGradient = std::function<void(ParameterId, TensorId)>;

  // Both must outlive the Autograd. With `checkpoint_blocks`, segments of blocks are recomputed.
  Autograd(const OpGraph& graph, ProgramBuilder& program, bool checkpoint_blocks);

  // Segments in order, then all of them backwards, then end_micro_batch; may be repeated.
  void forward(const Segment& segment);
  void begin_backward();  // the gradient of the loss
  void backward(const Segment& segment, const OnGradient& on_gradient);
  void end_micro_batch();  // what the training loop held goes; nothing may remain

  void set_hooks(OpHooks hooks) { hooks_ = std::move(hooks); }

  // Forward FLOP that checkpointing executes a second time.
  Flop recomputed_flop() const;

 private:
  enum class Pass : std::uint8_t { forward, checkpointed, recompute };
  struct Stored {  // memory of a value
    TensorId tensor{-1};
    int references = 0;
  };
  struct Held {  // a gradient of an activation
    TensorId tensor{-1};
    int references = 0;
  };
  struct Kernels {
    std::vector<KernelId> forward, backward;
  };

  bool checkpointed(const Segment& s) const { return checkpoint_blocks_ && graph_.modules[s.module].block; }
  ValueId storage_of(ValueId v) const { return graph_.values[v].storage; }
  void run(OpId op, Pass pass);
  std::vector<ValueId> recompute(const Segment& segment);
  const std::vector<ValueId>& external(const Segment& s) const;
  void run_backward(OpId op, const OnGradient& on_gradient);
  void hold(ValueId storage) { ++stored_[storage].references; }
  void drop(ValueId storage);
  int hold_gradient(TensorId tensor);  // index into held_
  void drop_gradient(int held);
  void give_gradient(ValueId to, int held);
  void give_parameter_gradient(ParameterId parameter, TensorId contribution, const OnGradient& on_gradient);
  void add(TensorId addend);  // to what is there: one kernel
  TensorId once(TensorId& id, std::string_view name, Bytes bytes, Category category);

  const OpGraph& graph_;
  ProgramBuilder& program_;
  bool checkpoint_blocks_;
  OpHooks hooks_;

  // Derived from the graph once.
  IdVector<OpId, Kernels> kernels_;
  IdVector<OpId, LabelId> label_;
  IdVector<ValueId, OpId> creator_;
  IdVector<OpId, std::vector<ValueId>> dying_;  // storages whose last Python use is the op
  std::vector<std::vector<ValueId>> external_;  // per segment: storages from outside
  IdVector<ParameterId, int> uses_;
  LabelId accumulate_;

  // Tensor ids, made on first need: a micro-batch emitted again uses the same ones.
  IdVector<ValueId, TensorId> forward_tensor_, recomputed_tensor_, sum_tensor_;
  struct OpTensors {
    std::vector<TensorId> input_gradient, parameter_gradient;
    TensorId forward_temporary{-1}, backward_temporary{-1};
  };
  IdVector<OpId, OpTensors> op_tensors_;
  TensorId loss_gradient_{-1};

  // State of the micro-batch being written.
  IdVector<ValueId, Stored> stored_;
  IdVector<ValueId, int> gradient_;  // index into held_, -1 = none yet
  std::vector<Held> held_;
  struct Pending {
    TensorId tensor{-1};
    int contributions = 0;
  };
  IdVector<ParameterId, Pending> pending_;
};

}  // namespace shardsim
