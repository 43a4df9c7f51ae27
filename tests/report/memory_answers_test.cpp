// Do the reports of would-fit, frontier and limit say what the studies found, in the promised format?
#include <algorithm>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "sim/report/csv.h"
#include "sim/report/json.h"
#include "sim/report/text.h"
#include "sim/study/advise_oom.h"

#include "tests/support/hardware.h"
#include "tests/support/scenario_of.h"
#include "tests/support/schema.h"

namespace shardsim {
namespace {

using nlohmann::json;

const Tool tool{"0.1.0", "abc"};
const auto silent = [](const std::string&) {};

bool says(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }
std::ptrdiff_t lines(const std::string& text) { return std::count(text.begin(), text.end(), '\n'); }

const RunRecord& advised_run() {
  static const RunRecord record = [] {
    const Settings settings =
        scenario_of({"model=gpt2-xl", "topology=single-gpu", "training.micro_batch=32"}).settings;
    RunRecord run = shardsim::run(resolve(settings, test_library()));
    run.advice = advise_oom(settings, test_library());
    return run;
  }();
  return record;
}
FrontierResult frontier_of(const std::string& over, const std::string& strategy = "fsdp") {
  return frontier(
      scenario_of({"model=mpt-7b", "topology=dgx-a100-40gb", "cluster.gpus=16", "strategy.kind=" + strategy}),
      over, test_library(), silent);
}
const FrontierResult& small_frontier() {
  static const FrontierResult result =
      frontier_of("training.micro_batch=[1,4],training.sequence_length=[1024,2048,4096]");
  return result;
}
LimitResult gpus(const std::string& model, const std::string& strategy) {
  return fewest_gpus(scenario_of({"model=" + model, "topology=dgx-a100-80gb", "strategy.kind=" + strategy}),
                     {.step = {}, .up_to = 16}, test_library(), silent);
}
LimitResult batch() {
  return largest_value(scenario_of({"model=gpt2-xl", "topology=single-gpu"}), "training.micro_batch", {},
                       test_library(), silent);
}

TEST_CASE("answers about memory satisfy their published schemas") {
  CHECK(violation(to_json(advised_run(), tool), "run") == "");
  CHECK(violation(to_json(small_frontier(), tool), "frontier") == "");
  CHECK(
      violation(to_json(frontier_of("training.micro_batch=[1],training.sequence_length=[512]", "ddp"), tool),
                "frontier") == "");
  CHECK(violation(to_json(batch(), tool), "limit") == "");
  CHECK(violation(to_json(gpus("t5-11b", "ddp"), tool), "limit") == "");
  CHECK(violation("{}", "frontier") != "");
  CHECK(violation("{}", "limit") != "");
}

TEST_CASE("out of memory comes with what would fit, in text and JSON alike") {
  const json j = json::parse(to_json(advised_run(), tool));
  const json& offers = j["oom"]["would_fit"];
  REQUIRE(offers.size() == advised_run().advice->would_fit.size());
  const std::string text = to_text(advised_run());
  for (const json& offer : offers) {
    CHECK(offer["step_time_s"].get<double>() > 0);
    CHECK(offer["tokens_per_s_per_gpu"].get<double>() ==
          doctest::Approx((1 - offer["cost"].get<double>()) *
                          j["oom"]["unlimited_tokens_per_s_per_gpu"].get<double>()));
    for (const auto& [key, value] : offer["change"].items())
      CHECK(says(text, key.substr(key.find('.') + 1) + " = "));
  }
  CHECK(says(text, "with this it fits"));
  CHECK(says(text, "expandable_segments = true"));
  CHECK(says(text, "were memory unlimited"));

  RunRecord without = advised_run();
  without.advice.reset();
  CHECK(json::parse(to_json(without, tool))["oom"]["would_fit"].is_null());
}

TEST_CASE("a frontier shows both sides of the boundary, and says when there is none") {
  const std::string text = to_text(small_frontier());
  CHECK(says(text, "largest training.sequence_length that fits, for each training.micro_batch"));
  CHECK(says(text, "mpt-7b on 16 x a100-sxm-40gb"));
  CHECK(says(text, "all legal values fit"));
  CHECK(says(text, "step 2, forward"));
  const json j = json::parse(to_json(small_frontier(), tool));
  CHECK(j["rows"][0]["first_oom"].is_null());
  CHECK(j["rows"][1]["last_fit"]["value"] == 1024);
  CHECK(j["rows"][1]["first_oom"]["value"] == 2048);
  CHECK(j["rows"][1]["first_oom"]["step_time_s"].is_null());
  CHECK(lines(to_csv(small_frontier())) == 1 + 3);

  const std::string over = "training.micro_batch=[1],training.sequence_length=[512,1024]";
  CHECK(says(to_text(frontier_of(over)), "everything fits: no boundary among these values"));
  CHECK(says(to_text(frontier_of(over, "ddp")), "nothing fits: no boundary among these values"));
}

TEST_CASE("a limit names the value, its neighbour and why it dies") {
  const LimitResult limit = batch();
  const Boundary& b = limit.rows.front().boundary;
  const std::string text = to_text(limit);
  CHECK(says(text, "largest training.micro_batch that fits: " + to_string(b.last_fit->value) + "\n"));
  CHECK(says(text, oom_place(*b.first_oom->trial.run->result.oom)));
  CHECK(lines(to_csv(limit)) == 1 + 2);
}

TEST_CASE("no number of GPUs is an answer with its reason") {
  const std::string text = to_text(gpus("t5-11b", "ddp"));
  CHECK(says(text, "fewest cluster.gpus on which it fits, of up to 16"));
  CHECK(says(text, "ddp: no number of GPUs up to 16 fits: even with 16 GPUs each GPU holds "));
  CHECK(says(text, " GiB of tensors at once, of 77.72 GiB; out of memory in init"));
}

}  // namespace
}  // namespace shardsim
