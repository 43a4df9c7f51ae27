#include "sim/result/record.h"

#include <fmt/format.h>

namespace shardsim {

std::string title(const RunRecord& run) {
  return fmt::format("{} on {} x {} ({}), {}, {}, micro-batch {}{}", run.model, run.gpus, run.gpu,
                     run.topology, run.strategy, run.precision, run.micro_batch,
                     run.grad_accum > 1 ? fmt::format(" x {}", run.grad_accum) : "");
}

}  // namespace shardsim
