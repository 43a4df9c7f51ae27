// Does continuing the periodic part of a long gradient accumulation give what replaying all of it gives?
#include <doctest/doctest.h>

#include "sim/scenario/scenario.h"

#include "tests/support/hardware.h"
#include "tests/support/scenario_of.h"

namespace shardsim {
namespace {

RunRecord accumulate(std::vector<std::string> sets, bool in_full) {
  sets.insert(sets.begin(),
              {"model=gpt2", "topology=dgx-a100-40gb", "cluster.gpus=4", "training.sequence_length=256"});
  const ScenarioFile scenario = scenario_of(sets);
  std::vector<Span> timeline;  // whoever wants one gets everything replayed
  return run(resolve(scenario.settings, test_library()), {.timeline = in_full ? &timeline : nullptr});
}

TEST_CASE("a long accumulation, continued, is the same as replayed, in every strategy") {
  const std::vector<std::vector<std::string>> cases = {
      {"strategy.kind=ddp", "training.grad_accum=64"},
      {"strategy.kind=ddp", "training.grad_accum=61", "training.no_sync=true"},
      {"strategy.kind=ddp", "training.grad_accum=64", "training.precision=fp16-mixed",
       "training.mixed_precision=o2"},
      {"strategy.kind=fsdp", "training.grad_accum=64"},
      {"strategy.kind=fsdp", "training.grad_accum=40", "strategy.sharding_factor=2"},
      {"strategy.kind=fsdp2", "training.grad_accum=64"},
      {"strategy.kind=zero1", "training.grad_accum=64"},
      {"strategy.kind=zero2", "training.grad_accum=64"},
      {"strategy.kind=zero3", "training.grad_accum=33"},
      {"strategy.kind=megatron-dp", "training.grad_accum=64"},
      {"strategy.kind=ddp", "training.grad_accum=64", "straggler[0].gpu=1",
       "straggler[0].compute_scale=0.8"}};
  int continued = 0;
  for (const auto& sets : cases) {
    INFO(sets.front() << " " << sets[1]);
    const Result full = accumulate(sets, true).result, quick = accumulate(sets, false).result;
    CHECK(quick.step_time == full.step_time);
    CHECK(quick.breakdown == full.breakdown);
    CHECK(quick.memory.peak_reserved == full.memory.peak_reserved);
    CHECK(quick.memory.peak_allocated == full.memory.peak_allocated);
    CHECK(quick.memory.at_peak == full.memory.at_peak);
    CHECK(quick.executed.count == full.executed.count);
    CHECK(quick.slowest == full.slowest);
    for (std::size_t k = 0; k < full.communication.size(); ++k) {
      CHECK(quick.communication[k].count == full.communication[k].count);
      CHECK(quick.communication[k].wire == full.communication[k].wire);
      CHECK(quick.communication[k].exposed == full.communication[k].exposed);
    }
    REQUIRE(quick.phases.size() == full.phases.size());
    for (std::size_t p = 0; p < full.phases.size(); ++p) CHECK(quick.phases[p].time == full.phases[p].time);
    continued += quick.engine.events < full.engine.events;
  }
  CHECK(continued >= 8);  // where it is not periodic, all is replayed
}

}  // namespace
}  // namespace shardsim
