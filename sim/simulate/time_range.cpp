#include "sim/simulate/time_range.h"

#include <fmt/format.h>

#include "sim/base/error.h"

namespace shardsim {

void refuse_too_long() {
  throw InputError({}, fmt::format("a kernel, a transfer or work of a host takes over {:.0f} hours, or the "
                                   "steps over {:.0f} days: the cluster is too slow for this job",
                                   seconds(longest_work) / 3600, seconds(latest) / 86400));
}

}  // namespace shardsim
