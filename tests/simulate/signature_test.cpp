// Did a commit change what the bundled scenarios give? One hash per scenario, equal for every compiler and
// build type; a commit keeps it or says why it moved.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "sim/report/json.h"
#include "sim/study/sweep.h"

#include "tests/support/golden.h"
#include "tests/support/hardware.h"

namespace shardsim {
namespace {

// What the simulation gave; neither the engine's statistics, nor what went in, nor how far to trust it, nor
// advice, which sweeps do not give.
std::uint64_t signature(const SweepResult& sweep) {
  auto json = nlohmann::ordered_json::parse(to_json(sweep, {"", ""}));
  for (auto& row : json["rows"])
    if (!row["run"].is_null()) {
      for (const char* left_out : {"engine", "scenario", "scenario_hash", "flops_per_gpu"})
        row["run"].erase(left_out);
      row["run"]["confidence"] = nullptr;
      if (auto& oom = row["run"]["oom"]; !oom.is_null())
        for (const char* advice : {"would_fit", "tried", "unlimited_tokens_per_s_per_gpu"}) oom.erase(advice);
    }
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : json.dump()) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

TEST_CASE("signatures of the bundled scenarios") {
  const Library library = test_library();
  std::string text;
  for (const std::string& name : library.scenario_names()) {
    const ScenarioFile scenario = read_scenario(library.find_scenario(name));
    const SweepResult result =
        sweep(scenario, library, {}, [](std::size_t, std::size_t, const std::string&) {});
    text += fmt::format("{:016x}  {} runs  {}\n", signature(result), result.rows.size(), name);
  }
  check_golden(text, "simulate/golden/signatures.txt");
}

}  // namespace
}  // namespace shardsim
