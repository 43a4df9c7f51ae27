#include "sim/strategy/parameter_coordinator.h"

#include <algorithm>
#include <utility>

#include "sim/base/check.h"

namespace shardsim {
namespace {

// Python of fetch_sub_module and release_sub_module, in dispatches of an operation: engineering estimate.
constexpr int dispatches_per_fetch = 10;
constexpr int gathers_ahead = 3;  // __max_ongoing_fetch_events and the one that exceeds them

}  // namespace

ParameterCoordinator::ParameterCoordinator(StepWriter& step, const Zero& options, GroupId group,
                                           std::int64_t ranks, StreamId stream)
    : step_(step), program_(step.program), options_(options), group_(group), ranks_(ranks), stream_(stream) {
  for (const Parameter& p : step.graph.parameters) {
    State s{.elements = p.elements, .part = (p.elements + ranks - 1) / ranks};
    s.persistent = p.elements <= options.param_persistence_threshold;
    s.whole = program_.tensor(p.name, bytes(s.part * ranks), Category::unsharded_parameters, stream);
    parameters_.push_back(s);
  }
  for (int i = 0; i < gathers_ahead; ++i) awaited_.push_back(program_.event());
}

std::vector<ParameterId> ParameterCoordinator::parameters_of(OpId op) const {
  std::vector<ParameterId> result = step_.graph.ops[op].parameters;
  std::sort(result.begin(), result.end());
  result.erase(std::unique(result.begin(), result.end()), result.end());
  return result;
}

void ParameterCoordinator::begin_micro_batch(bool traced) {
  if (stream_ != default_stream) program_.wait_stream(stream_, default_stream);  // after the optimizer's step
  traced_ = traced;
  step_of_trace_ = 0;
  available_ = 0;
  gathers_.clear();
  queue_.clear();
  for (State& s : parameters_) s.fetched_for = -1;
  if (!traced_) {
    trace_.clear();
    return;
  }
  for (std::size_t i = 0; i < trace_.size(); ++i)
    for (const ParameterId p : parameters_of(trace_[i])) queue_.push_back({p, static_cast<int>(i)});
}

void ParameterCoordinator::end_micro_batch() {
  for (State& s : parameters_) {
    require(s.gather < 0, "a prefetched parameter is never used");
    require(s.status == Status::partitioned || (traced_ && s.persistent),
            "a gathered parameter outlives its micro-batch");
  }
}

// --- fetch ------------------------------------------------------------------------------------------------

void ParameterCoordinator::fetch(OpId op) {
  const std::vector<ParameterId> needed = parameters_of(op);
  if (needed.empty()) return;
  program_.host(HostWork::forward_op, dispatches_per_fetch);
  if (!traced_) trace_.push_back(op);
  std::vector<ParameterId> missing;
  for (const ParameterId p : needed)
    if (parameters_[p].status == Status::partitioned) missing.push_back(p);
  gather(std::move(missing));
  for (const ParameterId p : needed) await(p);
  if (stream_ != default_stream) program_.wait_stream(default_stream, stream_);
  if (traced_) prefetch(needed);
  ++step_of_trace_;
}

void ParameterCoordinator::gather(std::vector<ParameterId> some) {
  if (some.empty()) return;
  std::sort(some.begin(), some.end());
  Gather g{.parameters = some, .done = program_.event(), .awaited = some.size()};
  std::int64_t part = 0;
  for (const ParameterId p : some) {
    State& s = parameters_[p];
    part += s.part;
    available_ += s.elements;
    s.status = Status::in_flight;
    s.gather = static_cast<int>(gathers_.size());
  }
  const std::string& label = step_.graph.parameters[some.front()].name;
  TensorId copied = no_tensor;
  if (options_.offload == ZeroOffload::parameters) {
    copied = program_.tensor("partition on the GPU", bytes(part), Category::unsharded_parameters, stream_);
    program_.alloc(copied);
    program_.copy(stream_, CopyDirection::host_to_device, bytes(part), label);
  }
  TensorId into = parameters_[some.front()].whole;
  if (some.size() > 1)
    into = g.flat =
        program_.tensor("gathered parameters", bytes(part * ranks_), Category::unsharded_parameters, stream_);
  program_.alloc(into);
  if (some.size() > 1) step_.pass("copy own part", part, 2 * bytes(1).count, HostWork::forward_op, stream_);
  issue(
      step_,
      {group_, stream_, CollectiveKind::all_gather, step_.graph.parameter_dtype, bytes(part * ranks_), label},
      g.done, {into});
  if (copied != no_tensor) program_.free(copied);
  gathers_.push_back(std::move(g));
}

// The parts of each parameter are concatenated when the first of a gather is waited for; the flat buffer goes
// with the last.
void ParameterCoordinator::await(ParameterId p) {
  const int index = std::exchange(parameters_[p].gather, -1);
  if (index < 0) return;
  Gather& g = gathers_[static_cast<std::size_t>(index)];
  const EventId event = awaited_[awaits_++ % awaited_.size()];
  program_.host_wait(event);
  if (!std::exchange(g.complete, true)) complete(g);
  if (--g.awaited == 0 && g.flat != no_tensor) program_.free(g.flat);
  program_.record(event, stream_);
}

void ParameterCoordinator::complete(Gather& g) {
  program_.wait(stream_, g.done);
  for (const ParameterId p : g.parameters) {
    State& s = parameters_[p];
    s.status = Status::whole;
    if (g.flat == no_tensor) continue;
    program_.alloc(s.whole);
    step_.pass("concatenate parts", s.elements, 2 * bytes(1).count, HostWork::forward_op, stream_);
  }
}

void ParameterCoordinator::prefetch(const std::vector<ParameterId>& fetched) {
  const auto fresh = std::count_if(fetched.begin(), fetched.end(), [&](ParameterId p) {
    return parameters_[p].fetched_for < step_of_trace_;
  });
  const auto pop = [&] {
    const Use use = queue_.front();
    queue_.pop_front();
    State& s = parameters_[use.parameter];
    s.fetched_for = std::max(s.fetched_for, use.step);
    return use.parameter;
  };
  for (std::ptrdiff_t i = 0; i < fresh && !queue_.empty(); ++i) pop();

  const std::int64_t limit =
      std::min(options_.max_live_parameters - available_, options_.prefetch_bucket_size);
  std::vector<ParameterId> next;
  std::int64_t elements = 0;
  while (!queue_.empty() && elements < limit) {
    const ParameterId p = pop();
    if (parameters_[p].status != Status::partitioned || std::find(next.begin(), next.end(), p) != next.end())
      continue;
    next.push_back(p);
    elements += parameters_[p].elements;
  }
  gather(std::move(next));
}

// --- release ----------------------------------------------------------------------------------------------

void ParameterCoordinator::release(OpId op) {
  for (const ParameterId p : parameters_of(op)) {
    State& s = parameters_[p];
    if (traced_ && (s.persistent || s.fetched_for > step_of_trace_ || reused_soon(p))) continue;
    if (s.status != Status::whole) continue;
    free(s);
    available_ -= s.elements;
  }
}

bool ParameterCoordinator::reused_soon(ParameterId wanted) const {
  std::int64_t distance = 0;
  for (auto i = static_cast<std::size_t>(step_of_trace_); i < trace_.size(); ++i) {
    if (distance >= options_.max_reuse_distance) return false;
    for (const ParameterId p : parameters_of(trace_[i])) {
      if (p == wanted) return true;
      distance += parameters_[p].elements;
    }
  }
  return false;
}

void ParameterCoordinator::free(State& s) {
  if (stream_ != default_stream) program_.record_use(s.whole, default_stream);
  program_.free(s.whole);
  s.status = Status::partitioned;
}

void ParameterCoordinator::release_persistent() {
  for (State& s : parameters_)
    if (s.status == Status::whole) free(s);
}

void ParameterCoordinator::gather_persistent() {
  std::int64_t part = 0;
  for (State& s : parameters_) {
    if (!s.persistent) continue;
    part += s.part;
    program_.alloc(s.whole);
    s.status = Status::whole;
  }
  if (part == 0) return;
  if (options_.offload == ZeroOffload::parameters)
    program_.copy(default_stream, CopyDirection::host_to_device, bytes(part), "persistent parameters");
  const EventId done = program_.event();
  issue(step_,
        {group_, default_stream, CollectiveKind::all_gather, step_.graph.parameter_dtype,
         bytes(part * ranks_), "persistent parameters"},
        done, {});
  program_.wait(default_stream, done);
}

}  // namespace shardsim
