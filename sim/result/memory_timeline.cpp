#include "sim/result/memory_timeline.h"

#include <algorithm>

namespace shardsim {
namespace {

bool monotone(Bytes a, Bytes b, Bytes c) { return (a <= b && b <= c) || (a >= b && b >= c); }

bool passes_through(const MemoryRow& from, const MemoryRow& via, const MemoryRow& to) {
  return via.step == to.step && via.at == to.at && from.step == via.step &&
         monotone(from.allocated, via.allocated, to.allocated) &&
         monotone(from.active, via.active, to.active) && monotone(from.reserved, via.reserved, to.reserved);
}

}  // namespace

void append(std::vector<MemoryRow>& rows, const MemoryRow& row) {
  const std::size_t n = rows.size();
  if (n >= 2 && passes_through(rows[n - 2], rows[n - 1], row))
    rows.back() = row;
  else
    rows.push_back(row);
}

}  // namespace shardsim
