// Resolving a scenario: what the parts of the room that read models, topologies, training and strategies
// share.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>

#include <fmt/format.h>

#include "sim/model/family.h"
#include "sim/scenario/library.h"
#include "sim/scenario/scenario.h"
#include "sim/scenario/settings.h"

namespace shardsim {

// Reads explicit values and supplies defaults, remembering the origin of each.
class Resolver {
 public:
  Resolver(const Settings& settings, const Library& library, const Overlay& overlay)
      : settings_(settings), library_(library) {
    if (!overlay.text.empty()) overlays_.overlays.push_back(overlay);
  }

  Scenario run();

 private:
  // --- access ---
  [[noreturn]] void fail(const std::string& key, const std::string& message) const {
    throw InputError(settings_.place(key), message);
  }
  bool given(const std::string& key) const { return settings_.has(key); }
  template <class T>
  T get(const std::string& key, const T& fallback, const std::string& reason) {
    if (const Setting* setting = settings_.find(key)) return std::get<T>(setting->value);
    Origin origin;
    origin.reason = reason;
    settings_.set(key, Scalar(fallback), origin);
    return fallback;
  }
  std::int64_t integer(const std::string& key, std::int64_t fallback, const std::string& reason) {
    return get<std::int64_t>(key, fallback, reason);
  }
  double number(const std::string& key, double fallback, const std::string& reason) {
    return get<double>(key, fallback, reason);
  }
  bool flag(const std::string& key, bool fallback, const std::string& reason) {
    return get<bool>(key, fallback, reason);
  }
  std::string text(const std::string& key, const std::string& fallback, const std::string& reason) {
    return get<std::string>(key, fallback, reason);
  }
  template <class T>
  T required(const std::string& key, std::string_view what) {
    const Setting* setting = settings_.find(key);
    if (setting == nullptr) fail(key, fmt::format("{} needs \"{}\"", what, key.substr(key.rfind('.') + 1)));
    return std::get<T>(setting->value);
  }
  std::int64_t required_int(const std::string& key, std::string_view what) {
    return required<std::int64_t>(key, what);
  }
  template <class Enum, std::size_t Count>
  static Enum parse(const std::string& text, const Enum (&values)[Count]) {
    return *std::find_if(std::begin(values), std::end(values), [&](Enum v) { return name(v) == text; });
  }

  // --- parts of a mixed cluster ---
  int parts() const { return settings_.list_size("cluster.part"); }
  static std::string part_key(int part) { return fmt::format("cluster.part[{}]", part); }
  // What messages call the first GPU type that has not what `has` asks for; "" when all have it.
  template <class Has>
  std::string gpu_without(const Has& has) const {
    if (s_.parts.empty()) return has(s_.gpu) ? "" : s_.gpu.name;
    for (std::size_t p = 0; p < s_.parts.size(); ++p)
      if (!has(s_.parts[p].gpu)) return fmt::format("{} of cluster.part[{}]", s_.parts[p].gpu.name, p);
    return "";
  }

  // --- resolve.cpp ---
  void read_overlay();
  void check_lists() const;
  void read_library_tables();
  void read_library_table(const std::string& key, std::string_view kind);
  void settle_tables_of_parts();
  void read_cluster();
  void read_parts();
  void check_nodes_are_filled(const std::string& key, std::int64_t gpus, const TopologySpec& t) const;
  void read_what_ifs();
  void read_jitter();
  void check_sizes() const;
  void collect_values();

  // --- resolve_what_ifs.cpp ---
  struct Device {
    std::string kind;  // "gpu", "nic", "leaf"
    int number;
  };
  void read_degraded_links();
  void read_background_jobs();
  Device device(const std::string& key, const std::vector<std::string>& kinds) const;
  int node_index(const std::string& key) const;
  std::vector<LinkId> links_to_degrade(const Topology& topology, const std::string& prefix);
  std::vector<LinkId> links_shared_with_others(const Topology& topology, const std::string& prefix);

  // --- resolve_model.cpp ---
  void read_model();
  void reject_what_the_family_lacks(const FamilyEntry& family);
  std::string family_choice(const std::string& key, std::string_view legal);
  void read_positions(const FamilyEntry& family);

  // --- resolve_topology.cpp ---
  void read_topology();
  // The keys "prefix.…", without those of the fabric.
  void read_nodes(const std::string& prefix, TopologySpec& t, Gpu& gpu);
  void read_links(const std::string& prefix, NodeSpec& node);
  void read_network(const std::string& prefix, NodeSpec& node);
  void read_fabric();
  Transport resolved_transport(const std::string& prefix);

  // --- resolve_training.cpp ---
  void read_workload();
  std::int64_t tokens_per_sample() const;
  void read_batch();
  std::int64_t divide(std::int64_t global, std::int64_t by, const std::string& global_key,
                      const std::string& missing) const;
  bool has(DType t) const;
  void read_stack();
  void read_compile_scope(bool compile);
  std::pair<std::string, std::string> usual_stack() const;  // and why
  void read_precision();
  void read_attention();
  void read_training();
  void read_loss();
  OptimizerImpl optimizer_impl();
  void read_checkpointing();

  // --- resolve_strategy.cpp ---
  void read_strategy();
  void reject_foreign_options(const std::string& kind) const;
  void read_ddp();
  void read_fsdp();
  void read_fsdp2();
  void read_zero(int stage, bool mics);
  ZeroOffload zero_offload(int stage, bool mics);
  std::int64_t mics_shard_size();
  void read_megatron_dp();
  std::int64_t elements(const std::string& key, std::int64_t fallback, const std::string& reason);
  bool fsdp_offload(std::int64_t factor, bool adds_on_host);
  std::int64_t reshard_ranks(std::int64_t factor);
  std::int64_t sharding_factor();
  std::int64_t ranks_of_a_node() const;

  // --- resolve_allocator.cpp ---
  void read_allocator();

  Settings settings_;  // grows by what files and defaults add
  const Library& library_;
  Overlays overlays_;
  Scenario s_{};
};

}  // namespace shardsim
