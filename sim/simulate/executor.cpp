#include "sim/simulate/executor.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "sim/base/check.h"
#include "sim/engine/parallel.h"

namespace shardsim {
namespace {

constexpr std::size_t longest_chain = 32;  // operations
constexpr int lane_min = 16;               // ranks
constexpr std::size_t worth_sharing = 32;  // ranks to serve at an instant

// Context of the process, NCCL's code, and the buffers of each communicator.
Bytes outside_allocator(const Cluster& cluster, const Job& job, const RankClass& rank) {
  const Gpu& gpu = cluster.gpu_of(rank.part);
  Bytes total = gpu.context;
  const Nccl& nccl = cluster.stack.nccl;
  if (!rank.communicator.empty()) total += nccl.of(gpu.architecture).first_use;
  for (const CommunicatorId c : rank.communicator)
    total += nccl.per_connection * nccl.connections * job.communicators[c].fabric.channels;
  return total;
}

}  // namespace

Executor::Executor(const Program& program, const Cluster& cluster, const Job& job,
                   std::vector<Span>* timeline, CausalLog* causes)
    : program_(program),
      cluster_(cluster),
      job_(job),
      timeline_(timeline),
      causes_(causes),
      agenda_(static_cast<int>(job.communicators.size())),
      network_(job.capacity,
               static_cast<int>(job.communicators.size() + job.ranks.size() * program.streams.size() +
                                job.background.size())),
      copies_(job.ranks.size() * program.streams.size()) {
  for (const RankClass& rank : job.ranks) {
    const Bytes outside = outside_allocator(cluster, job, rank);
    ranks_.push_back(RankState{.streams = std::vector<StreamState>(program.streams.size()),
                               .events = std::vector<EventState>(at(program.events)),
                               .allocator = CachingAllocator(cluster.gpu_of(rank.part).memory - outside,
                                                             streams(), cluster.allocator, outside),
                               .block = IdVector<TensorId, BlockId>(program.tensors.size(), not_live),
                               .on_host = IdVector<TensorId, char>(program.tensors.size(), 0)});
  }
  make_lanes();
  for (std::size_t c = 0; c < job.communicators.size(); ++c)
    communicators_.push_back(
        CommunicatorState{.plans = IdVector<CollectiveId, std::optional<Plan>>(program.collectives.size())});
  make_plans();
  TransferId other{static_cast<std::int32_t>(communicators_.size() + copies_.size())};
  for (const SharedLink& shared : job.background) {
    network_.start(other, shared.link.front().weight, shared.rate, shared.link);
    ++other.index;
  }
  if (cluster.detail == NetworkDetail::chunk) chunks_.emplace(program, cluster, job, planned());
}

void Executor::record_memory(RankClassId r, MemoryRecorder& recorder) {
  recorded_ = r;
  recorder_ = &recorder;
  if (recorder.events()) ranks_[r].allocator.record(&recorder.log());
}

// Spans and causes are kept in the order of the events, so they are written by one thread.
void Executor::make_lanes() {
  const int ranks = static_cast<int>(ranks_.size());
  const int lanes = kernels_one_by_one() ? 1 : std::clamp(ranks / lane_min, 1, threads_at_hand());
  for (int l = 0; l < lanes; ++l) {
    const auto begin = static_cast<std::int32_t>(std::int64_t{ranks} * l / lanes);
    const auto end = static_cast<std::int32_t>(std::int64_t{ranks} * (l + 1) / lanes);
    for (std::int32_t r = begin; r < end; ++r) ranks_[{r}].lane = l;
    lanes_.push_back(
        {.first = {begin}, .end = {end}, .agenda = Agenda((end - begin) * (streams() + 1)), .clocks = {}});
    for (std::size_t part = 0; part < cluster_.topology.parts().size(); ++part)
      lanes_.back().clocks.emplace_back(program_.kernels, cluster_.gpu_of(static_cast<int>(part)));
  }
}

std::int64_t Executor::events() const {
  std::int64_t total = events_;
  for (const Lane& lane : lanes_) total += lane.events;
  return total;
}

// --- one instant ----------------------------------------------------------------------------------------

void Executor::run() {
  for (const RankClassId r : ids(ranks_)) activate(r);
  serve_active();
  for (;;) {
    while (next_instant() == now_) instant();
    conclude();
    if (std::any_of(lanes_.begin(), lanes_.end(), [](const Lane& lane) { return !lane.active.empty(); })) {
      serve_active();
      continue;
    }
    if (finished()) return;
    if (chunks_)
      for (const auto& [transfer, end] : chunks_->advance(next_instant())) schedule(transfer, end);
    const std::optional<Time> next = next_instant();
    if (oom_ && (!next || *next > oom_->at)) return;
    require(next.has_value(), "the simulation stands still with work waiting");
    now_ = *next;
  }
}

std::optional<Time> Executor::next_instant() const {
  std::optional<Time> next = agenda_.next();
  for (const Lane& lane : lanes_)
    if (const std::optional<Time> at = lane.agenda.next(); at && (!next || *at < *next)) next = at;
  return next;
}

void Executor::schedule(RankClassId r, int s, Time at) {
  check_range(now_, at);
  Lane& lane = lane_of(r);
  lane.agenda.set(stream_agent(lane, r, s), at);
}

void Executor::schedule(CommunicatorId c, Time at) {
  check_range(now_, at);
  agenda_.set({c.index}, at);
}

void Executor::schedule(TransferId t, Time at) {
  const int i = t.index - static_cast<int>(communicators_.size());
  if (i < 0)
    schedule(CommunicatorId{t.index}, at);
  else
    schedule({i / streams()}, i % streams(), at);
}

// What is due now: collectives first, as they touch many ranks; then each rank by itself, all that it does at
// this instant in one go, while its state is at hand.
void Executor::instant() {
  if (agenda_.next() == now_) {
    due_.clear();
    agenda_.take(now_, due_);
    events_ += static_cast<std::int64_t>(due_.size());
    for (const Agent agent : due_) wake(CommunicatorId{agent.index});
  }
  for (Lane& lane : lanes_)
    if (lane.agenda.next() == now_) lane.agenda.take(now_, lane.due);
  serve_active();
}

// Ranks whose collectives have ended, or that are due or active.
void Executor::serve_active() {
  std::size_t ranks = 0;
  for (const CommunicatorId c : ended_) ranks += job_.communicators[c].members.size();
  for (const Lane& lane : lanes_) ranks += lane.due.size() + lane.active.size();
  in_lanes(ranks, [&](Lane& lane) {
    for (const CommunicatorId c : ended_)
      for (const RankClassId r : members_in(lane, c)) leave_collective(r, c);
    serve_due(lane);
    settle_active(lane);
  });
  ended_.clear();
  have_effects();
}

std::span<const RankClassId> Executor::members_in(const Lane& lane, CommunicatorId c) const {
  const std::vector<RankClassId>& all = job_.communicators[c].members;
  const auto begin = std::lower_bound(all.begin(), all.end(), lane.first);
  return {begin, std::lower_bound(begin, all.end(), lane.end)};
}

// On several threads only where it pays.
template <class Work>
void Executor::in_lanes(std::size_t pieces, const Work& work) {
  if (lanes_.size() > 1 && pieces >= worth_sharing)
    in_lockstep(lanes_.size(), [&](std::size_t l) { work(lanes_[l]); });
  else
    for (Lane& lane : lanes_) work(lane);
}

void Executor::serve_due(Lane& lane) {
  lane.events += static_cast<std::int64_t>(lane.due.size());
  for (auto agent = lane.due.begin(); agent != lane.due.end();) {
    const RankClassId r{lane.first.index + agent->index / (streams() + 1)};
    const int first = stream_agent(lane, r, 0).index;
    for (; agent != lane.due.end() && agent->index <= first + streams(); ++agent)
      wake(r, agent->index - first);
    settle(r);
  }
  lane.due.clear();
}

void Executor::have_effects() {
  for (Lane& lane : lanes_) {
    for (const Effect& effect : lane.effects) switch (effect.kind) {
        case Effect::Kind::computes: computes(effect.rank, true); break;
        case Effect::Kind::computes_no_more: computes(effect.rank, false); break;
        case Effect::Kind::arrives: gather(effect.rank, effect.stream); break;
        case Effect::Kind::copy_begins: start_copy(effect.rank, effect.stream); break;
        case Effect::Kind::copy_ends: network_.stop(transfer_of(effect.rank, effect.stream)); break;
        case Effect::Kind::step_ends: step_ended(effect.stream); break;
      }
    lane.effects.clear();
    if (lane.oom && (!oom_ || std::pair(lane.oom->at, lane.oom->rank) < std::pair(oom_->at, oom_->rank)))
      oom_ = lane.oom;
  }
}

void Executor::wake(CommunicatorId c) {
  if (communicators_[c].state == CommunicatorState::State::latency)
    begin_transfer(c);
  else
    finish_collective(c);
}

void Executor::wake(RankClassId r, int s) {
  if (s == streams()) {
    host_due(r);
    return;
  }
  const StreamState& stream = ranks_[r].streams[at(s)];
  if (!stream.busy) {
    touch(r, s);
    return;
  }
  if (stream.queue.front().kind == StreamOp::Kind::kernel) {
    follow_chain(r, s);
    if (stream.updated + stream.left > now_) {  // the chain has become longer meanwhile
      schedule_chain(r, s);
      return;
    }
  }
  finish_front(r, s);
}

void Executor::activate(RankClassId r) {
  if (std::exchange(ranks_[r].active, true)) return;
  lane_of(r).active.push_back(r);
}

void Executor::touch(RankClassId r, int s) {
  ranks_[r].touched.insert(s);
  activate(r);
}

void Executor::host_due(RankClassId r) {
  ranks_[r].host.state = HostState::State::due;
  activate(r);
}

void Executor::settle_active(Lane& lane) {
  for (std::size_t i = 0; i < lane.active.size(); ++i)
    if (ranks_[lane.active[i]].active) settle(lane.active[i]);
  lane.active.clear();
}

// Streams, then the host, until neither has anything more to do at this instant.
void Executor::settle(RankClassId r) {
  RankState& rank = ranks_[r];
  do {
    while (!rank.touched.empty()) {
      const int s = rank.touched.lowest();
      rank.touched.erase(s);
      advance(r, s);
    }
    if (rank.host.state == HostState::State::due) run_host(r);
  } while (!rank.touched.empty() || rank.host.state == HostState::State::due);
  rank.active = false;
  if (rank.repace && company_of(r) == rank.company)
    repace(r);  // if rates change yet, `conclude` does it again
}

// All rates first: a rank may take part in several transfers that change.
void Executor::conclude() {
  const std::span<const TransferId> changed = network_.solve();
  for (const TransferId t : changed) change_rate(t);
  std::size_t ranks = 0;
  const auto for_changed = [&](const auto& visit) {
    for (const TransferId t : changed)
      if (at(t.index) < communicators_.size()) visit(CommunicatorId{t.index});
  };
  for_changed([&](CommunicatorId c) { ranks += job_.communicators[c].members.size(); });
  for (const Lane& lane : lanes_) ranks += lane.to_repace.size();
  in_lanes(ranks, [&](Lane& lane) {
    for_changed([&](CommunicatorId c) {
      for (const RankClassId r : members_in(lane, c)) repace(r);
    });
    for (const RankClassId r : lane.to_repace)
      if (ranks_[r].repace) repace(r);
    lane.to_repace.clear();
  });
}

// Every rank has completed a step more: does it repeat the one before?
bool Executor::finished() {
  int steps = steps_completed_;
  while (at(steps + 1) < ranks_through_.size() && ranks_through_[at(steps + 1)] == ranks_.size()) ++steps;
  if (steps == steps_completed_) return false;
  steps_completed_ = steps;
  if (causes_ != nullptr && steps > 0) forget_causes();
  if (steps < steps_min) return false;
  steady_ = std::all_of(ranks_.begin(), ranks_.end(), [&](const RankState& rank) {
    const auto duration = [&](int step) { return rank.steps[at(step)].end - rank.steps[at(step - 1)].end; };
    const IssuedStep &now = rank.issued[at(steps)], &before = rank.issued[at(steps - 1)];
    // A host that runs ahead leaves different blocks pending at each step; what counts then is that no
    // segment came or went.
    return duration(steps) == duration(steps - 1) &&
           (now.fingerprint == before.fingerprint || now.segment_calls == before.segment_calls);
  });
  return steady_ || steps == steps_max;
}

// What the next step cannot depend on.
void Executor::forget_causes() {
  Time began = now_;
  OccurrenceId floor = std::numeric_limits<OccurrenceId>::max();
  for (const RankState& rank : ranks_) {
    began = std::min(began, rank.steps[at(steps_completed_ - 1)].end);
    for (const StreamState& stream : rank.streams)
      if (!stream.queue.empty()) floor = std::min(floor, stream.queue.front().issued_by);
  }
  causes_->forget(began - cluster_.stack.launch_latency, floor);
}

// --- streams --------------------------------------------------------------------------------------------

// Runs the stream as far as it gets at this instant.
void Executor::advance(RankClassId r, int s) {
  RankState& rank = ranks_[r];
  StreamState& stream = rank.streams[at(s)];
  const bool timed = s == default_stream.index;
  while (!stream.busy && stream.blocked_on == StreamState::not_blocked && !stream.queue.empty()) {
    const StreamOp op = stream.queue.front();
    if (op.ready > now_) {
      schedule(r, s, op.ready);
      return;
    }
    if (timed) rank.account.spend_on_host(now_);
    if (causes_ != nullptr) causes_->reached(r, s, op.ready, op.issued_by);
    switch (op.kind) {
      case StreamOp::Kind::kernel: begin_kernel(r, s); return;
      case StreamOp::Kind::copy: begin_copy(r, s); return;
      case StreamOp::Kind::collective: arrive(r, s); return;
      case StreamOp::Kind::wait:
        if (rank.events[at(op.id)].completed < op.value) {
          stream.blocked_on = op.id;
          rank.blocked.insert(s);
          stream.began = now_;
          if (timed) set_computing(r, false);
          return;
        }
        break;
      case StreamOp::Kind::record: complete(r, {op.id}, s); break;
      case StreamOp::Kind::marker: ++stream.markers_passed; break;
      case StreamOp::Kind::phase: rank.account.phase(op.id, now_); break;
      case StreamOp::Kind::step_end: end_step(r); break;
    }
    stream.pop();
  }
  if (stream.idle()) check_drained(r);
}

void Executor::launched(RankClassId r, int s) {
  --ranks_[r].streams[at(s)].outstanding;
  const HostState& host = ranks_[r].host;
  if (host.state != HostState::State::queue_full || host.stream.index != s) return;
  if (causes_ != nullptr) causes_->host_waited_for_launch(r, s, host.clock, now_);
  host_due(r);
}

void Executor::begin_kernel(RankClassId r, int s) {
  RankState& rank = ranks_[r];
  StreamState& stream = rank.streams[at(s)];
  stream.busy = true;
  stream.began = now_;
  stream.paced = false;
  rank.running.insert(s);
  if (const StreamOp& op = stream.queue.front(); causes_ != nullptr)
    causes_->begin(r, s,
                   op.host == HostWork::optimizer_op ? Occurrence::Kind::optimizer : Occurrence::Kind::kernel,
                   {op.label}, op.issued_by, now_);
  if (s == default_stream.index) set_computing(r, true);
  launched(r, s);
  ask_repace(r);
}

void Executor::begin_copy(RankClassId r, int s) {
  StreamState& stream = ranks_[r].streams[at(s)];
  const StreamOp& op = stream.queue.front();
  stream.busy = true;
  stream.began = now_;
  if (causes_ != nullptr) causes_->begin(r, s, Occurrence::Kind::copy, {op.label}, op.issued_by, now_);
  launched(r, s);
  note(Effect::Kind::copy_begins, r, s);
}

void Executor::start_copy(RankClassId r, int s) {
  const StreamOp& op = ranks_[r].streams[at(s)].queue.front();
  const bool to_device = static_cast<CopyDirection>(op.id) == CopyDirection::host_to_device;
  const RankClass& of = job_.ranks[r];
  copies_[at(transfer_of(r, s).index) - communicators_.size()] = {
      Wide{op.value} * picoseconds_per_second, now_, {}};
  network_.start(transfer_of(r, s), 1, gpu_of(r).pcie, to_device ? of.to_device : of.from_device);
  if (chunks_) chunks_->copy(r, s, to_device, Bytes{op.value}, now_);
}

void Executor::finish_front(RankClassId r, int s) {
  RankState& rank = ranks_[r];
  StreamState& stream = rank.streams[at(s)];
  const StreamOp& op = stream.queue.front();
  const bool kernel = op.kind == StreamOp::Kind::kernel;
  stream.busy = stream.paced = false;
  if (causes_ != nullptr)
    causes_->end(r, s, now_, kernel ? now_ - stream.began - pace_of(r, {})({op.id}) : Time{});
  if (kernel) {
    rank.running.erase(s);
    if (!rank.running.empty()) ask_repace(r);
    kernel_ran(r, s, now_);
  } else {
    note(Effect::Kind::copy_ends, r, s);
    stream.log.push({.kind = Activity::Kind::copy, .begin = stream.began, .end = now_});
    if (s == default_stream.index) rank.account.spend(Spent::copies, now_);
  }
  if (timeline_ != nullptr)
    timeline_->push_back({kernel ? Span::Kind::kernel : Span::Kind::copy, job_.ranks[r].rank, s, stream.began,
                          now_, op.label});
  stream.pop();
  touch(r, s);
}

void Executor::kernel_ran(RankClassId r, int s, Time end) {
  StreamState& stream = ranks_[r].streams[at(s)];
  stream.log.push({.kind = Activity::Kind::kernel, .begin = stream.began, .end = end});
  if (s != default_stream.index) return;
  const bool optimizer = stream.queue.front().host == HostWork::optimizer_op;
  ranks_[r].account.spend(optimizer ? Spent::optimizer : Spent::compute, end);
}

// --- chains of kernels ----------------------------------------------------------------------------------
// Kernels that follow each other on a stream with nothing between them that anybody waits for are one
// wake-up, at the end of the last. What happened in between is made up for when somebody looks: the host that
// polls or finds the queue full, or the rank whose kernels get other company.

// Brings a stream that runs kernels up to this instant. Its front may end now, and be the last of the chain.
void Executor::follow_chain(RankClassId r, int s) {
  RankState& rank = ranks_[r];
  StreamState& stream = rank.streams[at(s)];
  if (!stream.busy || !stream.paced || kernels_one_by_one()) return;
  for (;;) {
    const Time end = stream.updated + stream.left;
    if (end > now_) return;
    std::uint32_t next = 1;
    while (next < stream.queue.size() && stream.queue[next].kind == StreamOp::Kind::marker) ++next;
    if (next == stream.queue.size()) return;
    const StreamOp& following = stream.queue[next];
    if (following.kind != StreamOp::Kind::kernel || following.ready > end) return;
    kernel_ran(r, s, end);
    ++lane_of(r).events;
    stream.markers_passed += next - 1;
    const bool foreseen = next <= stream.foreseen;
    stream.pace = stream.left = foreseen ? Time{following.value} : pace_of(r, rank.company)({following.id});
    stream.foreseen = foreseen ? stream.foreseen - next : 0;
    stream.began = stream.updated = end;
    for (; next > 0; --next) stream.pop();
    launched(r, s);
  }
}

// Wakes the stream when the last kernel ends of those that will follow the running one without a gap, if
// nothing changes.
void Executor::schedule_chain(RankClassId r, int s) {
  const RankState& rank = ranks_[r];
  StreamState& stream = ranks_[r].streams[at(s)];
  Time end = stream.updated + stream.left;
  stream.foreseen = 0;
  const bool host_waits_for_launch =
      rank.host.state == HostState::State::queue_full && rank.host.stream.index == s;
  if (!host_waits_for_launch && !kernels_one_by_one()) {
    const KernelClock::Pace pace = pace_of(r, rank.company);
    const auto ops = static_cast<std::uint32_t>(std::min(stream.queue.size(), longest_chain));
    for (std::uint32_t i = 1; i < ops; ++i) {
      StreamOp& op = stream.queue[i];
      if (op.kind != StreamOp::Kind::marker) {
        if (op.kind != StreamOp::Kind::kernel || op.ready > end) break;
        const Time takes = pace({op.id});
        if (end + takes - now_ >= longest_work) break;  // each of them is short enough
        op.value = takes.count;
        end += takes;
      }
      stream.foreseen = i;
    }
  }
  schedule(r, s, end);
}

void Executor::complete(RankClassId r, EventId e, int recorded_on) {
  RankState& rank = ranks_[r];
  EventState& event = rank.events[at(e.index)];
  ++event.completed;
  if (causes_ != nullptr) causes_->completed(r, e, recorded_on);
  const ActivityLog& log = rank.streams[at(recorded_on)].log;
  for (const int s : rank.blocked) {
    StreamState& stream = rank.streams[at(s)];
    if (stream.blocked_on != e.index || event.completed < stream.queue.front().value) continue;
    stream.blocked_on = StreamState::not_blocked;
    rank.blocked.erase(s);
    stream.log.inherit(log, stream.began);
    if (causes_ != nullptr) causes_->released(r, s, e, now_);
    if (s == default_stream.index) rank.account.spend_waiting(log, now_);
    stream.pop();
    touch(r, s);
  }
  if (rank.host.state == HostState::State::waiting && rank.host.event == e &&
      event.completed >= event.issued) {
    if (causes_ != nullptr) causes_->host_waited_for_event(r, e, rank.host.clock, now_);
    if (now_ > rank.host.clock) {
      rank.host.clock = now_;
      spend(rank.host, cluster_.stack.host_wake);
    }
    host_due(r);
  }
}

void Executor::end_step(RankClassId r) {
  RankState& rank = ranks_[r];
  rank.steps.push_back(rank.account.end_step(now_));
  if (causes_ != nullptr) causes_->end_step(r);
  note(Effect::Kind::step_ends, r, static_cast<int>(rank.steps.size()) - 1);
}

void Executor::step_ended(int step) {
  if (at(step) >= ranks_through_.size()) ranks_through_.resize(at(step) + 1);
  ++ranks_through_[at(step)];
}

void Executor::check_drained(RankClassId r) {
  RankState& rank = ranks_[r];
  if (rank.host.state != HostState::State::draining) return;
  if (!std::all_of(rank.streams.begin(), rank.streams.end(), [](const StreamState& s) { return s.idle(); }))
    return;
  if (causes_ != nullptr) causes_->host_waited_for_device(r, rank.host.clock, now_);
  host_due(r);
}

// A collective runs a little slower while one of its GPUs computes; waiting for an event is not computing.
void Executor::set_computing(RankClassId r, bool computing) {
  RankState& rank = ranks_[r];
  if (rank.computing == computing) return;
  rank.computing = computing;
  note(computing ? Effect::Kind::computes : Effect::Kind::computes_no_more, r);
}

void Executor::computes(RankClassId r, bool computing) {
  for (const CommunicatorId c : job_.ranks[r].communicator) {
    CommunicatorState& comm = communicators_[c];
    const bool before = comm.computing > 0;
    computing ? ++comm.computing : --comm.computing;
    if (before == (comm.computing > 0) || comm.state != CommunicatorState::State::transfer) continue;
    network_.set_cap(transfer_of(c), cap(c));
    const CollectiveOp& op = program_.collectives[comm.what];
    if (chunks_) chunks_->set_cap(c, plan_of(c, comm.what), op.kind, op.bytes, cap(c));
  }
}

void Executor::ask_repace(RankClassId r) {
  if (std::exchange(ranks_[r].repace, true)) return;
  lane_of(r).to_repace.push_back(r);
}

Company Executor::company_of(RankClassId r) const {
  const RankState& rank = ranks_[r];
  const Gpu& gpu = gpu_of(r);
  Bandwidth wire;
  for (const CommunicatorId c : job_.ranks[r].communicator) wire += communicators_[c].moving.rate;
  return {.taken = {.sms = std::min(rank.sms, gpu.sms - 1), .hbm_ppm = hbm_taken_ppm(gpu, wire)},
          .sharers = rank.running.size()};
}

// Gives every running kernel the duration it has beside today's collectives and kernels; what is left of it
// scales with the duration.
void Executor::repace(RankClassId r) {
  RankState& rank = ranks_[r];
  rank.repace = false;
  const Company company = company_of(r);
  const bool changed = company != rank.company;
  if (changed)
    for (const int s : rank.running) follow_chain(r, s);
  rank.company = company;
  for (const int s : rank.running) {
    StreamState& stream = rank.streams[at(s)];
    if (stream.paced && !changed) continue;
    const Time pace = pace_of(r, company)({stream.queue.front().id});
    if (!stream.paced) {
      stream.left = pace;
    } else if (pace != stream.pace && stream.left.count > 0) {
      const Wide left = Wide{(stream.left - (now_ - stream.updated)).count} * pace.count;
      stream.left = {static_cast<std::int64_t>((left + stream.pace.count - 1) / stream.pace.count)};
    }
    if (!stream.paced || pace != stream.pace) stream.updated = now_;
    stream.paced = true;
    stream.pace = pace;
    schedule_chain(r, s);
  }
}

// --- collectives ----------------------------------------------------------------------------------------

void Executor::make_plans() {
  for (const CommunicatorId c : ids(communicators_)) {
    const Communicator& of = job_.communicators[c];
    const CollectiveModel model = collective_model(cluster_, of.parts);
    for (const CollectiveId what : ids(program_.collectives)) {
      const CollectiveOp& op = program_.collectives[what];
      if (op.group == of.group) communicators_[c].plans[what] = plan(model, of.fabric, op.kind, op.bytes);
    }
  }
}

void Executor::arrive(RankClassId r, int s) {
  RankState& rank = ranks_[r];
  StreamState& stream = rank.streams[at(s)];
  const CollectiveId what{stream.queue.front().id};
  const CommunicatorId c = communicator_of(r, what);
  stream.busy = true;
  stream.began = now_;
  if (causes_ != nullptr) causes_->arrive(c, r, s, stream.queue.front().issued_by, now_);
  launched(r, s);
  rank.sms += plan_of(c, what).sms;  // the kernel spins until the others come
  ask_repace(r);
  note(Effect::Kind::arrives, r, s);
}

void Executor::gather(RankClassId r, int s) {
  const CollectiveId what{ranks_[r].streams[at(s)].queue.front().id};
  const CommunicatorId c = communicator_of(r, what);
  CommunicatorState& comm = communicators_[c];
  require(comm.arrived == 0 || comm.what == what, "ranks of a group disagree on their next collective");
  comm.what = what;
  comm.state = CommunicatorState::State::gathering;
  if (++comm.arrived < job_.communicators[c].members.size()) return;
  comm.state = CommunicatorState::State::latency;
  comm.began = now_;
  const Plan& plan = plan_of(c, what);
  schedule(c, now_ + (chunks_ ? before_messages(plan, job_.communicators[c].fabric,
                                                program_.collectives[what].kind)
                              : plan.latency));
}

Bandwidth Executor::cap(CommunicatorId c) {
  const CommunicatorState& comm = communicators_[c];
  const Bandwidth full = plan_of(c, comm.what).cap;
  if (comm.computing == 0) return full;
  double slowdown = 0;
  for (const int p : job_.communicators[c].parts)
    slowdown = std::max(slowdown, cluster_.gpu_of(p).interference.collective_slowdown);
  const double slow = 1.0 - slowdown;
  return std::max(Bandwidth{1}, Bandwidth{std::llround(static_cast<double>(full.count) * slow)});
}

void Executor::begin_transfer(CommunicatorId c) {
  CommunicatorState& comm = communicators_[c];
  const Plan& plan = plan_of(c, comm.what);
  const Communicator& of = job_.communicators[c];
  comm.state = CommunicatorState::State::transfer;
  comm.moving = {Wide{plan.wire.count} * picoseconds_per_second, now_, {}};
  network_.start(transfer_of(c), plan.channels, cap(c), of.links[at(static_cast<int>(plan.load))]);
  const CollectiveOp& op = program_.collectives[comm.what];
  if (chunks_) chunks_->start(c, plan, op.kind, op.bytes, cap(c), now_);
}

std::vector<std::vector<Plan>> Executor::planned() const {
  std::vector<std::vector<Plan>> planned(communicators_.size());
  for (const CommunicatorId c : ids(communicators_))
    for (const CollectiveId what : ids(program_.collectives))
      if (program_.collectives[what].group == job_.communicators[c].group)
        planned[at(c.index)].push_back(plan_of(c, what));
  return planned;
}

void Executor::finish_collective(CommunicatorId c) {
  CommunicatorState& comm = communicators_[c];
  const CollectiveOp& op = program_.collectives[comm.what];
  const Plan& plan = plan_of(c, comm.what);
  network_.stop(transfer_of(c));
  comm.moving.rate = {};
  if (causes_ != nullptr) {
    const RankState& any = ranks_[job_.communicators[c].members.front()];
    const StreamState& stream = any.streams[at(program_.groups[op.group].stream.index)];
    causes_->end_collective(c, op, {stream.queue.front().label}, comm.began, plan.latency, plan.alone(),
                            now_);
  }
  comm.state = CommunicatorState::State::idle;
  comm.arrived = 0;
  ended_.push_back(c);
}

void Executor::leave_collective(RankClassId r, CommunicatorId c) {
  const CommunicatorState& comm = communicators_[c];
  const CollectiveOp& op = program_.collectives[comm.what];
  const Plan& plan = plan_of(c, comm.what);
  const int s = program_.groups[op.group].stream.index;
  RankState& rank = ranks_[r];
  StreamState& stream = rank.streams[at(s)];
  rank.sms -= plan.sms;
  ask_repace(r);
  rank.account.communicated(op.kind, op.bytes, plan.bus, now_ - comm.began);
  stream.busy = false;
  if (comm.began > stream.began) rank.account.waited_for_ranks(s, stream.began, comm.began);
  stream.log.push({.kind = Activity::Kind::collective,
                   .collective = op.kind,
                   .stream = static_cast<std::int16_t>(s),
                   .begin = stream.queue.front().ready,
                   .end = now_,
                   .arrived = stream.began,
                   .began = comm.began});
  if (timeline_ != nullptr)
    timeline_->push_back(
        {Span::Kind::collective, job_.ranks[r].rank, s, stream.began, now_, stream.queue.front().label});
  stream.pop();
  touch(r, s);
}

void Executor::change_rate(TransferId t) {
  const std::size_t i = at(t.index), communicators = communicators_.size();
  if (i >= communicators + copies_.size()) return;  // another job's
  Moving& moving =
      i < communicators ? communicators_[CommunicatorId{t.index}].moving : copies_[i - communicators];
  const Bandwidth rate = network_.rate(t);
  moving.left = moving.left_at(now_);
  moving.updated = now_;
  moving.rate = rate;
  if (chunks_) return;  // the last message ends it
  schedule(t, now_ + work_time((moving.left + rate.count - 1) / rate.count));
}

}  // namespace shardsim
