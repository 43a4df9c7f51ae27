#include "sim/simulate/critical_path.h"

#include <algorithm>

#include <fmt/format.h>

#include "sim/base/check.h"

namespace shardsim {
namespace {

std::size_t at_index(std::int64_t i) { return static_cast<std::size_t>(i); }

std::string_view words(CollectiveKind kind) {
  constexpr std::string_view names[] = {"all-gather", "reduce-scatter", "all-reduce"};
  return names[static_cast<int>(kind)];
}

// A part of a whole, rounded down.
Time prorate(Time total, Time part, Time whole) {
  return {static_cast<std::int64_t>(Wide{total.count} * part.count / std::max<std::int64_t>(whole.count, 1))};
}

}  // namespace

CausalLog::CausalLog(const Program& program, const Job& job)
    : program_(program),
      job_(job),
      gathering_(job.communicators.size()),
      points_(job.ranks.size(), std::vector<Point>(program.streams.size())),
      events_(job.ranks.size(), std::vector<Point>(at_index(program.events))),
      ends_(job.ranks.size()),
      running_(job.ranks.size(), std::vector<OccurrenceId>(program.streams.size(), nothing)),
      hosts_(job.ranks.size()) {
  for (const RankClassId r : ids(hosts_))
    host_goes_on(r, Occurrence::Kind::host, {-1}, Why::in_order, nothing, {});
}

OccurrenceId CausalLog::add(Occurrence o) {
  occurrences_.push_back(o);
  return first_ + static_cast<OccurrenceId>(occurrences_.size()) - 1;
}

void CausalLog::forget(Time ended_by, OccurrenceId floor) {
  while (!occurrences_.empty() && first_ < floor && occurrences_.front().end <= ended_by) {
    if (occurrences_.front().exchange >= 0) exchanges_.pop_front(), ++first_exchange_;
    occurrences_.pop_front();
    ++first_;
  }
}

// --- hosts ----------------------------------------------------------------------------------------------

void CausalLog::host_goes_on(RankClassId r, Occurrence::Kind kind, LabelId label, Why why,
                             OccurrenceId before, Time begin) {
  Host& host = hosts_[r];
  if (host.current != nothing && before == host.current) at(host.current).end = begin;
  host.current = add({.kind = kind,
                      .why = why,
                      .rank = r,
                      .mark = host.mark,
                      .label = label.index,
                      .before = before,
                      .begin = begin,
                      .end = longest_work * 64});  // open
}

void CausalLog::mark(RankClassId r, LabelId label, Time clock) {
  Host& host = hosts_[r];
  const auto [known, fresh] =
      mark_ids_.try_emplace({host.mark, label.index}, static_cast<std::int32_t>(marks_.size()));
  if (fresh) marks_.push_back({host.mark, label.index});
  host.mark = known->second;
  host_goes_on(r, Occurrence::Kind::host, {-1}, Why::in_order, host.current, clock);
}

void CausalLog::unmark(RankClassId r, Time clock) {
  Host& host = hosts_[r];
  host.mark = marks_[at_index(host.mark)].parent;
  host_goes_on(r, Occurrence::Kind::host, {-1}, Why::in_order, host.current, clock);
}

void CausalLog::host_spent(RankClassId r, Occurrence::Kind on, LabelId label, Time begin, Time end) {
  if (begin == end) return;
  host_goes_on(r, on, label, Why::in_order, hosts_[r].current, begin);
  host_goes_on(r, Occurrence::Kind::host, {-1}, Why::in_order, hosts_[r].current, end);
}

void CausalLog::host_waited(RankClassId r, Why why, const Point& for_what, Time clock, Time now) {
  if (now <= clock) return;
  at(hosts_[r].current).end = clock;
  host_goes_on(r, Occurrence::Kind::host, {-1}, why, for_what.by, now);
}

void CausalLog::host_waited_for_event(RankClassId r, EventId e, Time clock, Time now) {
  host_waited(r, Why::host_event, events_[r][at_index(e.index)], clock, now);
}

void CausalLog::host_waited_for_launch(RankClassId r, int s, Time clock, Time now) {
  host_waited(r, Why::queue_full, point(r, s), clock, now);
}

void CausalLog::host_waited_for_device(RankClassId r, Time clock, Time now) {
  const auto last = std::max_element(points_[r].begin(), points_[r].end(),
                                     [](const Point& a, const Point& b) { return a.at < b.at; });
  host_waited(r, Why::drain, *last, clock, now);
}

// --- streams --------------------------------------------------------------------------------------------

void CausalLog::reached(RankClassId r, int s, Time ready, OccurrenceId issued_by) {
  Point& p = point(r, s);
  if (ready > p.at) p = {issued_by, Why::launch, ready};
}

void CausalLog::begin(RankClassId r, int s, Occurrence::Kind kind, LabelId label, OccurrenceId issued_by,
                      Time now) {
  const Point& p = point(r, s);
  const std::int32_t mark = mark_of(issued_by);
  OccurrenceId& running = running_[r][at_index(s)];
  if (p.why == Why::in_order && known(p.by) && kind != Occurrence::Kind::copy) {
    Occurrence& last = at(p.by);
    const bool of_this_step = s != default_stream.index || ends_[r].empty() || ends_[r].back().by != p.by;
    if (of_this_step && last.kind == kind && last.rank == r && last.stream == s && last.mark == mark &&
        (mark >= 0 || last.label == label.index) && last.end == now) {
      if (last.label != label.index) last.label = -1;
      running = p.by;
      return;
    }
  }
  running = add({.kind = kind,
                 .why = p.why,
                 .stream = static_cast<std::int16_t>(s),
                 .rank = r,
                 .mark = mark,
                 .label = label.index,
                 .before = p.by,
                 .begin = now,
                 .end = now});
}

void CausalLog::end(RankClassId r, int s, Time now, Time slowed) {
  const OccurrenceId id = running_[r][at_index(s)];
  Occurrence& o = at(id);
  o.end = now;
  o.slowed += slowed;
  point(r, s) = {id, Why::in_order, now};
}

void CausalLog::completed(RankClassId r, EventId e, int s) { events_[r][at_index(e.index)] = point(r, s); }

void CausalLog::released(RankClassId r, int s, EventId e, Time now) {
  point(r, s) = {events_[r][at_index(e.index)].by, Why::event, now};
}

// --- collectives ----------------------------------------------------------------------------------------

void CausalLog::arrive(CommunicatorId c, RankClassId r, int s, OccurrenceId issued_by, Time now) {
  const Point& p = point(r, s);
  gathering_[c].push_back({r, mark_of(issued_by), p.why, p.by, now});
}

void CausalLog::end_collective(CommunicatorId c, const CollectiveOp& op, LabelId label, Time began,
                               Time latency, Time alone, Time now) {
  const int s = program_.groups[op.group].stream.index;
  const OccurrenceId id = add({.kind = Occurrence::Kind::collective,
                               .stream = static_cast<std::int16_t>(s),
                               .label = label.index,
                               .exchange = first_exchange_ + static_cast<std::int32_t>(exchanges_.size()),
                               .begin = began,
                               .end = now});
  for (const Arrival& a : gathering_[c]) point(a.rank, s) = {id, Why::in_order, now};
  exchanges_.push_back({op.kind, op.group, std::min(latency, now - began), alone, std::move(gathering_[c])});
  gathering_[c].clear();
}

// --- the path -------------------------------------------------------------------------------------------

std::string CausalLog::phase(std::int32_t mark) const {
  std::string text;
  for (; mark >= 0; mark = marks_[at_index(mark)].parent)
    text = program_.labels[LabelId{marks_[at_index(mark)].label}] + (text.empty() ? "" : " / " + text);
  return text;
}

std::string CausalLog::describe(OccurrenceId id) const {
  using enum Occurrence::Kind;
  if (!known(id)) return "the step before";
  const Occurrence& o = at(id);
  const std::string label = o.label >= 0 ? program_.labels[LabelId{o.label}] : "";
  const std::string under = o.mark >= 0 ? " of " + phase(o.mark) : label.empty() ? "" : " of " + label;
  switch (o.kind) {
    case host: return "the host";
    case driver: return "cudaMalloc or cudaFree" + under;
    case retry: return "an allocator retry" + under;
    case optimizer_on_host: return label + " on the host";
    case kernel: return "compute" + under;
    case optimizer: return "the optimizer's kernels";
    case copy: return "the copy of " + label;
    case collective: return fmt::format("{} of {}", words(exchange(o).kind), label);
  }
  return "";
}

std::string CausalLog::reason(Why why, OccurrenceId before) const {
  const bool on_host = known(before) && (at(before).kind <= Occurrence::Kind::optimizer_on_host);
  switch (why) {
    case Why::in_order: return "stream order";
    case Why::launch: return "the host had not issued it yet";
    case Why::event:
      return on_host ? "the host had not issued what it waits for" : "waits for " + describe(before);
    case Why::host_event: return "the host waits for " + describe(before);
    case Why::queue_full: return "launch queue full";
    case Why::drain: return "memory: the device has to be idle first";
  }
  return "";
}

const Arrival& CausalLog::arrival(const Exchange& e, RankClassId r) const {
  return *std::find_if(e.arrivals.begin(), e.arrivals.end(), [&](const Arrival& a) { return a.rank == r; });
}

// The lowest rank of those that arrived last in the group of `self`.
Rank CausalLog::last(const Exchange& e, Rank self, Time began) const {
  const Axis axis = program_.groups[e.group].axis;
  const std::int64_t instance = instance_of(program_.mesh, axis, self);
  for (const PlacedRank& p : job_.placed)
    if (instance_of(program_.mesh, axis, p.rank) == instance &&
        std::any_of(e.arrivals.begin(), e.arrivals.end(),
                    [&](const Arrival& a) { return a.at == began && a.rank == p.of; }))
      return p.rank;
  require(false, "nobody arrived last at a collective");
  return self;
}

CriticalPath CausalLog::path(Rank rank, std::size_t step, Time begin, Time end) const {
  using enum Occurrence::Kind;
  CriticalPath path{rank, {}};
  Rank self = rank;
  Time until = end;
  // The time back to `from`. Null if there is none.
  const auto take = [&](PathKind kind, std::int32_t mark, const std::string& label, const std::string& reason,
                        Time from) -> PathSegment* {
    from = std::max(from, begin);
    if (from >= until) return nullptr;
    path.segments.push_back({kind, self, phase(mark), label, reason, from - begin, until - from});
    until = from;
    return &path.segments.back();
  };
  OccurrenceId id = ends_[class_of(job_, rank)][step].by;
  while (until > begin) {
    require(known(id), "the critical path breaks off");
    const Occurrence& o = at(id);
    const Time whole = o.end - o.begin, upper = until;
    id = o.before;
    const std::string label = o.label >= 0 ? program_.labels[LabelId{o.label}] : "";
    const bool goes_on = o.kind <= optimizer_on_host && o.why == Why::in_order;
    const std::string why = goes_on ? "the host is at it" : reason(o.why, o.before);
    switch (o.kind) {
      case host: take(PathKind::host, o.mark, "issues work", why, o.begin); break;
      case driver:
        take(PathKind::allocator, o.mark, "cudaMalloc, cudaFree", "memory: from CUDA", o.begin);
        break;
      case retry: take(PathKind::allocator, o.mark, "retry", "memory: allocator retry", o.begin); break;
      case optimizer_on_host: take(PathKind::optimizer, o.mark, label, "on the host", o.begin); break;
      case copy: take(PathKind::copy, o.mark, label, why, o.begin); break;
      case kernel:
      case optimizer: {
        const double scale = job_.ranks[o.rank].compute_scale;
        if (const Time from = std::max(o.begin, begin); scale < 1 && from < until) {
          const double lost = static_cast<double>((until - from).count) * (1 - scale);
          take(PathKind::straggler, o.mark, fmt::format("rank {}", self.index),
               fmt::format("computes at {:.3g} of the speed", scale), until - from_picoseconds(lost));
        }
        const PathKind kind = o.kind == kernel ? PathKind::compute : PathKind::optimizer;
        if (PathSegment* s = take(kind, o.mark, label, why, o.begin))
          s->slowed = prorate(o.slowed, s->time, whole);
        break;
      }
      case collective: {
        const Exchange& e = exchange(o);
        const Arrival& own = arrival(e, class_of(job_, self));
        const Rank waited_for = own.at < o.begin ? last(e, self, o.begin) : self;
        const Arrival& latest = arrival(e, class_of(job_, waited_for));
        const std::string because = waited_for == self
                                        ? reason(latest.why, latest.before)
                                        : fmt::format("rank {} arrived last", waited_for.index);
        if (PathSegment* s =
                take(of(e.kind), own.mark, fmt::format("{} of {}", words(e.kind), label), because, o.begin)) {
          s->latency = std::max(Time{}, std::min(o.begin + e.latency, upper) - until);
          s->slowed = prorate(std::max(Time{}, whole - e.alone), s->time - s->latency, whole - e.latency);
        }
        self = waited_for;
        id = latest.before;
        break;
      }
    }
  }
  std::reverse(path.segments.begin(), path.segments.end());
  return path;
}

}  // namespace shardsim
