// Do the intervals follow the errors of similar runs, say what is extrapolated, and hold what they promise?
#include "sim/study/confidence.h"

#include <cmath>

#include <doctest/doctest.h>

#include "sim/scenario/scenario.h"
#include "sim/study/validate.h"

#include "tests/support/hardware.h"
#include "tests/support/scenario_of.h"

namespace shardsim {
namespace {

RunRecord small(std::vector<std::string> sets = {}) {
  sets.insert(sets.begin(), {"model=gpt2", "topology=dgx-a100-80gb", "cluster.gpus=8", "strategy.kind=ddp"});
  return run(resolve(scenario_of(sets).settings, test_library()));
}
Residual like(const RunRecord& run, double log_error) { return {"r", "t", "good", features(run), log_error}; }
bool says(const Confidence& c, const std::string& text) {
  return std::find(c.extrapolating.begin(), c.extrapolating.end(), text) != c.extrapolating.end();
}

TEST_CASE("distance is a symmetric sum, zero between equals") {
  const RunFeatures a = features(small()), b = features(small({"cluster.gpus=16", "strategy.kind=fsdp"}));
  CHECK(distance(a, a) == 0);
  CHECK(distance(a, b) == distance(b, a));
  CHECK(distance(a, b) > 0.8);
}

TEST_CASE("without residuals there is no interval, nor for an out-of-memory") {
  CHECK(!confidence(small(), {}));
  const RunRecord oom = run(resolve(
      scenario_of({"model=t5-11b", "topology=dgx-a100-80gb", "cluster.gpus=8", "strategy.kind=ddp"}).settings,
      test_library()));
  CHECK(!confidence(oom, {like(small(), 0)}));
}

TEST_CASE("runs that all were predicted 20% too slow put the interval below the prediction, up to it") {
  const RunRecord run = small();
  const std::vector<Residual> rows(30, like(run, std::log(1.2)));
  const std::optional<Confidence> c = confidence(run, rows);
  REQUIRE(c);
  const double step = seconds(run.result.step_time);
  CHECK(c->step_time_low_s == doctest::Approx(step / 1.2 * std::exp(-0.02)));
  CHECK(c->step_time_high_s == step);
  CHECK(c->extrapolating.empty());
  CHECK(c->basis == "errors of the 24 most similar of 30 validated runs: 24 of t");
}

TEST_CASE("an interval is wider the further the nearest run") {
  const RunRecord run = small();
  std::vector<Residual> rows;
  for (int i = -10; i <= 10; ++i) rows.push_back(like(run, 0.01 * i));
  const Confidence near = *confidence(run, rows);
  for (Residual& r : rows) r.features.generation = "volta";
  const Confidence far = *confidence(run, rows);
  CHECK(far.step_time_low_s < near.step_time_low_s);
  CHECK(far.step_time_high_s > near.step_time_high_s);
  CHECK(says(far, "a100-sxm-80gb: no GPU of its generation validated"));
}

TEST_CASE("what no validated run has is named") {
  const std::vector<Residual> rows = {like(small(), 0)};
  CHECK(says(*confidence(small({"cluster.gpus=128"}), rows),
             "128 GPUs: validated up to 8 with replicated parameters"));
  CHECK(says(*confidence(small({"strategy.kind=zero3"}), rows), "zero3 time: not validated"));
  CHECK(says(*confidence(small({"training.activation_checkpointing=full"}), rows),
             "checkpointing full: not validated"));
}

TEST_CASE("outliers do not count") {
  std::vector<Residual> rows = {like(small(), 0)};
  rows[0].quality = "outlier";
  CHECK(!confidence(small(), rows));
}

TEST_CASE("residuals are read back as written") {
  std::vector<Residual> rows = {like(small(), -0.125), like(small({"strategy.kind=fsdp"}), 0.5)};
  rows[0].id = "a, \"b\"";
  const std::string text = to_csv(rows);
  CHECK(to_csv(read_residuals(read_csv_text(text, "r.csv"))) == text);
  CHECK_THROWS_AS(read_residuals(read_csv_text("id,table\n1,2\n", "r.csv")), InputError);
}

// --- the file that ships ---

TEST_CASE("the shipped residuals are those of the shipped constants: a sample of them is computed again") {
  const std::vector<Residual> shipped = read_residuals(test_library());
  REQUIRE(shipped.size() > 100);
  for (const std::string& name : validation_tables(test_library())) {
    const MeasuredRuns table(read_csv_file(test_library().find_table(name)));
    std::size_t checked = 0;
    for (std::size_t row = 0; row < table.size() && checked < 4; row += 9) {
      const MeasuredRun measured = table.run(row);
      const Scenario scenario = resolve(measured.settings, test_library());
      if (scenario.training.micro_batches > 8) continue;  // long to simulate
      const RunRecord run = shardsim::run(scenario);
      const std::optional<double> error = log_time_error(run.comparisons);
      if (!error) continue;
      const std::string stem = name.substr(name.rfind('/') + 1);
      const auto found = std::find_if(shipped.begin(), shipped.end(), [&](const Residual& r) {
        return r.id == measured.id && r.table == stem;
      });
      INFO(name << " " << measured.id << ": run `shardsim validate --residuals -o "
                << "scenarios/validation/residuals.csv`");
      REQUIRE(found != shipped.end());
      CHECK(std::abs(found->log_error - *error) < 0.005);
      ++checked;
    }
  }
}

TEST_CASE("90% intervals hold about 90% of the runs they have not seen") {
  const std::vector<Residual> shipped = read_residuals(test_library());
  const double row = coverage(shipped, LeaveOut::row), model = coverage(shipped, LeaveOut::model);
  INFO("left out: each row " << row << ", its model " << model);
  CHECK(row >=
        0.80);  // the sampling error of 90% over 150 rows is 2.5%, and rows of a table are not independent
  CHECK(row <= 0.99);
  CHECK(model >= 0.70);
}

}  // namespace
}  // namespace shardsim
