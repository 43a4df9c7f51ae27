// Does a table of measured runs say what is wrong with it, in the words of the table, and where?
#include "sim/scenario/measured_runs.h"

#include <doctest/doctest.h>

#include "sim/scenario/scenario.h"

#include "tests/support/hardware.h"

namespace shardsim {
namespace {

MeasuredRuns runs(const std::string& text) { return MeasuredRuns(read_csv_text(text, "a.csv")); }

// What the table, its first row or the scenario of that row complains of; "" if it is fine.
std::string complaint(const std::string& text) {
  try {
    resolve(runs(text).run(0).settings, test_library());
    return "";
  } catch (const InputError& error) {
    return error.what();
  }
}

const std::string header = "id,model,topology,cluster.gpus,measured.tokens_per_s_per_gpu";

TEST_CASE("a good row has no complaint") {
  CHECK(complaint(header + "\na,gpt2,dgx-a100-80gb,8,1000\n") == "");
}

TEST_CASE("columns that are missing, doubled, unknown or without a name") {
  CHECK(complaint("id,topology,measured.fits\na,single-gpu,1\n") ==
        "a.csv:1:1: no column \"model\" or \"model.*\": which model ran?");
  CHECK(complaint("id,model,measured.fits\na,gpt2,1\n") ==
        "a.csv:1:1: no column \"topology\" or \"topology.*\": on which cluster?");
  CHECK(complaint("id,model,topology\na,gpt2,single-gpu\n") ==
        "a.csv:1:1: no column \"measured.*\", such as measured.step_time_s, measured.tokens_per_s_per_gpu, "
        "measured.peak_reserved_gib or measured.fits");
  CHECK(complaint(header + ",cluster.gpus\na,gpt2,dgx-a100-80gb,8,1000,8\n") ==
        "a.csv:1:62: column \"cluster.gpus\" stands here twice; its first is column 19 of the line");
  CHECK(complaint(header + ",gpus\na,gpt2,dgx-a100-80gb,8,1000,8\n") ==
        "a.csv:1:62: unknown column \"gpus\"; columns are dotted keys of a scenario, id, source, quality, "
        "notes, x.*; did you mean \"cluster.gpus\"?");
  CHECK(complaint(header + ",measured.tokens_per_s\na,gpt2,dgx-a100-80gb,8,1000,8\n")
            .starts_with("a.csv:1:62: unknown key \"tokens_per_s\" in [measured]"));
  CHECK(complaint(header + ",,\na,gpt2,dgx-a100-80gb,8,1000,8,\n") == "a.csv:1:62: a column has no name");
  CHECK(complaint(header + "\n") == "a.csv:1:1: has columns but no rows");
}

TEST_CASE("columns that only carry text do not matter") {
  CHECK(complaint(header + ",x.anything,simulated.fits,notes\na,gpt2,dgx-a100-80gb,8,1000,200 tok/s,?,-\n") ==
        "");
}

TEST_CASE("a cell that is no number names its column") {
  CHECK(complaint(header + "\na,gpt2,dgx-a100-80gb,eight,1000\n") ==
        "a.csv:2:22: column \"cluster.gpus\" holds \"eight\"; an integer is expected");
  CHECK(complaint(header + "\na,gpt2,dgx-a100-80gb,8,fast\n") ==
        "a.csv:2:24: column \"measured.tokens_per_s_per_gpu\" holds \"fast\"; a number is expected");
  CHECK(complaint(header + "\na,gpt2,dgx-a100-80gb,8,\"1,000\"\n") ==
        "a.csv:2:24: column \"measured.tokens_per_s_per_gpu\" holds \"1,000\"; a number is expected");
  CHECK(complaint(header + "\na,gpt2,dgx-a100-80gb,8.5,1000\n") ==
        "a.csv:2:22: cluster.gpus is 8.5; an integer is expected");
  CHECK(complaint(header + "\na,gpt2,dgx-a100-80gb,8,-1\n") ==
        "a.csv:2:24: measured.tokens_per_s_per_gpu is -1; a value from 1e-09 to 1000000000000 is expected");
}

TEST_CASE("a unit belongs in the column's name") {
  CHECK(complaint(header + "\na,gpt2,dgx-a100-80gb,8,200 tok/s\n") ==
        "a.csv:2:24: column \"measured.tokens_per_s_per_gpu\" holds \"200 tok/s\"; a number is expected, "
        "without "
        "a unit, which belongs in the column's name: 200");
  CHECK(complaint(header + ",measured.peak_reserved_gib\na,gpt2,dgx-a100-80gb,8,1000,8.5 GiB\n") ==
        "a.csv:2:29: column \"measured.peak_reserved_gib\" holds \"8.5 GiB\"; a number is expected, without "
        "a unit, "
        "which belongs in the column's name: 8.5");
  CHECK(complaint(header + "\na,gpt2,dgx-a100-80gb,8x,1000\n") ==
        "a.csv:2:22: column \"cluster.gpus\" holds \"8x\"; an integer is expected, without a unit, which "
        "belongs in "
        "the column's name: 8");
}

TEST_CASE("a row as long as its header") {
  CHECK(complaint(header + "\na,gpt2,dgx-a100-80gb,8\n") ==
        "a.csv:2:1: has 4 cells; the header has 5 columns");
  CHECK(complaint(header + "\n\na,gpt2,dgx-a100-80gb,8,1,2\n") ==
        "a.csv:3:1: has 6 cells; the header has 5 columns");
}

TEST_CASE("rows that contradict themselves say so at the cell") {
  CHECK(complaint(header + ",strategy.kind,strategy.sharding_factor\na,gpt2,dgx-a100-80gb,8,1000,fsdp,3\n")
            .starts_with("a.csv:2:34: "));
  CHECK(complaint(header + ",training.micro_batch,training.grad_accum,training.global_batch\n"
                           "a,gpt2,dgx-a100-80gb,8,1000,2,3,50\n") ==
        "a.csv:2:33: a micro-batch of 2, 3 micro-steps and 8 GPUs make a global batch of 48, not 50");
}

TEST_CASE("numbers and flags as pandas writes them") {
  const MeasuredRuns table =
      runs(header + ",training.gradient_clipping,measured.fits\na,gpt2,dgx-a100-80gb,8.0,1000,True,1\n");
  const Settings settings = table.run(0).settings;
  CHECK(settings.find("cluster.gpus")->value == Scalar(std::int64_t{8}));
  CHECK(settings.find("training.gradient_clipping")->value == Scalar(true));
  CHECK(settings.find("measured.fits")->value == Scalar(true));
}

TEST_CASE("a row without an id goes by its line") {
  CHECK(runs("model,topology,measured.fits\n\ngpt2,single-gpu,1\n").id(0) == "line 3");
}

TEST_CASE("100,000 rows are taken in") {
  std::string text = header + "\n";
  for (int i = 0; i < 100'000; ++i) text += "a,gpt2,dgx-a100-80gb,8,1000\n";
  const MeasuredRuns table = runs(text);
  CHECK(table.size() == 100'000);
  CHECK(table.run(99'999).settings.find("cluster.gpus")->value == Scalar(std::int64_t{8}));
}

}  // namespace
}  // namespace shardsim
