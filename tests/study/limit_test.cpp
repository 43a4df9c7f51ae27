// Is a limit the last value that fits, and is "no number of GPUs" said with its reason?
#include "sim/study/limit.h"

#include <algorithm>

#include <doctest/doctest.h>

#include "tests/support/hardware.h"
#include "tests/support/scenario_of.h"

namespace shardsim {
namespace {

const auto silent = [](const std::string&) {};

ScenarioFile gpt2_xl(const std::vector<std::string>& more = {}) {
  std::vector<std::string> sets{"model=gpt2-xl", "topology=single-gpu"};
  sets.insert(sets.end(), more.begin(), more.end());
  return scenario_of(sets);
}
Boundary largest(const ScenarioFile& scenario, const std::string& key, const LimitOptions& options = {}) {
  return largest_value(scenario, key, options, test_library(), silent).rows.front().boundary;
}
std::int64_t number(const std::optional<FitPoint>& point) { return std::get<std::int64_t>(point->value); }
std::string complaint(const std::string& key, const LimitOptions& options = {}) {
  try {
    largest(gpt2_xl(), key, options);
    return "";
  } catch (const InputError& error) {
    return error.what();
  }
}

TEST_CASE("the largest value fits and the next does not") {
  for (const char* key : {"training.micro_batch", "model.layers"}) {
    const Boundary b = largest(gpt2_xl(), key);
    CAPTURE(key);
    REQUIRE(b.last_fit.has_value());
    REQUIRE(b.first_oom.has_value());
    CHECK(number(b.first_oom) == number(b.last_fit) + 1);
    CHECK(b.last_fit->trial.fits());
    CHECK(b.first_oom->trial.run->result.out_of_memory());
  }
}

TEST_CASE("limits are multiples of the step, up to the bound, and end where keys do") {
  const std::int64_t most = number(largest(gpt2_xl(), "training.micro_batch").last_fit);
  CHECK(number(largest(gpt2_xl(), "training.micro_batch", {.step = 4, .up_to = {}}).last_fit) ==
        most / 4 * 4);
  const Boundary bounded = largest(gpt2_xl(), "training.micro_batch", {.step = {}, .up_to = 3});
  CHECK(number(bounded.last_fit) == 3);
  CHECK(!bounded.first_oom.has_value());
  const Boundary positions = largest(gpt2_xl(), "training.sequence_length");
  CHECK(number(positions.last_fit) == 1024);
  CHECK(
      positions.refused_after ==
      "--max training.sequence_length: sequences of 1152 tokens need as many positions; the model has 1024");
}

TEST_CASE("under a fixed global batch the micro-batch divides it") {
  const Boundary b = largest(gpt2_xl({"training.global_batch=60"}), "training.micro_batch");
  const std::int64_t micro = number(b.last_fit);
  CHECK(60 % micro == 0);
  CHECK(b.last_fit->trial.run->global_batch == 60);
  CHECK(b.last_fit->trial.run->grad_accum == 60 / micro);
}

TEST_CASE("no number of GPUs holds T5-11B under DDP, two nodes' worth is never needed under FSDP") {
  const ScenarioFile scenario =
      scenario_of({"model=t5-11b", "topology=a100-80gb-roce-2000", "strategy.kind=ddp"});
  const LimitResult limit = fewest_gpus(scenario, {.step = {}, .up_to = 32}, test_library(), silent);
  REQUIRE(limit.rows.size() >= 3);
  CHECK(limit.rows[0].label == "ddp");  // the scenario's own comes first
  CHECK(limit.rows[0].change.empty());
  CHECK(!limit.rows[0].boundary.last_fit.has_value());
  CHECK(number(limit.rows[0].boundary.first_oom) == 32);
  CHECK(limit.rows[0].boundary.first_oom->trial.floor.exceeds());
  CHECK(std::count_if(limit.rows.begin(), limit.rows.end(),
                      [](const LimitRow& row) { return row.label == "ddp"; }) == 1);
  const auto fsdp = std::find_if(limit.rows.begin(), limit.rows.end(),
                                 [](const LimitRow& row) { return row.label == "fsdp"; });
  REQUIRE(fsdp != limit.rows.end());
  const std::int64_t fewest = number(fsdp->boundary.last_fit);
  CHECK(fewest <= 16);
  for (std::int64_t fewer = 1; fewer < fewest; ++fewer) {  // all of them in one node
    Settings settings = scenario_of({"model=t5-11b", "topology=a100-80gb-roce-2000"}).settings;
    settings = with(settings, "cluster.gpus", fewer, {"test"});
    CHECK(!try_run([&] { return settings; }, test_library()).fits());
  }
}

TEST_CASE("limits that make no sense") {
  CHECK(complaint("training.micro_batc") ==
        "--max training.micro_batc: unknown key \"micro_batc\" in [training]; did you mean \"micro_batch\"?");
  CHECK(complaint("training.dropout") ==
        "--max training.dropout: training.dropout is not an integer; --max needs a key such as "
        "training.micro_batch, training.sequence_length or model.layers");
  CHECK(complaint("training.grad_accum") ==
        "--max training.grad_accum: memory need not grow with training.grad_accum; give the largest value "
        "with --up-to");
  CHECK(complaint("training.micro_batch", {.step = 0, .up_to = {}}) ==
        "--step 0: a positive integer is expected");
  CHECK(complaint("training.micro_batch", {.step = 8, .up_to = 4}) ==
        "--max training.micro_batch: no multiple of 8 is at most 4");
  CHECK(complaint("training.micro_batch", {.step = {}, .up_to = 20000}) ==
        "--max training.micro_batch: there are more than 10000 values up to 20000; give a larger --step");
}

}  // namespace
}  // namespace shardsim
