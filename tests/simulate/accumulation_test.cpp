// Does continuing the periodic part of a long gradient accumulation give what replaying all of it gives?
#include <doctest/doctest.h>
#include <fmt/format.h>

#include "sim/scenario/scenario.h"

#include "tests/support/hardware.h"
#include "tests/support/scenario_of.h"
#include "tests/support/seed.h"

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

std::vector<std::string> small_job(Random& random) {
  const auto one_of = [&](const std::vector<std::string>& all) {
    return all[static_cast<std::size_t>(random.between(0, static_cast<std::int64_t>(all.size()) - 1))];
  };
  std::vector<std::string> sets{
      "model.family=gpt",
      "model.layers=" + std::to_string(random.between(1, 3)),
      "model.hidden=" + one_of({"128", "768"}),
      "model.heads=2",
      "model.vocab=2181",
      "topology=" + one_of({"dgx-h100", "dgx-a100-40gb", "dgx1-v100-32gb"}),
      "topology.node.nic_gbps=" + one_of({"10", "100"}),
      "cluster.gpus=" + one_of({"2", "4", "16"}),
      "training.sequence_length=" + one_of({"64", "512"}),
      "training.micro_batch=" + one_of({"1", "4"}),
      "training.grad_accum=" + std::to_string(random.between(24, 120)),
      "training.sync_each_step=" + one_of({"true", "false"}),
      "strategy.kind=" + one_of({"ddp", "fsdp", "fsdp2", "zero1", "zero2", "zero3"})};
  if (random.chance(3)) sets.insert(sets.end(), {"straggler[0].gpu=1", "straggler[0].compute_scale=0.7"});
  return sets;
}

TEST_CASE("a long accumulation of random small jobs, continued, is the same as replayed") {
  int continued = 0;
  for_each_seed(static_cast<std::uint64_t>(random_runs(40)), [&](Random& random) {
    const std::vector<std::string> sets = small_job(random);
    INFO(fmt::format("{}", fmt::join(sets, " ")));
    const Scenario scenario = resolve(scenario_of(sets).settings, test_library());
    std::vector<Span> timeline;
    const Result full = run(scenario, {.timeline = &timeline}).result, quick = run(scenario).result;
    CHECK(quick.step_times == full.step_times);
    CHECK(quick.breakdown == full.breakdown);
    CHECK(quick.memory == full.memory);
    continued += quick.engine.events < full.engine.events;
  });
  CHECK(continued > random_runs(5));
}

TEST_CASE("a host that falls behind once earlier work is done is noticed") {
  const Scenario scenario =
      resolve(scenario_of({"model.family=gpt", "model.layers=2", "model.hidden=768", "model.heads=2",
                           "model.head_dim=64", "model.vocab=2181", "training.sequence_length=512",
                           "topology=dgx-h100", "topology.node.nic_gbps=10", "cluster.gpus=16",
                           "training.micro_batch=2", "training.attention=unfused",
                           "training.sync_each_step=false", "strategy.kind=zero1", "training.grad_accum=300"})
                  .settings,
              test_library());
  std::vector<Span> timeline;
  CHECK(run(scenario).result.step_time == run(scenario, {.timeline = &timeline}).result.step_time);
}

TEST_CASE("steps that take months are refused, replayed or continued") {
  for (const char* accumulation : {"2000", "65536"}) {
    const Scenario scenario = resolve(
        scenario_of({"model=gpt3-6.7b", "topology=dgx-a100-80gb", "cluster.gpus=16", "strategy.kind=fsdp",
                     "training.activation_checkpointing=full", "training.micro_batch=4", "straggler[0].gpu=3",
                     "straggler[0].compute_scale=0.001", "training.grad_accum=" + std::string(accumulation)})
            .settings,
        test_library());
    CHECK_THROWS_AS(run(scenario), InputError);
  }
}

}  // namespace
}  // namespace shardsim
