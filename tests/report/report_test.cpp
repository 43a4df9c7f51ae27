// Do the reports say what the results hold, in the promised format?
#include <set>
#include <sstream>

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "sim/engine/parallel.h"
#include "sim/report/csv.h"
#include "sim/report/explain.h"
#include "sim/report/json.h"
#include "sim/report/numbers.h"
#include "sim/report/table.h"
#include "sim/report/text.h"

#include "tests/support/hardware.h"
#include "tests/support/scenario_of.h"
#include "tests/support/schema.h"

namespace shardsim {
namespace {

using nlohmann::json;

RunRecord run_of(const std::vector<std::string>& sets) {
  return run(resolve(scenario_of(sets).settings, test_library()));
}
const RunRecord& small_run() {
  static const RunRecord record =
      run_of({"model=t5-small", "topology=a100-80gb-roce-1600", "cluster.gpus=16", "training.micro_batch=4"});
  return record;
}
const RunRecord& oom_run() {
  static const RunRecord record =
      run_of({"model=t5-11b", "topology=dgx-a100-40gb", "cluster.gpus=8", "strategy.kind=ddp"});
  return record;
}
SweepResult small_sweep() {
  const ScenarioFile scenario = read_scenario_text(
      "model = \"gpt2\"\ntopology = \"dgx-a100-80gb\"\n[cluster]\ngpus = 8\n[training]\nsequence_length = "
      "64\n"
      "[sweep]\n\"strategy.sharding_factor\" = [1, 3, 8]\n",
      "sweep.toml");
  return sweep(scenario, test_library(), {}, [](std::size_t, std::size_t, const std::string&) {});
}

TEST_CASE("every JSON output satisfies its published schema") {
  const Tool tool{"0.1.0", "abc"};
  CHECK(violation(to_json(small_run(), tool), "run") == "");
  CHECK(violation(to_json(oom_run(), tool), "run") == "");
  CHECK(violation(to_json(small_sweep(), tool), "sweep") == "");
  CHECK(violation(to_json(small_run().values, tool), "check") == "");
  CHECK(violation("{}", "run") != "");  // the schema has teeth
  CHECK(schema("no such command").empty());
}

TEST_CASE("a sweep is the same bytes on any number of threads") {
  const auto sweep_on = [](int threads) {
    SweepResult result;
    with_threads(threads, [&] { result = small_sweep(); });
    for (SweepRow& row : result.rows)
      if (row.run) row.run->wall_s = 0;
    return std::pair(to_json(result, {"0.1.0", "abc"}), to_csv(result));
  };
  const auto alone = sweep_on(1);
  for (const int threads : {2, 5}) CHECK(sweep_on(threads) == alone);
}

TEST_CASE("the JSON of a run holds the result's numbers, and its parts sum") {
  const json j = json::parse(to_json(small_run(), {"0.1.0", "abc"}));
  CHECK(j["schema"] == "shardsim.run/1");
  CHECK(j["status"] == "ok");
  CHECK(j["oom"].is_null());
  double total = 0;
  for (const auto& part : j["breakdown_s"]) total += part.get<double>();
  CHECK(total == doctest::Approx(j["step_time_s"].get<double>()));
  std::int64_t bytes = 0;
  for (const auto& part : j["memory_at_peak"]) bytes += part.get<std::int64_t>();
  CHECK(bytes == j["memory_bytes"]["peak_allocated"]);
  CHECK(j["mfu"].get<double>() == doctest::Approx(j["tflops_per_gpu"]["model"].get<double>() / 312));
  CHECK(j["tokens_per_s_per_gpu"].get<double>() ==
        doctest::Approx(j["encoder_tokens_per_s_per_gpu"].get<double>() +
                        j["decoder_tokens_per_s_per_gpu"].get<double>()));
  CHECK(j["samples_per_s"].get<double>() == doctest::Approx(64 / j["step_time_s"].get<double>()));
  CHECK(j["scenario"]["cluster.gpus"]["value"] == 16);
  CHECK(j["scenario"]["cluster.gpus"]["origin"] == "--set cluster.gpus=16");
  CHECK(j["engine"]["rank_classes"] == 1);
}

const RunRecord& explained_run() {
  static const RunRecord record = [] {
    const ScenarioFile file =
        scenario_of({"model=gpt2", "topology=dgx-a100-80gb", "cluster.gpus=16", "training.micro_batch=4",
                     "training.grad_accum=2", "jitter.step_sigma=0.01", "straggler[0].gpu=3",
                     "straggler[0].compute_scale=0.7"});
    return run(resolve(file.settings, test_library()), {.critical_path = true});
  }();
  return record;
}

TEST_CASE("the critical path in JSON satisfies the schema and sums to the step; unasked, it is not there") {
  const std::string document = to_json(explained_run(), {"0.1.0", "abc"});
  CHECK(violation(document, "run") == "");
  const json j = json::parse(document);
  double total = 0;
  std::set<std::string> kinds;
  for (const json& part : j["critical_path"]) {
    total += part["time_s"].get<double>();
    kinds.insert(part["kind"]);
    CHECK(part["latency_s"].get<double>() + part["slowed_s"].get<double>() <= part["time_s"].get<double>());
    CHECK(part["reason"] != "");
  }
  CHECK(total == doctest::Approx(j["step_time_s"].get<double>()));
  for (const char* kind : {"compute", "straggler", "jitter"}) CHECK(kinds.count(kind) == 1);
  CHECK_FALSE(json::parse(to_json(small_run(), {"0.1.0", "abc"})).contains("critical_path"));
}

TEST_CASE("the explanation names every part of the step, and what is in the way") {
  const std::string text = explain_step(explained_run());
  CHECK(text.find("kernels of forward and backward run") != std::string::npos);
  CHECK(text.find("rank 3") != std::string::npos);
  CHECK(text.find("what would help") != std::string::npos);
  CHECK(text.find("0 ... 11") != std::string::npos);  // the blocks, in one line
  CHECK(text.find("(rank 3)") != std::string::npos);
  const Breakdown& b = explained_run().result.breakdown;
  for (int k = 0; k < spent_kinds; ++k)
    if (b[static_cast<std::size_t>(k)].count > 0)
      CHECK(text.find(with_spaces(name(static_cast<Spent>(k))).substr(0, 7)) != std::string::npos);
}

// 6 N T and the attention term by hand: gpt2 has 12 layers of 768, the tied head 50257 x 768.
TEST_CASE("the definitions of MFU come with numbers that give it") {
  const RunRecord& run = explained_run();
  const FlopAccount& f = run.flops;
  const double tokens = 4.0 * 2 * 1024;
  CHECK(static_cast<double>(f.tokens) == tokens);
  const double weights = 12.0 * 12 * 768 * 768 + 50257.0 * 768;
  CHECK(f.forward_linear.count == doctest::Approx(2 * weights * tokens / 2));
  CHECK(f.forward_attention.count == doctest::Approx(4.0 * 12 * 768 * 1024 * tokens / 2));
  CHECK(f.model.count == doctest::Approx(3 * 2 * (f.forward_linear.count + f.forward_attention.count)));
  const json j = json::parse(to_json(run, {"0.1.0", "abc"}));
  CHECK(j["mfu"].get<double>() ==
        doctest::Approx(j["flops_per_gpu"]["model"].get<double>() / j["step_time_s"].get<double>() /
                        (j["peak_tflops"]["value"].get<double>() * 1e12)));
  const std::string text = explain_mfu(run);
  CHECK(text.find(fmt::format("{:.1f}%", 100 * j["mfu"].get<double>())) != std::string::npos);
  CHECK(text.find("8,192") != std::string::npos);
}

TEST_CASE("running out of memory is an answer with its evidence") {
  const json j = json::parse(to_json(oom_run(), {"0.1.0", "abc"}));
  CHECK(j["status"] == "oom");
  CHECK(j["step_time_s"].is_null());
  CHECK(j["oom"]["phase"] == "init");
  CHECK(j["oom"]["requested_bytes"].get<std::int64_t>() > j["oom"]["free_bytes"].get<std::int64_t>());
  CHECK(j["oom"]["largest_live"].size() > 0);
  CHECK(j["oom"]["limit_bytes"].get<std::int64_t>() ==
        j["oom"]["reserved_bytes"].get<std::int64_t>() + j["oom"]["free_bytes"].get<std::int64_t>());
  std::int64_t live = 0;
  for (const auto& bytes : j["oom"]["live_bytes"]) live += bytes.get<std::int64_t>();
  CHECK(live == j["oom"]["allocated_bytes"]);
  const std::string text = to_text(oom_run());
  CHECK(text.find("OUT OF MEMORY") != std::string::npos);
  CHECK(text.find("largest tensors") != std::string::npos);
}

TEST_CASE("a memory timeline satisfies its schema, and its columns give back every row") {
  const ScenarioFile file = scenario_of({"model=t5-small", "topology=dgx-a100-80gb", "cluster.gpus=8"});
  MemoryTimeline memory;
  const RunRecord record = run(resolve(file.settings, test_library()), {.memory = &memory});
  const std::string document = to_json(memory, record, {"0.1.0", "abc"});
  CHECK(violation(document, "memory-timeline") == "");
  const json j = json::parse(document);
  const auto column = [&](const json& deltas) {
    std::vector<std::int64_t> values;
    for (const json& d : deltas)
      values.push_back((values.empty() ? 0 : values.back()) + d.get<std::int64_t>());
    REQUIRE(values.size() == memory.rows.size());
    return values;
  };
  CHECK(j["rows"] == memory.rows.size());
  const json& columns = j["columns"];
  const auto time = column(columns["time_ps"]), step = column(columns["step"]),
             allocated = column(columns["allocated_bytes"]), active = column(columns["active_bytes"]),
             reserved = column(columns["reserved_bytes"]),
             parameters = column(columns["live_bytes"]["parameters"]);
  std::istringstream csv(to_csv(memory));
  std::string line;
  std::getline(csv, line);
  CHECK(line.starts_with("step,time_ps,allocated_bytes,active_bytes,reserved_bytes,parameters_bytes,"));
  for (std::size_t i = 0; i < memory.rows.size(); ++i) {
    const MemoryRow& row = memory.rows[i];
    REQUIRE(time[i] == row.at.count);
    REQUIRE(step[i] == row.step);
    REQUIRE(allocated[i] == row.allocated.count);
    REQUIRE(active[i] == row.active.count);
    REQUIRE(reserved[i] == row.reserved.count);
    REQUIRE(parameters[i] == row.live[static_cast<std::size_t>(Category::parameters)].count);
    std::getline(csv, line);
    std::ostringstream expected;
    expected << step[i] << ',' << time[i] << ',' << allocated[i] << ',' << active[i] << ',' << reserved[i]
             << ',' << parameters[i] << ',';
    REQUIRE(line.starts_with(expected.str()));
  }
  CHECK_FALSE(std::getline(csv, line));
}

TEST_CASE("the text of a run names its units") {
  const std::string text = to_text(small_run());
  for (const char* part : {"t5-small on 16 x a100-sxm-80gb", "model TFLOPS", "hardware TFLOPS", "MFU", "GiB",
                           "bus GB/s", "tokens/s", "global batch     64 sequences"})
    CHECK_MESSAGE(text.find(part) != std::string::npos, part);
  for (std::size_t at = text.find("TFLOPS"); at != std::string::npos; at = text.find("TFLOPS", at + 1)) {
    const std::string before = text.substr(0, at);
    CHECK((before.ends_with("model ") || before.ends_with("hardware ")));  // never plain TFLOPS
  }
}

TEST_CASE("tables align numbers right and words left") {
  CHECK(to_text(Table{{"name", "n"}, {{"a", "1"}, {"longer", "1,000"}}}) ==
        "name        n\n"
        "------  -----\n"
        "a           1\n"
        "longer  1,000\n");
  CHECK(to_text(Table{{"name", "long\nn"}, {{"a", "1"}}}) ==
        "      long\n"
        "name     n\n"
        "----  ----\n"
        "a        1\n");
}

TEST_CASE("a sweep's table has a row per combination, illegal ones with their reason") {
  const std::string text = to_text(small_sweep());
  CHECK(text.find("illegal") != std::string::npos);
  CHECK(text.find("a sharding factor of 3 does not divide 8 GPUs") != std::string::npos);
}

TEST_CASE("CSV has one header, a cell per column, and quotes what needs it") {
  const std::string csv = to_csv(small_sweep());
  std::istringstream lines(csv);
  std::string line;
  std::vector<std::size_t> commas;
  while (std::getline(lines, line)) {
    std::size_t count = 0;
    bool quoted = false;
    for (const char c : line) {
      if (c == '"') quoted = !quoted;
      if (c == ',' && !quoted) ++count;
    }
    commas.push_back(count);
  }
  REQUIRE(commas.size() == 4);
  for (const std::size_t c : commas) CHECK(c == commas.front());
  CHECK(csv.starts_with("model,model.name,"));
  CHECK(csv.find("simulated.tokens_per_s_per_gpu") != std::string::npos);
  CHECK(to_csv(oom_run()).find("oom,0,") != std::string::npos);
}

}  // namespace
}  // namespace shardsim
