#include "sim/strategy/autograd.h"

#include <algorithm>
#include <string>
#include <utility>

#include "sim/base/check.h"

namespace shardsim {
namespace {

constexpr TensorId no_tensor{-1};
constexpr int no_gradient = -1;

std::size_t at(int i) { return static_cast<std::size_t>(i); }

}  // namespace

Autograd::Autograd(const OpGraph& graph, ProgramBuilder& program, bool checkpoint_blocks)
    : graph_(graph),
      program_(program),
      checkpoint_blocks_(checkpoint_blocks),
      creator_(graph.values.size()),
      dying_(graph.ops.size()),
      uses_(graph.parameters.size(), 0),
      accumulate_(program.label("accumulate gradient")),
      forward_tensor_(graph.values.size(), no_tensor),
      recomputed_tensor_(graph.values.size(), no_tensor),
      sum_tensor_(graph.values.size(), no_tensor),
      op_tensors_(graph.ops.size()),
      stored_(graph.values.size()),
      gradient_(graph.values.size(), no_gradient),
      pending_(graph.parameters.size()) {
  for (const Op& op : graph.ops) {
    Kernels kernels;
    for (const Kernel& k : op.forward) kernels.forward.push_back(program.kernel(k));
    for (const Kernel& k : op.backward) kernels.backward.push_back(program.kernel(k));
    kernels_.push_back(std::move(kernels));
    label_.push_back(program.label(op.name));
    for (const ParameterId p : op.parameters) ++uses_[p];
  }
  for (const ValueId v : ids(graph.values)) {
    const Value& value = graph.values[v];
    if (value.storage == v && !value.held_by_user) dying_[value.last_use].push_back(v);
  }
  for (const OpId op : ids(graph.ops))
    for (const ValueId v : graph.ops[op].outputs)
      if (storage_of(v) == v) creator_[v] = op;
  for (const Segment& segment : graph.segments) {
    std::vector<ValueId> external;
    for (OpId op = segment.first; op < segment.last; ++op.index)
      for (const ValueId v : graph.ops[op].inputs)
        if (creator_[storage_of(v)] < segment.first) external.push_back(storage_of(v));
    std::sort(external.begin(), external.end());
    external.erase(std::unique(external.begin(), external.end()), external.end());
    external_.push_back(std::move(external));
  }
}

const std::vector<ValueId>& Autograd::external(const Segment& s) const {
  return external_[static_cast<std::size_t>(&s - graph_.segments.data())];
}

Flop Autograd::recomputed_flop() const {
  Flop total;
  for (const Segment& segment : graph_.segments)
    for (OpId op = segment.first; op < segment.last; ++op.index)
      if (checkpointed(segment)) total += graph_.ops[op].model_flop;
  return total;
}

TensorId Autograd::once(TensorId& id, std::string_view name, Bytes bytes, Category category) {
  if (id == no_tensor) id = program_.tensor(name, bytes, category);
  return id;
}

void Autograd::drop(ValueId storage) {
  Stored& stored = stored_[storage];
  require(stored.references > 0, "a tensor is dropped more often than held");
  if (--stored.references == 0) program_.free(stored.tensor);
}

// --- forward --------------------------------------------------------------------------------------------

void Autograd::forward(const Segment& segment) {
  program_.begin_mark(graph_.modules[segment.module].name);
  const bool recomputed_later = checkpointed(segment);
  if (recomputed_later)
    for (const ValueId v : external(segment)) hold(v);
  for (OpId op = segment.first; op < segment.last; ++op.index)
    run(op, recomputed_later ? Pass::checkpointed : Pass::forward);
  program_.end_mark();
}

void Autograd::run(OpId id, Pass pass) {
  const Op& op = graph_.ops[id];
  if (hooks_.before_forward) hooks_.before_forward(id);
  auto& tensors = pass == Pass::recompute ? recomputed_tensor_ : forward_tensor_;
  for (const ValueId v : op.outputs) {
    if (storage_of(v) != v) continue;
    stored_[v] = {once(tensors[v], graph_.values[v].name, bytes_of(graph_, v), Category::activations), 1};
    program_.alloc(stored_[v].tensor);
    if (op.from_host)
      program_.copy(default_stream, CopyDirection::host_to_device, bytes_of(graph_, v), op.name);
  }
  const TensorId temporary =
      op.forward_temporary.count == 0
          ? no_tensor
          : once(op_tensors_[id].forward_temporary, op.name, op.forward_temporary, Category::temporaries);
  if (temporary != no_tensor) program_.alloc(temporary);
  for (const KernelId k : kernels_[id].forward)
    program_.launch(default_stream, k, HostWork::forward_op, label_[id]);
  if (temporary != no_tensor) program_.free(temporary);
  if (pass != Pass::checkpointed)
    for (const ValueId v : op.saved) hold(storage_of(v));
  for (const ValueId v : dying_[id])
    if (pass != Pass::recompute) drop(v);
  if (hooks_.after_forward) hooks_.after_forward(id);
}

// Runs a checkpointed segment again. Python references inside the segment die as in the first run, weight
// casts with the autocast context at its end; the segment's results stay until its backward is over and are
// returned.
std::vector<ValueId> Autograd::recompute(const Segment& segment) {
  program_.begin_mark("recompute");
  std::vector<ValueId> results, casts;
  for (OpId op = segment.first; op < segment.last; ++op.index) {
    run(op, Pass::recompute);
    for (const ValueId v : graph_.ops[op].outputs) {
      if (storage_of(v) != v || graph_.values[v].last_use < segment.last) continue;
      (graph_.values[v].autocast_cache ? casts : results).push_back(v);
    }
    for (const ValueId v : dying_[op])
      if (creator_[v] >= segment.first) drop(v);
  }
  for (const ValueId v : casts) drop(v);
  program_.end_mark();
  return results;
}

// --- backward -------------------------------------------------------------------------------------------

void Autograd::begin_backward() {
  const ValueId loss = graph_.loss;
  const TensorId one = once(loss_gradient_, "loss gradient", bytes_of(graph_, loss), Category::temporaries);
  program_.alloc(one);
  program_.launch(default_stream, MemoryBound{bytes_of(graph_, loss)}, HostWork::backward_op,
                  "loss gradient");
  gradient_[loss] = hold_gradient(one);
}

void Autograd::backward(const Segment& segment, const OnGradient& on_gradient) {
  program_.begin_mark(graph_.modules[segment.module].name);
  std::vector<ValueId> results;
  if (checkpointed(segment)) results = recompute(segment);
  for (OpId op{segment.last.index - 1}; op >= segment.first; --op.index) run_backward(op, on_gradient);
  for (const ValueId v : results) drop(v);
  if (checkpointed(segment))
    for (const ValueId v : external(segment)) drop(v);
  program_.end_mark();
}

void Autograd::run_backward(OpId id, const OnGradient& on_gradient) {
  const Op& op = graph_.ops[id];
  const auto release_saved = [&] {
    for (const ValueId v : op.saved) drop(storage_of(v));
  };
  const bool reached = std::any_of(op.outputs.begin(), op.outputs.end(),
                                   [&](ValueId v) { return gradient_[v] != no_gradient; });
  if (!reached) {
    release_saved();
    return;
  }
  if (hooks_.before_backward) hooks_.before_backward(id);
  OpTensors& tensors = op_tensors_[id];
  tensors.input_gradient.resize(op.inputs.size(), no_tensor);
  tensors.parameter_gradient.resize(op.parameters.size(), no_tensor);
  if (op.backward_temporary.count > 0)
    program_.alloc(once(tensors.backward_temporary, op.name, op.backward_temporary, Category::temporaries));

  std::vector<int> made(op.inputs.size(), no_gradient);
  for (std::size_t i = 0; i < op.inputs.size(); ++i) {
    const ValueId v = op.inputs[i];
    if (op.gradients[i] == Gradient::fresh) {
      const TensorId t = once(tensors.input_gradient[i], std::string(graph_.values[v].name) + " gradient",
                              bytes_of(graph_, v), Category::temporaries);
      program_.alloc(t);
      made[i] = hold_gradient(t);
    } else if (op.gradients[i] == Gradient::alias) {
      made[i] = gradient_[op.outputs.front()];
      ++held_[at(made[i])].references;
    }
  }
  for (std::size_t i = 0; i < op.parameters.size(); ++i) {
    const Parameter& p = graph_.parameters[op.parameters[i]];
    program_.alloc(once(tensors.parameter_gradient[i], p.name + " gradient",
                        storage(p.elements, graph_.parameter_dtype), Category::gradients));
  }
  for (const KernelId k : kernels_[id].backward)
    program_.launch(default_stream, k, HostWork::backward_op, label_[id]);

  if (op.backward_temporary.count > 0) program_.free(tensors.backward_temporary);
  release_saved();
  for (const ValueId v : op.outputs)
    if (gradient_[v] != no_gradient) drop_gradient(std::exchange(gradient_[v], no_gradient));
  for (std::size_t i = 0; i < op.inputs.size(); ++i)
    if (made[i] != no_gradient) give_gradient(op.inputs[i], made[i]);
  for (std::size_t i = 0; i < op.parameters.size(); ++i)
    give_parameter_gradient(op.parameters[i], tensors.parameter_gradient[i], on_gradient);
  if (hooks_.after_backward) hooks_.after_backward(id);
}

int Autograd::hold_gradient(TensorId tensor) {
  held_.push_back({tensor, 1});
  return static_cast<int>(held_.size()) - 1;
}

void Autograd::drop_gradient(int held) {
  if (--held_[at(held)].references == 0) program_.free(held_[at(held)].tensor);
}

void Autograd::add(TensorId addend) {
  program_.launch(default_stream, program_.kernel(MemoryBound{program_.bytes_of(addend) * 3}),
                  HostWork::backward_op, accumulate_);
}

void Autograd::give_gradient(ValueId to, int held) {
  int& present = gradient_[to];
  if (present == no_gradient) {
    present = held;
    return;
  }
  const TensorId addend = held_[at(held)].tensor;
  if (held_[at(present)].references == 1) {
    add(addend);
  } else {  // somebody else reads the first one: the sum needs memory of its own
    const TensorId sum = once(sum_tensor_[to], std::string(graph_.values[to].name) + " gradient sum",
                              bytes_of(graph_, to), Category::temporaries);
    program_.alloc(sum);
    add(addend);
    drop_gradient(std::exchange(present, hold_gradient(sum)));
  }
  drop_gradient(held);
}

void Autograd::give_parameter_gradient(ParameterId parameter, TensorId contribution,
                                       const OnGradient& on_gradient) {
  Pending& pending = pending_[parameter];
  if (pending.contributions++ == 0) {
    pending.tensor = contribution;
  } else {
    add(contribution);
    program_.free(contribution);
  }
  if (pending.contributions == uses_[parameter]) on_gradient(parameter, std::exchange(pending, {}).tensor);
}

void Autograd::end_micro_batch() {
  for (const ValueId v : ids(graph_.values))
    if (graph_.values[v].held_by_user && storage_of(v) == v) drop(v);
  for (const Stored& s : stored_) require(s.references == 0, "a tensor outlives its micro-batch");
  for (const Held& h : held_) require(h.references == 0, "a gradient outlives its micro-batch");
  held_.clear();
}

}  // namespace shardsim
