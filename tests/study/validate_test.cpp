// Does validate compare every row that can be simulated, say why others cannot, and count right?
#include "sim/study/validate.h"

#include <cmath>

#include <doctest/doctest.h>

#include "sim/report/csv.h"
#include "sim/scenario/scenario.h"

#include "tests/support/hardware.h"

namespace shardsim {
namespace {

const std::string header =
    "id,model,topology,cluster.gpus,training.micro_batch,strategy.kind,measured.tokens_per_s_per_gpu,"
    "measured.fits\n";

ValidateResult validate_text(const std::string& rows, const ValidateOptions& options = {}) {
  return validate(MeasuredRuns(read_csv_text(header + rows, "a.csv")), options, test_library(),
                  [](std::size_t, std::size_t) {});
}
std::string complaint(const std::string& rows, const ValidateOptions& options = {}) {
  try {
    validate_text(rows, options);
    return "";
  } catch (const InputError& error) {
    return error.what();
  }
}

TEST_CASE("a row's error is (predicted - measured) / measured") {
  const ValidateResult result = validate_text("a,gpt2,dgx-a100-80gb,8,4,ddp,1000,\n");
  REQUIRE(result.rows.size() == 1);
  REQUIRE(result.rows[0].comparisons.size() == 1);
  const Comparison& c = result.rows[0].comparisons[0];
  CHECK(c.metric == "tokens_per_s_per_gpu");
  CHECK(c.error() == (c.predicted - 1000) / 1000);
  REQUIRE(result.rows[0].log_time_error);
  CHECK(*result.rows[0].log_time_error == doctest::Approx(std::log(1000 / c.predicted)));
  REQUIRE(result.summary.size() == 1);
  CHECK(result.summary[0].mean_abs_error == std::abs(c.error()));
  CHECK(result.summary[0].bias == c.error());
  CHECK(result.fits.rows == 1);  // a run with a throughput ran
  CHECK(result.fits.right == 1);
}

TEST_CASE("a wrong row says why, and the rest are done") {
  const ValidateResult result = validate_text(
      "a,gpt2,dgx-a100-80gb,8,4,ddp,1000,\n"
      "b,gpt2,dgx-a100-80gb,8,4,ddp,200 tok/s,\n"
      "c,gpt3,dgx-a100-80gb,8,4,ddp,1000,\n"
      "d,gpt2,dgx-a100-80gb,12,4,ddp,1000,\n"
      "e,gpt2,dgx-a100-80gb,8,4,ddp\n"
      "f,gpt2,dgx-a100-80gb,8,8,ddp,1000,\n");
  REQUIRE(result.rows.size() == 6);
  CHECK(result.failed == 4);
  CHECK(result.rows[1].why.starts_with("a.csv:3:30: column \"measured.tokens_per_s_per_gpu\" holds"));
  CHECK(result.rows[2].why == "a.csv:4:3: unknown model \"gpt3\"; did you mean \"gpt2\"?");
  CHECK(result.rows[3].why.starts_with("a.csv:5:22: 12 GPUs do not fill nodes of 8"));
  CHECK(result.rows[4].why == "a.csv:6:1: has 6 cells; the header has 8 columns");
  CHECK(status(result.rows[4]) == "failed");
  CHECK(status(result.rows[5]) == "ok");
  CHECK(result.summary[0].simulated == 2);
}

TEST_CASE("only failures: the first reason is the answer") {
  CHECK(complaint("c,gpt3,dgx-a100-80gb,8,4,ddp,1000,\n") ==
        "a.csv:2:3: unknown model \"gpt3\"; did you mean \"gpt2\"?");
}

TEST_CASE("an out-of-memory has no error and counts in fits") {
  const ValidateResult result = validate_text(
      "a,t5-11b,dgx-a100-80gb,8,4,ddp,1000,\n"
      "b,t5-11b,dgx-a100-80gb,8,4,ddp,,0\n"
      "c,gpt2,dgx-a100-80gb,8,4,ddp,,0\n");
  CHECK(status(result.rows[0]) == "oom");
  CHECK(result.rows[0].comparisons.empty());
  CHECK(!result.rows[0].log_time_error);
  CHECK(result.fits.rows == 3);
  CHECK(result.fits.right == 1);
  CHECK(result.fits.predicted_out_of_memory == 1);
  CHECK(result.fits.missed_out_of_memory == 1);
}

TEST_CASE("rows are chosen and grouped by columns") {
  const std::string rows =
      "a,gpt2,dgx-a100-80gb,8,4,ddp,1000,\n"
      "b,gpt2,dgx-a100-80gb,8,4,fsdp,1000,\n";
  const ValidateResult grouped = validate_text(rows, {.by = "strategy.kind", .where = {}});
  REQUIRE(grouped.summary.size() == 3);
  CHECK(grouped.summary[1].group == "ddp");
  const ValidateResult one = validate_text(rows, {.by = {}, .where = {{"strategy.kind", "fsdp"}}});
  REQUIRE(one.rows.size() == 1);
  CHECK(one.rows[0].id == "b");
  CHECK(complaint(rows, {.by = "strategy.knd", .where = {}}) ==
        "--by strategy.knd: a.csv has no such column; did you mean \"strategy.kind\"?");
  CHECK(complaint(rows, {.by = {}, .where = {{"strategy.kind", "zero3"}}}) ==
        "a.csv: no row matches --where");
}

TEST_CASE("columns x.* are carried through to the CSV in their order, also of rows that fail") {
  const ValidateResult result = validate(
      MeasuredRuns(read_csv_text("id,x.run,model,topology,cluster.gpus,x.a note,measured.step_time_s\n"
                                 "a,7,gpt2,dgx-a100-80gb,8,\"one, two\",1\n"
                                 "b,8,gpt3,dgx-a100-80gb,8,,1\n",
                                 "a.csv")),
      {}, test_library(), [](std::size_t, std::size_t) {});
  const std::string csv = to_csv(result);
  CHECK(csv.substr(0, csv.find('\n')) ==
        "id,metric,predicted,measured,error,status,why,quality,source,x.run,x.a note");
  CHECK(csv.find("\na,step_time_s,") != std::string::npos);
  CHECK(csv.find(",ok,,,,7,\"one, two\"\n") != std::string::npos);
  CHECK(csv.ends_with(",8,\n"));
}

TEST_CASE("an overlay holds for every row") {
  const std::string rows = "a,gpt2,dgx-a100-80gb,8,16,ddp,1000,\n";
  ValidateOptions slow;
  slow.overlay = {"o.toml", "[gpu.a100-sxm-80gb]\ntraining_context = 0.5\n"};
  CHECK(validate_text(rows, slow).rows[0].comparisons[0].predicted <
        validate_text(rows).rows[0].comparisons[0].predicted);
}

}  // namespace
}  // namespace shardsim
