// Do overlays replace exactly the constants they name, say so, and refuse what the files would refuse?
#include <cmath>
#include <filesystem>
#include <fstream>

#include <doctest/doctest.h>

#include "sim/scenario/constants.h"
#include "sim/scenario/scenario.h"

#include "tests/support/hardware.h"
#include "tests/support/scenario_of.h"

namespace shardsim {
namespace {

Settings settings() {
  return scenario_of({"model=gpt2", "topology=a100-40gb-roce-1600", "cluster.gpus=16"}).settings;
}
Scenario with(const std::string& text) {
  const Overlay overlay{"o.toml", text};
  check_overlay(overlay, test_library());
  return resolve(settings(), test_library(), overlay);
}
std::string complaint(const std::string& text) {
  try {
    with(text);
    return "";
  } catch (const InputError& error) {
    return error.what();
  }
}
const RecordedValue* value(const Scenario& scenario, const std::string& key) {
  for (const RecordedValue& v : scenario.values)
    if (v.key == key) return &v;
  return nullptr;
}

TEST_CASE("constants of every kind of file are replaced, and shown with what they replace") {
  const Scenario plain = resolve(settings(), test_library());
  const Scenario s = with(R"([gpu.a100-sxm-40gb]
training_context = 0.5
gemm.bf16.prologue_us = 7
"gemm.bf16.tile_efficiency[1]" = 0.25
[stack.eager-2023.host]
forward_op_us = 33
[stack.eager-2023.nccl]
"ring_network_us[2]" = 50
[transport.roce]
efficiency = 0.25
[topology.a100-40gb-roce-1600]
node.network_overhead_us = 9
)");
  CHECK(s.gpu.profile(DType::bf16)->training_context == 0.5);
  CHECK(s.gpu.profile(DType::bf16)->prologue == from_microseconds(7));
  CHECK(s.gpu.profile(DType::bf16)->tile_efficiency[1] == 0.25);
  CHECK(s.gpu.profile(DType::bf16)->tile_efficiency[0] == plain.gpu.profile(DType::bf16)->tile_efficiency[0]);
  CHECK(s.stack.cost(HostWork::forward_op) == from_microseconds(33));
  CHECK(s.stack.nccl.ring_network[2] == from_microseconds(50));
  CHECK(s.topology.node.transport.efficiency == 0.25);
  CHECK(s.topology.node.network_overhead == from_microseconds(9));

  REQUIRE(value(s, "overlay.gpu.a100-sxm-40gb.training_context") != nullptr);
  CHECK(value(s, "overlay.gpu.a100-sxm-40gb.training_context")->value == Scalar(0.5));
  CHECK(value(s, "overlay.gpu.a100-sxm-40gb.training_context")
            ->origin.starts_with("o.toml:2:20, in place of "));
  CHECK(value(s, "overlay.transport.roce.efficiency") != nullptr);
  CHECK(value(s, "topology.node.network_overhead_us")->origin == "o.toml:12:28");
  CHECK(value(plain, "overlay.transport.roce.efficiency") == nullptr);
}

TEST_CASE("what an overlay changes is in the hash; constants of other files are not") {
  const std::uint64_t plain = resolve(settings(), test_library()).hash;
  CHECK(with("[gpu.a100-sxm-40gb]\ntraining_context = 0.5\n").hash != plain);
  CHECK(with("[gpu.a100-sxm-40gb]\ntraining_context = 0.5\n").hash !=
        with("[gpu.a100-sxm-40gb]\ntraining_context = 0.6\n").hash);
  CHECK(with("[topology.a100-40gb-roce-1600]\nnode.network_overhead_us = 9\n").hash != plain);
  CHECK(with("[gpu.v100-sxm-32gb]\ntraining_context = 0.5\n").hash == plain);
}

TEST_CASE("constants for all files of a kind, under those for one") {
  CHECK(with("[gpu.\"*\"]\ntraining_context = 0.5\n").gpu.profile(DType::bf16)->training_context == 0.5);
  CHECK(with("[gpu.\"*\"]\ntraining_context = 0.5\n[gpu.a100-sxm-40gb]\ntraining_context = 0.6\n")
            .gpu.profile(DType::bf16)
            ->training_context == 0.6);
  CHECK(with("[gpu.\"*\"]\ngemm.fp8.prologue_us = 2\n").gpu.name == "a100-sxm-40gb");  // which has no fp8
}

TEST_CASE("what the scenario says itself wins over an overlay") {
  Settings own = settings();
  own.set("topology.node.network_overhead_us", 4.0, {Origin::Kind::flag, {"--set"}, {}});
  const Overlay overlay{"o.toml", "[topology.a100-40gb-roce-1600]\nnode.network_overhead_us = 9\n"};
  CHECK(resolve(own, test_library(), overlay).topology.node.network_overhead == from_microseconds(4));
}

TEST_CASE("mistakes have their place in the overlay, and the nearest name") {
  CHECK(complaint("") == "o.toml:1:1: holds no constants; a table such as [gpu.a100-sxm-40gb] is expected");
  CHECK(complaint("[gpus.a100-sxm-40gb]\ntraining_context = 0.5") ==
        "o.toml:1:2: unknown section \"gpus\" of an overlay; did you mean \"gpu\"?");
  CHECK(complaint("[gpu.a100-sxm-40g]\ntraining_context = 0.5") ==
        "o.toml:1:6: unknown GPU \"a100-sxm-40g\"; did you mean \"a100-sxm-40gb\"?");
  CHECK(complaint("[gpu.a100-sxm-40gb]\ntraining_contxt = 0.5") ==
        "o.toml:2:1: unknown constant \"training_contxt\" in [gpu.a100-sxm-40gb]; did you mean "
        "\"training_context\"?");
  CHECK(complaint("[stack.eager-2023.host]\nforwrd_op_us = 9") ==
        "o.toml:2:1: unknown constant \"forwrd_op_us\" in [stack.eager-2023.host]; did you mean "
        "\"forward_op_us\"?");
  CHECK(complaint("[gpu.\"*\"]\ntraining_contxt = 0.5")
            .starts_with("o.toml:2:19: unknown constant \"training_contxt\" in [gpu.\"*\"]; did you mean"));
  CHECK(complaint("[topology.a100-40gb-roce-1600]\nnode.network_overhed_us = 9") ==
        "o.toml:2:27: unknown key \"network_overhed_us\" in [topology.node]; did you mean "
        "\"network_overhead_us\"?");
  CHECK(complaint("[gpu.a100-sxm-40gb]\nname = \"x\"") ==
        "o.toml:2:1: \"name\" is no constant that an overlay can replace");
  CHECK(complaint("gpu = 3") == "o.toml:1:7: \"gpu\" is no table; [gpu.NAME] is expected");
  CHECK(complaint("[gpu]\na100-sxm-40gb = 3") ==
        "o.toml:2:17: gpu.a100-sxm-40gb is a value; a table [gpu.a100-sxm-40gb] of constants is expected");
}

TEST_CASE("values are held to the ranges of the files") {
  CHECK(complaint("[gpu.a100-sxm-40gb]\ntraining_context = 1.5") ==
        "o.toml:2:20: \"training_context\" is 1.5; between 0 and 1 is expected");
  CHECK(complaint("[gpu.a100-sxm-40gb]\ntraining_context = \"fast\"") ==
        "o.toml:2:20: \"training_context\" is a string; a number is expected");
  CHECK(complaint("[gpu.a100-sxm-40gb]\n\"gemm.bf16.tile_efficiency[0]\" = 2.0") ==
        "o.toml:2:34: \"tile_efficiency\" holds shares in (0, 1]");
  CHECK(complaint("[topology.a100-40gb-roce-1600]\nnode.network_overhead_us = -1") ==
        "o.toml:2:28: topology.node.network_overhead_us is -1; a value from 0 to 100000 is expected");
}

TEST_CASE("every constant that can be freed stands in its file, within its bounds or at zero") {
  const std::vector<FreeConstant> all = free_constants(test_library());
  CHECK(all.size() > 100);
  std::vector<double> values;
  for (const FreeConstant& c : all) {
    INFO(c.key << " = " << c.value);
    CHECK(c.low < c.high);
    CHECK((c.value == 0 || (c.low <= c.value && c.value <= c.high)));
    values.push_back(c.value);
  }
  check_overlay(overlay_of(all, values), test_library());  // takes them all back
}

TEST_CASE("an overlay written from constants gives them back exactly") {
  const std::vector<FreeConstant> some = free_constants(
      "gpu.a100-sxm-40gb.training_context,transport.roce.hop_latency_us,gpu.a100-sxm-40gb.gemm.bf16.tile_"
      "efficiency[2]",
      test_library());
  const Scenario s =
      resolve(settings(), test_library(), overlay_of(some, {0.71234567890123456, 3.0, 1.0 / 3}));
  CHECK(s.gpu.profile(DType::bf16)->training_context == 0.71234567890123456);
  CHECK(s.topology.node.transport.hop_latency == from_microseconds(3));
  CHECK(s.gpu.profile(DType::bf16)->tile_efficiency[2] == 1.0 / 3);
}

TEST_CASE("a path beside the scenario is found") {
  const std::filesystem::path folder = std::filesystem::temp_directory_path() / "shardsim_overlay_test";
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "o.toml") << "[gpu.a100-sxm-40gb]\ntraining_context = 0.5\n";
  const std::string scenario = (folder / "s.toml").string();
  std::ofstream(scenario) << "overlay = \"o.toml\"\nmodel = \"gpt2\"\ntopology = \"a100-40gb-roce-1600\"\n"
                             "cluster.gpus = 8\n";
  CHECK(
      resolve(read_scenario(scenario).settings, test_library()).gpu.profile(DType::bf16)->training_context ==
      0.5);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace shardsim
