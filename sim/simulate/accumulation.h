// Long gradient accumulation without replaying every micro-batch.
//
// The micro-batches between the first and the last are one body that a step repeats, up to 65,536 times. Once
// they follow each other periodically, each adds the same to every figure. So the program is replayed with a
// few of them, three times, each time one more: if every time, count and peak grows by the same integer
// twice, the rest follows. Else, or when memory runs out, there is no answer here and the program has to be
// replayed in full.
#pragma once

#include <functional>
#include <optional>

#include "sim/program/program.h"
#include "sim/result/result.h"

namespace shardsim {

// `replay` simulates a program in full; `engine` of the answer counts what was replayed.
std::optional<Result> extrapolate_accumulation(const Program& program,
                                               const std::function<Result(const Program&)>& replay);

}  // namespace shardsim
