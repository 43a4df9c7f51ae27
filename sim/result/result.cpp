#include "sim/result/result.h"

#include <fmt/format.h>

namespace shardsim {

std::string oom_place(const OutOfMemory& oom) {
  return fmt::format("{}{}{}", oom.on_host ? "the host's memory, " : "",
                     oom.step == 0 ? "" : fmt::format("step {}, ", oom.step), oom.phase);
}

}  // namespace shardsim
