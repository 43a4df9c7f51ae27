// Are mixed clusters resolved part by part, every value with its origin, and every mistake told with its
// place?
#include <doctest/doctest.h>

#include "sim/scenario/scenario.h"

#include "tests/support/hardware.h"
#include "tests/support/print.h"

namespace shardsim {
namespace {

Scenario scenario(const std::string& text, const std::vector<std::string>& sets = {}) {
  ScenarioFile file = read_scenario_text(text, "a.toml");
  for (const std::string& set : sets) assign(file, set);
  return resolve(file.settings, test_library());
}
std::string complaint(const std::string& text, const std::vector<std::string>& sets = {}) {
  try {
    scenario(text, sets);
    return "";
  } catch (const InputError& error) {
    return error.what();
  }
}
// "value (origin)", or "" if the scenario has no such value.
std::string told(const Scenario& s, const std::string& key) {
  for (const RecordedValue& v : s.values)
    if (v.key == key) return to_string(v.value) + " (" + v.origin.substr(v.origin.rfind('/') + 1) + ")";
  return "";
}

const std::string two = R"(model = "gpt2"
[[cluster.part]]
topology = "dgx1-v100-32gb"
gpus = 16
[[cluster.part]]
topology = "dgx-a100-40gb"
gpus = 8
)";

TEST_CASE("parts are laid out in order, each with its own nodes and GPUs") {
  const Scenario s = scenario(two);
  REQUIRE(s.parts.size() == 2);
  CHECK(s.gpus == 24);
  CHECK(s.parts[0].gpu.name == "v100-sxm-32gb");
  CHECK(s.parts[1].gpu.name == "a100-sxm-40gb");
  CHECK(s.parts[0].topology.node.intra == Intra::hybrid_cube_mesh);
  CHECK(s.parts[1].topology.node.intra == Intra::nvswitch);
  const Topology t = make_topology(s);
  CHECK(t.gpus() == 24);
  CHECK(t.node(1).nics == s.parts[0].topology.node.nics);
  CHECK(t.node(2).nics == s.parts[1].topology.node.nics);
  CHECK(&make_cluster(s, t).gpu_of(1) == &s.parts[1].gpu);
}

TEST_CASE("every value of a part is told with its origin; the fabric is the first part's by default") {
  const Scenario s = scenario(two);
  CHECK(told(s, "cluster.part[1].topology") == "dgx-a100-40gb (a.toml:6:12)");
  CHECK(told(s, "cluster.part[1].gpus") == "8 (a.toml:7:8)");
  CHECK(told(s, "cluster.part[1].topology.node.gpu").starts_with("a100-sxm-40gb (dgx-a100-40gb.toml:"));
  CHECK(told(s, "cluster.gpus") == "24 (default: the sum of the parts)");
  CHECK(told(s, "topology") == "dgx1-v100-32gb (default: the fabric of the first part)");
  CHECK(told(s, "topology.name") == "dgx1-v100-32gb + dgx-a100-40gb (default: the names of the parts)");
  CHECK(told(s, "topology.fabric.kind").find("(dgx1-v100-32gb.toml:") != std::string::npos);
  CHECK(told(s, "topology.node.gpu") == "");
  CHECK(told(s, "cluster.part[0].topology.fabric.kind") == "");
}

TEST_CASE("the fabric may be that of a topology of its own, or of keys") {
  const std::string named = "topology = \"a100-80gb-roce-2000\"\n" + two;
  const Scenario s = scenario(named), own = scenario(
                                          "model = \"gpt2\"\ntopology = \"a100-80gb-roce-2000\"\n"
                                          "[cluster]\ngpus = 8\n");
  CHECK(s.topology.fabric.kind == own.topology.fabric.kind);
  CHECK(s.topology.fabric.nodes_per_leaf == own.topology.fabric.nodes_per_leaf);
  CHECK(s.gpu.name == "v100-sxm-32gb");
  CHECK(s.topology.name == "dgx1-v100-32gb + dgx-a100-40gb");
  CHECK(told(s, "topology") == "a100-80gb-roce-2000 (a.toml:1:12)");
  const Scenario keys = scenario(two, {"topology.fabric.kind=fat-tree", "topology.fabric.nodes_per_leaf=3",
                                       "topology.fabric.oversubscription=2"});
  CHECK(keys.topology.fabric.kind == FabricKind::fat_tree);
  CHECK(keys.topology.fabric.nodes_per_leaf == 3);
  CHECK(keys.topology.fabric.oversubscription == 2);
}

TEST_CASE("a part may be a table, or a name with some values replaced") {
  const Scenario s = scenario(
      two, {"cluster.part[1].topology.node.nic_gbps=100", "cluster.part[1].topology.node.transport=roce"});
  CHECK(gb_per_s(s.parts[1].topology.node.nic) == 12.5);
  CHECK(s.parts[1].topology.node.transport.name == "roce");
  CHECK(told(s, "cluster.part[1].topology.node.nic_gbps") ==
        "100 (--set cluster.part[1].topology.node.nic_gbps=100)");
  const Scenario table = scenario(R"(model = "gpt2"
[[cluster.part]]
gpus = 4
[cluster.part.topology.node]
gpu = "a100-sxm-40gb"
gpus = 4
intra = "nvswitch"
nics = 4
nic_gbps = 200
transport = "ib"
[cluster.part.topology.fabric]
kind = "fat-tree"
nodes_per_leaf = 7
[[cluster.part]]
topology = "dgx-a100-40gb"
gpus = 8
)");
  CHECK(table.parts[0].topology.node.gpus == 4);
  CHECK(table.topology.fabric.nodes_per_leaf == 7);
  CHECK(told(table, "topology.fabric.nodes_per_leaf") == "7 (a.toml:13:18)");
  CHECK(told(table, "topology") == "");
}

TEST_CASE("defaults are legal on every part") {
  const Scenario s = scenario(two);
  CHECK(s.precision == "fp16-mixed");
  CHECK(told(s, "training.precision") == "fp16-mixed (default: the fastest that the GPUs of all parts have)");
  for (const ClusterPart& part : s.parts) CHECK(part.gpu.profile(DType::fp16).has_value());
}

TEST_CASE("what is illegal on one part is refused, and the part is named") {
  CHECK(
      complaint(two + "[training]\nprecision = \"bf16-mixed\"") ==
      "a.toml:9:13: v100-sxm-32gb of cluster.part[0] has no bf16 matrix units; legal here: fp32, fp16-mixed, "
      "fp16-pure");
  CHECK(complaint(two + "[training]\nattention = \"flash\"") ==
        "a.toml:9:13: \"flash\" attention does not run on v100-sxm-32gb of cluster.part[0]");
  const std::string hopper_first = R"(model = "gpt2"
[[cluster.part]]
topology = "dgx-h100"
gpus = 8
[[cluster.part]]
topology = "dgx-a100-40gb"
gpus = 8
[training]
precision = "fp8-mixed"
)";
  CHECK(complaint(hopper_first)
            .starts_with("a.toml:9:13: a100-sxm-40gb of cluster.part[1] has no fp8 matrix "
                         "units; legal here: fp32, tf32, "));
}

TEST_CASE("parts that make no cluster") {
  const auto with = [](const std::string& from, const std::string& to) {
    std::string text = two;
    return text.replace(text.find(from), from.size(), to);
  };
  CHECK(complaint(with("gpus = 16", "gpus = 12")) ==
        "a.toml:4:8: 12 GPUs do not fill nodes of 8; 8 or 16 do");
  CHECK(complaint(with("gpus = 16\n", "")) == "a.toml:3:12: cluster.part[0] needs \"gpus\"");
  CHECK(complaint(with("gpus = 16", "gpus = 0")) ==
        "a.toml:4:8: cluster.part[].gpus is 0; a value from 1 to 4194304 is expected");
  CHECK(complaint(with("dgx-a100-40gb", "dgx-a100-40g")) ==
        "a.toml:6:12: unknown topology \"dgx-a100-40g\"; did you mean \"dgx-a100-40gb\"?");
  CHECK(complaint(with("topology = \"dgx-a100-40gb\"\n", ""))
            .starts_with("a.toml:6:8: cluster.part[1] needs a \"topology\"; known: a100-40gb-roce-1600, "));
  CHECK(complaint(with("dgx-a100-40gb\"\ngpus = 8", "single-gpu\"\ngpus = 1")) ==
        "a.toml:6:12: a network joins the parts, but the nodes of \"single-gpu\" have no NICs");
  CHECK(complaint(with("[[cluster.part]]\ntopology = \"dgx1",
                       "[cluster]\ngpus = 32\n[[cluster.part]]\ntopology = "
                       "\"dgx1")) == "a.toml:3:8: cluster.gpus is 32, but the parts have 16 + 8 = 24");
  CHECK(complaint(two, {"cluster.gpus=24"}) == "");
  CHECK(complaint(two, {"cluster.part[3].gpus=8"}) ==
        "--set cluster.part[3].gpus=8: there is no cluster.part[2] before cluster.part[3]");
  CHECK(complaint("model = \"gpt2\"\n[cluster]\n[cluster.part]\ngpus = 8\n")
            .ends_with(
                "cluster.part is a list: [[cluster.part]] in a file, cluster.part[0].topology elsewhere"));
}

TEST_CASE("nodes belong to the parts, and there is one fabric") {
  CHECK(complaint(two, {"topology.node.nics=4"}) ==
        "--set topology.node.nics=4: nodes of a mixed cluster are those of its parts; "
        "cluster.part[0].topology.node.nics is expected");
  CHECK(complaint(two, {"cluster.part[1].topology.fabric.kind=fat-tree"}) ==
        "--set cluster.part[1].topology.fabric.kind=fat-tree: the parts are joined by one fabric, that of "
        "\"topology\", or of the first part");
  CHECK(complaint(two, {"cluster.part[1].topology.node.nic=4"})
            .starts_with(
                "--set cluster.part[1].topology.node.nic=4: unknown key \"nic\" in [topology.node]; did "
                "you mean \"nic"));
}

TEST_CASE("a sharding factor of a node needs nodes of one size") {
  const std::vector<std::string> node = {"strategy.kind=fsdp", "strategy.sharding_factor=node"};
  CHECK(told(scenario(two, node), "strategy.sharding_factor").starts_with("node"));
  std::vector<std::string> halves = node;
  halves.insert(halves.end(),
                {"cluster.part[1].topology.node.gpus=4", "cluster.part[1].topology.node.nics=4"});
  CHECK(complaint(two, halves) ==
        "--set strategy.sharding_factor=node: \"node\" is 8 ranks on cluster.part[0] and 4 on "
        "cluster.part[1]; a "
        "number of ranks is expected");
}

TEST_CASE("MFU is of the mean peak of the GPUs") {
  const RunRecord record = run(scenario(two, {"training.sequence_length=128"}));
  const double v100 = gpu_named("v100-sxm-32gb").profile(DType::fp16)->peak.count,
               a100 = gpu_named("a100-sxm-40gb").profile(DType::fp16)->peak.count;
  CHECK(record.result.throughput.peak.count == doctest::Approx((16 * v100 + 8 * a100) / 24));
  CHECK(title(record).starts_with(
      "gpt2 on 16 x v100-sxm-32gb + 8 x a100-sxm-40gb (dgx1-v100-32gb + dgx-a100-40gb), "));
}

}  // namespace
}  // namespace shardsim
