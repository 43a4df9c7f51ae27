#include "sim/scenario/library.h"

#include <algorithm>
#include <filesystem>

#include <fmt/format.h>

#include "sim/scenario/overlay_document.h"
#include "sim/scenario/toml.h"

namespace shardsim {
namespace fs = std::filesystem;
namespace {

constexpr std::int64_t many = std::int64_t{1} << 40;

template <class Enum, std::size_t Count>
std::vector<std::string> names_of(const Enum (&values)[Count]) {
  std::vector<std::string> names;
  for (const Enum value : values) names.emplace_back(name(value));
  return names;
}
template <class Enum, std::size_t Count>
Enum choice(TableReader& table, std::string_view key, const Enum (&values)[Count]) {
  const auto names = names_of(values);
  const std::string text = table.choice(key, names);
  return values[std::find(names.begin(), names.end(), text) - names.begin()];
}

constexpr Architecture all_architectures[] = {Architecture::volta, Architecture::turing, Architecture::ampere,
                                              Architecture::hopper};
constexpr AttentionKind all_attention[] = {AttentionKind::unfused, AttentionKind::flash,
                                           AttentionKind::flash2, AttentionKind::mem_efficient};

Time us(TableReader& table, std::string_view key) { return from_microseconds(table.number(key, 0, 1e5)); }
FlopRate tflops(TableReader& table, std::string_view key) { return {table.positive(key) * 1e12}; }
Bandwidth gb_per_s(TableReader& table, std::string_view key) {
  const double gb = table.positive(key);
  if (gb < 1e-6 || gb > 1e6)
    table.fail(key, fmt::format("\"{}\" is {}; between 1e-6 and 1e6 GB/s is expected", key, gb));
  return from_gb_per_s(gb);
}
double share(TableReader& table, std::string_view key) {
  const double value = table.number(key, 0, 1);
  if (value == 0) table.fail(key, fmt::format("\"{}\" is 0; a share above 0 is expected", key));
  return value;
}

GemmProfile read_gemm(TableReader table, double training_context) {
  GemmProfile profile;
  profile.peak = tflops(table, "peak_tflops");
  profile.sustained = tflops(table, "sustained_tflops");
  const auto tiles = table.numbers("tile_efficiency", profile.tile_efficiency.size());
  for (std::size_t i = 0; i < tiles.size(); ++i) {
    if (tiles[i] <= 0 || tiles[i] > 1)
      table.fail_element("tile_efficiency", i, "\"tile_efficiency\" holds shares in (0, 1]");
    profile.tile_efficiency[i] = tiles[i];
  }
  profile.prologue = us(table, "prologue_us");
  profile.memory_efficiency = share(table, "memory_efficiency");
  profile.training_context =
      table.has("training_context") ? share(table, "training_context") : training_context;
  table.finish();
  return profile;
}

AttentionProfile read_attention(TableReader table) {
  AttentionProfile profile;
  profile.kind = choice(table, "implementation", all_attention);
  if (table.has("full_precision")) profile.full_precision = table.flag("full_precision");
  profile.head_dim = table.integer("head_dim", 1, 4096);
  profile.causal = table.flag("causal");
  profile.forward = tflops(table, "forward_tflops");
  profile.backward = tflops(table, "backward_tflops");
  profile.half_sequence = table.number("half_sequence", 0, 1e6);
  table.finish();
  return profile;
}

Interference read_interference(TableReader table) {
  Interference i;
  i.hbm_bytes_per_bus_byte = table.number("hbm_bytes_per_bus_byte", 0, 100);
  i.hbm_share_max = table.number("hbm_share_max", 0, 0.99);
  i.gemm_sensitivity = table.number("gemm_sensitivity", 0, 1);
  i.collective_slowdown = table.number("collective_slowdown", 0, 0.99);
  table.finish();
  return i;
}

toml::table parse_overlaid(const std::string& path, std::string_view section, Overlays* overlays) {
  toml::table document = parse_constants(section, path);
  if (overlays != nullptr && !overlays->overlays.empty()) overlay_document(*overlays, section, document);
  return document;
}

PerProtocol per_protocol(TableReader& table, std::string_view key) {
  const auto values = table.numbers(key, 3);
  PerProtocol times;
  for (std::size_t i = 0; i < 3; ++i) {
    if (values[i] < 0 || values[i] > 1e9)
      table.fail_element(key, i, fmt::format("\"{}\" holds times, not {}", key, values[i]));
    times[i] = from_microseconds(values[i]);
  }
  return times;
}

Nvls read_nvls(TableReader table) {
  Nvls n;
  n.channels = static_cast<int>(table.integer("channels", 1, 1024));
  n.efficiency = share(table, "efficiency");
  n.chunk = table.bytes("chunk");
  n.latency = us(table, "latency_us");
  n.network_latency = us(table, "network_latency_us");
  n.tree_step_floor_mib = table.number("tree_step_floor_mib", 0, 1e6);
  table.finish();
  return n;
}

NcclArchitecture read_nccl_architecture(TableReader table) {
  NcclArchitecture a;
  a.ll_max_one_node = gb_per_s(table, "ll_max_one_node_gb_per_s");
  a.ll_max_nodes = gb_per_s(table, "ll_max_nodes_gb_per_s");
  a.tree_channel_two_nodes = gb_per_s(table, "tree_channel_two_nodes_gb_per_s");
  a.tree_channel_nodes = gb_per_s(table, "tree_channel_nodes_gb_per_s");
  a.tree_channel_ll128 = gb_per_s(table, "tree_channel_ll128_gb_per_s");
  a.ring_plateau = table.number("ring_plateau", 1, 100);
  a.first_use = table.bytes("first_use");
  if (table.has("nvls")) a.nvls = read_nvls(table.table("nvls"));
  table.finish();
  return a;
}

// An array of [MiB, share] pairs, ascending.
std::vector<std::array<double, 2>> read_knots(TableReader& table, const std::string& file,
                                              std::string_view key) {
  std::vector<std::array<double, 2>> knots;
  const toml::node* node = table.node(key);
  if (const toml::array* rows = node != nullptr ? node->as_array() : nullptr)
    for (const toml::node& row : *rows) {
      const toml::array* pair = row.as_array();
      const auto at = [&](std::size_t i) { return (*pair)[i].value<double>().value_or(0); };
      if (pair == nullptr || pair->size() != 2 || !(at(0) > 0) || !(at(1) > 0) || at(1) > 1 ||
          (!knots.empty() && at(0) <= knots.back()[0]))
        throw InputError(place_of(row, file),
                         fmt::format("\"{}\" holds [MiB, share] pairs in ascending order", key));
      knots.push_back({at(0), at(1)});
    }
  if (knots.empty()) table.fail(key, fmt::format("\"{}\" needs at least one [MiB, share] pair", key));
  return knots;
}

Nccl read_nccl(TableReader table, const std::string& file) {
  Nccl n;
  n.ring_base = per_protocol(table, "ring_base_us");
  n.tree_base = per_protocol(table, "tree_base_us");
  n.ring_nvlink = per_protocol(table, "ring_nvlink_us");
  n.tree_nvlink = per_protocol(table, "tree_nvlink_us");
  n.ring_network = per_protocol(table, "ring_network_us");
  n.tree_network = per_protocol(table, "tree_network_us");
  n.launch = us(table, "launch_us");
  n.ll128_efficiency = share(table, "ll128_efficiency");
  n.nvlink_efficiency = read_knots(table, file, "nvlink_efficiency");
  constexpr const char* corrections[] = {"tree_correction_ll", "tree_correction_ll128",
                                         "tree_correction_simple"};
  for (std::size_t p = 0; p < 3; ++p) n.tree_correction[p] = table.numbers(corrections[p], 24);
  if (table.has("tree_step_floor_mib")) n.tree_step_floor_mib = table.number("tree_step_floor_mib", 0, 1e6);
  n.per_connection = table.bytes("per_connection");
  n.connections = static_cast<int>(table.integer("connections", 1, 64));
  const auto of = [&](Architecture a) -> NcclArchitecture& {
    return n.architecture[static_cast<std::size_t>(a)];
  };
  for (const Architecture a : {Architecture::volta, Architecture::ampere, Architecture::hopper})
    of(a) = read_nccl_architecture(table.table(name(a)));
  of(Architecture::turing) = of(Architecture::volta);  // tuning.cc: every compute capability below 8.0
  table.finish();
  return n;
}

}  // namespace

std::string Library::find(std::string_view kind, const std::string& name, const Place& place) const {
  if (name.find('/') != std::string::npos || name.ends_with(".toml")) return name;
  for (const std::string& root : roots_) {
    const fs::path path = fs::path(root) / kind / (name + ".toml");
    std::error_code error;
    if (fs::is_regular_file(path, error)) return path.string();
  }
  const std::string_view what = kind == "topologies"              ? "topology"
                                : kind == "topologies/gpus"       ? "GPU"
                                : kind == "topologies/stacks"     ? "stack"
                                : kind == "topologies/transports" ? "transport"
                                                                  : "model";
  const std::vector<std::string> known = names(kind);
  throw InputError(
      place,
      fmt::format("unknown {} \"{}\"{}", what, name,
                  known.empty()
                      ? fmt::format("; no folder {}/ was found; $SHARDSIM_DATA can name its parent", kind)
                      : suggestion(name, known)));
}

std::vector<std::string> Library::names(std::string_view kind) const {
  std::vector<std::string> found;
  for (const std::string& root : roots_) {
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(fs::path(root) / kind, error))
      if (entry.path().extension() == ".toml") found.push_back(entry.path().stem().string());
  }
  std::sort(found.begin(), found.end());
  found.erase(std::unique(found.begin(), found.end()), found.end());
  return found;
}

std::string Library::find_scenario(const std::string& name) const {
  return find_under_scenarios(name, ".toml");
}
std::string Library::find_table(const std::string& name) const { return find_under_scenarios(name, ".csv"); }
std::vector<std::string> Library::scenario_names() const { return names_under_scenarios(".toml"); }
std::vector<std::string> Library::table_names() const { return names_under_scenarios(".csv"); }

std::string Library::find_under_scenarios(const std::string& name, const char* extension) const {
  for (const std::string& root : roots_)
    for (const char* suffix : {"", extension}) {
      const fs::path path = fs::path(root) / "scenarios" / (name + suffix);
      std::error_code error;
      if (fs::is_regular_file(path, error)) return path.string();
    }
  return "";
}

std::vector<std::string> Library::names_under_scenarios(const char* extension) const {
  std::vector<std::string> found;
  for (const std::string& root : roots_) {
    const fs::path folder = fs::path(root) / "scenarios";
    std::error_code error;
    for (const auto& entry : fs::recursive_directory_iterator(folder, error))
      if (entry.path().extension() == extension)
        found.push_back(entry.path().lexically_relative(folder).replace_extension().string());
  }
  std::sort(found.begin(), found.end());
  found.erase(std::unique(found.begin(), found.end()), found.end());
  return found;
}

Gpu read_gpu(const std::string& path, Overlays* overlays) {
  const toml::table document = parse_overlaid(path, "gpu", overlays);
  TableReader table(document, path, "a GPU file");
  Gpu gpu;
  gpu.name = table.text("name");
  table.text("source");
  gpu.architecture = choice(table, "architecture", all_architectures);
  gpu.sms = static_cast<int>(table.integer("sms", 32, 100000));
  gpu.memory = Bytes{table.integer("memory_bytes", 1 << 30, many)};
  gpu.context = table.bytes("context");
  gpu.memory_bandwidth = gb_per_s(table, "memory_bandwidth_gb_per_s");
  gpu.memory_efficiency = share(table, "memory_efficiency");
  gpu.memory_fixed = us(table, "memory_kernel_fixed_us");
  gpu.gemm_fixed = us(table, "gemm_kernel_fixed_us");
  const double training_context = share(table, "training_context");
  gpu.nvlinks = static_cast<int>(table.integer("nvlinks", 0, 1000));
  gpu.nvlink = gb_per_s(table, "nvlink_gb_per_s");
  gpu.nvlink_efficiency = share(table, "nvlink_efficiency");
  gpu.pcie = gb_per_s(table, "pcie_gb_per_s");
  TableReader gemm = table.table("gemm");
  for (const DType t : {DType::fp32, DType::tf32, DType::fp16, DType::bf16, DType::fp8})
    if (gemm.has(name(t)))
      gpu.gemm[static_cast<std::size_t>(t)] = read_gemm(gemm.table(name(t)), training_context);
  gemm.finish();
  for (const TableReader& a : table.tables("attention")) gpu.attention.push_back(read_attention(a));
  gpu.interference = read_interference(table.table("interference"));
  table.finish();
  return gpu;
}

namespace {

// A stack file may say only in what it differs from another one beside it.
toml::table read_stack_table(const std::string& path, int depth = 0) {
  toml::table document = parse_toml_file(path);
  const toml::node* base = document.get("based_on");
  if (base == nullptr) return document;
  const Place place = place_of(*base, path);
  if (!base->is_string()) throw InputError(place, "\"based_on\" is the name of a stack");
  constexpr int depth_max = 8;
  if (depth == depth_max) throw InputError(place, "stacks are based on each other in a circle");
  const fs::path other = fs::path(path).parent_path() / (base->as_string()->get() + ".toml");
  document.erase("based_on");
  return merged(read_stack_table(other.string(), depth + 1), std::move(document));
}

}  // namespace

toml::table parse_constants(std::string_view section, const std::string& path) {
  return section == "stack" ? read_stack_table(path) : parse_toml_file(path);
}

Stack read_stack(const std::string& path, Overlays* overlays) {
  const toml::table document = parse_overlaid(path, "stack", overlays);
  TableReader table(document, path, "a stack file");
  Stack stack;
  stack.name = table.text("name");
  stack.versions = table.text("versions");
  table.text("source");

  TableReader framework = table.table("framework");
  if (framework.has("compile")) stack.compiles = framework.flag("compile");

  TableReader host = table.table("host");
  for (int w = 0; w < host_works; ++w) {
    const auto work = static_cast<HostWork>(w);
    if ((work == HostWork::compiled_op || work == HostWork::compiled_region) && !stack.compiles) continue;
    stack.host[static_cast<std::size_t>(w)] = us(host, std::string(name(work)) + "_us");
  }
  stack.launch_latency = us(host, "launch_latency_us");
  stack.host_wake = us(host, "wake_us");
  stack.launch_queue = static_cast<int>(host.integer("launch_queue", 1, 1 << 20));
  host.finish();

  TableReader allocator = table.table("allocator");
  stack.cuda_malloc = us(allocator, "cuda_malloc_us");
  stack.cuda_malloc_per_gib = us(allocator, "cuda_malloc_per_gib_us");
  stack.cuda_free = us(allocator, "cuda_free_us");
  TableReader workspace = allocator.table("cublas_workspace");
  for (const Architecture a : all_architectures)
    stack.cublas_workspace[static_cast<std::size_t>(a)] = workspace.bytes(name(a));
  workspace.finish();
  allocator.finish();

  stack.collectives_record_streams = framework.flag("collectives_record_streams");
  const auto names = names_of(all_attention);
  for (const std::string& text : framework.texts("attention")) {
    const auto found = std::find(names.begin(), names.end(), text);
    if (found == names.end())
      framework.fail("attention", fmt::format("unknown attention \"{}\"{}", text, suggestion(text, names)));
    stack.attention.push_back(all_attention[found - names.begin()]);
  }
  stack.optimizer_impl = framework.choice("optimizer_impl", {"for-loop", "foreach", "fused"});
  stack.limit_all_gathers = framework.flag("limit_all_gathers");
  stack.mixed_precision = framework.choice("mixed_precision", {"autocast", "o2"});
  stack.no_sync = framework.flag("no_sync");
  stack.train_metrics = static_cast<int>(framework.integer("train_metrics", 0, 100));
  stack.fused_softmax = framework.flag("fused_softmax");
  stack.narrow_efficiency = share(framework, "narrow_efficiency");
  TableReader efficiency = framework.table("gemm_efficiency");
  for (const Architecture a : all_architectures)
    stack.gemm_efficiency[static_cast<std::size_t>(a)] = share(efficiency, name(a));
  efficiency.finish();
  framework.finish();

  stack.nccl = read_nccl(table.table("nccl"), path);
  table.finish();
  return stack;
}

Transport read_transport(const std::string& path, Overlays* overlays) {
  const toml::table document = parse_overlaid(path, "transport", overlays);
  TableReader table(document, path, "a transport file");
  Transport t;
  t.name = table.text("name");
  table.text("source");
  t.efficiency = share(table, "efficiency");
  t.efficiency_many_leaves = share(table, "efficiency_many_leaves");
  t.half_rate_mib = table.number("half_rate_mib", 0, 1e6);
  t.hop_latency = us(table, "hop_latency_us");
  if (table.has("fabric_half_rate_mib"))
    t.fabric_half_rate_mib = table.number("fabric_half_rate_mib", 0, 1e6);
  t.ll128 = table.flag("ll128");
  table.finish();
  return t;
}

}  // namespace shardsim
