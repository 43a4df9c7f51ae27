// Long gradient accumulation without replaying every micro-batch.
//
// The micro-batches between the first and the last are one body that a step repeats, up to 65,536 times. Once
// they follow each other periodically, each adds the same to every figure. So the program is replayed with a
// few of them, three times, each time one more. If every time, count and peak grows by the same integer
// twice, and the hosts get through the repeats exactly as fast as the steps grow, the rest follows: a host
// that is faster still runs further ahead with every micro-batch, one that is slower still lives on work that
// it issued before; both will change. Then twice as many are tried. Without an answer, or when memory runs
// out, the program has to be replayed in full.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "sim/program/program.h"
#include "sim/result/result.h"

namespace shardsim {

// A program in full; `engine` of the answer counts all that was replayed.
struct Replayed {
  Result result;
  // By rank class and step: how long the step took, and the host to the end of its long body.
  std::vector<Time> steps, hosts;
};

std::optional<Result> extrapolate_accumulation(const Program& program,
                                               const std::function<Replayed(const Program&)>& replay);

}  // namespace shardsim
