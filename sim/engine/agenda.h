// The event queue: a fixed set of agents, each with at most one pending wake-up.
//
// A kernel whose speed changes or a transfer whose share changes moves its one wake-up, so no stale events
// exist and nothing is allocated while the simulation runs. Agents due at the same time are returned
// together; the caller decides in which phases it serves them, so the order of agents never carries meaning.
//   cost  O(log4 agents) per move; the heap is indexed, arity 4
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "sim/base/id.h"
#include "sim/base/units.h"

namespace shardsim {

using Agent = Id<struct AgentTag>;

class Agenda {
 public:
  explicit Agenda(int agents) : position_(static_cast<std::size_t>(agents), absent) {
    heap_.reserve(static_cast<std::size_t>(agents));
  }

  // Plans the agent's wake-up, in place of any other it had.
  void set(Agent agent, Time at) {
    std::int32_t& where = position_[index(agent)];
    if (where == absent) {
      where = static_cast<std::int32_t>(heap_.size());
      heap_.push_back({at, agent});
      sift_up(where);
    } else {
      const Time before = heap_[static_cast<std::size_t>(where)].at;
      heap_[static_cast<std::size_t>(where)].at = at;
      if (at < before)
        sift_up(where);
      else
        sift_down(where);
    }
  }
  void cancel(Agent agent) {
    const std::int32_t where = position_[index(agent)];
    if (where != absent) remove(where);
  }

  std::optional<Time> next() const {
    if (heap_.empty()) return std::nullopt;
    return heap_.front().at;
  }
  // Removes all agents due at `at` and appends them to `due`, in ascending order of id.
  // Requires: not empty, at <= *next().
  void take(Time at, std::vector<Agent>& due);

 private:
  struct Entry {
    Time at;
    Agent agent;
    friend auto operator<=>(const Entry&, const Entry&) = default;
  };
  static constexpr std::int32_t absent = -1;
  static std::size_t index(Agent a) { return static_cast<std::size_t>(a.index); }

  void put(std::int32_t where, const Entry& entry) {
    heap_[static_cast<std::size_t>(where)] = entry;
    position_[index(entry.agent)] = where;
  }
  void sift_up(std::int32_t where);
  void sift_down(std::int32_t where);
  void remove(std::int32_t where);

  std::vector<Entry> heap_;
  std::vector<std::int32_t> position_;  // of each agent in the heap
};

}  // namespace shardsim
