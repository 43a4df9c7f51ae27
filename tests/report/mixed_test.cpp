// Do reports of mixed clusters say what each part is and does?
#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "sim/report/json.h"
#include "sim/report/text.h"

#include "tests/support/hardware.h"
#include "tests/support/schema.h"

namespace shardsim {
namespace {

using nlohmann::json;

RunRecord mixed_run(const std::string& model, const std::string& strategy) {
  return run(resolve(read_scenario_text("model = \"" + model +
                                            "\"\n[[cluster.part]]\ntopology = \"dgx1-v100-16gb\"\ngpus = 8\n"
                                            "[[cluster.part]]\ntopology = \"dgx-a100-40gb\"\ngpus = 16\n"
                                            "[training]\nsequence_length = 256\n[strategy]\nkind = \"" +
                                            strategy + "\"\n",
                                        "mixed.toml")
                         .settings,
                     test_library()));
}

TEST_CASE("the JSON of a mixed cluster has its parts, and they satisfy the schema") {
  const std::string text = to_json(mixed_run("gpt2", "fsdp"), {"0.1.0", "abc"});
  CHECK(violation(text, "run") == "");
  const json j = json::parse(text);
  REQUIRE(j["parts"].size() == 2);
  CHECK(j["parts"][0]["gpu"] == "v100-sxm-16gb");
  CHECK(j["parts"][1]["gpus"] == 16);
  for (const json& part : j["parts"]) {
    double total = 0;
    for (const auto& spent : part["breakdown_s"]) total += spent.get<double>();
    CHECK(total == doctest::Approx(part["step_time_s"].get<double>()));
    CHECK(part["step_time_s"] <= j["step_time_s"]);
  }
  CHECK(j["parts"][1]["breakdown_s"]["straggler_wait"] > j["parts"][0]["breakdown_s"]["straggler_wait"]);
  CHECK(j["scenario"]["cluster.part[1].topology"]["value"] == "dgx-a100-40gb");
}

TEST_CASE("an out-of-memory on a mixed cluster names the GPU and its part") {
  const RunRecord record = mixed_run("gpt2-xl", "ddp");
  REQUIRE(record.result.out_of_memory());
  CHECK(violation(to_json(record, {"", ""}), "run") == "");
  CHECK(to_text(record).find("GPU              rank 0, on v100-sxm-16gb of dgx1-v100-16gb\n") !=
        std::string::npos);
}

TEST_CASE("a mixed cluster's text says which part computes and which waits") {
  const std::string text = to_text(mixed_run("gpt2", "fsdp"));
  CHECK(text.find("gpt2 on 8 x v100-sxm-16gb + 16 x a100-sxm-40gb (dgx1-v100-16gb + dgx-a100-40gb), ") == 0);
  CHECK(text.find(", the mean peak of the GPUs\n") != std::string::npos);
  CHECK(text.find("8 x v100-sxm-16gb") != text.rfind("8 x v100-sxm-16gb"));
  CHECK(text.find("straggler") != std::string::npos);
}

}  // namespace
}  // namespace shardsim
