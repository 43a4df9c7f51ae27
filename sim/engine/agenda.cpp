#include "sim/engine/agenda.h"

#include <algorithm>

#include "sim/base/check.h"

namespace shardsim {

void Agenda::take(Time at, std::vector<Agent>& due) {
  require(!heap_.empty() && at <= heap_.front().at, "an agenda cannot go back in time");
  while (!heap_.empty() && heap_.front().at == at) {
    due.push_back(heap_.front().agent);
    remove(0);
  }
}

void Agenda::sift_up(std::int32_t where) {
  const Entry entry = heap_[static_cast<std::size_t>(where)];
  while (where > 0) {
    const std::int32_t parent = (where - 1) / 4;
    if (heap_[static_cast<std::size_t>(parent)] < entry) break;
    put(where, heap_[static_cast<std::size_t>(parent)]);
    where = parent;
  }
  put(where, entry);
}

void Agenda::sift_down(std::int32_t where) {
  const Entry entry = heap_[static_cast<std::size_t>(where)];
  const std::int32_t size = static_cast<std::int32_t>(heap_.size());
  for (;;) {
    const std::int32_t first = 4 * where + 1;
    if (first >= size) break;
    std::int32_t least = first;
    for (std::int32_t child = first + 1; child < std::min(first + 4, size); ++child)
      if (heap_[static_cast<std::size_t>(child)] < heap_[static_cast<std::size_t>(least)]) least = child;
    if (entry < heap_[static_cast<std::size_t>(least)]) break;
    put(where, heap_[static_cast<std::size_t>(least)]);
    where = least;
  }
  put(where, entry);
}

void Agenda::remove(std::int32_t where) {
  position_[index(heap_[static_cast<std::size_t>(where)].agent)] = absent;
  const Entry last = heap_.back();
  heap_.pop_back();
  if (where == static_cast<std::int32_t>(heap_.size())) return;
  put(where, last);
  sift_up(where);
  sift_down(position_[index(last.agent)]);
}

}  // namespace shardsim
