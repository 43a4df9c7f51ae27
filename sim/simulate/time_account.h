// Where the time of the default stream goes: every picosecond of a step is attributed once.
#pragma once

#include <algorithm>
#include <vector>

#include "sim/result/result.h"
#include "sim/simulate/stream.h"

namespace shardsim {

struct StepRecord {
  Time end;  // of the step, on the default stream
  Breakdown breakdown{};
  std::array<Communication, collective_kinds> communication{};
  std::vector<std::pair<std::int32_t, Time>> phases;  // by label of the program
};

class TimeAccount {
 public:
  // The stream ran, or was idle, from the last call until `until`.
  void spend(Spent on, Time until) {
    open_.breakdown[static_cast<std::size_t>(on)] += until - accounted_;
    accounted_ = until;
  }
  // Idle: the host had not issued the next operation. Parts in which it was known to be busy with something
  // count as that.
  void spend_on_host(Time until) {
    if (until == accounted_) return;
    for (const HostBusyWith& busy : host_) {
      const Time from = std::clamp(busy.begin, accounted_, until),
                 to = std::clamp(busy.end, accounted_, until);
      if (from > accounted_) spend(Spent::host_stall, from);
      if (to > accounted_) spend(busy.with, to);
    }
    if (until > accounted_) spend(Spent::host_stall, until);
    std::erase_if(host_, [&](const HostBusyWith& busy) { return busy.end <= accounted_; });
  }
  // Idle: the next operation waited for an event of the stream with this log. Walks from the event back
  // through what that stream did and itself waited for; where nothing was under way, the host was late.
  void spend_waiting(const ActivityLog& log, Time until) {
    std::array<const Activity*, ActivityLog::capacity> chain{};
    std::size_t length = 0;
    Time open = until;
    for (std::size_t age = 0; age < log.size() && open > accounted_; ++age)
      if (log[age].begin < open) chain[length++] = &log[age], open = log[age].begin;
    while (length-- > 0) {
      const Activity& a = *chain[length];
      spend_on_host(std::max(a.begin, accounted_));
      spend_on(a, std::min(a.end, length > 0 ? chain[length - 1]->begin : until));
    }
    spend_on_host(until);
  }
  void host_was_busy(Spent with, Time begin, Time end) { host_.push_back({with, begin, end}); }
  // A collective of the stream waited for other ranks.
  void waited_for_ranks(int stream, Time begin, Time end) {
    std::erase_if(waits_, [&](const WaitForRanks& w) { return w.end <= accounted_; });
    waits_.push_back({stream, begin, end});
  }
  Time accounted() const { return accounted_; }

  void communicated(CollectiveKind kind, Bytes bytes, Bytes wire, Time busy) {
    Communication& c = open_.communication[static_cast<std::size_t>(kind)];
    ++c.count;
    c.bytes += bytes;
    c.wire += wire;
    c.busy += busy;
  }
  // A phase of the program begins (label) or ends (-1).
  void phase(std::int32_t label, Time now) {
    if (phase_ >= 0) {
      const auto known = std::find_if(open_.phases.begin(), open_.phases.end(),
                                      [&](const auto& p) { return p.first == phase_; });
      if (known == open_.phases.end())
        open_.phases.emplace_back(phase_, now - phase_began_);
      else
        known->second += now - phase_began_;
    }
    phase_ = label;
    phase_began_ = now;
  }
  StepRecord end_step(Time now) {
    open_.end = now;
    for (int k = 0; k < collective_kinds; ++k)
      open_.communication[static_cast<std::size_t>(k)].exposed =
          open_.breakdown[static_cast<std::size_t>(exposed(static_cast<CollectiveKind>(k)))];
    return std::exchange(open_, {});
  }

 private:
  void spend_on(const Activity& a, Time until) {
    until = std::max(until, accounted_);
    switch (a.kind) {
      case Activity::Kind::kernel: spend(Spent::exposed_other, until); break;
      case Activity::Kind::copy: spend(Spent::copies, until); break;
      case Activity::Kind::collective:
        spend_queueing(a, std::clamp(a.arrived, accounted_, until));
        spend(Spent::straggler_wait, std::clamp(a.began, accounted_, until));
        spend(exposed(a.collective), until);
        break;
    }
  }
  // A collective had been issued and could not begin until then. What those before it on its stream waited
  // for other ranks is the other ranks' doing.
  void spend_queueing(const Activity& a, Time until) {
    for (const WaitForRanks& w : waits_) {
      if (w.stream != a.stream) continue;
      spend(exposed(a.collective), std::clamp(w.begin, accounted_, until));
      spend(Spent::straggler_wait, std::clamp(w.end, accounted_, until));
    }
    spend(exposed(a.collective), until);
  }
  static Spent exposed(CollectiveKind kind) {
    return static_cast<Spent>(static_cast<int>(Spent::exposed_all_gather) + static_cast<int>(kind));
  }

  StepRecord open_;
  Time accounted_;
  struct HostBusyWith {
    Spent with;
    Time begin, end;
  };
  std::vector<HostBusyWith> host_;  // on the host's clock, not yet attributed
  struct WaitForRanks {
    int stream;
    Time begin, end;
  };
  std::vector<WaitForRanks> waits_;  // not yet attributed; of one stream by time
  std::int32_t phase_ = -1;
  Time phase_began_;
};

}  // namespace shardsim
