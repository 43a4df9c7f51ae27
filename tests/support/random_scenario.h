// Small random scenarios: models of a few layers on up to 16 GPUs, every strategy, a straggler,
// a degraded link, a background job or a second kind of nodes now and then.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "sim/base/random.h"
#include "sim/scenario/scenario.h"

#include "tests/support/hardware.h"

namespace shardsim {

// The same cluster in two parts, the first of so many nodes.
inline Settings in_parts(const Settings& uniform, std::int64_t first_nodes) {
  Settings s;
  s.scenario = uniform.scenario;
  const auto integer = [&](const char* key) { return std::get<std::int64_t>(uniform.find(key)->value); };
  const std::int64_t first = first_nodes * integer("topology.node.gpus");
  const std::int64_t gpus[] = {first, integer("cluster.gpus") - first};
  for (int p = 0; p < 2; ++p) {
    const std::string part = "cluster.part[" + std::to_string(p) + "].";
    for (const auto& [key, setting] : uniform.all())
      if (key.starts_with("topology.node")) s.set(part + key, setting.value, setting.origin);
    s.set(part + "gpus", gpus[p], {Origin::Kind::file, {"random"}, {}});
  }
  for (const auto& [key, setting] : uniform.all())
    if (!key.starts_with("topology.node") && key != "cluster.gpus") s.set(key, setting.value, setting.origin);
  return s;
}

class ScenarioGenerator {
 public:
  explicit ScenarioGenerator(std::uint64_t seed) : random_(seed), mixed_(seed + 1) {}

  Settings next() {
    const Settings uniform = next_uniform();
    return mixed_.chance(3) ? mixed(uniform) : uniform;
  }

  // The second part has another GPU and another network, and perhaps smaller nodes.
  Settings mixed(const Settings& uniform) {
    const auto integer = [&](const char* key) { return std::get<std::int64_t>(uniform.find(key)->value); };
    const std::int64_t node = integer("topology.node.gpus"), nodes = integer("cluster.gpus") / node;
    if (nodes < 2) return uniform;
    Settings s = in_parts(uniform, mixed_.between(1, nodes - 1));
    settings_ = &s;
    const std::string second = "cluster.part[1].topology.node.";
    const bool ampere = uniform.find("topology.node.gpu")->value == Scalar(std::string("a100-sxm-80gb"));
    set(second + "gpu", ampere ? "v100-sxm-32gb" : "a100-sxm-80gb");
    // What-ifs name devices of any node, so with them all nodes have the same.
    const bool named = uniform.list_size("degraded_link") + uniform.list_size("background_job") > 0;
    const std::int64_t smaller = node % 2 == 0 && mixed_.chance(3) && !named ? node / 2 : node;
    if (smaller < node) set(second + "intra", "nvswitch");
    set(second + "gpus", smaller);
    set(second + "nics", named ? integer("topology.node.nics") : mixed_.between((smaller + 1) / 2, smaller));
    set(second + "nic_gbps", mixed_.chance(2) ? std::int64_t{100} : std::int64_t{200});
    set(second + "transport", mixed_.chance(2) ? "ib" : "roce");
    if (mixed_.chance(2)) set(second + "network_overhead_us", 2.0);
    return s;
  }

  Settings next_uniform() {
    Settings s;
    s.scenario = {"random"};
    settings_ = &s;
    const std::vector<std::string> families{"gpt", "t5", "llama", "bert", "bart"};
    const std::string family = families[static_cast<std::size_t>(random_.between(0, 4))];
    set("model.family", family);
    std::int64_t blocks = 0;  // in a row
    if (family == "t5" || family == "bart") {
      const std::int64_t encoder = random_.between(1, 3), decoder = random_.between(1, 3);
      blocks = std::max(encoder, decoder);
      set("model.encoder_layers", encoder);
      set("model.decoder_layers", decoder);
      set("training.sequence_length", 64 * random_.between(1, 4));
      set("training.decoder_sequence_length", 32 * random_.between(1, 4));
    } else {
      blocks = random_.between(1, 4);
      set("model.layers", blocks);
      set("training.sequence_length", 64 * random_.between(1, 6));
    }
    const bool learned = family == "bert" || family == "bart";
    if (learned) set("model.max_positions", std::int64_t{512});
    if (family == "gpt" && random_.chance(2)) set("model.activation", "gelu-tanh");
    if (family == "gpt" && random_.chance(3)) set("model.positions", "alibi");
    if (family == "t5" && random_.chance(2)) set("model.activation", "geglu");
    if (family == "llama" && random_.chance(2)) set("model.norm_impl", "fused");
    if (family == "bert" && random_.chance(2)) set("model.pooler", true);
    if (family == "bert" && random_.chance(2)) set("training.masked_share", 0.15);
    if ((family == "gpt" || family == "llama") && random_.chance(2)) set("model.kv_heads", std::int64_t{2});
    if (random_.chance(4)) set("training.loss_chunks", std::int64_t{4});
    set("model.hidden", 64 * random_.between(1, 16));
    set("model.heads", random_.between(1, 4) * 2);
    set("model.head_dim", std::int64_t{64});
    set("model.vocab", random_.between(500, 5000));
    set("model.dropout", random_.chance(2) ? 0.1 : 0.0);

    const std::int64_t node = pick({1, 2, 4, 8});
    const std::int64_t gpus = node * random_.between(1, 16 / node);
    set("topology.node.gpu", random_.chance(2) ? "a100-sxm-80gb" : "v100-sxm-32gb");
    set("topology.node.gpus", node);
    const bool mesh = node == 8 && random_.chance(2);
    set("topology.node.intra", mesh ? "hybrid-cube-mesh" : "nvswitch");
    set("topology.node.nics", pick({(node + 1) / 2, node}));
    set("topology.node.nic_gbps", pick({100, 200}));
    set("topology.node.transport", random_.chance(2) ? "ib" : "roce");
    set("topology.fabric.kind", random_.chance(2) ? "rail-fat-tree" : "fat-tree");
    set("topology.fabric.nodes_per_leaf", random_.between(1, 3));
    set("topology.fabric.oversubscription", random_.chance(2) ? 1.0 : 4.0);
    set("cluster.gpus", gpus);

    set("training.micro_batch", random_.between(1, 4));
    set("training.grad_accum", random_.between(1, 3));
    set("training.precision", random_.chance(3) ? "fp32" : random_.chance(4) ? "fp16-pure" : "fp16-mixed");
    const std::string checkpointing = pick_text({"none", "full", "selective", "selective-op", "every-k"});
    set("training.activation_checkpointing", checkpointing);
    if (checkpointing == "every-k") set("training.checkpoint_every", random_.between(1, blocks));
    if (random_.chance(3)) set("training.activation_offload", true);
    set("training.stack", random_.chance(2) ? "eager-2022" : "eager-2023");
    set("training.attention", "unfused");
    set("training.gradient_clipping", random_.chance(2));
    set("training.sync_each_step", random_.chance(2));
    if (random_.chance(3)) {
      set("strategy.kind", "ddp");
      set("strategy.bucket_cap_mb", random_.chance(2) ? 25.0 : 1.0);
      set("strategy.gradient_as_bucket_view", random_.chance(2));
    } else if (random_.chance(2)) {
      set_zero(gpus);
    } else {
      std::vector<std::int64_t> factors;
      for (std::int64_t f = 1; f <= gpus; ++f)
        if (gpus % f == 0) factors.push_back(f);
      set("strategy.sharding_factor", pick(factors));
      set("strategy.reshard_after_forward", !random_.chance(3));
      set("strategy.backward_prefetch", random_.chance(3) ? "post" : random_.chance(2) ? "none" : "pre");
      set("strategy.forward_prefetch", random_.chance(3));
      set("strategy.limit_all_gathers", !random_.chance(3));
    }
    for (std::int64_t i = 0; i < random_.between(0, 1) * random_.between(0, 2); ++i) {
      const std::string key = "straggler[" + std::to_string(i) + "].";
      set(key + "gpu", (i + random_.between(0, gpus - 1) / 2 * 2) % gpus);
      set(key + "compute_scale", 0.5 + 0.1 * static_cast<double>(random_.between(0, 8)));
      if (gpus < 2 || i == 1) break;
    }
    if (random_.chance(3)) set_network_what_ifs(gpus, node);
    return s;
  }

 private:
  void set_network_what_ifs(std::int64_t gpus, std::int64_t node) {
    const std::int64_t nodes = gpus / node;
    const std::int64_t nics = std::get<std::int64_t>(settings_->find("topology.node.nics")->value);
    const auto pods = [&] {
      const std::int64_t per_leaf =
          std::get<std::int64_t>(settings_->find("topology.fabric.nodes_per_leaf")->value);
      return (nodes + per_leaf - 1) / per_leaf;
    };
    const std::int64_t on = random_.between(0, nodes - 1);
    if (random_.chance(2)) {
      const bool gpu = random_.chance(2);
      set("degraded_link[0].node", on);
      set("degraded_link[0].device",
          (gpu ? "gpu" : "nic") + std::to_string(random_.between(0, (gpu ? node : nics) - 1)));
      set("degraded_link[0].scale", 0.25 * static_cast<double>(random_.between(1, 3)));
      if (random_.chance(2)) {
        set("degraded_link[1].device", "leaf" + std::to_string(random_.between(0, pods() - 1)));
        set("degraded_link[1].scale", 0.1 * static_cast<double>(random_.between(1, 9)));
      }
    }
    if (random_.chance(2)) {
      set("background_job[0].gb_per_s", static_cast<double>(random_.between(1, 40)));
      if (random_.chance(2)) set("background_job[0].leaf", random_.between(0, pods() - 1));
      if (random_.chance(2)) set("background_job[0].flows", random_.between(1, 16));
    }
    if (random_.chance(2)) {
      const std::string key =
          "background_job[" + std::to_string(settings_->list_size("background_job")) + "].";
      set(key + "node", random_.between(0, nodes - 1));
      set(key + "device", "nic" + std::to_string(random_.between(0, nics - 1)));
      set(key + "gb_per_s", static_cast<double>(random_.between(1, 20)));
    }
  }

  void set_zero(std::int64_t gpus) {
    if (to_string(settings_->find("training.precision")->value) == "fp16-pure")
      set("training.precision", "fp16-mixed");  // the fp32 copy is the point
    const std::int64_t kind = random_.between(1, gpus % 2 == 0 ? 5 : 4);
    if (kind == 4) {
      set("strategy.kind", "megatron-dp");
      set("strategy.megatron.overlap_param_gather", random_.chance(2));
      set("strategy.megatron.bucket_size", random_.chance(2) ? 4e7 : 1e5);
      return;
    }
    set("strategy.kind", kind == 5 ? "mics" : "zero" + std::to_string(kind));
    if (kind == 5) set("strategy.sharding_factor", random_.chance(2) ? 2 : gpus);
    set("strategy.deepspeed.reduce_bucket_size", random_.chance(2) ? 5e8 : 2e6);
    set("strategy.deepspeed.overlap_comm", random_.chance(2));
    if (kind < 3) set("strategy.deepspeed.multi_rank_bucket_allreduce", random_.chance(2));
    if (kind >= 3) {
      set("strategy.deepspeed.param_persistence_threshold", random_.chance(2) ? 1e5 : 0.0);
      set("strategy.deepspeed.max_reuse_distance", random_.chance(2) ? 1e9 : 0.0);
      set("strategy.deepspeed.sub_group_size", random_.chance(2) ? 1e9 : 1e6);
    }
    if (kind < 5 && random_.chance(3)) {
      const bool parameters = kind == 3 && gpus > 1 && random_.chance(2);
      set("strategy.cpu_offload", parameters ? "parameters" : "optimizer");
    }
  }

  template <class T>
  void set(const std::string& key, const T& value) {
    Scalar scalar;
    if constexpr (std::is_convertible_v<T, std::string>)
      scalar = std::string(value);
    else
      scalar = value;
    settings_->set(key, scalar, {Origin::Kind::file, {"random"}, {}});
  }
  std::int64_t pick(const std::vector<std::int64_t>& values) {
    return values[static_cast<std::size_t>(random_.between(0, static_cast<std::int64_t>(values.size()) - 1))];
  }

  std::string pick_text(const std::vector<std::string>& values) {
    return values[static_cast<std::size_t>(random_.between(0, static_cast<std::int64_t>(values.size()) - 1))];
  }

  Random random_, mixed_;
  Settings* settings_ = nullptr;
};

inline std::string describe(const Settings& settings) {
  std::string text;
  for (const auto& [key, setting] : settings.all()) text += key + "=" + to_string(setting.value) + " ";
  return text;
}

}  // namespace shardsim
