// The discrete-event simulation: replays a program on every rank class of a job.
//
// Host threads run straight through the program, ahead of the GPU, and issue operations into streams. GPU
// time reaches a host at four places only: it polls freed blocks when it allocates, waits for an event, finds
// a stream's launch queue full, or drains the device to retry an allocation. Everything that happens at one
// instant is applied first; then links are shared again and running kernels re-paced; then time moves on.
// Ranks meet in collectives and on links only, so at one instant each is served by itself, in lanes that run
// in parallel; what it does to others is noted and done when all have been served.
//   GPU   kernels run at the pace given by the collectives on their own GPU; several streams share it
//   NCCL  a collective starts when its last member arrives: a latency, then a transfer over shared links
//   time  integer picoseconds; the order of ranks at one instant never matters
//   leaves out  the cost of a cudaMalloc that fails; NCCL's memory is there from the start, not from first
//   use
#pragma once

#include <algorithm>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "sim/collective/plan.h"
#include "sim/engine/agenda.h"
#include "sim/memory/caching_allocator.h"
#include "sim/memory/host_memory.h"
#include "sim/memory/ledger.h"
#include "sim/network/network.h"
#include "sim/program/program.h"
#include "sim/result/result.h"
#include "sim/simulate/chunk_level.h"
#include "sim/simulate/cluster.h"
#include "sim/simulate/critical_path.h"
#include "sim/simulate/job.h"
#include "sim/simulate/kernel_clock.h"
#include "sim/simulate/memory_recorder.h"
#include "sim/simulate/stream.h"
#include "sim/simulate/time_account.h"
#include "sim/simulate/time_range.h"

namespace shardsim {

struct EventState {
  std::int64_t issued = 0, completed = 0;  // records
  int stream = 0;                          // of the last one issued,
  Time work{};                             // and the work before it there
};

struct HostState {
  enum class State : std::uint8_t {
    due,         // runs at the end of this instant
    sleeping,    // until its clock: it has to see the GPU as it is then
    waiting,     // for an event
    queue_full,  // for a launch to begin
    draining,    // for the device to be idle: to retry an allocation, or because cudaFree waits for it
    finished,    // has issued all steps
    dead,        // out of memory
  };
  State state = State::due;
  Time clock{};
  Section section = Section::init;
  int step = 0;
  std::size_t repeat = 0;             // in the section
  std::int64_t iteration = 0;         // of the repeat
  std::size_t instruction = 0;        // of the body
  EventId event{};                    // waiting
  StreamId stream{};                  // queue_full
  std::optional<Time> retry_began{};  // the failed cudaMalloc, until the request is served
  std::optional<Time> free_began{};   // of cudaFree in a request that needed no retry, until it returns
  Time driver{};                      // the calls of that request take
  Time step_began{};
  std::int64_t most_times = 0;  // that a body of this step was repeated,
  Time repeats{};               // and when that had been issued, from the beginning of the step
  std::vector<LabelId> marks{};
};

inline constexpr BlockId not_live{-1};

// How things stand when the host has issued a step.
struct IssuedStep {
  std::uint64_t fingerprint = 0;   // of the allocator
  std::int64_t segment_calls = 0;  // cudaMalloc and cudaFree so far
  Time repeats{};  // of the host, from the beginning of the step to the end of the body most often repeated
};

struct RankState {
  std::vector<StreamState> streams;
  std::vector<EventState> events;
  CachingAllocator allocator;
  IdVector<TensorId, BlockId> block;
  IdVector<TensorId, char> on_host;  // alive, pinned or not
  HostMemory host_memory{};
  HostState host{};
  Ledger ledger{};
  std::vector<std::pair<BlockId, int>> pending{};  // freed blocks and the streams they still wait for
  Time reusable_from{};                            // no freed block can be reused before: a lower bound
  std::int64_t alloc_retries = 0;
  int sms = 0;             // that the collectives it takes part in hold
  Company company{};       // theirs, as of the last repace
  bool repace = false;     // listed in its lane's to_repace
  bool active = false;     // listed in its lane's active
  bool computing = false;  // on the default stream
  StreamSet running{};     // whose front is a kernel that runs
  StreamSet blocked{};     // that wait for an event
  StreamSet holding{};     // that freed blocks wait for
  StreamSet touched{};     // that may advance
  TimeAccount account{};
  std::vector<StepRecord> steps{};   // [0] ends the set-up
  std::vector<IssuedStep> issued{};  // [0] is the set-up
  int lane = 0;
};

class Executor {
 public:
  // `causes`, if set, receives why everything began when it did.
  Executor(const Program& program, const Cluster& cluster, const Job& job, std::vector<Span>* timeline,
           CausalLog* causes = nullptr);

  // From the start, what this class's allocator does.
  void record_memory(RankClassId r, MemoryRecorder& recorder);

  void run();

  const IdVector<RankClassId, RankState>& ranks() const { return ranks_; }
  const std::optional<OutOfMemory>& oom() const { return oom_; }
  int steps_completed() const { return steps_completed_; }
  bool steady() const { return steady_; }
  std::int64_t events() const;
  std::int64_t solves() const { return network_.solves(); }
  std::int64_t messages() const { return chunks_ ? chunks_->messages() : 0; }

 private:
  static constexpr int steps_min = 3, steps_max = 8;

  static std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

  struct Moving {   // a transfer under way
    Wide left = 0;  // bytes * picoseconds per second
    Time updated;
    Bandwidth rate;
    Wide left_at(Time now) const {
      return std::max(Wide{0}, left - Wide{rate.count} * (now - updated).count);
    }
  };
  struct CommunicatorState {
    enum class State : std::uint8_t { idle, gathering, latency, transfer };
    IdVector<CollectiveId, std::optional<Plan>> plans;  // of its group's
    State state = State::idle;
    CollectiveId what{};
    std::size_t arrived = 0;
    std::size_t computing = 0;  // members whose default stream computes
    Time began{};
    Moving moving{};
  };

  // What a rank does to others, or to what all share.
  struct Effect {
    enum class Kind : std::uint8_t { computes, computes_no_more, arrives, copy_begins, copy_ends, step_ends };
    Kind kind;
    RankClassId rank;
    int stream = 0;  // step_ends: the step
  };
  // Ranks that one thread serves at an instant, and all that it needs for it.
  struct alignas(128) Lane {
    RankClassId first, end;           // its ranks
    Agenda agenda;                    // of their streams and hosts
    std::vector<KernelClock> clocks;  // by part of the topology
    std::vector<Agent> due{};
    std::vector<RankClassId> active{}, to_repace{};
    std::vector<Effect> effects{};
    std::optional<OutOfMemory> oom{};
    std::int64_t events = 0;
  };

  // --- agents ---
  int streams() const { return static_cast<int>(program_.streams.size()); }
  Lane& lane_of(RankClassId r) { return lanes_[static_cast<std::size_t>(ranks_[r].lane)]; }
  Agent stream_agent(const Lane& lane, RankClassId r, int s) const {
    return {(r.index - lane.first.index) * (streams() + 1) + s};
  }
  const Gpu& gpu_of(RankClassId r) const { return cluster_.gpu_of(job_.ranks[r].part); }
  const Part& part_of(RankClassId r) const { return cluster_.part(job_.ranks[r].part); }
  TransferId transfer_of(CommunicatorId c) const { return {c.index}; }
  TransferId transfer_of(RankClassId r, int s) const {
    return {static_cast<std::int32_t>(communicators_.size()) + r.index * streams() + s};
  }

  void make_lanes();

  // --- one instant ---
  void schedule(RankClassId r, int s, Time at);  // s = streams(): the host
  void schedule(CommunicatorId c, Time at);
  void schedule(TransferId t, Time at);
  std::optional<Time> next_instant() const;
  void instant();
  std::span<const RankClassId> members_in(const Lane& lane, CommunicatorId c) const;
  void serve_due(Lane& lane);
  void serve_active();
  void note(Effect::Kind kind, RankClassId r, int s = 0) { lane_of(r).effects.push_back({kind, r, s}); }
  void have_effects();
  template <class Work>
  void in_lanes(std::size_t pieces, const Work& work);
  void wake(CommunicatorId c);
  void wake(RankClassId r, int s);
  void activate(RankClassId r);
  void host_due(RankClassId r);
  void touch(RankClassId r, int s);
  void settle(RankClassId r);
  void settle_active(Lane& lane);
  void conclude();  // share links, re-pace kernels
  bool finished();

  // --- streams ---
  void advance(RankClassId r, int s);
  void begin_kernel(RankClassId r, int s);
  bool kernels_one_by_one() const { return causes_ != nullptr || timeline_ != nullptr; }
  void follow_chain(RankClassId r, int s);
  void schedule_chain(RankClassId r, int s);
  void kernel_ran(RankClassId r, int s, Time end);
  void begin_copy(RankClassId r, int s);
  void start_copy(RankClassId r, int s);
  void finish_front(RankClassId r, int s);         // kernel or copy
  void complete(RankClassId r, EventId e, int s);  // a record on stream s
  void end_step(RankClassId r);
  void step_ended(int step);
  void check_drained(RankClassId r);
  void set_computing(RankClassId r, bool computing);
  void computes(RankClassId r, bool computing);
  void ask_repace(RankClassId r);
  Company company_of(RankClassId r) const;
  void repace(RankClassId r);
  KernelClock::Pace pace_of(RankClassId r, const Company& company) {
    const RankClass& rank = job_.ranks[r];
    return lane_of(r).clocks[static_cast<std::size_t>(rank.part)].pace(company, rank.compute_scale);
  }
  void launched(RankClassId r, int s);  // an outstanding launch begins

  // --- collectives ---
  CommunicatorId communicator_of(RankClassId r, CollectiveId what) const {
    return job_.ranks[r].communicator[program_.collectives[what].group];
  }
  const Plan& plan_of(CommunicatorId c, CollectiveId what) const { return *communicators_[c].plans[what]; }
  void make_plans();
  void arrive(RankClassId r, int s);
  void gather(RankClassId r, int s);
  void begin_transfer(CommunicatorId c);
  void finish_collective(CommunicatorId c);
  void leave_collective(RankClassId r, CommunicatorId c);
  Bandwidth cap(CommunicatorId c);
  void change_rate(TransferId t);
  std::vector<std::vector<Plan>> planned() const;

  // --- hosts ---
  void run_host(RankClassId r);
  // One instruction of the host. False: it yields, and the same instruction runs again later.
  bool execute(RankClassId r, const Alloc& i);
  bool execute(RankClassId r, const Free& i);
  bool execute(RankClassId r, const RecordUse& i);
  bool execute(RankClassId r, const Launch& i);
  bool execute(RankClassId r, const Collective& i);
  bool execute(RankClassId r, const Copy& i);
  bool execute(RankClassId r, const Record& i);
  bool execute(RankClassId r, const Wait& i);
  bool execute(RankClassId r, const HostWait& i);
  bool execute(RankClassId r, const HostBusy& i);
  bool execute(RankClassId r, const HostPass& i);
  bool execute(RankClassId r, const MarkBegin& i);
  bool execute(RankClassId r, const MarkEnd& i);
  bool allocate_on_host(RankClassId r, TensorId tensor);
  bool issue(RankClassId r, StreamId s, StreamOp op, Time cost);
  void push(RankClassId r, int s, StreamOp op);
  bool sleep_until_clock(RankClassId r);
  void poll(RankClassId r);
  bool nothing_reusable(RankClassId r);
  Time first_marker(RankClassId r);
  Time reaches(RankClassId r, int s, Time work);
  Time least_left(RankClassId r, int s);
  Time least_time(RankClassId r, const StreamOp& op);
  Time cost(const DriverCalls& calls) const;
  std::string phase_of(RankClassId r) const;
  void note_memory(RankClassId r, TensorId tensor = no_tensor);
  void out_of_memory(RankClassId r, TensorId tensor, Bytes refused);
  bool next_body(RankClassId r);
  void drive(RankClassId r, Time cost, bool retry = false);  // the host is in the driver
  void spend(HostState& host, Time cost);
  void forget_causes();

  const Program& program_;
  const Cluster& cluster_;
  const Job& job_;
  std::vector<Span>* timeline_;
  std::optional<RankClassId> recorded_;
  MemoryRecorder* recorder_ = nullptr;
  CausalLog* causes_;
  std::vector<Lane> lanes_;
  Agenda agenda_;  // of the communicators
  Network network_;
  std::optional<ChunkLevel> chunks_;  // says when transfers end; network_ then only their average rates
  IdVector<RankClassId, RankState> ranks_;
  IdVector<CommunicatorId, CommunicatorState> communicators_;
  std::vector<Moving> copies_;  // by rank and stream

  Time now_;
  std::vector<Agent> due_;
  std::vector<CommunicatorId> ended_;       // collectives, at this instant
  std::int64_t events_ = 0;                 // of communicators
  std::vector<std::size_t> ranks_through_;  // by step: how many rank classes have completed it
  int steps_completed_ = 0;
  bool steady_ = false;
  std::optional<OutOfMemory> oom_;
};

}  // namespace shardsim
