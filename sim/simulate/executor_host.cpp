// The executor's hosts: what each instruction of the program does, and when a host has to see the GPU.
#include <algorithm>
#include <utility>

#include "sim/simulate/executor.h"

namespace shardsim {
namespace {

constexpr std::size_t largest_live_shown = 8;
constexpr Time least_time_max{std::int64_t{1} << 48};  // 281 s; with it, sums over full queues are in range

}  // namespace

void Executor::run_host(RankClassId r) {
  RankState& rank = ranks_[r];
  HostState& host = rank.host;
  host.clock = std::max(host.clock, now_);
  if (host.retry_began) poll(r);  // everything has completed
  while (host.state == HostState::State::due) {
    const auto& section = program_[host.section];
    if (host.repeat == section.size()) {
      if (!next_body(r)) return;
      continue;
    }
    const Body& body = program_.bodies[section[host.repeat].body];
    while (host.instruction < body.size()) {
      if (!std::visit([&](const auto& i) { return execute(r, i); }, body[host.instruction])) return;
      ++host.instruction;
    }
    host.instruction = 0;
    if (++host.iteration < section[host.repeat].times) continue;
    if (host.iteration > host.most_times)
      host.most_times = host.iteration, host.repeats = host.clock - host.step_began;
    host.iteration = 0;
    ++host.repeat;
  }
}

void Executor::spend(HostState& host, Time cost) {
  check_range(host.clock, host.clock + cost);
  host.clock += cost;
}

// The section is over: on to the next step. False when all are issued.
bool Executor::next_body(RankClassId r) {
  RankState& rank = ranks_[r];
  HostState& host = rank.host;
  push(r, default_stream.index, {.kind = StreamOp::Kind::step_end});
  const MemoryStats& memory = rank.allocator.stats();
  rank.issued.push_back(
      {rank.allocator.fingerprint(), memory.mallocs + memory.releases, std::exchange(host.repeats, {})});
  host.most_times = 0;
  if (host.step == steps_max) {
    host.state = HostState::State::finished;
    return false;
  }
  ++host.step;
  host.step_began = host.clock;
  host.section = host.step == 1 ? Section::first : host.step == 2 ? Section::second : Section::steady;
  host.repeat = 0;
  return true;
}

void Executor::push(RankClassId r, int s, StreamOp op) {
  op.ready = ranks_[r].host.clock + cluster_.stack.launch_latency;
  if (causes_ != nullptr) op.issued_by = causes_->issuing(r);
  StreamState& stream = ranks_[r].streams[at(s)];
  const bool was_idle = stream.idle();
  if (is_work(op)) {
    op.work = std::min(least_time(r, op), least_time_max);
    stream.work_queued += op.work;
  }
  stream.queue.push(op);
  if (was_idle) touch(r, s);
}

// The host has to see the GPU as it is at its own clock, which may be ahead of the simulation. True: it has
// to sleep until then.
bool Executor::sleep_until_clock(RankClassId r) {
  HostState& host = ranks_[r].host;
  if (host.clock == now_) return false;
  host.state = HostState::State::sleeping;
  schedule(r, streams(), host.clock);
  return true;
}

bool Executor::issue(RankClassId r, StreamId s, StreamOp op, Time cost) {
  RankState& rank = ranks_[r];
  StreamState& stream = rank.streams[at(s.index)];
  if (stream.outstanding >= cluster_.stack.launch_queue) follow_chain(r, s.index);
  if (stream.outstanding >= cluster_.stack.launch_queue) {
    rank.host.state = HostState::State::queue_full;
    rank.host.stream = s;
    if (stream.busy && stream.paced) schedule_chain(r, s.index);  // one kernel at a time
    return false;
  }
  spend(rank.host, cost);
  ++stream.outstanding;
  push(r, s.index, op);
  return true;
}

bool Executor::execute(RankClassId r, const Launch& i) {
  return issue(r, i.stream,
               {.kind = StreamOp::Kind::kernel, .host = i.work, .id = i.kernel.index, .label = i.label.index},
               cluster_.stack.cost(i.work));
}

bool Executor::execute(RankClassId r, const Collective& i) {
  const Group& group = program_.groups[program_.collectives[i.what].group];
  return issue(r, group.stream,
               {.kind = StreamOp::Kind::collective, .id = i.what.index, .label = i.label.index}, Time{});
}

bool Executor::execute(RankClassId r, const Copy& i) {
  return issue(r, i.stream,
               {.kind = StreamOp::Kind::copy,
                .id = static_cast<std::int32_t>(i.direction),
                .label = i.label.index,
                .value = i.bytes.count},
               cluster_.stack.cost(HostWork::forward_op));
}

bool Executor::execute(RankClassId r, const Record& i) {
  RankState& rank = ranks_[r];
  EventState& event = rank.events[at(i.event.index)];
  ++event.issued;
  event.stream = i.stream.index;
  event.work = rank.streams[at(i.stream.index)].work_queued;
  push(r, i.stream.index, {.kind = StreamOp::Kind::record, .id = i.event.index});
  return true;
}

bool Executor::execute(RankClassId r, const Wait& i) {
  const EventState& event = ranks_[r].events[at(i.event.index)];
  push(r, i.stream.index,
       {.kind = StreamOp::Kind::wait,
        .id = i.event.index,
        .label = event.stream,
        .value = event.issued,
        .work = event.work});
  return true;
}

bool Executor::execute(RankClassId r, const HostWait& i) {
  const EventState& event = ranks_[r].events[at(i.event.index)];
  if (event.completed == event.issued) return true;
  ranks_[r].host.state = HostState::State::waiting;
  ranks_[r].host.event = i.event;
  return false;
}

bool Executor::execute(RankClassId r, const HostBusy& i) {
  spend(ranks_[r].host, work_time(Wide{cluster_.stack.cost(i.work).count} * i.amount));
  return true;
}

// The ranks of a node pass over their shares of host memory at the same time.
bool Executor::execute(RankClassId r, const HostPass& i) {
  RankState& rank = ranks_[r];
  const Time begin = rank.host.clock;
  spend(rank.host, i.traffic * part_of(r).ranks_of_a_node() / part_of(r).spec.host_bandwidth);
  rank.account.host_was_busy(Spent::optimizer, begin, rank.host.clock);
  if (causes_ != nullptr)
    causes_->host_spent(r, Occurrence::Kind::optimizer_on_host, i.label, begin, rank.host.clock);
  return true;
}

bool Executor::execute(RankClassId r, const MarkBegin& i) {
  auto& marks = ranks_[r].host.marks;
  marks.push_back(i.label);
  if (causes_ != nullptr) causes_->mark(r, i.label, ranks_[r].host.clock);
  if (marks.size() == 1) push(r, default_stream.index, {.kind = StreamOp::Kind::phase, .id = i.label.index});
  return true;
}

bool Executor::execute(RankClassId r, const MarkEnd&) {
  auto& marks = ranks_[r].host.marks;
  marks.pop_back();
  if (causes_ != nullptr) causes_->unmark(r, ranks_[r].host.clock);
  if (marks.empty()) push(r, default_stream.index, {.kind = StreamOp::Kind::phase, .id = -1});
  return true;
}

bool Executor::execute(RankClassId r, const RecordUse& i) {
  ranks_[r].allocator.record_use(ranks_[r].block[i.tensor], i.stream);
  return true;
}

bool Executor::allocate_on_host(RankClassId r, TensorId id) {
  RankState& rank = ranks_[r];
  const Tensor& tensor = program_.tensors[id];
  const Bytes before = rank.host_memory.held();
  rank.host_memory.allocate(tensor.bytes, tensor.space == MemorySpace::pinned);
  rank.on_host[id] = true;
  if (rank.host_memory.held() * part_of(r).ranks_of_a_node() <= part_of(r).spec.host_memory) return true;
  out_of_memory(r, id, rank.host_memory.held() - before);
  return false;
}

bool Executor::execute(RankClassId r, const Alloc& i) {
  if (program_.tensors[i.tensor].space != MemorySpace::device) return allocate_on_host(r, i.tensor);
  RankState& rank = ranks_[r];
  HostState& host = rank.host;
  if (host.free_began) {  // served already; cudaFree has come back
    drive(r, host.driver);
    rank.account.host_was_busy(Spent::allocator_retry, *std::exchange(host.free_began, {}), host.clock);
    return true;
  }
  if (!rank.pending.empty() && !nothing_reusable(r)) {
    if (sleep_until_clock(r)) return false;
    poll(r);
  }
  const Tensor& tensor = program_.tensors[i.tensor];
  const bool retry = host.retry_began.has_value();
  if (retry) ++rank.alloc_retries;
  const CachingAllocator::Allocation allocated =
      retry ? rank.allocator.allocate_after_release(tensor.bytes, tensor.stream)
            : rank.allocator.allocate(tensor.bytes, tensor.stream);
  if (!allocated) {
    note_memory(r, i.tensor);
    drive(r, cost(allocated.calls), retry);
    if (retry) {
      out_of_memory(r, i.tensor, allocated.refused);
    } else {
      host.retry_began = host.clock;
      host.state = HostState::State::draining;
      check_drained(r);
    }
    return false;
  }
  rank.block[i.tensor] = *allocated.block;
  rank.ledger.add(tensor.category, rank.allocator.size(*allocated.block));
  note_memory(r, i.tensor);
  if (!retry && allocated.calls.frees > 0) {
    host.free_began = host.clock;
    host.driver = cost(allocated.calls);
    host.state = HostState::State::draining;
    check_drained(r);
    return false;
  }
  drive(r, cost(allocated.calls), retry);
  if (retry)
    rank.account.host_was_busy(Spent::allocator_retry, *std::exchange(host.retry_began, {}), host.clock);
  return true;
}

void Executor::drive(RankClassId r, Time cost, bool retry) {
  if (cost == Time{}) return;
  HostState& host = ranks_[r].host;
  const Time begin = host.clock;
  spend(host, cost);
  if (causes_ != nullptr)
    causes_->host_spent(r, retry ? Occurrence::Kind::retry : Occurrence::Kind::driver, {-1}, begin,
                        host.clock);
}

// Mapping and unmapping pages is taken to cost what cudaMalloc and cudaFree of as many bytes do.
Time Executor::cost(const DriverCalls& calls) const {
  if (calls.mallocs == 0 && calls.frees == 0) return {};
  const Stack& stack = cluster_.stack;
  return stack.cuda_malloc * calls.mallocs +
         from_seconds(seconds(stack.cuda_malloc_per_gib) * gib(calls.reserved)) +
         stack.cuda_free * calls.frees;
}

bool Executor::execute(RankClassId r, const Free& i) {
  RankState& rank = ranks_[r];
  if (program_.tensors[i.tensor].space != MemorySpace::device) {
    const Tensor& tensor = program_.tensors[i.tensor];
    rank.host_memory.free(tensor.bytes, tensor.space == MemorySpace::pinned);
    rank.on_host[i.tensor] = false;
    return true;
  }
  const BlockId block = std::exchange(rank.block[i.tensor], not_live);
  rank.ledger.remove(program_.tensors[i.tensor].category, rank.allocator.size(block));
  const std::uint64_t waits = rank.allocator.free(block);
  note_memory(r);
  if (waits == 0) return true;
  int streams_to_pass = 0;
  for (int s = 0; s < streams(); ++s) {
    if ((waits >> s & 1) == 0) continue;
    ++streams_to_pass;
    StreamState& stream = rank.streams[at(s)];
    if (stream.freed.empty()) rank.reusable_from = {};
    rank.holding.insert(s);
    stream.freed.push({block, stream.work_queued});
    push(r, s, {.kind = StreamOp::Kind::marker});
  }
  rank.pending.emplace_back(block, streams_to_pass);
  return true;
}

// process_events: freed blocks whose streams have passed can be reused.
void Executor::poll(RankClassId r) {
  RankState& rank = ranks_[r];
  for (const int s : rank.holding) {
    StreamState& stream = rank.streams[at(s)];
    follow_chain(r, s);
    for (; stream.markers_polled < stream.markers_passed; ++stream.markers_polled) {
      const BlockId block = stream.freed.front().block;
      stream.freed.pop();
      const auto entry = std::find_if(rank.pending.begin(), rank.pending.end(),
                                      [&](const auto& p) { return p.first == block; });
      if (--entry->second > 0) continue;
      rank.pending.erase(entry);
      rank.allocator.retire(block);
      note_memory(r);
    }
    if (stream.freed.empty()) rank.holding.erase(s);
  }
}

// Polling now, on the host's clock, would find nothing: the GPU cannot get to any marker by then.
bool Executor::nothing_reusable(RankClassId r) {
  RankState& rank = ranks_[r];
  if (rank.host.clock >= rank.reusable_from) rank.reusable_from = first_marker(r);
  return rank.host.clock < rank.reusable_from;
}

// A lower bound.
Time Executor::first_marker(RankClassId r) {
  RankState& rank = ranks_[r];
  Time first = latest;
  for (const int s : rank.holding) {
    const StreamState& stream = rank.streams[at(s)];
    follow_chain(r, s);
    const bool passed = stream.markers_polled < stream.markers_passed;
    first = std::min(first, passed ? now_ : reaches(r, s, stream.freed.front().work));
  }
  return first;
}

// A lower bound of when a stream gets to the place in its queue that has so much work before it: what is
// between here and there takes at least that long.
Time Executor::reaches(RankClassId r, int s, Time work) {
  const RankState& rank = ranks_[r];
  follow_chain(r, s);
  const StreamState& stream = rank.streams[at(s)];
  const StreamOp& front = stream.queue.front();
  if (stream.busy) return now_ + least_left(r, s) + (work - stream.work_done - front.work);
  Time from = std::max(now_, front.ready);
  if (stream.blocked_on != StreamState::not_blocked)
    from = std::max(from, reaches(r, front.label, front.work));
  return from + (work - stream.work_done);
}

// Of the front.
Time Executor::least_left(RankClassId r, int s) {
  const StreamState& stream = ranks_[r].streams[at(s)];
  const StreamOp& op = stream.queue.front();
  if (op.kind == StreamOp::Kind::kernel && stream.paced && stream.pace.count > 0) {
    const Wide left = (stream.left - (now_ - stream.updated)).count;
    return {static_cast<std::int64_t>(left * op.work.count / stream.pace.count)};
  }
  if (op.kind != StreamOp::Kind::collective || chunks_) return {};
  const CollectiveId what{op.id};
  const CommunicatorId c = communicator_of(r, what);
  const CommunicatorState& comm = communicators_[c];
  if (comm.state == CommunicatorState::State::idle || comm.state == CommunicatorState::State::gathering)
    return op.work;
  if (comm.state == CommunicatorState::State::latency) return op.work - (now_ - comm.began);
  return {static_cast<std::int64_t>(comm.moving.left_at(now_) / plan_of(c, what).cap.count)};
}

// How long it takes on an idle GPU and an idle network; 0 where that is not known.
Time Executor::least_time(RankClassId r, const StreamOp& op) {
  if (op.kind == StreamOp::Kind::kernel) return pace_of(r, {})({op.id});
  if (op.kind != StreamOp::Kind::collective || chunks_) return {};
  const CollectiveId what{op.id};
  return plan_of(communicator_of(r, what), what).alone();
}

std::string Executor::phase_of(RankClassId r) const {
  const HostState& host = ranks_[r].host;
  std::string phase = host.section == Section::init ? "init" : "";
  for (const LabelId mark : host.marks) phase += (phase.empty() ? "" : " / ") + program_.labels[mark];
  return phase;
}

// A row per change, on the host's clock; of changes at one instant that go one way, only the last.
void Executor::note_memory(RankClassId r, TensorId tensor) {
  if (recorded_ != r) return;
  const RankState& rank = ranks_[r];
  const MemoryStats& now = rank.allocator.stats();
  append(recorder_->rows(), {.step = rank.host.step,
                             .at = rank.host.clock,
                             .allocated = now.allocated,
                             .active = now.active,
                             .reserved = now.reserved,
                             .live = rank.ledger.now()});
  if (recorder_->events()) recorder_->happened(rank.host.clock, rank.host.step, phase_of(r), tensor);
}

void Executor::out_of_memory(RankClassId r, TensorId id, Bytes refused) {
  RankState& rank = ranks_[r];
  rank.host.state = HostState::State::dead;
  std::optional<OutOfMemory>& first = lane_of(r).oom;
  if (first && std::pair(first->at, first->rank) < std::pair(rank.host.clock, job_.ranks[r].rank)) return;
  const Tensor& tensor = program_.tensors[id];
  const bool on_host = tensor.space != MemorySpace::device;
  OutOfMemory oom{.rank = job_.ranks[r].rank,
                  .at = rank.host.clock,
                  .step = rank.host.step,
                  .phase = phase_of(r),
                  .tensor = program_.labels[tensor.label],
                  .category = tensor.category,
                  .on_host = on_host,
                  .requested = tensor.bytes,
                  .segment = refused,
                  .free = rank.allocator.capacity() - rank.allocator.stats().reserved,
                  .limit = rank.allocator.limit(),
                  .allocated = rank.allocator.stats().allocated,
                  .reserved = rank.allocator.stats().reserved,
                  .fragmented = rank.allocator.fragmented(),
                  .live = rank.ledger.now(),
                  .largest_live = {}};
  if (on_host) {  // a rank's share of the node's memory
    oom.limit = {part_of(r).spec.host_memory.count / part_of(r).ranks_of_a_node()};
    oom.allocated = oom.reserved = rank.host_memory.held() - refused;
    oom.free = oom.limit - oom.allocated;
    oom.fragmented = {};
    oom.live = {};
    for (const TensorId t : ids(program_.tensors))
      if (rank.on_host[t] && t != id)
        oom.live[static_cast<std::size_t>(program_.tensors[t].category)] += program_.tensors[t].bytes;
  }
  for (const TensorId t : ids(program_.tensors))
    if (on_host ? rank.on_host[t] && t != id : rank.block[t] != not_live)
      oom.largest_live.push_back({program_.labels[program_.tensors[t].label], program_.tensors[t].category,
                                  program_.tensors[t].bytes});
  std::stable_sort(oom.largest_live.begin(), oom.largest_live.end(),
                   [](const auto& a, const auto& b) { return a.bytes > b.bytes; });
  if (oom.largest_live.size() > largest_live_shown) oom.largest_live.resize(largest_live_shown);
  if (recorded_ == r && !on_host)
    recorder_->out_of_memory(oom.at, oom.step, oom.phase, id, oom.segment, oom.free);
  first = std::move(oom);
}

}  // namespace shardsim
