// Are defaults filled in as documented, each with its origin?
#include <tuple>

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
RecordedValue value(const Scenario& s, const std::string& key) {
  for (const RecordedValue& v : s.values)
    if (v.key == key) return v;
  return {key, std::string("absent"), ""};
}
std::string text(const Scenario& s, const std::string& key) { return to_string(value(s, key).value); }

const std::string t5 = "model = \"t5-11b\"\ntopology = \"a100-80gb-roce-2000\"\n[cluster]\ngpus = 512\n";

TEST_CASE("every value has an origin: file, library, command line, or the reason of the default") {
  const Scenario s = scenario(t5, {"training.micro_batch=8"});
  CHECK(value(s, "cluster.gpus").origin == "a.toml:4:8");
  CHECK(value(s, "training.micro_batch").origin == "--set training.micro_batch=8");
  CHECK(value(s, "model.hidden").origin.ends_with("models/t5-11b.toml:5:10"));
  CHECK(value(s, "training.precision").origin == "default: what a100-sxm-80gb is fastest in");
  CHECK(value(s, "strategy.sharding_factor").origin == "default: full sharding");
  for (const RecordedValue& v : s.values) CHECK_FALSE(v.origin.empty());
}

TEST_CASE("a key given beside a named model, topology or transport wins over its file") {
  const Scenario s =
      scenario(t5, {"model.hidden=512", "topology.node.nics=4", "topology.node.transport.efficiency=0.5"});
  CHECK(s.model.hidden == 512);
  CHECK(s.topology.node.nics == 4);
  CHECK(s.topology.node.transport.efficiency == 0.5);
  CHECK(s.topology.node.transport.name == "roce");
  CHECK(s.topology.node.transport.hop_latency == scenario(t5).topology.node.transport.hop_latency);
  CHECK(value(s, "topology.node.transport.hop_latency_us").origin == "default: transport \"roce\"");
}

TEST_CASE("a topology's transport may change some constants of the one it is based on") {
  const std::string p3dn = "model = \"gpt2\"\ntopology = \"aws-p3dn\"\n[cluster]\ngpus = 16\n";
  const Scenario s = scenario(p3dn);
  CHECK(s.topology.node.transport.name == "efa-v1 without GPUDirect");
  CHECK(s.topology.node.transport.efficiency == 0.60);
  CHECK(s.topology.node.transport.half_rate_mib == 0.25);
  CHECK(value(s, "topology.node.transport.half_rate_mib").origin == "default: transport \"efa-v1\"");
  // A scenario's own word wins, as a name or as another base.
  CHECK(scenario(p3dn, {"topology.node.transport=tcp"}).topology.node.transport.efficiency == 0.78);
  CHECK(scenario(p3dn, {"topology.node.transport.based_on=ib"}).topology.node.transport.half_rate_mib ==
        0.016);
  CHECK(scenario(t5, {"topology.node.transport.based_on=ib"}).topology.node.transport.efficiency == 0.96);
  CHECK_THROWS_AS(scenario(t5, {"topology.node.transport.based_on=ibb"}), InputError);
}

TEST_CASE(
    "jitter is the topology's, unless the scenario says otherwise, and an estimate where neither does") {
  CHECK(scenario(t5).jitter.step_sigma == 0.01);
  CHECK(value(scenario(t5), "jitter.step_sigma").origin == "default: the topology's step_jitter");
  const Scenario cloud = scenario(t5, {"topology.fabric.step_jitter=0.008"});
  CHECK(cloud.jitter.step_sigma == 0.008);
  CHECK(value(cloud, "jitter.step_sigma").origin == "default: the topology's step_jitter");
  const Scenario own = scenario(t5, {"topology.fabric.step_jitter=0.008", "jitter.step_sigma=0.02"});
  CHECK(own.jitter.step_sigma == 0.02);
  CHECK(own.jitter.mode == Jitter::Mode::expected_maximum);
  CHECK(text(own, "jitter.seed") == "absent");
  const Scenario sampled = scenario(t5, {"jitter.step_sigma=0.02", "jitter.mode=sampled", "jitter.seed=9"});
  CHECK(sampled.jitter.mode == Jitter::Mode::sampled);
  CHECK(sampled.jitter.seed == 9);
}

TEST_CASE("defaults are legal for the GPU") {
  CHECK(text(scenario(t5), "training.precision") == "bf16-mixed");
  const Scenario v100 = scenario("model = \"gpt2\"\ntopology = \"dgx1-v100-32gb\"\n[cluster]\ngpus = 8\n");
  CHECK(text(v100, "training.precision") == "fp16-mixed");
  CHECK(text(v100, "training.attention") == "unfused");
  CHECK(v100.training.loss_scaling);
  const Scenario a100 = scenario("model = \"mpt-7b\"\ntopology = \"dgx-a100-80gb\"\n[cluster]\ngpus = 8\n");
  CHECK(text(a100, "training.attention") == "flash2");
  CHECK(text(scenario("model = \"mpt-7b\"\ntopology = \"dgx-a100-80gb\"\n[cluster]\ngpus = "
                      "8\n[training]\nprecision = \"tf32\""),
             "training.attention") == "unfused");
}

TEST_CASE("span corruption of 512 tokens has targets of 114") {
  // t5/data/preprocessors.py, random_spans_helper; Raffel et al. 2020, section 3.1.4.
  const Scenario s = scenario(t5);
  CHECK(s.workload.sequence == 512);
  CHECK(s.workload.decoder_sequence == 114);
  CHECK(scenario(t5, {"training.sequence_length=1024"}).workload.decoder_sequence == 229);
}

std::string on(const std::string& model, const std::string& topology, const std::string& training) {
  return "model = \"" + model + "\"\ntopology = \"" + topology + "\"\n[cluster]\ngpus = 8\n[training]\n" +
         training;
}

TEST_CASE("pure formats store parameters as they compute, mixed ones in fp32") {
  for (const auto& [precision, compute, stored] :
       {std::tuple("fp32", DType::fp32, DType::fp32), std::tuple("tf32", DType::fp32, DType::fp32),
        std::tuple("bf16-mixed", DType::bf16, DType::fp32), std::tuple("bf16-pure", DType::bf16, DType::bf16),
        std::tuple("fp16-pure", DType::fp16, DType::fp16), std::tuple("fp8-mixed", DType::bf16, DType::fp32)})
    for (const std::string strategy : {"ddp", "fsdp2"}) {
      const std::string text(precision);  // CAPTURE is a lambda, which cannot hold a structured binding
      CAPTURE(text);
      const Scenario s = scenario(on("llama3-8b", "dgx-h100", "precision = \"" + text + "\""),
                                  {"strategy.kind=" + strategy});
      const Numerics& n = s.workload.numerics;
      CHECK(n.compute == compute);
      CHECK(s.training.stored == stored);
      CHECK(n.fp8_linears == (std::string(precision) == "fp8-mixed"));
      CHECK(n.autocast == (strategy == "ddp" && std::string(precision).ends_with("-mixed")));
      CHECK(n.parameter == (n.autocast ? DType::fp32 : compute));
      CHECK(s.training.reduce == n.parameter);
      CHECK_FALSE(s.training.loss_scaling);
    }
}

TEST_CASE("memory-efficient attention runs in fp32 and on Volta, where flash does not") {
  for (const std::string precision : {"fp32", "fp16-mixed"}) {
    const std::string training = "precision = \"" + precision + "\"\nattention = \"mem-efficient\"";
    CHECK(text(scenario(on("gpt2", "dgx1-v100-32gb", training)), "training.attention") == "mem-efficient");
    CHECK(text(scenario(on("bert-base", "dgx-a100-80gb", training)), "training.attention") ==
          "mem-efficient");
  }
}

TEST_CASE("each family has its objective and its usual shape") {
  const Scenario llama = scenario(on("llama3-8b", "dgx-h100", ""));
  CHECK(text(llama, "training.objective") == "causal");
  CHECK(text(llama, "training.precision") == "bf16-mixed");
  CHECK(llama.model.kv_heads == 8);
  CHECK(llama.model.repeat_kv);
  CHECK(llama.model.norm_impl == NormImpl::eager);
  const Scenario bert = scenario(on("bert-large", "dgx1-v100-16gb", "masked_share = 0.15625"));
  CHECK(text(bert, "training.objective") == "masked");
  CHECK(bert.workload.sequence == 512);
  CHECK(bert.workload.masked_share == 0.15625);
  CHECK(scenario(on("roberta-base", "dgx1-v100-16gb", "")).workload.masked_share == 1);
  const Scenario bart = scenario(on("bart-large", "dgx-a100-80gb", "sequence_length = 700"));
  CHECK(text(bart, "training.objective") == "span-corruption");
  CHECK(bart.workload.decoder_sequence == 700);
  CHECK(scenario(on("opt-175b", "dgx-a100-80gb", "")).workload.sequence == 2048);
}

TEST_CASE("two of micro-batch, accumulation and global batch imply the third") {
  CHECK(scenario(t5, {"training.global_batch=4096"}).workload.micro_batch == 8);
  CHECK(scenario(t5, {"training.global_batch=4096", "training.micro_batch=2"}).training.micro_batches == 4);
  CHECK(scenario(t5, {"training.global_batch=4096", "training.grad_accum=4"}).workload.micro_batch == 2);
  CHECK(scenario(t5, {"training.micro_batch=8", "training.grad_accum=2"}).global_batch == 8192);
  CHECK(scenario(t5, {"training.global_batch_tokens=" + std::to_string(626 * 1024)}).global_batch == 1024);
}

TEST_CASE("sharding factors by name") {
  CHECK(std::get<Fsdp>(scenario(t5, {"strategy.sharding_factor=full"}).strategy).sharding_factor == 512);
  CHECK(std::get<Fsdp>(scenario(t5, {"strategy.sharding_factor=node"}).strategy).sharding_factor == 8);
}

TEST_CASE("mixed precision: on shards under FSDP, autocast under DDP") {
  const Scenario fsdp = scenario(t5), ddp = scenario(t5, {"strategy.kind=ddp"});
  CHECK(fsdp.workload.numerics.parameter == DType::bf16);
  CHECK_FALSE(fsdp.workload.numerics.autocast);
  CHECK(fsdp.training.reduce == DType::bf16);
  CHECK(ddp.workload.numerics.parameter == DType::fp32);
  CHECK(ddp.workload.numerics.autocast);
  CHECK(ddp.training.reduce == DType::fp32);
}

TEST_CASE("explicit keys win over the files they name, and names replace inline tables") {
  CHECK(scenario(t5, {"model.encoder_layers=3"}).model.encoder_layers == 3);
  CHECK(scenario(t5, {"topology.node.nic_gbps=100"}).topology.node.nic == Bandwidth{12'500'000'000});
  CHECK(scenario(t5, {"model=t5-small"}).model.hidden == 512);
  const std::string inline_model =
      "topology = \"single-gpu\"\n[model]\nfamily = \"gpt\"\nlayers = 1\nhidden = 64\nheads = 1\nvocab = "
      "99\n";
  CHECK(scenario(inline_model).model.vocab == 99);
  CHECK(scenario(inline_model, {"model=gpt2"}).model.vocab == 50257);
}

TEST_CASE("the hash depends on values, not on where they come from") {
  const Scenario file = scenario(t5 + "[training]\nmicro_batch = 4\n"),
                 flag = scenario(t5, {"training.micro_batch=4"});
  CHECK(file.hash == flag.hash);
  CHECK(file.hash != scenario(t5, {"training.micro_batch=5"}).hash);
}

TEST_CASE("the stacks of 2024 differ in what compiled code costs; collectives as NCCL 2.21 tunes them") {
  const Stack eager = stack_named("eager-2024"), compiled = stack_named("compiled-2024");
  for (int w = 0; w < host_works; ++w) {
    const auto work = static_cast<HostWork>(w);
    const bool of_compiled_code = work == HostWork::compiled_op || work == HostWork::compiled_region;
    CHECK((compiled.cost(work) == eager.cost(work)) != of_compiled_code);
  }
  CHECK_FALSE(eager.compiles);
  CHECK(compiled.compiles);
  CHECK(compiled.cost(HostWork::compiled_op) < eager.cost(HostWork::backward_op));
  CHECK_FALSE(eager.collectives_record_streams);
  CHECK(compiled.gemm_efficiency == eager.gemm_efficiency);
  CHECK(compiled.nccl.tree_nvlink == eager.nccl.tree_nvlink);
  CHECK(eager.nccl.tree_nvlink[2] == from_microseconds(28));
}

TEST_CASE("every bundled model, topology, GPU and stack can be read") {
  const Library library = test_library();
  CHECK(library.names("models").size() >= 20);
  for (const std::string& model : library.names("models"))
    CHECK_NOTHROW(scenario("model = \"" + model + "\"\ntopology = \"single-gpu\"\n"));
  for (const std::string& topology : library.names("topologies"))
    CHECK_NOTHROW(scenario("model = \"gpt2\"\ntopology = \"" + topology + "\"\n[cluster]\ngpus = 1\n"));
  for (const std::string& gpu : library.names("topologies/gpus")) CHECK(gpu_named(gpu).name == gpu);
  for (const std::string& stack : library.names("topologies/stacks")) CHECK(stack_named(stack).name == stack);
}

TEST_CASE("every key of the format is known, and its kind of value is checked") {
  for (const KeySpec& spec : keys()) {
    CAPTURE(spec.key);
    CHECK_FALSE(spec.meaning.empty());
    if (spec.meaning.starts_with('!')) {
      CHECK_THROWS_AS(key_spec(spec.key, {}), InputError);
      continue;
    }
    CHECK(&key_spec(spec.key, {}) == &spec);
    CHECK_THROWS_AS(
        checked(spec, spec.type == KeySpec::Type::text ? Scalar(true) : Scalar(std::string("no such value")),
                {}),
        InputError);
  }
}

}  // namespace
}  // namespace shardsim
