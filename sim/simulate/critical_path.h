// Remembers why everything began when it did, and chains the reasons back from the end of a step.
//
// An occurrence is something that took time: work of the host under one mark, kernels that ran one after the
// other on a stream under one mark, a copy, a collective. Each knows what it came after (`before`). What
// others refer to is an occurrence up to a moment, so work that goes on after that moment may still be added
// to it.
//   ties        what was issued at the very moment at which its stream got there: the stream's order counts
//   ranks       where a rank waits in a collective, the path goes on at the one that arrived last; what
//   kernels
//               take longer on a slow rank is apart, as the straggler's doing
//   source      LLVM-MCA chains the reasons of stalls in the same way
//   leaves out  what the driver does inside a call; which link made a transfer share
#pragma once

#include <deque>
#include <map>
#include <utility>
#include <vector>

#include "sim/program/program.h"
#include "sim/result/critical_path.h"
#include "sim/simulate/job.h"

namespace shardsim {

using OccurrenceId = std::int32_t;
inline constexpr OccurrenceId nothing = -1;

// Why an occurrence did not begin earlier.
enum class Why : std::uint8_t {
  in_order,    // the host, or the stream, was at it
  launch,      // the host had not issued it, or the launch had not arrived
  event,       // the stream waited for an event
  host_event,  // the host did
  queue_full,  // the host waited for a launch to begin
  drain,       // the host waited for the device to be idle
};

struct Occurrence {
  enum class Kind : std::uint8_t {
    host,
    driver,
    retry,
    optimizer_on_host,
    kernel,
    optimizer,
    copy,
    collective
  };
  Kind kind{};
  Why why{};
  std::int16_t stream = 0;
  RankClassId rank{};          // not of a collective
  std::int32_t mark = -1;      // innermost
  std::int32_t label = -1;     // -1 = several
  std::int32_t exchange = -1;  // of a collective
  OccurrenceId before = nothing;
  Time begin{}, end{};
  Time slowed{};  // of a kernel: by what ran beside it
};

// How a rank came to a collective.
struct Arrival {
  RankClassId rank;
  std::int32_t mark;
  Why why;
  OccurrenceId before;
  Time at;
};

struct Exchange {
  CollectiveKind kind;
  GroupId group;
  Time latency;  // before data moves
  Time alone;    // the latency and the transfer, were it alone on its links and no kernel beside it
  std::vector<Arrival> arrivals;
};

class CausalLog {
 public:
  CausalLog(const Program& program, const Job& job);

  // --- hosts ---
  OccurrenceId issuing(RankClassId r) const { return hosts_[r].current; }  // what issues an operation
  void mark(RankClassId r, LabelId label, Time clock);
  void unmark(RankClassId r, Time clock);
  void host_spent(RankClassId r, Occurrence::Kind on, LabelId label, Time begin, Time end);
  // The host waited from its clock until now, if that is later.
  void host_waited_for_event(RankClassId r, EventId e, Time clock, Time now);
  void host_waited_for_launch(RankClassId r, int s, Time clock, Time now);
  void host_waited_for_device(RankClassId r, Time clock, Time now);

  // --- streams ---
  // The operation in front can run: it is issued, and what was before it is done.
  void reached(RankClassId r, int s, Time ready, OccurrenceId issued_by);
  void begin(RankClassId r, int s, Occurrence::Kind kind, LabelId label, OccurrenceId issued_by, Time now);
  void end(RankClassId r, int s, Time now, Time slowed);
  void completed(RankClassId r, EventId e, int s);
  void released(RankClassId r, int s, EventId e, Time now);
  void end_step(RankClassId r) { ends_[r].push_back(point(r, default_stream.index)); }

  // --- collectives ---
  void arrive(CommunicatorId c, RankClassId r, int s, OccurrenceId issued_by, Time now);
  void end_collective(CommunicatorId c, const CollectiveOp& op, LabelId label, Time began, Time latency,
                      Time alone, Time now);

  // Nothing that ended by then is asked for any more, unless a queue still refers to it (ids from `floor`).
  void forget(Time ended_by, OccurrenceId floor);

  // Of a step, 0 = the set-up, up to its end on this rank; begin and end are its marks on the default stream.
  CriticalPath path(Rank rank, std::size_t step, Time begin, Time end) const;

 private:
  // How far something has got, and by what.
  struct Point {
    OccurrenceId by = nothing;
    Why why = Why::in_order;
    Time at{};
  };
  struct Host {
    OccurrenceId current = nothing;
    std::int32_t mark = -1;
  };
  struct Mark {
    std::int32_t parent, label;
  };

  bool known(OccurrenceId id) const { return id >= first_; }
  Occurrence& at(OccurrenceId id) { return occurrences_[static_cast<std::size_t>(id - first_)]; }
  const Occurrence& at(OccurrenceId id) const { return occurrences_[static_cast<std::size_t>(id - first_)]; }
  const Exchange& exchange(const Occurrence& o) const {
    return exchanges_[static_cast<std::size_t>(o.exchange - first_exchange_)];
  }
  void host_waited(RankClassId r, Why why, const Point& for_what, Time clock, Time now);
  Point& point(RankClassId r, int s) { return points_[r][static_cast<std::size_t>(s)]; }
  OccurrenceId add(Occurrence o);
  void host_goes_on(RankClassId r, Occurrence::Kind kind, LabelId label, Why why, OccurrenceId before,
                    Time begin);
  std::int32_t mark_of(OccurrenceId id) const { return known(id) ? at(id).mark : -1; }

  std::string phase(std::int32_t mark) const;
  std::string describe(OccurrenceId id) const;
  std::string reason(Why why, OccurrenceId before) const;
  const Arrival& arrival(const Exchange& e, RankClassId r) const;
  Rank last(const Exchange& e, Rank self, Time began) const;

  const Program& program_;
  const Job& job_;
  std::deque<Occurrence> occurrences_;
  std::deque<Exchange> exchanges_;  // one per collective
  OccurrenceId first_ = 0;
  std::int32_t first_exchange_ = 0;
  IdVector<CommunicatorId, std::vector<Arrival>> gathering_;
  IdVector<RankClassId, std::vector<Point>> points_, events_, ends_;
  IdVector<RankClassId, std::vector<OccurrenceId>> running_;
  IdVector<RankClassId, Host> hosts_;
  std::vector<Mark> marks_;
  std::map<std::pair<std::int32_t, std::int32_t>, std::int32_t> mark_ids_;
};

}  // namespace shardsim
