// Stage 3 of ZeRO: which parameters are whole on the GPU while a micro-batch runs.
//
// A module's parameters are gathered before it runs, in forward, recomputation and backward, and released
// after it. The first step records the order of the modules; from the second step on the parameters that come
// next are gathered early, and parameters that are needed again soon are kept.
//   source  deepspeed/runtime/zero/partitioned_param_coordinator.py, partition_parameters.py
#pragma once

#include <deque>
#include <vector>

#include "sim/strategy/zero.h"

namespace shardsim {

class ParameterCoordinator {
 public:
  // Gathers over `group`, of so many ranks, on `stream`.
  ParameterCoordinator(StepWriter& step, const Zero& options, GroupId group, std::int64_t ranks,
                       StreamId stream);

  // Elements of a parameter that one rank holds.
  std::int64_t part(ParameterId p) const { return parameters_[p].part; }

  void begin_micro_batch(bool traced);
  void fetch(OpId op);
  void release(OpId op);
  void end_micro_batch();

  // Small parameters stay whole from the end of one step to that of the next.
  void gather_persistent();
  void release_persistent();

 private:
  enum class Status : std::uint8_t { partitioned, in_flight, whole };
  struct State {
    std::int64_t elements = 0, part = 0;
    bool persistent = false;
    TensorId whole = no_tensor;
    Status status = Status::partitioned;
    int gather = -1;       // into gathers_, until somebody has waited for it
    int fetched_for = -1;  // the last step of the trace for which it has been fetched
  };
  struct Gather {  // of one parameter in place, of several by way of a flat buffer
    std::vector<ParameterId> parameters;
    TensorId flat = no_tensor;
    EventId done{};
    std::size_t awaited = 0;  // parameters that still hold it
    bool complete = false;
  };
  struct Use {
    ParameterId parameter;
    int step;  // of the trace
  };

  std::vector<ParameterId> parameters_of(OpId op) const;
  void gather(std::vector<ParameterId> some);
  void await(ParameterId p);
  void complete(Gather& gather);
  void free(State& parameter);
  void prefetch(const std::vector<ParameterId>& fetched);
  bool reused_soon(ParameterId p) const;
  Bytes bytes(std::int64_t elements) const { return storage(elements, step_.graph.parameter_dtype); }

  StepWriter& step_;
  ProgramBuilder& program_;
  Zero options_;
  GroupId group_;
  std::int64_t ranks_;
  StreamId stream_;
  IdVector<ParameterId, State> parameters_;
  std::vector<OpId> trace_;  // operations with parameters, in the order of a micro-batch

  // While a micro-batch is written.
  bool traced_ = false;
  int step_of_trace_ = 0;
  std::deque<Use> queue_;       // uses that come next, for which nothing has been fetched yet
  std::int64_t available_ = 0;  // elements gathered
  std::vector<Gather> gathers_;
  std::vector<EventId> awaited_;  // a ring: the host runs ahead by so many gathers
  std::size_t awaits_ = 0;
};

}  // namespace shardsim
