// Does the simulated memory agree with published runs? scenarios/validation/ holds them with their sources;
// its README shows the same figures and says which published rows are left out, and why.
#include <algorithm>

#include <doctest/doctest.h>

#include "sim/scenario/scenario.h"

#include "tests/support/hardware.h"

namespace shardsim {
namespace {

RunRecord run_scenario(const std::string& name) {
  const std::string path = std::string(SHARDSIM_SOURCE_DIR) + "/scenarios/" + name + ".toml";
  return run(resolve(read_scenario(path).settings, test_library()));
}

bool exact(const RunRecord& run) {
  return std::any_of(run.values.begin(), run.values.end(), [](const RecordedValue& v) {
    return v.key == "measured.quality" && v.value == Scalar(std::string("exact"));
  });
}

// Published figures that are missed, with the cause as far as it is known.
struct Miss {
  std::string scenario, metric, why;
  double error;  // at most
};
// Approximate rows are held to what they showed, so that a change of theirs is seen.
const Miss approximate[] = {
    {"validation/t5-small-fsdp", "peak_allocated_gib", "batch and sequence recalled by the source", 0.08},
    {"validation/t5-small-fsdp", "peak_active_gib", "", 0.08},
    {"validation/t5-small-fsdp", "peak_reserved_gib", "", 0.08},
    {"validation/bloom-560m-zero1", "peak_device_gib", "nvidia-smi, settings not given", 0.25},
    {"validation/bloom-560m-zero2", "peak_device_gib", "", 0.25},
    {"validation/bloom-560m-zero3", "peak_device_gib", "", 0.06},
    {"validation/bloom-1b1-zero3", "peak_device_gib", "", 0.06},
};
const Miss misses[] = {
    {"validation/torchtitan-llama-7b-full-fsdp2", "peak_reserved_gib",
     "active memory agrees to 0.1%: the real allocator fragments more around the loss", 0.11},
};

TEST_CASE("exact rows: allocated and active within 5%, reserved within 10%, the median within 3%") {
  std::vector<double> errors;
  for (const std::string& name : test_library().scenario_names()) {
    if (!name.starts_with("validation/")) continue;
    const RunRecord record = run_scenario(name);
    REQUIRE(!record.comparisons.empty());
    for (const Comparison& c : record.comparisons) {
      INFO(name << " " << c.metric << ": " << c.predicted << " against " << c.measured);
      if (c.metric == "fits") CHECK(c.predicted == c.measured);
      if (c.metric == "fits") continue;
      const double error = std::abs(c.error());
      const auto named = [&](const Miss& m) { return m.scenario == name && m.metric == c.metric; };
      if (!exact(record)) {
        const auto row = std::find_if(std::begin(approximate), std::end(approximate), named);
        REQUIRE(row != std::end(approximate));
        CHECK(error <= row->error);
        continue;
      }
      errors.push_back(error);
      const auto miss = std::find_if(std::begin(misses), std::end(misses), named);
      CHECK(error <= (miss != std::end(misses)          ? miss->error
                      : c.metric == "peak_reserved_gib" ? 0.10
                                                        : 0.05));
    }
  }
  REQUIRE(errors.size() >= 6);
  std::sort(errors.begin(), errors.end());
  CHECK(errors[errors.size() / 2] <= 0.03);
}

TEST_CASE("GPT-2 XL on a 24 GB card dies while the first step creates Adam's state, at about 92% of it") {
  const RunRecord record = run_scenario("validation/oom-gpt2-xl-titan-rtx");
  REQUIRE(record.result.out_of_memory());
  const OutOfMemory& oom = *record.result.oom;
  CHECK(oom.step == 1);
  CHECK(oom.phase == "optimizer");
  CHECK(oom.category == Category::optimizer_state);
  CHECK(oom.requested == Bytes{1600 * 6400 * 4});
  CHECK(oom.segment == Bytes{40 << 20});
  const double state =
      static_cast<double>(oom.live[static_cast<std::size_t>(Category::optimizer_state)].count);
  CHECK(state / (8.0 * static_cast<double>(record.parameters)) == doctest::Approx(0.92).epsilon(0.03));
  CHECK(gib(oom.allocated) == doctest::Approx(22.27).epsilon(0.01));
}

TEST_CASE("T5-large on V100-32GB dies at the dropped probabilities of an attention in forward") {
  const RunRecord record = run_scenario("validation/oom-t5-large-v100");
  REQUIRE(record.result.out_of_memory());
  const OutOfMemory& oom = *record.result.oom;
  CHECK(oom.phase.starts_with("forward / decoder"));
  CHECK(oom.tensor == "dropped");
  CHECK(oom.category == Category::activations);
  CHECK(oom.requested == Bytes{4 * 8 * 16 * 512 * 512});
  CHECK(gib(oom.allocated) == doctest::Approx(30.42).epsilon(0.005));
  CHECK(gib(oom.reserved) == doctest::Approx(30.58).epsilon(0.005));
}

// --- eager against compiled -------------------------------------------------------------------------------

// Tokens per second and GPU, as published: a range where the source prints one.
struct Speed {
  std::string scenario;
  double low, high;
};
struct Gain {
  Speed slower, faster;
  double tolerance;  // of the ratio, beyond the published range
};

TEST_CASE("what torch.compile and float8 gain over eager PyTorch, as published") {
  const std::string llama = "validation/torchtitan-llama-7b-", llama3 = "validation/torchtitan-llama3-8b-";
  // pytorch/torchtitan PR#165 (ranges over time); benchmarks/llama3_h100_202412_torchtitan.md, table 1.
  const Speed op{llama + "selective-op-fsdp2", 6600, 6800}, full{llama + "full-fsdp2", 6100, 6300},
      eager{llama3 + "eager", 5762, 5762}, compiled{llama3 + "compiled", 6667, 6667};
  const Gain gains[] = {{op, {llama + "selective-op-fsdp2-compiled", 8100, 8400}, 0.05},
                        {full, {llama + "full-fsdp2-compiled", 7200, 7500}, 0.05},
                        {eager, compiled, 0.06},  // 5.7%: eager kernels here lose more to 16-bit elements
                        {compiled, {llama3 + "compiled-float8", 8532, 8532}, 0.05}};
  for (const Gain& gain : gains) {
    const double ratio = run_scenario(gain.faster.scenario).result.throughput.tokens_per_s_per_gpu /
                         run_scenario(gain.slower.scenario).result.throughput.tokens_per_s_per_gpu;
    INFO(gain.faster.scenario << ": " << ratio);
    CHECK(ratio > gain.faster.low / gain.slower.high * (1 - gain.tolerance));
    CHECK(ratio < gain.faster.high / gain.slower.low * (1 + gain.tolerance));
  }
}

}  // namespace
}  // namespace shardsim
