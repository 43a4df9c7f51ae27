// Is the frontier read from the right axes, and does it say when there is none?
#include "sim/study/frontier.h"

#include <doctest/doctest.h>

#include "tests/support/hardware.h"
#include "tests/support/scenario_of.h"

namespace shardsim {
namespace {

FrontierResult frontier_of(ScenarioFile scenario, const std::string& over) {
  return frontier(std::move(scenario), over, test_library(), [](const std::string&) {});
}
ScenarioFile mpt_7b(const std::vector<std::string>& more = {}) {
  std::vector<std::string> sets{"model=mpt-7b", "topology=dgx-a100-40gb", "cluster.gpus=16"};
  sets.insert(sets.end(), more.begin(), more.end());
  return scenario_of(sets);
}
std::string complaint(const std::string& over) {
  try {
    frontier_of(mpt_7b(), over);
    return "";
  } catch (const InputError& error) {
    return error.what();
  }
}
std::int64_t last(const FrontierRow& row) { return std::get<std::int64_t>(row.boundary.last_fit->value); }

TEST_CASE("the longest sequences shrink as the micro-batch grows") {
  const FrontierResult f =
      frontier_of(mpt_7b(), "training.micro_batch=[1, 4, 8],training.sequence_length=256..2048 +256");
  REQUIRE(f.rows.size() == 3);
  CHECK(f.rows[0].label == "1");
  CHECK(last(f.rows[0]) == 2048);
  CHECK(!f.rows[0].boundary.first_oom.has_value());
  CHECK(last(f.rows[1]) < 2048);
  CHECK(last(f.rows[2]) <= last(f.rows[1]));
  CHECK(!f.everything_fits());
  CHECK(!f.nothing_fits());
}

TEST_CASE("along the sharding factor the boundary is the smallest value that fits") {
  const FrontierResult f = frontier_of(mpt_7b(), "training.micro_batch=[1,3],strategy.sharding_factor");
  CHECK(f.smallest);
  REQUIRE(f.rows.size() == 2);
  CHECK(last(f.rows[0]) == 4);
  CHECK(f.rows[0].boundary.first_oom->value == Scalar(std::int64_t{2}));
  CHECK(last(f.rows[1]) == 16);
}

TEST_CASE("where all or none fit it says so") {
  const std::string over = "training.micro_batch=1..2,training.sequence_length=[128,256]";
  CHECK(frontier_of(mpt_7b(), over).everything_fits());
  CHECK(frontier_of(mpt_7b({"strategy.kind=ddp"}), over).nothing_fits());
}

TEST_CASE("values come from the scenario's axes, and choices from the table of keys") {
  ScenarioFile scenario = read_scenario_text(
      "model = \"mpt-7b\"\ntopology = \"dgx-a100-40gb\"\ncluster.gpus = 16\n"
      "[sweep]\n\"training.micro_batch\" = [2, 6]\n\"training.dropout\" = [0.0, 0.1]\n",
      "a.toml");
  CHECK_THROWS_WITH_AS(
      frontier_of(scenario, "training.activation_checkpointing,training.micro_batch"),
      "a.toml:6:22: this scenario is a sweep of 2 runs, the first with training.dropout = 0; "
      "pin every other axis with --set",
      InputError);
  assign(scenario, "training.dropout=0.0");
  const FrontierResult f = frontier_of(scenario, "training.activation_checkpointing,training.micro_batch");
  CHECK(f.values == std::vector<Scalar>{std::int64_t{2}, std::int64_t{6}});
  CHECK(f.rows.front().label == "none");
  CHECK(last(f.rows.front()) == 2);
}

TEST_CASE("frontiers that make no sense") {
  CHECK(complaint("training.micro_batch") ==
        "--over training.micro_batch: two keys are expected, separated by a comma: "
        "training.micro_batch,training.sequence_length");
  CHECK(complaint("training.micro_batc,model.layers") ==
        "--over training.micro_batc,model.layers: unknown key \"micro_batc\" in [training]; did you mean "
        "\"micro_batch\"?");
  CHECK(complaint("training.micro_batch=[],model.layers") ==
        "--over training.micro_batch=[],model.layers: axis \"training.micro_batch\" has no values");
  CHECK(
      complaint("training.micro_batch=4..1,model.layers") ==
      "--over training.micro_batch=4..1,model.layers: \"4..1\" is not a range; \"8..512 x2\" or \"1..8 +1\" "
      "is expected");
  CHECK(
      complaint("training.micro_batch,strategy.kind=[ddp,fsdp]") ==
      "--over training.micro_batch,strategy.kind=[ddp,fsdp]: the boundary is searched along the second key, "
      "which must be an integer; strategy.kind = ddp is not");
  CHECK(complaint("model.layers,model.layers") ==
        "--over model.layers,model.layers: model.layers is given twice");
  CHECK(
      complaint("model.layers,model.hidden") ==
      "--over model.layers,model.hidden: model.hidden has no usual values; give them: model.hidden=1..64 or "
      "model.hidden=[1,2,4]");
  CHECK(
      complaint("training.micro_batch=0..2,model.layers") ==
      "--over training.micro_batch=0..2,model.layers: training.micro_batch is 0; a value from 1 to 10000000 "
      "is expected");
}

}  // namespace
}  // namespace shardsim
