// Writes the forward and backward pass of an op graph as eager PyTorch would execute it: each operation
// allocates its results, launches its kernels, and drops what nobody refers to any more.
//
// The rules of lifetime (PyTorch's autograd engine):
//   forward    a tensor dies with its last Python reference, unless a later backward node saved it
//   backward   a node allocates the gradients it makes, then drops what it saved, then the gradient it
//              consumed; two gradients of one tensor are summed (in place if nobody else holds the first)
//   compiled   a fused operation sums the gradients of its results as it reads them, and adds what its
//              inputs already have to what it makes for them; sums across segments are autograd's
//   parameters gradients of all uses are summed before the parameter's hook sees the result
//   checkpoint it runs forward again inside its backward. Of blocks, groups of blocks, attention cores it
//              keeps the inputs and runs all again (reentrant); or some results are kept as well, and it
//              stops when the last saved tensor is there again (non-reentrant).
//   offload    what a block keeps for backward is copied to pinned memory on a side stream; one segment
//              later the default stream waits for that and the memory is free. It comes back one block
//              ahead of its backward (the last block's too, which torchtune still finds on the GPU).
//   source     torch/utils/checkpoint.py; Megatron-LM's recomputation of the attention core
//              (arXiv:2205.05198); torchtitan's by operation (pytorch/torchtitan#165);
//              torchtune/training/_activation_offloading.py
#pragma once

#include <functional>
#include <utility>
#include <vector>

#include "sim/base/id_lists.h"
#include "sim/model/op_graph.h"
#include "sim/program/builder.h"
#include "sim/strategy/options.h"

namespace shardsim {

// What a strategy does around the recomputation of a segment. Called for every segment that a checkpoint runs
// again, except the one whose backward is running: its parameters are there already. Either may be empty.
struct RecomputeHooks {
  std::function<void(const Segment&)> before, after;
};

// Called around every operation that runs, in forward, recomputation and backward: module hooks of strategies
// that work by operation.
struct OpHooks {
  std::function<void(OpId)> before_forward, after_forward, before_backward, after_backward;
};

class Autograd {
 public:
  // Called when the gradient of a parameter is complete; the callee owns the tensor.
  using OnGradient = std::function<void(ParameterId, TensorId)>;

  // Graph and program must outlive the Autograd. Of the training it reads checkpointing and offload.
  Autograd(const OpGraph& graph, ProgramBuilder& program, const Training& training);

  // Segments in order, then all of them backwards, then end_micro_batch; may be repeated.
  void forward(const Segment& segment);
  void forward();         // all segments
  void begin_backward();  // the gradient of the loss
  void backward(const Segment& segment, const OnGradient& on_gradient, const RecomputeHooks& hooks = {});
  void backward(const OnGradient& on_gradient);  // of the loss, and of all segments
  void end_micro_batch();                        // what the training loop held goes; nothing may remain

  void set_hooks(OpHooks hooks) { hooks_ = std::move(hooks); }

  // Forward FLOP that checkpointing executes a second time.
  Flop recomputed_flop() const;

 private:
  struct Stored {  // memory of a value
    TensorId tensor{-1};
    int references = 0;
  };
  struct Held {  // a gradient of an activation
    TensorId tensor{-1};
    int references = 0;
  };
  // A part of the forward pass that runs again when backward reaches its last operation.
  struct Checkpoint {
    OpId first, last;              // [first, last); operations in between need not belong to it
    OpId stop;                     // from here on nothing is needed again
    std::vector<ValueId> inputs;   // storages from outside that it reads, kept until its backward is over
    std::vector<ValueId> unused;   // kept results at or after `stop`
    bool keeps_results;            // of the second run, until its backward is over (reentrant)
    std::vector<ValueId> results;  // while its backward runs
  };
  // How an operation's results come back in backward.
  struct Recall {
    int checkpoint = -1;  // index, -1 = none: it saves in forward
    bool cached = false;  // its results are kept, it does not run again
  };
  // Segments whose kept tensors travel together; each its own blocks.
  struct Offload {
    std::size_t first, last;  // segments, last included
    std::vector<ValueId> moved{};
    TensorId pinned{-1};
    EventId copied_out{-1}, copied_in{-1};
  };

  void plan_checkpoints(const Training& training);
  void add_checkpoint(OpId first, OpId last, const std::function<Recall(const Op&)>& recall, bool reentrant);
  void plan_kept();
  void plan_offload(const Training& training);
  std::size_t index_of(const Segment& s) const {
    return static_cast<std::size_t>(&s - graph_.segments.data());
  }
  ValueId storage_of(ValueId v) const { return graph_.values[v].storage; }
  bool made_by(ValueId storage, int checkpoint) const {
    return recall_[creator_[storage]].checkpoint == checkpoint;
  }
  void run(OpId op, IdVector<ValueId, TensorId>& tensors);
  void recompute(int checkpoint, const Segment& running, const RecomputeHooks& hooks);
  void recompute(int checkpoint, OpId op);
  void finish(Checkpoint& checkpoint);
  void run_backward(OpId op, const OnGradient& on_gradient);
  void hold(ValueId storage) { ++stored_[storage].references; }
  void drop(ValueId storage);
  int hold_gradient(TensorId tensor);  // index into held_
  void drop_gradient(int held);
  int add_gradients(ValueId of, int present, int held);
  int only_gradient(ValueId of);
  void give_gradient(ValueId to, int held, OpId giver);
  void give_parameter_gradient(ParameterId parameter, TensorId contribution, const OnGradient& on_gradient);
  void add(TensorId addend);  // to what is there: one kernel
  TensorId once(TensorId& id, std::string_view name, Bytes bytes, Category category,
                StreamId stream = default_stream);
  std::string_view joined(std::string_view name, std::string_view suffix);  // until it is called again
  void move_out(std::size_t offload);
  void free_moved();  // of the latest move_out, once its copies are done
  void bring_back(std::size_t offload);
  void wait_for_return(std::size_t offload);

  const OpGraph& graph_;
  ProgramBuilder& program_;
  OpHooks hooks_;

  // Derived from the graph once.
  IdLists<OpId, KernelId> forward_kernels_, backward_kernels_;
  IdVector<OpId, LabelId> label_;
  IdVector<OpId, int> segment_of_;
  IdVector<ValueId, OpId> maker_, creator_, last_read_;  // creator_ is known of storages
  IdLists<OpId, ValueId> dying_;                         // storages whose last Python use is the op
  IdVector<ParameterId, int> uses_;
  LabelId accumulate_;
  std::vector<Checkpoint> checkpoints_;
  IdVector<OpId, Recall> recall_;
  IdLists<OpId, ValueId> kept_;  // storages that forward keeps for backward because of the op
  std::vector<Offload> offloads_;
  std::vector<int> offload_ending_;  // by segment: the offload it is the last of, or -1
  StreamId offload_stream_{-1};

  // Tensor ids, made on first need: a micro-batch emitted again uses the same ones.
  IdVector<ValueId, TensorId> forward_tensor_, recomputed_tensor_, returned_tensor_, sum_tensor_;
  IdLists<OpId, TensorId> input_gradient_, parameter_gradient_;
  IdVector<OpId, TensorId> forward_temporary_, backward_temporary_;
  TensorId loss_gradient_{-1};

  // State of the micro-batch being written.
  IdVector<ValueId, Stored> stored_;
  // Indices into held_; several only of a value whose kernel sums them as it reads.
  IdVector<ValueId, std::vector<int>> gradients_;
  std::vector<Held> held_;
  struct Pending {
    TensorId tensor{-1};
    int contributions = 0;
  };
  IdVector<ParameterId, Pending> pending_;
  int leaving_ = -1;  // the offload whose copies to the host are under way
  std::string text_;  // of joined()
};

}  // namespace shardsim
