// Does a calibration find the constants that made the data, and refuse what the data cannot tell?
#include "sim/study/calibrate.h"

#include <cmath>

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "sim/base/random.h"
#include "sim/report/json.h"
#include "sim/report/text.h"
#include "sim/scenario/scenario.h"

#include "tests/support/hardware.h"
#include "tests/support/scenario_of.h"
#include "tests/support/schema.h"
#include "tests/support/seed.h"

namespace shardsim {
namespace {

constexpr const char* context = "gpu.a100-sxm-40gb.training_context";
constexpr const char* efficiency = "transport.roce.efficiency";
const std::string header =
    "id,quality,model,topology,cluster.gpus,training.micro_batch,training.sequence_length,strategy.kind,"
    "measured.tokens_per_s_per_gpu\n";

// Uniform in [-1, 1].
double uniform(Random& random) { return static_cast<double>(random.between(-1'000'000, 1'000'000)) * 1e-6; }

// A table of runs on one and on several nodes, "measured" by the simulator itself under other constants.
std::string synthetic(const std::string& truth, double noise, int outliers, std::uint64_t seed) {
  Random random(seed);
  std::string text = header;
  int left = outliers;
  for (const char* model : {"gpt2", "gpt2-medium"})
    for (const int gpus : {1, 8, 16, 32})
      for (const int batch : {2, 8}) {
        const std::vector<std::string> sets = {fmt::format("model={}", model),
                                               "topology=a100-40gb-roce-1600",
                                               fmt::format("cluster.gpus={}", gpus),
                                               "strategy.kind=fsdp",
                                               fmt::format("training.micro_batch={}", batch),
                                               "training.sequence_length=512"};
        const RunRecord run =
            shardsim::run(resolve(scenario_of(sets).settings, test_library(), {"truth", truth}));
        REQUIRE(!run.result.out_of_memory());
        double rate = run.result.throughput.tokens_per_s_per_gpu * std::exp(noise * uniform(random));
        if (left-- > 0) rate *= 0.4;
        text += fmt::format("{}-{}-{},,{},a100-40gb-roce-1600,{},{},512,fsdp,{}\n", model, gpus, batch, model,
                            gpus, batch, rate);
      }
  return text;
}
CalibrateResult fit(const std::string& table, const std::string& free, const std::string& group = "model") {
  return calibrate(MeasuredRuns(read_csv_text(table, "a.csv")), {.free = free, .group = group},
                   test_library(), [](const std::string&) {});
}
std::string complaint(const std::string& table, const std::string& free, const std::string& group = "model") {
  try {
    fit(table, free, group);
    return "";
  } catch (const InputError& error) {
    return error.what();
  }
}
const std::string truth =
    "[gpu.a100-sxm-40gb]\ntraining_context = 0.75\n[transport.roce]\nefficiency = 0.5\n";

TEST_CASE("constants that made the data are found exactly, and the overlay gives them back") {
  const std::string table = synthetic(truth, 0, 0, 1);
  const CalibrateResult result = fit(table, fmt::format("{},{}", context, efficiency));
  REQUIRE(result.constants.size() == 2);
  CHECK(result.constants[0].after == doctest::Approx(0.75).epsilon(0.002));
  CHECK(result.constants[1].after == doctest::Approx(0.5).epsilon(0.01));
  CHECK(result.after < 0.001);
  CHECK(result.before > 0.05);
  CHECK(result.converged);
  REQUIRE(result.folds);
  CHECK(result.folds->after < 0.005);
  REQUIRE(result.all_groups);
  CHECK(result.groups.size() == 2);
  REQUIRE(result.many_nodes);  // one node says nothing of the network: it stays as in the file
  CHECK(result.many_nodes->rows == 8);

  const Overlay written{"o.toml", to_overlay(result)};
  check_overlay(written, test_library());
  const Scenario s =
      resolve(scenario_of({"model=gpt2", "topology=a100-40gb-roce-1600", "cluster.gpus=16"}).settings,
              test_library(), written);
  CHECK(s.gpu.profile(DType::bf16)->training_context ==
        doctest::Approx(result.constants[0].after).epsilon(1e-5));
  CHECK(s.topology.node.transport.efficiency == doctest::Approx(result.constants[1].after).epsilon(1e-5));
  CHECK(violation(to_json(result, {"0", "0"}), "calibrate") == "");
}

TEST_CASE("noise and outliers move them little, and within what the errors say") {
  const std::uint64_t seed = seed_of_run(7);
  INFO("SHARDSIM_SEED=" << seed);
  const CalibrateResult result = fit(synthetic(truth, 0.03, 2, seed), context);
  REQUIRE(result.constants.size() == 1);
  const FittedConstant& c = result.constants[0];
  CHECK(c.low95 <= c.after);
  CHECK(c.after <= c.high95);
  CHECK(result.downweighted >= 1);
  CHECK(result.after < result.before);
}

TEST_CASE("a constant that no row depends on is refused; if none is left, that is an error") {
  const std::string table = synthetic(truth, 0.01, 0, 3);
  const CalibrateResult result = fit(table, fmt::format("{},gpu.v100-sxm-32gb.training_context", context));
  REQUIRE(result.refused.size() == 1);
  CHECK(result.refused[0].constant.key == "gpu.v100-sxm-32gb.training_context");
  CHECK(result.refused[0].why == "no row's step time depends on it");
  CHECK(result.constants.size() == 1);
  CHECK(complaint(table, "gpu.v100-sxm-32gb.training_context") ==
        "--free: a.csv can tell none of these constants: gpu.v100-sxm-32gb.training_context: no row's step "
        "time depends on it");
}

TEST_CASE("a constant that the data push against a bound stops there and says so") {
  const std::string table = synthetic("[gpu.a100-sxm-40gb]\ntraining_context = 0.3\n", 0, 0, 4);
  const CalibrateResult result = fit(table, context);
  REQUIRE(result.constants.size() == 1);
  CHECK(result.constants[0].after >= result.constants[0].constant.low);
  CHECK(result.constants[0].after < 0.55);
  CHECK(result.constants[0].at_low);
}

TEST_CASE("the same table gives the same bytes") {
  const std::string table = synthetic(truth, 0.02, 1, 5);
  CHECK(to_json(fit(table, context), {"0", "0"}) == to_json(fit(table, context), {"0", "0"}));
}

TEST_CASE("rows that tell nothing are counted with the reason") {
  std::string table = synthetic(truth, 0, 0, 6);
  table += "x,outlier,gpt2,a100-40gb-roce-1600,8,4,512,fsdp,10\n";
  table += "y,,gpt2,a100-40gb-roce-1600,8,4,512,fsdp,\n";
  table += "z,,gpt3,a100-40gb-roce-1600,8,4,512,fsdp,10\n";
  table += "w,,t5-11b,a100-40gb-roce-1600,8,4,512,ddp,10\n";
  const CalibrateResult result = fit(table, context);
  using Excluded = std::vector<std::pair<std::string, std::int64_t>>;
  CHECK(result.excluded == Excluded{{"quality \"outlier\"", 1},
                                    {"no measured time or rate", 1},
                                    {"cannot be simulated (`shardsim validate` says why)", 1},
                                    {"simulated: out of memory", 1}});
  CHECK(result.rows == 16);
}

TEST_CASE("mistakes") {
  const std::string table = header + "a,,gpt2,a100-40gb-roce-1600,8,4,512,fsdp,10\n";
  CHECK(complaint(table, "gpu.a100-sxm-40gb.training_contxt") ==
        "--free gpu.a100-sxm-40gb.training_contxt: is no constant that can be fitted; did you mean "
        "\"gpu.a100-sxm-40gb.training_context\"?");
  CHECK(complaint(table, fmt::format("{0},{0}", context)) ==
        "--free gpu.a100-sxm-40gb.training_context: stands there twice");
  CHECK(complaint(table, context) == "a.csv: 1 rows with a measured time are too few to fit 1 constants");
  CHECK(complaint(table, context, "modle") ==
        "--group modle: a.csv has no such column; did you mean \"model\"?");
}

}  // namespace
}  // namespace shardsim
