// How long anything may take: longer, and sums of picoseconds would leave 64 bits.
#pragma once

#include "sim/base/units.h"

namespace shardsim {

inline constexpr Time latest = longest_work * 32;  // the end of the last step; far from the end of Time

// Throws InputError: the cluster is too slow for the job.
[[noreturn]] void refuse_too_long();

// Of work that ends at `end`. Requires: now < latest.
inline void check_range(Time now, Time end) {
  if (end - now >= longest_work || end >= latest) refuse_too_long();
}

}  // namespace shardsim
