#include "sim/strategy/autograd.h"

#include <algorithm>
#include <string>
#include <utility>

#include "sim/base/check.h"

namespace shardsim {
namespace {

constexpr Bytes offloaded_min{1024};  // torchtune OffloadActivations: min_offload_size

std::size_t at(int i) { return static_cast<std::size_t>(i); }

void sort_distinct(std::vector<ValueId>& values) {
  std::sort(values.begin(), values.end());
  values.erase(std::unique(values.begin(), values.end()), values.end());
}

// Runs of `size` blocks that follow each other, as segments [first, last]; never across the root.
std::vector<std::pair<std::size_t, std::size_t>> groups_of_blocks(const OpGraph& graph, std::int64_t size) {
  std::vector<std::pair<std::size_t, std::size_t>> groups;
  std::int64_t open = 0;  // blocks in the last group, 0 = none is open
  for (std::size_t i = 0; i < graph.segments.size(); ++i) {
    if (!graph.modules[graph.segments[i].module].block) {
      open = 0;
      continue;
    }
    if (open == 0 || open == size) {
      groups.emplace_back(i, i);
      open = 1;
    } else {
      groups.back().second = i;
      ++open;
    }
  }
  return groups;
}

// Blocks that one checkpoint holds.
std::int64_t blocks_together(const Training& training) {
  return training.checkpointing == Checkpointing::every_k ? training.checkpoint_every : 1;
}

// The one stream for offload, whoever asks first.
StreamId offload_stream(ProgramBuilder& program) {
  for (const StreamId s : ids(program.program().streams))
    if (program.program().streams[s].name == "offload") return s;
  return program.stream("offload");
}

}  // namespace

Autograd::Autograd(const OpGraph& graph, ProgramBuilder& program, const Training& training)
    : graph_(graph),
      program_(program),
      segment_of_(graph.ops.size()),
      maker_(graph.values.size()),
      creator_(graph.values.size()),
      last_read_(graph.values.size()),
      uses_(graph.parameters.size(), 0),
      accumulate_(program.label("accumulate gradient")),
      recall_(graph.ops.size()),
      offload_ending_(graph.segments.size(), -1),
      forward_tensor_(graph.values.size(), no_tensor),
      recomputed_tensor_(graph.values.size(), no_tensor),
      returned_tensor_(graph.values.size(), no_tensor),
      sum_tensor_(graph.values.size(), no_tensor),
      forward_temporary_(graph.ops.size(), no_tensor),
      backward_temporary_(graph.ops.size(), no_tensor),
      stored_(graph.values.size()),
      gradients_(graph.values.size()),
      pending_(graph.parameters.size()) {
  std::vector<std::pair<OpId, KernelId>> forward_kernels, backward_kernels;
  std::vector<std::pair<OpId, TensorId>> input_gradients, parameter_gradients;
  for (const OpId id : ids(graph.ops)) {
    const Op& op = graph.ops[id];
    for (const Kernel& k : op.forward) forward_kernels.emplace_back(id, program.kernel(k));
    for (const Kernel& k : op.backward) backward_kernels.emplace_back(id, program.kernel(k));
    label_.push_back(program.label(op.name));
    for (const ParameterId p : op.parameters) ++uses_[p];
    input_gradients.insert(input_gradients.end(), op.inputs.size(), {id, no_tensor});
    parameter_gradients.insert(parameter_gradients.end(), op.parameters.size(), {id, no_tensor});
  }
  forward_kernels_ = {graph.ops.size(), forward_kernels};
  backward_kernels_ = {graph.ops.size(), backward_kernels};
  input_gradient_ = {graph.ops.size(), input_gradients};
  parameter_gradient_ = {graph.ops.size(), parameter_gradients};
  for (const Segment& s : graph.segments)
    for (OpId op = s.first; op < s.last; ++op.index) segment_of_[op] = static_cast<int>(index_of(s));
  std::vector<std::pair<OpId, ValueId>> dying;
  for (const ValueId v : ids(graph.values)) {
    const Value& value = graph.values[v];
    if (value.storage == v && !value.held_by_user) dying.emplace_back(value.last_use, v);
  }
  dying_ = {graph.ops.size(), dying};
  for (const OpId op : ids(graph.ops)) {
    for (const ValueId v : graph.ops[op].inputs) last_read_[storage_of(v)] = op;
    for (const ValueId v : graph.ops[op].outputs) {
      maker_[v] = op;
      if (storage_of(v) == v) creator_[v] = op;
    }
  }
  plan_checkpoints(training);
  plan_kept();
  if (training.activation_offload) plan_offload(training);
}

// --- what is kept, what runs again ----------------------------------------------------------------------

void Autograd::plan_checkpoints(const Training& training) {
  if (training.checkpointing == Checkpointing::none) return;
  require(training.checkpoint_every >= 1, "a checkpoint holds blocks");
  for (const auto& [from, to] : groups_of_blocks(graph_, blocks_together(training))) {
    const OpId first = graph_.segments[from].first, last = graph_.segments[to].last;
    const int next = static_cast<int>(checkpoints_.size());
    switch (training.checkpointing) {
      case Checkpointing::none: break;
      case Checkpointing::full:
      case Checkpointing::every_k:
        add_checkpoint(
            first, last,
            [&](const Op&) {
              return Recall{next, false};
            },
            true);
        break;
      case Checkpointing::selective: {
        for (OpId op = first; op < last; ++op.index) {
          const int core = graph_.ops[op].attention_core;
          if (core == 0 || recall_[op].checkpoint >= 0) continue;
          const int index = static_cast<int>(checkpoints_.size());
          OpId end = op;
          for (OpId other = op; other < last; ++other.index)
            if (graph_.ops[other].attention_core == core) end = {other.index + 1};
          add_checkpoint(
              op, end,
              [&](const Op& o) {
                return Recall{o.attention_core == core ? index : -1, false};
              },
              true);
        }
        break;
      }
      case Checkpointing::selective_op: {
        // The first, third, ... product of a block is kept. torchtitan lists aten.mm, which its linear layers
        // without bias run; layers with bias (aten.addmm) count alike here.
        int products = 0;
        add_checkpoint(
            first, last,
            [&](const Op& op) {
              const bool kept =
                  op.kind == OpKind::fused_attention || (op.kind == OpKind::linear && ++products % 2 == 1);
              return Recall{next, kept};
            },
            false);
        break;
      }
    }
  }
}

void Autograd::add_checkpoint(OpId first, OpId last, const std::function<Recall(const Op&)>& recall,
                              bool reentrant) {
  const int index = static_cast<int>(checkpoints_.size());
  Checkpoint checkpoint{first, last, last, {}, {}, reentrant, {}};
  for (OpId op = first; op < last; ++op.index) recall_[op] = recall(graph_.ops[op]);
  if (!reentrant) {
    // Inputs are saved before an operation runs, results after it: the last one may not have to run.
    OpId op{last.index - 1};
    while (op > first && graph_.ops[op].saved.empty()) --op.index;
    const auto& saved = graph_.ops[op].saved;
    const bool runs =
        std::any_of(saved.begin(), saved.end(), [&](ValueId v) { return creator_[storage_of(v)] == op; });
    checkpoint.stop = runs ? OpId{op.index + 1} : op;
  }
  for (OpId op = checkpoint.stop; op < last; ++op.index)
    if (graph_.ops[op].compiled) recall_[op].cached = false;  // a compiler sees that nothing needs it
  for (OpId op = first; op < last; ++op.index) {
    if (recall_[op].checkpoint != index) continue;
    for (const ValueId v : graph_.ops[op].inputs)
      if (!made_by(storage_of(v), index)) checkpoint.inputs.push_back(storage_of(v));
    for (const ValueId v : graph_.ops[op].outputs)
      if (recall_[op].cached && op >= checkpoint.stop && storage_of(v) == v) checkpoint.unused.push_back(v);
  }
  sort_distinct(checkpoint.inputs);
  checkpoints_.push_back(std::move(checkpoint));
}

void Autograd::plan_kept() {
  std::vector<std::pair<OpId, ValueId>> kept;
  for (const OpId id : ids(graph_.ops)) {
    const Op& op = graph_.ops[id];
    if (recall_[id].checkpoint < 0)
      for (const ValueId v : op.saved) kept.emplace_back(id, storage_of(v));
    if (recall_[id].cached)
      for (const ValueId v : op.outputs)
        if (storage_of(v) == v) kept.emplace_back(id, v);
  }
  for (int c = 0; c < static_cast<int>(checkpoints_.size()); ++c) {
    std::vector<ValueId> missing = checkpoints_[at(c)].inputs;  // kept from their first use on
    for (OpId op = checkpoints_[at(c)].first; op < checkpoints_[at(c)].last; ++op.index) {
      if (recall_[op].checkpoint != c) continue;
      for (const ValueId v : graph_.ops[op].inputs) {
        const auto found = std::find(missing.begin(), missing.end(), storage_of(v));
        if (found == missing.end()) continue;
        kept.emplace_back(op, *found);
        missing.erase(found);
      }
    }
  }
  kept_ = {graph_.ops.size(), kept};
}

Flop Autograd::recomputed_flop() const {
  Flop total;
  for (const OpId op : ids(graph_.ops)) {
    const Recall& recall = recall_[op];
    if (recall.checkpoint < 0 || recall.cached || op >= checkpoints_[at(recall.checkpoint)].stop) continue;
    total += graph_.ops[op].model_flop;
  }
  return total;
}

TensorId Autograd::once(TensorId& id, std::string_view name, Bytes bytes, Category category,
                        StreamId stream) {
  if (id == no_tensor) id = program_.tensor(name, bytes, category, stream);
  return id;
}

std::string_view Autograd::joined(std::string_view name, std::string_view suffix) {
  return text_.assign(name).append(suffix);
}

void Autograd::drop(ValueId storage) {
  Stored& stored = stored_[storage];
  require(stored.references > 0, "a tensor is dropped more often than held");
  if (--stored.references == 0) program_.free(stored.tensor);
}

// --- forward --------------------------------------------------------------------------------------------

void Autograd::forward(const Segment& segment) {
  program_.begin_mark(graph_.modules[segment.module].name);
  if (graph_.ops[segment.first].compiled) program_.host(HostWork::compiled_region);
  for (OpId op = segment.first; op < segment.last; ++op.index) {
    run(op, forward_tensor_);
    for (const ValueId v : kept_[op]) hold(v);
    for (const ValueId v : dying_[op]) drop(v);
  }
  free_moved();
  if (const int o = offload_ending_[index_of(segment)]; o >= 0) move_out(at(o));
  program_.end_mark();
}

// Its results have one reference, Python's.
void Autograd::run(OpId id, IdVector<ValueId, TensorId>& tensors) {
  const Op& op = graph_.ops[id];
  if (hooks_.before_forward) hooks_.before_forward(id);
  for (const ValueId v : op.outputs) {
    if (storage_of(v) != v) continue;
    require(stored_[v].references == 0, "a tensor is made while it exists");
    stored_[v] = {once(tensors[v], graph_.values[v].name, bytes_of(graph_, v), Category::activations), 1};
    program_.alloc(stored_[v].tensor);
    if (op.from_host)
      program_.copy(default_stream, CopyDirection::host_to_device, bytes_of(graph_, v), op.name);
  }
  const TensorId temporary =
      op.forward_temporary.count == 0
          ? no_tensor
          : once(forward_temporary_[id], op.name, op.forward_temporary, Category::temporaries);
  if (temporary != no_tensor) program_.alloc(temporary);
  for (const KernelId k : forward_kernels_[id])
    program_.launch(default_stream, k, op.compiled ? HostWork::compiled_op : HostWork::forward_op,
                    label_[id]);
  if (temporary != no_tensor) program_.free(temporary);
  if (hooks_.after_forward) hooks_.after_forward(id);
}

// Runs a checkpoint again. Python references inside it die as in the first run; those that lived longer there
// (weight casts in autocast's cache, locals of the function around it) die at its end. `running` is the
// segment whose backward asks for it.
void Autograd::recompute(int index, const Segment& running, const RecomputeHooks& hooks) {
  Checkpoint& checkpoint = checkpoints_[at(index)];
  program_.begin_mark("recompute");
  std::vector<ValueId> locals;
  for (const Segment& segment : graph_.segments) {
    const OpId first = std::max(segment.first, checkpoint.first),
               last = std::min(segment.last, checkpoint.last);
    if (first >= last) continue;
    const bool other = &segment != &running;
    if (other && hooks.before) hooks.before(segment);
    for (OpId op = first; op < last; ++op.index)
      if (recall_[op].checkpoint == index) recompute(index, op);
    if (other && hooks.after) hooks.after(segment);
  }
  for (OpId op = checkpoint.first; op < checkpoint.stop; ++op.index) {
    if (recall_[op].checkpoint != index) continue;
    for (const ValueId v : graph_.ops[op].outputs)
      if (storage_of(v) == v && graph_.values[v].last_use >= checkpoint.last)
        (last_read_[v] >= checkpoint.last ? checkpoint.results : locals).push_back(v);
  }
  for (const ValueId v : locals) drop(v);
  if (!checkpoint.keeps_results)
    for (const ValueId v : std::exchange(checkpoint.results, {})) drop(v);
  program_.end_mark();
}

void Autograd::recompute(int index, OpId op) {
  const Checkpoint& checkpoint = checkpoints_[at(index)];
  // A cached result needs no run: what kept it becomes Python's reference.
  if (op < checkpoint.stop && !recall_[op].cached) run(op, recomputed_tensor_);
  for (const ValueId v : graph_.ops[op].saved) hold(storage_of(v));
  for (const ValueId v : dying_[op])
    if (made_by(v, index) && creator_[v] < checkpoint.stop) drop(v);
}

// The checkpoint's backward is over.
void Autograd::finish(Checkpoint& checkpoint) {
  for (const ValueId v : std::exchange(checkpoint.results, {})) drop(v);
  for (const ValueId v : checkpoint.unused) drop(v);
  for (const ValueId v : checkpoint.inputs) drop(v);
}

// --- offload --------------------------------------------------------------------------------------------

void Autograd::plan_offload(const Training& training) {
  offload_stream_ = offload_stream(program_);
  for (const auto& [from, to] : groups_of_blocks(graph_, blocks_together(training))) {
    offload_ending_[to] = static_cast<int>(offloads_.size());
    offloads_.push_back({from, to});
  }
}

// Everything that only these segments hold, and holds for backward: what others use too (weight casts, the
// encoder's output, position biases) stays.
void Autograd::move_out(std::size_t index) {
  Offload& offload = offloads_[index];
  std::vector<ValueId> kept;
  for (std::size_t s = offload.first; s <= offload.last; ++s)
    for (OpId op = graph_.segments[s].first; op < graph_.segments[s].last; ++op.index)
      kept.insert(kept.end(), kept_[op].begin(), kept_[op].end());
  std::sort(kept.begin(), kept.end());
  offload.moved.clear();
  Bytes total;
  for (auto v = kept.begin(); v != kept.end();) {
    const auto end = std::upper_bound(v, kept.end(), *v);
    if (stored_[*v].references == end - v && bytes_of(graph_, *v) >= offloaded_min) {
      offload.moved.push_back(*v);
      total += bytes_of(graph_, *v);
    }
    v = end;
  }
  if (offload.moved.empty()) return;
  if (offload.pinned == no_tensor) {
    offload.pinned = program_.tensor("offloaded activations", total, Category::activations, default_stream,
                                     MemorySpace::pinned);
    offload.copied_out = program_.event();
    offload.copied_in = program_.event();
  }
  program_.wait_stream(offload_stream_, default_stream);
  program_.alloc(offload.pinned);
  for (const ValueId v : offload.moved)
    program_.copy(offload_stream_, CopyDirection::device_to_host, bytes_of(graph_, v), graph_.values[v].name);
  program_.record(offload.copied_out, offload_stream_);
  leaving_ = static_cast<int>(index);
}

void Autograd::free_moved() {
  if (leaving_ < 0) return;
  const Offload& offload = offloads_[at(std::exchange(leaving_, -1))];
  program_.wait(default_stream, offload.copied_out);
  for (const ValueId v : offload.moved) program_.free(std::exchange(stored_[v].tensor, no_tensor));
}

// Its memory comes from the pool of the side stream, which waits for the default stream's use of what was
// there before.
void Autograd::bring_back(std::size_t index) {
  const Offload& offload = offloads_[index];
  if (offload.moved.empty()) return;
  program_.wait_stream(offload_stream_, default_stream);
  for (const ValueId v : offload.moved) {
    stored_[v].tensor = once(returned_tensor_[v], graph_.values[v].name, bytes_of(graph_, v),
                             Category::activations, offload_stream_);
    program_.alloc(stored_[v].tensor);
    program_.copy(offload_stream_, CopyDirection::host_to_device, bytes_of(graph_, v), graph_.values[v].name);
  }
  program_.record(offload.copied_in, offload_stream_);
}

void Autograd::wait_for_return(std::size_t index) {
  if (offloads_[index].moved.empty()) return;
  program_.wait(default_stream, offloads_[index].copied_in);
  program_.free(offloads_[index].pinned);
}

// --- backward -------------------------------------------------------------------------------------------

void Autograd::begin_backward() {
  free_moved();
  if (!offloads_.empty()) bring_back(offloads_.size() - 1);
  const ValueId loss = graph_.loss;
  const TensorId one = once(loss_gradient_, "loss gradient", bytes_of(graph_, loss), Category::temporaries);
  program_.alloc(one);
  program_.launch(default_stream, MemoryBound{bytes_of(graph_, loss)}, HostWork::backward_op,
                  "loss gradient");
  gradients_[loss] = {hold_gradient(one)};
}

void Autograd::backward(const Segment& segment, const OnGradient& on_gradient, const RecomputeHooks& hooks) {
  program_.begin_mark(graph_.modules[segment.module].name);
  if (graph_.ops[segment.first].compiled) program_.host(HostWork::compiled_region);
  if (const int o = offload_ending_[index_of(segment)]; o >= 0) {
    wait_for_return(at(o));
    if (o > 0) bring_back(at(o - 1));
  }
  for (OpId op{segment.last.index - 1}; op >= segment.first; --op.index) {
    const int c = recall_[op].checkpoint;
    if (c >= 0 && op.index == checkpoints_[at(c)].last.index - 1) recompute(c, segment, hooks);
    run_backward(op, on_gradient);
    if (c >= 0 && op == checkpoints_[at(c)].first) finish(checkpoints_[at(c)]);
  }
  program_.end_mark();
}

void Autograd::run_backward(OpId id, const OnGradient& on_gradient) {
  const Op& op = graph_.ops[id];
  const auto release_saved = [&] {
    for (const ValueId v : op.saved) drop(storage_of(v));
  };
  const bool reached =
      std::any_of(op.outputs.begin(), op.outputs.end(), [&](ValueId v) { return !gradients_[v].empty(); });
  if (!reached) {
    release_saved();
    return;
  }
  if (hooks_.before_backward) hooks_.before_backward(id);
  TensorId& temporary = backward_temporary_[id];
  const std::span<TensorId> input_gradients = input_gradient_[id],
                            parameter_gradients = parameter_gradient_[id];
  if (op.backward_temporary.count > 0)
    program_.alloc(once(temporary, op.name, op.backward_temporary, Category::temporaries));

  std::vector<int> made(op.inputs.size(), -1), absorbed;
  Bytes summed;  // what a fused kernel reads beyond one gradient per result
  for (std::size_t i = 0; i < op.inputs.size(); ++i) {
    const ValueId v = op.inputs[i];
    if (op.gradients[i] == Gradient::fresh) {
      const TensorId t = once(input_gradients[i], joined(graph_.values[v].name, " gradient"),
                              bytes_of(graph_, v), Category::temporaries);
      program_.alloc(t);
      made[i] = hold_gradient(t);
      const bool shared = i + 1 < op.inputs.size() && op.gradients[i + 1] == Gradient::same;
      if (op.kind == OpKind::fused && !shared)
        for (const int present : std::exchange(gradients_[v], {})) {
          absorbed.push_back(present);
          summed += bytes_of(graph_, v);
        }
    } else if (op.gradients[i] == Gradient::alias || op.gradients[i] == Gradient::same) {
      made[i] = op.gradients[i] == Gradient::alias ? only_gradient(op.outputs.front()) : made[i - 1];
      ++held_[at(made[i])].references;
    }
  }
  for (const ValueId v : op.outputs)
    for (std::size_t more = 1; more < gradients_[v].size(); ++more) summed += bytes_of(graph_, v);
  for (std::size_t i = 0; i < op.parameters.size(); ++i) {
    const Parameter& p = graph_.parameters[op.parameters[i]];
    program_.alloc(once(parameter_gradients[i], joined(p.name, " gradient"),
                        storage(p.elements, graph_.parameter_dtype), Category::gradients));
  }
  const HostWork work = op.compiled ? HostWork::compiled_op : HostWork::backward_op;
  for (std::size_t k = 0; k < op.backward.size(); ++k)
    program_.launch(
        default_stream,
        summed.count == 0
            ? backward_kernels_[id][k]
            : program_.kernel(MemoryBound{std::get<MemoryBound>(op.backward[k]).traffic + summed}),
        work, label_[id]);

  if (op.backward_temporary.count > 0) program_.free(temporary);
  release_saved();
  for (const int gradient : absorbed) drop_gradient(gradient);
  for (const ValueId v : op.outputs)
    for (const int gradient : std::exchange(gradients_[v], {})) drop_gradient(gradient);
  for (std::size_t i = 0; i < op.inputs.size(); ++i)
    if (made[i] >= 0) give_gradient(op.inputs[i], made[i], id);
  for (std::size_t i = 0; i < op.parameters.size(); ++i)
    give_parameter_gradient(op.parameters[i], parameter_gradients[i], on_gradient);
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

// Autograd's sum of the two, in place if nobody else reads the first one.
int Autograd::add_gradients(ValueId of, int present, int held) {
  const TensorId addend = held_[at(held)].tensor;
  if (held_[at(present)].references == 1) {
    add(addend);
  } else {
    const TensorId sum = once(sum_tensor_[of], joined(graph_.values[of].name, " gradient sum"),
                              bytes_of(graph_, of), Category::temporaries);
    program_.alloc(sum);
    add(addend);
    drop_gradient(std::exchange(present, hold_gradient(sum)));
  }
  drop_gradient(held);
  return present;
}

void Autograd::give_gradient(ValueId to, int held, OpId giver) {
  std::vector<int>& present = gradients_[to];
  const bool summed_later =
      graph_.ops[maker_[to]].kind == OpKind::fused && segment_of_[maker_[to]] == segment_of_[giver];
  if (present.empty() || summed_later)
    present.push_back(held);
  else
    present.front() = add_gradients(to, present.front(), held);
}

// For an operation that passes it on.
int Autograd::only_gradient(ValueId of) {
  std::vector<int>& present = gradients_[of];
  for (std::size_t i = 1; i < present.size(); ++i)
    present.front() = add_gradients(of, present.front(), present[i]);
  present.resize(1);
  return present.front();
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

void Autograd::forward() {
  for (const Segment& s : graph_.segments) forward(s);
}

void Autograd::backward(const OnGradient& on_gradient) {
  begin_backward();
  for (auto s = graph_.segments.rbegin(); s != graph_.segments.rend(); ++s) backward(*s, on_gradient);
}

void Autograd::end_micro_batch() {
  for (const MetricPass& pass : graph_.metrics)
    program_.launch(default_stream, pass.kernel, HostWork::forward_op, pass.name);
  for (const ValueId v : ids(graph_.values))
    if (graph_.values[v].held_by_user && storage_of(v) == v) drop(v);
  for (const Stored& s : stored_) require(s.references == 0, "a tensor outlives its micro-batch");
  for (const Held& h : held_) require(h.references == 0, "a gradient outlives its micro-batch");
  held_.clear();
}

}  // namespace shardsim
