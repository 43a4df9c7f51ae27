#include "sim/strategy/zero.h"

#include "sim/strategy/strategy.h"

namespace shardsim {

Program compile(const OpGraph& graph, const Training& training, const Framework& framework,
                std::int64_t world, const Zero& options) {
  if (options.stage < 3) return compile_zero12(graph, training, framework, world, options);
  if (world > 1) return compile_zero3(graph, training, framework, world, options);
  Zero nothing_to_gather = options;
  nothing_to_gather.stage = 2;
  return compile_zero12(graph, training, framework, world, nothing_to_gather);
}

}  // namespace shardsim
