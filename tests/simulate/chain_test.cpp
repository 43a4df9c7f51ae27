// Kernels that follow each other are one wake-up. Is that the same as one for each? Whoever asks for the
// timeline gets one for each.
#include <doctest/doctest.h>

#include "sim/scenario/scenario.h"

#include "tests/support/hardware.h"
#include "tests/support/scenario_of.h"

namespace shardsim {
namespace {

TEST_CASE("kernels in chains give what kernels one by one give, in every strategy") {
  const std::vector<std::vector<std::string>> cases = {
      {"strategy.kind=ddp"},
      {"strategy.kind=ddp", "training.sync_each_step=false"},
      {"strategy.kind=fsdp"},
      {"strategy.kind=fsdp", "strategy.limit_all_gathers=false", "training.activation_checkpointing=full"},
      {"strategy.kind=fsdp", "strategy.sharding_factor=8", "training.sync_each_step=false"},
      {"strategy.kind=fsdp", "straggler[0].gpu=3", "straggler[0].compute_scale=0.7"},
      {"strategy.kind=fsdp2"},
      {"strategy.kind=zero1"},
      {"strategy.kind=zero2"},
      {"strategy.kind=zero3"},
      {"strategy.kind=megatron-dp"}};
  for (const auto& sets : cases)
    for (const bool fold : {true, false}) {
      INFO(sets.front() << (sets.size() > 1 ? " " + sets[1] : "") << (fold ? " folded" : ""));
      std::vector<std::string> all{"model=gpt2", "topology=dgx-a100-40gb", "cluster.gpus=16",
                                   "training.sequence_length=256"};
      all.insert(all.end(), sets.begin(), sets.end());
      const Scenario scenario = resolve(scenario_of(all).settings, test_library());
      std::vector<Span> timeline;
      const Result chains = run(scenario, {.fold = fold}).result;
      const Result single = run(scenario, {.fold = fold, .timeline = &timeline}).result;
      CHECK(chains.step_times == single.step_times);
      CHECK(chains.breakdown == single.breakdown);
      CHECK(chains.memory == single.memory);
      CHECK(chains.slowest == single.slowest);
      CHECK(chains.engine.allocator_calls == single.engine.allocator_calls);
      REQUIRE(chains.phases.size() == single.phases.size());
      for (std::size_t p = 0; p < single.phases.size(); ++p)
        CHECK(chains.phases[p].time == single.phases[p].time);
    }
}

}  // namespace
}  // namespace shardsim
