#include "sim/result/record.h"

#include <fmt/format.h>

namespace shardsim {

std::string gpus_text(const RunRecord& run) {
  std::string text;
  for (const RecordedPart& part : run.parts)
    text += fmt::format("{}{} x {}", text.empty() ? "" : " + ", part.gpus, part.gpu);
  return text.empty() ? fmt::format("{} x {}", run.gpus, run.gpu) : text;
}

std::string title(const RunRecord& run) {
  return fmt::format("{} on {} ({}), {}, {}, micro-batch {}{}", run.model, gpus_text(run), run.topology,
                     run.strategy, run.precision, run.micro_batch,
                     run.grad_accum > 1 ? fmt::format(" x {}", run.grad_accum) : "");
}

}  // namespace shardsim
