// Does every change that is offered fit when it is made, and does none of those said not to help?
#include "sim/study/advise_oom.h"

#include <algorithm>

#include <doctest/doctest.h>

#include "tests/support/hardware.h"
#include "tests/support/scenario_of.h"

namespace shardsim {
namespace {

using Sets = std::vector<std::string>;

OomAdvice advice_for(const Sets& sets) { return advise_oom(scenario_of(sets).settings, test_library()); }

RunRecord changed_run(Sets sets, const std::vector<Change>& changes) {
  for (const Change& c : changes) sets.push_back(c.key + "=" + to_string(c.value));
  return run(resolve(scenario_of(sets).settings, test_library()));
}
const WouldFit* offer(const OomAdvice& advice, const std::string& key) {
  for (const WouldFit& w : advice.would_fit)
    if (w.change.front().key == key) return &w;
  return nullptr;
}

const Sets gpt2_xl{"model=gpt2-xl", "topology=single-gpu", "training.micro_batch=32"};
const Sets mpt_13b{"model=mpt-13b", "topology=dgx-a100-40gb", "cluster.gpus=16", "training.micro_batch=8"};
const Sets hybrid{"model=mpt-7b", "topology=dgx-a100-40gb", "cluster.gpus=16", "strategy.sharding_factor=2"};

TEST_CASE("every offer fits, with the figures given, and nothing else that was tried does") {
  for (const Sets& sets : {gpt2_xl, mpt_13b, hybrid}) {
    const OomAdvice advice = advice_for(sets);
    CHECK(!advice.would_fit.empty());
    for (const WouldFit& w : advice.would_fit) {
      const RunRecord run = changed_run(sets, w.change);
      CAPTURE(w.change.front().key);
      REQUIRE(!run.result.out_of_memory());
      CHECK(run.result.step_time == w.step_time);
      CHECK(run.result.memory.peak_reserved == w.peak_reserved);
      CHECK(w.cost == doctest::Approx(1 - run.result.throughput.tokens_per_s_per_gpu /
                                              advice.unlimited_tokens_per_s_per_gpu));
    }
    CHECK(std::is_sorted(advice.would_fit.begin(), advice.would_fit.end(),
                         [](const WouldFit& a, const WouldFit& b) { return a.cost < b.cost; }));
    for (const DoesNotHelp& d : advice.tried) CHECK(changed_run(sets, d.change).result.out_of_memory());
  }
}

TEST_CASE("the micro-batch offered is the largest that fits, the sharding factor the smallest") {
  const WouldFit* batch = nullptr;
  const OomAdvice small = advice_for(gpt2_xl);
  REQUIRE((batch = offer(small, "training.micro_batch")) != nullptr);
  const std::int64_t one_more = std::get<std::int64_t>(batch->change.front().value) + 1;
  CHECK(changed_run(gpt2_xl, {{"training.micro_batch", one_more}}).result.out_of_memory());

  const OomAdvice sharded = advice_for(hybrid);
  const WouldFit* factor = offer(sharded, "strategy.sharding_factor");
  REQUIRE(factor != nullptr);
  const std::int64_t half = std::get<std::int64_t>(factor->change.front().value) / 2;
  CHECK(changed_run(hybrid, {{"strategy.sharding_factor", half}}).result.out_of_memory());
}

TEST_CASE("a given global batch is kept by accumulation") {
  Sets sets = gpt2_xl;
  sets.back() = "training.global_batch=30";
  const OomAdvice advice = advice_for(sets);
  const WouldFit* batch = offer(advice, "training.micro_batch");
  REQUIRE(batch != nullptr);
  REQUIRE(batch->change.size() == 2);
  CHECK(batch->change[1].key == "training.grad_accum");
  CHECK(std::get<std::int64_t>(batch->change[0].value) * std::get<std::int64_t>(batch->change[1].value) ==
        30);
}

TEST_CASE("T5-11B under DDP fits as FSDP") {
  Sets sets{"model=t5-11b",      "topology=a100-80gb-roce-2000",           "cluster.gpus=512",
            "strategy.kind=ddp", "training.activation_checkpointing=full", "training.micro_batch=8"};
  const OomAdvice alone = advice_for(sets);
  REQUIRE(alone.would_fit.size() == 1);
  CHECK(alone.would_fit[0].change[0].key == "strategy.kind");
  CHECK(alone.would_fit[0].change[0].value == Scalar(std::string("fsdp")));
  // Without checkpointing that is not enough alone.
  sets[4] = "training.activation_checkpointing=none";
  const OomAdvice together = advice_for(sets);
  REQUIRE(!together.would_fit.empty());
  for (const WouldFit& w : together.would_fit) {
    CHECK(w.change.size() >= 2);
    CHECK(w.change[0].key == "strategy.kind");
    CHECK(!changed_run(sets, w.change).result.out_of_memory());
  }
}

}  // namespace
}  // namespace shardsim
