// Does every mistake get one clear message, with its place, what was expected and a way out?
#include <filesystem>
#include <fstream>

#include <doctest/doctest.h>

#include "sim/scenario/scenario.h"

#include "tests/support/hardware.h"

namespace shardsim {
namespace {

// What resolving a scenario says, or "" if it is fine.
std::string complaint(const std::string& text, const std::vector<std::string>& sets = {}) {
  try {
    ScenarioFile scenario = read_scenario_text(text, "a.toml");
    for (const std::string& set : sets) assign(scenario, set);
    resolve(scenario.settings, test_library());
    return "";
  } catch (const InputError& error) {
    return error.what();
  }
}

const std::string good = R"(model = "gpt2"
topology = "dgx-a100-80gb"
[cluster]
gpus = 16
)";

TEST_CASE("a good scenario has no complaint") { CHECK(complaint(good) == ""); }

TEST_CASE("files that are no scenarios") {
  CHECK(complaint("") == "a.toml:1:1: is empty; a scenario needs at least \"model\" and \"topology\"");
  CHECK(complaint("model = = 3") == "a.toml:1:9: Error while parsing value: could not determine value type");
  CHECK(complaint("topology = \"single-gpu\"\n")
            .starts_with("a.toml:1:1: the scenario needs a \"model\"; known: bart-large, "));
  CHECK(
      complaint("model = \"gpt2\"\n").starts_with("a.toml:1:1: the scenario needs a \"topology\"; known: "));
}

TEST_CASE("unknown names get the nearest valid one") {
  CHECK(complaint("model = \"gpt3\"\ntopology = \"single-gpu\"") ==
        "a.toml:1:9: unknown model \"gpt3\"; did you mean \"gpt2\"?");
  CHECK(complaint("model = \"t5-11b\"\ntopology = \"dgxa100-80gb\"") ==
        "a.toml:2:12: unknown topology \"dgxa100-80gb\"; did you mean \"dgx-a100-80gb\"?");
  CHECK(complaint(good + "[training]\nstack = \"eager-2032\"") ==
        "a.toml:6:9: unknown stack \"eager-2032\"; did you mean \"eager-2022\"?");
}

TEST_CASE("unknown keys get the nearest valid one of their table") {
  CHECK(complaint(good + "[strategy]\nbackward_prefech = \"pre\"") ==
        "a.toml:6:20: unknown key \"backward_prefech\" in [strategy]; did you mean \"backward_prefetch\"?");
  CHECK(complaint(good + "[trainig]\nmicro_batch = 2") ==
        "a.toml:6:15: unknown key \"trainig\"; did you mean \"training\"?");
  CHECK(complaint("modle = \"gpt2\"") == "a.toml:1:9: unknown key \"modle\"; did you mean \"model\"?");
}

TEST_CASE("a list is told from a table, and a value from a table") {
  CHECK(complaint(good + "[straggler]\ngpu = 1") ==
        "a.toml:6:7: straggler is a list: [[straggler]] in a file, straggler[0].gpu elsewhere");
  CHECK(complaint(good, {"straggler=1"}) ==
        "--set straggler=1: straggler is a list: [[straggler]] in a file, straggler[0].gpu elsewhere");
  CHECK(complaint(good, {"training.precision.tf32=1"}) ==
        "--set training.precision.tf32=1: training.precision is a value, not a table");
}

TEST_CASE("wrong types") {
  CHECK(complaint(good + "[training]\nmicro_batch = \"8\"") ==
        "a.toml:6:15: training.micro_batch is 8; an integer is expected");
  CHECK(complaint(good + "[training]\nmicro_batch = 1.5") ==
        "a.toml:6:15: training.micro_batch is 1.5; an integer is expected");
  CHECK(complaint(good + "[training]\nsync_each_step = 1") ==
        "a.toml:6:18: training.sync_each_step is 1; true or false is expected");
  CHECK(complaint(good + "[training]\nmicro_batch = [1, 2]") ==
        "a.toml:6:15: training.micro_batch is a list; one value is expected (a list belongs in [sweep])");
  CHECK(complaint(good + "[training]\nmicro_batch = 2024-01-01") ==
        "a.toml:6:15: training.micro_batch is a date or time; no key takes one");
}

TEST_CASE("numbers out of range") {
  CHECK(complaint(good + "[training]\nmicro_batch = 0") ==
        "a.toml:6:15: training.micro_batch is 0; a value from 1 to 10000000 is expected");
  CHECK(complaint(good + "[training]\nmicro_batch = -8") ==
        "a.toml:6:15: training.micro_batch is -8; a value from 1 to 10000000 is expected");
  CHECK(complaint(good + "[training]\ndropout = nan") ==
        "a.toml:6:11: training.dropout is nan; a value from 0 to 0.999 is expected");
  CHECK(complaint("model = \"gpt2\"\ntopology = \"dgx-a100-80gb\"\n[cluster]\ngpus = 0") ==
        "a.toml:4:8: cluster.gpus is 0; a value from 1 to 4194304 is expected");
}

TEST_CASE("torch.compile needs a stack that has it") {
  CHECK(complaint(good + "[training]\ncompile = true") == "");
  CHECK(complaint(good + "[training]\ncompile = false") == "");
  CHECK(complaint(good + "[training]\ncompile = true\nstack = \"eager-2023\"") ==
        "a.toml:6:11: stack \"eager-2023\" does not compile; compiled-2024 does");
  CHECK(complaint(good + "[training]\ncompile_scope = \"model\"") ==
        "a.toml:6:17: nothing is compiled; training.compile is false");
}

TEST_CASE("what is known but not built says so") {
  CHECK(complaint(good + "[strategy]\nreshard_after_forward = 8") ==
        "a.toml:6:25: a number of ranks needs strategy.kind = \"fsdp2\"; true or false is expected");
  CHECK(complaint(good + "[strategy]\nwrap = [\"a\", \"b\"]") ==
        "a.toml:6:8: strategy.wrap as a list is not supported yet");
  CHECK(complaint(good + "[jitter]\nsigma = 0.01") ==
        "a.toml:6:9: unknown key \"sigma\" in [jitter]; known: step_sigma, mode, seed");
  CHECK(complaint("overlay = \"none.toml\"\n" + good) ==
        "a.toml:1:11: overlay = \"none.toml\" cannot be read: no such file");
  CHECK(complaint(good + "[strategy]\nkind = \"tp\"") ==
        "a.toml:6:8: strategy.kind \"tp\": tensor, pipeline, sequence, context and expert parallelism are "
        "not simulated");
}

TEST_CASE("groups of blocks under one checkpoint") {
  const std::string every_k = good + "[training]\nactivation_checkpointing = \"every-k\"\n";
  CHECK(complaint(every_k + "checkpoint_every = 3") == "");
  CHECK(complaint(every_k + "checkpoint_every = 0") ==
        "a.toml:7:20: training.checkpoint_every is 0; a value from 1 to 1000000 is expected");
  CHECK(complaint(every_k + "checkpoint_every = 13") ==
        "a.toml:7:20: 13 blocks per checkpoint, but the model has 12 in a row");
  CHECK(complaint(every_k) ==
        "a.toml:6:28: \"every-k\" needs \"checkpoint_every\", the blocks per checkpoint");
  CHECK(complaint(good + "[training]\ncheckpoint_every = 2") ==
        "a.toml:6:20: activation_checkpointing = \"none\" has no groups of blocks; \"every-k\" has");
}

TEST_CASE("options of ZeRO, MiCS and Megatron that contradict each other") {
  const auto with = [](const std::string& strategy) { return complaint(good + "[strategy]\n" + strategy); };
  CHECK(with("kind = \"zero3\"") == "");
  CHECK(with("kind = \"mics\"\nsharding_factor = 4") == "");
  CHECK(with("kind = \"megatron-dp\"\n[strategy.megatron]\noverlap_param_gather = true") == "");
  CHECK(with("[strategy.deepspeed]\nreduce_bucket_size = 5e8") ==
        "a.toml:7:22: \"fsdp\" is not DeepSpeed's; strategy.kind = \"zero1\", \"zero2\", \"zero3\" and "
        "\"mics\" are");
  CHECK(with("kind = \"zero2\"\n[strategy.megatron]\nbucket_size = 1e7") ==
        "a.toml:8:15: \"zero2\" is not Megatron's; strategy.kind = \"megatron-dp\" is");
  CHECK(with("kind = \"zero2\"\nsharding_factor = 4") ==
        "a.toml:7:19: \"zero2\" has no option \"sharding_factor\"");
  CHECK(with("kind = \"zero1\"\nwrap = \"block\"") == "a.toml:7:8: \"zero1\" has no option \"wrap\"");
  CHECK(with("kind = \"zero2\"\ncpu_offload = \"optimizer\"") == "");
  CHECK(with("kind = \"zero2\"\ncpu_offload = \"parameters\"") ==
        "a.toml:7:15: parameters are offloaded by stage 3 only; stage 2 offloads the \"optimizer\"");
  CHECK(with("kind = \"mics\"\ncpu_offload = \"optimizer\"") ==
        "a.toml:7:15: MiCS has no offload; \"zero2\" and \"zero3\" have");
  CHECK(with("kind = \"mics\"\nsharding_factor = 1") == "a.toml:7:19: MiCS over one rank shards nothing");
  CHECK(with("kind = \"zero2\"\n[strategy.deepspeed]\nsub_group_size = 1e8") ==
        "a.toml:8:18: ZeRO stage 2 has no option \"deepspeed.sub_group_size\"");
  CHECK(
      with("kind = \"zero3\"\n[strategy.deepspeed]\nprefetch_bucket_size = 5e7\nmax_live_parameters = 1e6") ==
      "a.toml:8:24: 50000000 elements cannot be gathered early when max_live_parameters is 1000000");
  CHECK(with("kind = \"zero2\"\n[training]\ngrad_accum = 2\nno_sync = true") ==
        "a.toml:9:11: partitioned gradients are reduced in every micro-step; no_sync needs stage 1");
  CHECK(with("kind = \"zero2\"\n[training]\nprecision = \"bf16-pure\"") ==
        "a.toml:8:13: \"zero2\" keeps an fp32 copy of the parameters: it trains in \"bf16-mixed\", not in "
        "\"bf16-pure\"");
  CHECK(with("kind = \"zero2\"\n[training]\nmixed_precision = \"autocast\"") ==
        "a.toml:8:19: \"zero2\" keeps 16-bit parameters and an fp32 copy; nobody casts");
}

TEST_CASE("GPUs that do not fill nodes, or have no network between them") {
  CHECK(complaint("model = \"gpt2\"\ntopology = \"dgx-a100-80gb\"\n[cluster]\ngpus = 12") ==
        "a.toml:4:8: 12 GPUs do not fill nodes of 8; 8 or 16 do");
  CHECK(complaint("model = \"gpt2\"\ntopology = \"dgx-a100-80gb\"\n[cluster]\ngpus = 3") == "");
  CHECK(complaint("model = \"gpt2\"\ntopology = \"single-gpu\"\n[cluster]\ngpus = 2") ==
        "a.toml:4:8: 2 GPUs need several nodes, but the nodes of \"single-gpu\" have no NICs");
}

TEST_CASE("a sharding factor that does not divide") {
  CHECK(complaint(good + "[strategy]\nsharding_factor = 5") ==
        "a.toml:6:19: a sharding factor of 5 does not divide 16 GPUs; 4 or 8 do");
  CHECK(complaint(good + "[strategy]\nsharding_factor = 512") ==
        "a.toml:6:19: a sharding factor of 512 does not divide 16 GPUs; 16 does");
  CHECK(complaint(good + "[strategy]\nsharding_factor = \"half\"") ==
        "a.toml:6:19: strategy.sharding_factor cannot be \"half\"; known: full, node");
}

TEST_CASE("a global batch that does not divide, or contradicts") {
  CHECK(complaint(good + "[training]\nglobal_batch = 100") ==
        "a.toml:6:16: a global batch of 100 sequences gives no whole micro_batch on 16 GPUs; 96 or 112 do");
  CHECK(complaint(good + "[training]\nglobal_batch = 64\nmicro_batch = 3") ==
        "a.toml:6:16: a global batch of 64 sequences gives no whole grad_accum on 16 GPUs; 48 or 96 do");
  CHECK(complaint(good + "[training]\nglobal_batch = 64\nmicro_batch = 2\ngrad_accum = 3") ==
        "a.toml:6:16: a micro-batch of 2, 3 micro-steps and 16 GPUs make a global batch of 96, not 64");
  CHECK(complaint(good + "[training]\nglobal_batch_tokens = 1000") ==
        "a.toml:6:23: 1000 tokens are not whole sequences of 1024; 1024 or 1024 are");
}

TEST_CASE("number formats and attention kernels the hardware or stack lacks") {
  const std::string v100 =
      "model = \"gpt2\"\ntopology = \"dgx1-v100-16gb\"\n[cluster]\ngpus = 8\n[training]\n";
  CHECK(complaint(v100 + "precision = \"bf16-mixed\"") ==
        "a.toml:6:13: v100-sxm-16gb has no bf16 matrix units; legal here: fp32, fp16-mixed, fp16-pure");
  CHECK(complaint(v100 + "precision = \"tf32\"") ==
        "a.toml:6:13: v100-sxm-16gb has no tf32 matrix units; legal here: fp32, fp16-mixed, fp16-pure");
  CHECK(complaint(v100 + "attention = \"flash2\"") ==
        "a.toml:6:13: \"flash2\" attention does not run on v100-sxm-16gb");
  CHECK(complaint(good + "[training]\nattention = \"flash\"\nstack = \"eager-2022\"") ==
        "a.toml:6:13: stack \"eager-2022\" has no \"flash\" attention");
  CHECK(complaint(good + "[training]\nprecision = \"fp8-mixed\"") ==
        "a.toml:6:13: a100-sxm-80gb has no fp8 matrix units; legal here: fp32, tf32, fp16-mixed, bf16-mixed, "
        "fp16-pure, bf16-pure");
  CHECK(complaint(good + "[training]\nattention = \"flash\"\nprecision = \"fp32\"") ==
        "a.toml:6:13: \"flash\" attention computes in 16 bits; precision is \"fp32\"");
  CHECK(complaint("model = \"t5-small\"\ntopology = \"dgx-a100-80gb\"\n[cluster]\ngpus = "
                  "8\n[training]\nattention = \"flash2\"") ==
        "a.toml:6:13: \"flash2\" attention cannot add T5's relative position bias");
}

TEST_CASE("options that contradict the strategy") {
  CHECK(complaint(good + "[strategy]\nkind = \"ddp\"\nsharding_factor = 8") ==
        "a.toml:7:19: DDP has no option \"sharding_factor\"");
  CHECK(complaint(good + "[strategy]\nkind = \"fsdp\"\nbucket_cap_mb = 8") ==
        "a.toml:7:17: FSDP has no option \"bucket_cap_mb\"");
  CHECK(complaint(good + "[training]\nmixed_precision = \"fsdp\"\n[strategy]\nkind = \"ddp\"") ==
        "a.toml:6:19: MixedPrecision on shards needs strategy.kind = \"fsdp\"");
  CHECK(complaint(good + "[training]\nmixed_precision = \"fsdp\"\nprecision = \"fp32\"") ==
        "a.toml:6:19: precision \"fp32\" mixes nothing");
  CHECK(complaint(good + "[strategy]\ncpu_offload = \"optimizer\"\nkind = \"ddp\"") ==
        "a.toml:6:15: DDP keeps everything on the GPU; offload needs a strategy that shards");
}

TEST_CASE("allocator options that PyTorch refuses, or ignores") {
  const auto allocator = [](const std::string& lines) { return complaint(good + "[allocator]\n" + lines); };
  CHECK(allocator("max_split_size_mb = 128\nmemory_fraction = 0.9\ngarbage_collection_threshold = 0.8") ==
        "");
  CHECK(allocator("expandable_segments = true\nmemory_fraction = 1.0") == "");
  CHECK(allocator("max_split_size_mb = 20") ==
        "a.toml:6:21: allocator.max_split_size_mb is 20; more than 20 is expected, or 0 for unlimited");
  CHECK(allocator("max_split_size_mb = 21\nexpandable_segments = true") ==
        "a.toml:6:21: expandable segments are split whatever their size; max_split_size_mb does not go with "
        "them");
  CHECK(allocator("garbage_collection_threshold = 0.8") ==
        "a.toml:6:32: PyTorch collects garbage only under a memory_fraction; give allocator.memory_fraction");
  CHECK(allocator("memory_fraction = 0.5\ngarbage_collection_threshold = 1.0") ==
        "a.toml:7:32: allocator.garbage_collection_threshold is 1; a share below 1 is expected");
  CHECK(allocator("memory_fraction = 0.0") ==
        "a.toml:6:19: allocator.memory_fraction is 0; a share of the device above 0 is expected");
  CHECK(allocator("memory_fraction = 1.5") ==
        "a.toml:6:19: allocator.memory_fraction is 1.5; a value from 0 to 1 is expected");
  CHECK(allocator("roundup_power2_divisions = 6") ==
        "a.toml:6:28: allocator.roundup_power2_divisions is 6; a power of two is expected, or 0 for none");
}

TEST_CASE("models that make no sense") {
  const auto gpt = [](const std::string& more) {
    return complaint(
        "topology = \"single-gpu\"\n[model]\nfamily = \"gpt\"\nlayers = 2\nhidden = 64\nheads = 4\nvocab = "
        "100\n" +
        more);
  };
  CHECK(gpt("") == "");
  CHECK(gpt("max_positions = 16\n[training]\nsequence_length = 32") ==
        "a.toml:10:19: sequences of 32 tokens need as many positions; the model has 16");
  CHECK(gpt("encoder_layers = 2") == "a.toml:8:18: family \"gpt\" has no \"encoder_layers\"");
  CHECK(gpt("kv_heads = 2") == "");
  CHECK(gpt("kv_heads = 3") == "a.toml:8:12: 3 key and value heads do not divide 4 heads");
  CHECK(gpt("pooler = true") == "a.toml:8:10: family \"gpt\" has no \"pooler\"");
  CHECK(
      gpt("positions = \"relative\"") ==
      "a.toml:8:13: family \"gpt\" has no positions \"relative\"; legal here: learned, alibi, rotary, none");
  CHECK(gpt("positions = \"learned\"") == "a.toml:3:10: learned positions need \"max_positions\"");
  CHECK(gpt("positions = \"alibi\"\nmax_positions = 16") ==
        "a.toml:9:17: max_positions counts learned positions; alibi positions are not learned");
  CHECK(gpt("norm_impl = \"fused\"") == "a.toml:8:13: norm \"layernorm\" always is one kernel");
  CHECK(gpt("[training]\nmasked_share = 0.15") == "a.toml:9:16: family \"gpt\" masks no tokens");
  CHECK(gpt("[training]\nobjective = \"masked\"") ==
        "a.toml:9:13: family \"gpt\" is trained with objective \"causal\"");
  CHECK(complaint("topology = \"single-gpu\"\n[model]\nfamily = \"gpt\"\nlayers = 2\nhidden = 64\nheads = "
                  "5\nvocab = 100") ==
        "a.toml:6:9: 5 heads do not divide a hidden size of 64; give head_dim");
  CHECK(complaint(
            "topology = \"single-gpu\"\n[model]\nfamily = \"gpt\"\nhidden = 64\nheads = 4\nvocab = 100") ==
        "a.toml:3:10: the model needs \"layers\"");
  CHECK(complaint("topology = \"single-gpu\"\n[model]\nfamily = \"lama\"") ==
        "a.toml:3:10: model.family cannot be \"lama\"; did you mean \"llama\"?");
  CHECK(gpt("[training]\nmicro_batch = 10000000\nsequence_length = 100000000") ==
        "a.toml:9:15: the micro-batch makes tensors of more than 1e14 elements");
}

std::string linked(const std::string& links, int gpus = 3) {
  return complaint("model = \"gpt2\"\n[cluster]\ngpus = " + std::to_string(gpus) +
                   "\n[topology.node]\ngpu = \"a100-sxm-80gb\"\ngpus = 3\nintra = \"links\"\n" + links);
}

TEST_CASE("explicit links: unreachable GPUs, self-links, impossible bandwidths") {
  const std::string ring =
      "link = [{a = \"gpu0\", b = \"gpu1\", gb_per_s = 50}, {a = \"gpu1\", b = \"gpu2\", gb_per_s = 50}]";
  CHECK(linked(ring) == "");
  CHECK(linked("link = [{a = \"gpu0\", b = \"gpu1\", gb_per_s = 50}]", 2) ==
        "a.toml:6:8: gpu2 cannot be reached from gpu0 over the links of the node");
  CHECK(linked("link = [{a = \"gpu0\", b = \"gpu0\", gb_per_s = 50}]") ==
        "a.toml:8:14: \"gpu0\" is linked to itself; a link joins two devices");
  CHECK(linked("link = [{a = \"gpu0\", b = \"gpu7\", gb_per_s = 50}]") ==
        "a.toml:8:14: \"gpu7\" is not a GPU of the node; gpu0 to gpu2 are");
  CHECK(linked("link = [{a = \"gpu0\", b = \"gpu1\", gb_per_s = 0}]") ==
        "a.toml:8:45: topology.node.link[].gb_per_s is 0; a value from 0.001 to 1000000 is expected");
  CHECK(linked("link = [{a = \"gpu0\", b = \"gpu1\", gb_per_s = -3}]") ==
        "a.toml:8:45: topology.node.link[].gb_per_s is -3; a value from 0.001 to 1000000 is expected");
  CHECK(linked("link = [{a = \"gpu0\", b = \"gpu1\", gb_per_s = nan}]") ==
        "a.toml:8:45: topology.node.link[].gb_per_s is nan; a value from 0.001 to 1000000 is expected");
  CHECK(linked("link = [{a = \"gpu0\", b = \"gpu1\"}]") == "a.toml:8:14: a link needs \"gb_per_s\"");
  CHECK(linked("") == "a.toml:7:9: intra = \"links\" needs [[node.link]] entries");
}

TEST_CASE("stragglers that do not exist") {
  CHECK(complaint(good + "[[straggler]]\ngpu = 16\ncompute_scale = 0.9") ==
        "a.toml:6:7: GPU 16 does not exist; the job has GPUs 0 to 15");
  CHECK(complaint(good + "[[straggler]]\ngpu = 3") == "a.toml:6:7: a straggler needs \"compute_scale\"");
  CHECK(
      complaint(good +
                "[[straggler]]\ngpu = 3\ncompute_scale = 0.9\n[[straggler]]\ngpu = 3\ncompute_scale = 0.8") ==
      "a.toml:9:7: GPU 3 is a straggler twice");
}

TEST_CASE("jitter that cannot be") {
  CHECK(complaint(good + "[jitter]\nstep_sigma = 0.6") ==
        "a.toml:6:14: jitter.step_sigma is 0.6; a value from 0 to 0.5 is expected");
  CHECK(complaint(good + "[jitter]\nmode = \"max\"") ==
        "a.toml:6:8: jitter.mode cannot be \"max\"; known: expected-maximum, sampled");
  CHECK(complaint(good + "[jitter]\nseed = 3") ==
        "a.toml:6:8: nothing is drawn unless jitter.mode = \"sampled\"");
}

TEST_CASE("elements of a list without those before them") {
  const auto set = [](const std::string& assignment) {
    ScenarioFile file = read_scenario_text(good, "a.toml");
    try {
      assign(file, assignment);
      resolve(file.settings, test_library());
      return std::string();
    } catch (const InputError& error) {
      return std::string(error.what());
    }
  };
  CHECK(set("degraded_link[1].node=0") ==
        "--set degraded_link[1].node=0: there is no degraded_link[0] before degraded_link[1]");
  CHECK(set("straggler[-1].gpu=3") ==
        "--set straggler[-1].gpu=3: there is no straggler[0] before straggler[-1]");
  CHECK(set("straggler[].gpu=3") == "--set straggler[].gpu=3: there is no straggler[0] before straggler[]");
}

TEST_CASE("links that cannot be degraded") {
  const auto degraded = [](const std::string& text) {
    return complaint(good + "[[degraded_link]]\n" + text);
  };
  CHECK(degraded("node = 1\ndevice = \"nic7\"\nscale = 0.5") == "");
  CHECK(degraded("device = \"leaf7\"\nscale = 0.5") == "");
  CHECK(degraded("node = 3\ndevice = \"gpu1\"\nscale = 0.5") ==
        "a.toml:6:8: node 3 does not exist; the job has nodes 0 to 1");
  CHECK(degraded("node = 0\ndevice = \"gpu8\"\nscale = 0.5") ==
        "a.toml:7:10: node 0 has no gpu8; there are gpu0 to gpu7");
  CHECK(degraded("node = 0\ndevice = \"nic9\"\nscale = 0.5") ==
        "a.toml:7:10: node 0 has no nic9; there are nic0 to nic7");
  CHECK(degraded("device = \"leaf8\"\nscale = 0.5") ==
        "a.toml:6:10: leaf8 does not exist; there are leaf0 to leaf7");
  CHECK(degraded("device = \"gpu1\"\nscale = 0.5") == "a.toml:6:10: gpu1 needs a \"node\"");
  CHECK(degraded("node = 0\ndevice = \"leaf1\"\nscale = 0.5") ==
        "a.toml:6:8: a leaf switch is of no node; leave \"node\" out");
  CHECK(degraded("node = 0\ndevice = \"spine\"\nscale = 0.5") ==
        "a.toml:7:10: \"spine\" is no device; a name such as gpu0, nic0 or leaf0 is expected");
  CHECK(degraded("node = 0\nscale = 0.5") == "a.toml:6:8: a degraded link needs \"device\"");
  CHECK(degraded("node = 0\ndevice = \"nic0\"") == "a.toml:7:10: a degraded link needs \"scale\"");
  CHECK(degraded("node = 0\ndevice = \"nic0\"\nscale = 0") ==
        "a.toml:8:9: degraded_link[].scale is 0; a value from 0.001 to 1 is expected");
  CHECK(degraded("node = 0\ndevice = \"nic0\"\nscale = 0.5\n[[degraded_link]]\nnode = 0\n"
                 "device = \"nic0\"\nscale = 0.4") ==
        "a.toml:11:10: node0.nic0 -> network is degraded twice");
  CHECK(complaint("model = \"gpt2\"\ntopology = \"titan-rtx-node\"\n[cluster]\ngpus = 2\n[[degraded_link]]\n"
                  "node = 0\ndevice = \"gpu1\"\nscale = 0.5") ==
        "a.toml:7:10: gpu1 has no NVLink; GPUs of this node talk over PCIe");
}

TEST_CASE("background jobs where there is nothing to share") {
  const auto job = [](const std::string& text) { return complaint(good + "[[background_job]]\n" + text); };
  CHECK(job("gb_per_s = 5") == "");
  CHECK(job("leaf = 7\ngb_per_s = 5") == "");
  CHECK(job("node = 1\ndevice = \"nic7\"\ngb_per_s = 5\nflows = 1") == "");
  CHECK(job("leaf = 8\ngb_per_s = 5") == "a.toml:6:8: leaf 8 does not exist; there are leaf0 to leaf7");
  CHECK(job("leaf = 1") == "a.toml:6:8: a background job needs \"gb_per_s\"");
  CHECK(job("node = 1\ngb_per_s = 5") == "a.toml:6:8: a \"node\" without a \"device\" such as \"nic0\"");
  CHECK(job("device = \"nic0\"\ngb_per_s = 5") == "a.toml:6:10: nic0 needs a \"node\"");
  CHECK(job("node = 1\ndevice = \"gpu0\"\ngb_per_s = 5") ==
        "a.toml:7:10: \"gpu0\" is no device; a name such as nic0 is expected");
  CHECK(job("leaf = 0\nnode = 1\ndevice = \"nic0\"\ngb_per_s = 5") ==
        "a.toml:6:8: a background job is on the uplinks of a \"leaf\" or on a \"device\", not both");
  CHECK(complaint(good + "[[background_job]]\ngb_per_s = 5", {"topology.fabric.kind=single-switch"}) ==
        "a.toml:6:12: the fabric has no leaf switches to share; name a \"node\" and a \"device\" such as "
        "\"nic0\"");
}

TEST_CASE("--set: its own place, bare words, types") {
  CHECK(complaint(good, {"strategy.sharding_factor=4"}) == "");
  CHECK(complaint(good, {"training.precision=fp32"}) == "");
  CHECK(complaint(good, {"strategy.shardin_factor=4"}) ==
        "--set strategy.shardin_factor=4: unknown key \"shardin_factor\" in [strategy]; did you mean "
        "\"sharding_factor\"?");
  CHECK(complaint(good, {"training.micro_batch=many"}) ==
        "--set training.micro_batch=many: training.micro_batch is many; an integer is expected");
  CHECK(complaint(good, {"training.micro_batch"}) == "--set training.micro_batch: key=value is expected");
  CHECK(complaint(good, {"cluster.gpus=12"}) ==
        "--set cluster.gpus=12: 12 GPUs do not fill nodes of 8; 8 or 16 do");
}

std::string file_complaint(const std::string& path) {
  try {
    resolve(read_scenario(path).settings, test_library());
    return "";
  } catch (const InputError& error) {
    return error.what();
  }
}

TEST_CASE("files that cannot be read: missing, a directory, far too large, naming themselves") {
  namespace fs = std::filesystem;
  const fs::path folder = fs::temp_directory_path() / "shardsim_errors_test";
  fs::create_directories(folder);
  CHECK(file_complaint((folder / "missing.toml").string()) ==
        (folder / "missing.toml").string() + ": cannot be read: No such file or directory");
  CHECK(file_complaint(folder.string()) == folder.string() + ": is a directory, not a file");
  const std::string large = (folder / "large.toml").string();
  std::ofstream(large) << "model = \"gpt2\"\n";
  fs::resize_file(large, 100 << 20);
  CHECK(file_complaint(large) == large + ": has 100 MiB; files of more than 16 MiB are not read");
  const std::string self = (folder / "self.toml").string();
  std::ofstream(self) << "model = \"" << self << "\"\ntopology = \"single-gpu\"\n";
  CHECK(file_complaint(self) == self + ":1:9: model = \"" + self + "\" is this very file");
  const std::string other = (folder / "other.toml").string();
  std::ofstream(other) << "model = \"" << self << "\"\ntopology = \"single-gpu\"\n";
  CHECK(
      file_complaint(other) ==
      self +
          ":1:9: unknown key \"model\" in [model]; known: name, family, layers, "
          "encoder_layers, decoder_layers, hidden, heads, kv_heads, head_dim, ffn, vocab, positions, "
          "max_positions, position_offset, type_vocab, tied_embeddings, embedding_norm, pooler, activation, "
          "norm, norm_impl, repeat_kv, bias, dropout, source");
  fs::remove_all(folder);
}

}  // namespace
}  // namespace shardsim
