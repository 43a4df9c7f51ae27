// Does a sweep run exactly the product of its axes, in order, and survive what is illegal?
#include "sim/study/sweep.h"

#include <doctest/doctest.h>

#include "tests/support/hardware.h"

namespace shardsim {
namespace {

const std::string base = R"(model = "gpt2"
topology = "dgx-a100-80gb"
[cluster]
gpus = 8
[training]
sequence_length = 128
)";

SweepResult sweep_of(const std::string& text) {
  return sweep(read_scenario_text(base + text, "a.toml"), test_library(), {},
               [](std::size_t, std::size_t, const std::string&) {});
}
std::string complaint(const std::string& text) {
  try {
    sweep_of(text);
    return "";
  } catch (const InputError& error) {
    return error.what();
  }
}
std::vector<std::string> points(const SweepResult& r) {
  std::vector<std::string> all;
  for (const SweepRow& row : r.rows) {
    std::string text;
    for (const std::string& p : row.point) text += (text.empty() ? "" : "|") + p;
    all.push_back(text);
  }
  return all;
}

TEST_CASE("the first axis of the file varies slowest") {
  const SweepResult r = sweep_of("[sweep]\n\"training.micro_batch\" = [2, 1]\n\"cluster.gpus\" = [8, 4]\n");
  CHECK(r.axes == std::vector<std::string>{"training.micro_batch", "cluster.gpus"});
  CHECK(points(r) == std::vector<std::string>{"2|8", "2|4", "1|8", "1|4"});
  CHECK(r.rows[1].run->gpus == 4);
  CHECK(r.rows[1].run->micro_batch == 2);
}

TEST_CASE("a value from the command line pins the axes that vary it") {
  const auto pinned = [](const std::vector<std::string>& sets) {
    ScenarioFile scenario =
        read_scenario_text(base +
                               "[sweep]\n\"training.micro_batch\" = [2, 1]\n"
                               "\"strategy\" = [{kind = \"ddp\"}, {kind = \"fsdp\", sharding_factor = 1}, "
                               "{kind = \"fsdp\", sharding_factor = 8}]\n",
                           "a.toml");
    for (const std::string& set : sets) assign(scenario, set);
    return points(sweep(scenario, test_library(), {}, [](std::size_t, std::size_t, const std::string&) {}));
  };
  CHECK(pinned({"training.micro_batch=4"}) == std::vector<std::string>{"ddp", "fsdp 1", "fsdp 8"});
  CHECK(pinned({"training.micro_batch=4", "strategy.kind=fsdp"}) ==
        std::vector<std::string>{"fsdp 1", "fsdp 8"});
  CHECK(pinned({"training.micro_batch=4", "strategy.sharding_factor=8"}) ==
        std::vector<std::string>{"fsdp 8"});
  CHECK(pinned({"training.dropout=0.5"}).size() == 6);
  CHECK_THROWS_WITH_AS(pinned({"strategy.sharding_factor=4"}),
                       "--set strategy.sharding_factor=4: no point of axis \"strategy\" has "
                       "strategy.sharding_factor = 4; they are: ddp, fsdp 1, fsdp 8",
                       InputError);
}

TEST_CASE("ranges multiply or add") {
  CHECK(points(sweep_of("[sweep]\n\"cluster.gpus\" = \"1..8 x2\"\n")) ==
        std::vector<std::string>{"1", "2", "4", "8"});
  CHECK(points(sweep_of("[sweep]\n\"training.micro_batch\" = \"1..3\"\n")) ==
        std::vector<std::string>{"1", "2", "3"});
  CHECK(points(sweep_of("[sweep]\n\"training.micro_batch\" = \"1..8 +3\"\n")) ==
        std::vector<std::string>{"1", "4", "7"});
}

TEST_CASE("a point may set several keys") {
  const SweepResult r =
      sweep_of("[sweep]\n\"strategy\" = [{kind = \"ddp\"}, {kind = \"fsdp\", sharding_factor = 2}]\n");
  CHECK(points(r) == std::vector<std::string>{"ddp", "fsdp 2"});
  CHECK(r.rows[0].run->strategy == "ddp");
  CHECK(r.rows[1].run->strategy == "fsdp F=2");
}

TEST_CASE("skip rules leave out combinations in which every key matches") {
  const SweepResult r = sweep_of(
      "[sweep]\n\"training.micro_batch\" = [1, 2, 3]\n\"cluster.gpus\" = [4, 8]\n"
      "[[sweep.skip]]\n\"training.micro_batch\" = [1, 3]\n\"cluster.gpus\" = 8\n");
  CHECK(points(r) == std::vector<std::string>{"1|4", "2|4", "2|8", "3|4"});
}

TEST_CASE("a sweep over GPUs is weak scaling, or strong if the global batch is fixed") {
  CHECK(sweep_of("[sweep]\n\"cluster.gpus\" = [4, 8]\n").scaling == "weak");
  CHECK(sweep_of("global_batch = 16\n[sweep]\n\"cluster.gpus\" = [4, 8]\n").scaling == "strong");
  CHECK(sweep_of("[sweep]\n\"training.micro_batch\" = [1]\n").scaling == "");
}

TEST_CASE("an illegal combination is a row with its reason, the others run") {
  const SweepResult r = sweep_of("[sweep]\n\"strategy.sharding_factor\" = [4, 5]\n");
  REQUIRE(r.rows.size() == 2);
  CHECK(r.rows[0].run.has_value());
  CHECK(r.rows[1].error == "a.toml:8:34: a sharding factor of 5 does not divide 8 GPUs; 4 or 8 do");
}

TEST_CASE("sweeps that make no sense") {
  CHECK(complaint("[sweep]\n\"cluster.gpu\" = [4]\n") ==
        "a.toml:8:18: unknown key \"gpu\" in [cluster]; did you mean \"gpus\"?");
  CHECK(complaint("[sweep]\n\"cluster.gpus\" = []\n") == "a.toml:8:18: axis \"cluster.gpus\" has no values");
  CHECK(complaint("[sweep]\n\"cluster.gpus\" = 8\n") ==
        "a.toml:8:18: axis \"cluster.gpus\" needs a list or a range such as \"8..512 x2\"");
  CHECK(complaint("[sweep]\n\"cluster.gpus\" = \"8..4\"\n") ==
        "a.toml:8:18: \"8..4\" is not a range; \"8..512 x2\" or \"1..8 +1\" is expected");
  CHECK(complaint("[sweep]\n\"training.micro_batch\" = \"1..9999999\"\n") ==
        "a.toml:8:26: \"1..9999999\" has more than 10000 values");
  CHECK(
      complaint("[sweep]\n\"training.micro_batch\" = \"1..5000\"\n\"training.grad_accum\" = \"1..5000\"\n") ==
      "a.toml:9:25: the sweep has more than 100000 combinations");
  CHECK(
      complaint("[sweep]\n\"training.micro_batch\" = [1]\n[[sweep.skip]]\n\"training.micro_batch\" = 1\n") ==
      "the sweep skips every combination");
  CHECK(complaint("[sweep]\n\"strategy.sharding_factor\" = [5]\n") ==
        "a.toml:8:31: a sharding factor of 5 does not divide 8 GPUs; 4 or 8 do");
}

}  // namespace
}  // namespace shardsim
