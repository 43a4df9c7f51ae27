#include "sim/scenario/constants.h"

#include <algorithm>
#include <map>
#include <optional>

#include <fmt/format.h>

#include "sim/scenario/overlay_document.h"

namespace shardsim {
namespace {

// * = any name, [] = any element. Bounds are engineering estimates: no published system lies outside.
struct Bounds {
  std::string_view section, pattern, unit;
  double low, high;
  bool decades;
  std::string_view meaning;
};
constexpr Bounds table[] = {
    {"gpu", "memory_efficiency", "share", 0.5, 1, false, "of the HBM bandwidth, by streaming kernels"},
    {"gpu", "memory_kernel_fixed_us", "us", 0.3, 20, true, "start and end of a memory-bound kernel"},
    {"gpu", "gemm_kernel_fixed_us", "us", 0.3, 20, true, "start and end of a matrix product"},
    {"gpu", "training_context", "share", 0.5, 1, false, "rate of kernels in training over a benchmark's"},
    {"gpu", "nvlink_efficiency", "share", 0.3, 1, false, "of the NVLink wire rate, by NCCL's rings"},
    {"gpu", "pcie_gb_per_s", "GB/s", 3, 64, true, "one direction"},
    {"gpu", "gemm.*.sustained_tflops", "TFLOPS", 5, 2000, true, "ceiling of matrix products for minutes"},
    {"gpu", "gemm.*.tile_efficiency[]", "share", 0.1, 1, false, "of an SM's peak, by tile size"},
    {"gpu", "gemm.*.training_context", "share", 0.5, 1, false, "the same, of one number format"},
    {"gpu", "gemm.*.prologue_us", "us", 0.1, 20, true, "per tile of a matrix product"},
    {"gpu", "gemm.*.memory_efficiency", "share", 0.2, 1, false, "of the HBM bandwidth, by matrix products"},
    {"gpu", "attention[].forward_tflops", "TFLOPS", 1, 1000, true, "fused attention, long sequences"},
    {"gpu", "attention[].backward_tflops", "TFLOPS", 1, 1000, true, "fused attention, long sequences"},
    {"gpu", "attention[].half_sequence", "tokens", 10, 5000, true, "keys at which it reaches half its rate"},
    {"gpu", "interference.hbm_bytes_per_bus_byte", "bytes", 0.5, 6, true, "HBM traffic per byte on the wire"},
    {"gpu", "interference.hbm_share_max", "share", 0.05, 0.95, false, "of the HBM bandwidth, to collectives"},
    {"gpu", "interference.gemm_sensitivity", "share", 0.01, 1, false, "slow-down per share of HBM lost"},
    {"gpu", "interference.collective_slowdown", "share", 0.005, 0.6, false, "while its GPUs compute"},
    {"stack", "host.forward_op_us", "us", 1, 100, true, "host thread, an operation of the forward"},
    {"stack", "host.backward_op_us", "us", 1, 100, true, "host thread, an operation of the backward"},
    {"stack", "host.optimizer_op_us", "us", 1, 100, true, "host thread, an operation of the optimizer"},
    {"stack", "host.unit_hook_us", "us", 5, 5000, true, "host thread, around an FSDP unit"},
    {"stack", "host.bucket_hook_us", "us", 5, 5000, true, "host thread, around a bucket"},
    {"stack", "host.collective_enqueue_us", "us", 2, 500, true, "host thread, a collective"},
    {"stack", "host.launch_latency_us", "us", 0.5, 50, true, "from launch to start on the GPU"},
    {"stack", "host.wake_us", "us", 0.5, 200, true, "from an event to the host thread going on"},
    {"stack", "allocator.cuda_malloc_us", "us", 10, 5000, true, "a cudaMalloc"},
    {"stack", "allocator.cuda_malloc_per_gib_us", "us", 10, 20000, true, "and per GiB"},
    {"stack", "allocator.cuda_free_us", "us", 10, 10000, true, "a cudaFree"},
    {"stack", "nccl.ring_base_us[]", "us", 0.5, 100, true, "once per ring collective: LL, LL128, Simple"},
    {"stack", "nccl.tree_base_us[]", "us", 0.5, 100, true, "once per tree collective: LL, LL128, Simple"},
    {"stack", "nccl.ring_nvlink_us[]", "us", 0.1, 50, true, "per ring step within a node"},
    {"stack", "nccl.tree_nvlink_us[]", "us", 0.1, 50, true, "per tree step within a node"},
    {"stack", "nccl.ring_network_us[]", "us", 0.5, 200, true, "per ring step between nodes"},
    {"stack", "nccl.tree_network_us[]", "us", 0.5, 200, true, "per tree step between nodes"},
    {"stack", "nccl.launch_us", "us", 0.5, 200, true, "launch and synchronisation of the ranks"},
    {"stack", "nccl.*.nvls.efficiency", "share", 0.3, 1, false, "of the NVLink rate, NVLS"},
    {"stack", "nccl.*.nvls.latency_us", "us", 0.5, 200, true, "once per NVLS collective"},
    {"stack", "framework.narrow_efficiency", "share", 0.3, 1, false,
     "of the HBM bandwidth, on 16-bit tensors"},
    {"stack", "framework.gemm_efficiency.*", "share", 0.3, 1, false, "of matrix products, older libraries"},
    {"stack", "nccl.ll128_efficiency", "share", 0.3, 1, false, "of the link rate, protocol LL128"},
    {"transport", "efficiency", "share", 0.1, 1, false, "of the line rate, for large messages"},
    {"transport", "efficiency_many_leaves", "share", 0.1, 1, false, "further factor across leaf switches"},
    {"transport", "half_rate_mib", "MiB", 0.0005, 16, true, "per channel and step, at half the rate"},
    {"transport", "fabric_half_rate_mib", "MiB", 0.0005, 16, true, "further, of the fabric under load"},
    {"transport", "hop_latency_us", "us", 0.01, 500, true, "per network hop beyond NCCL's constant"},
    {"topology", "node.network_overhead_us", "us", 0.01, 100, true, "of the host per step between nodes"},
    {"topology", "node.host_memory_gb_per_s", "GB/s", 5, 2000, true, "of optimizers on the host"},
    {"topology", "node.transport.efficiency", "share", 0.1, 1, false, "of the line rate, for large messages"},
    {"topology", "node.transport.half_rate_mib", "MiB", 0.0005, 16, true, "per channel and step"},
    {"topology", "node.transport.fabric_half_rate_mib", "MiB", 0.0005, 16, true,
     "further, of the fabric under load"},
    {"topology", "node.transport.hop_latency_us", "us", 0.01, 500, true, "per network hop"},
    {"topology", "fabric.oversubscription", "ratio", 1, 64, true, "downlinks over uplinks of a leaf"},
};

bool matches(std::string_view key, std::string_view pattern) {
  while (!key.empty() && !pattern.empty()) {
    if (pattern.front() == '*') {
      key.remove_prefix(std::min(key.find('.'), key.size()));
      pattern.remove_prefix(1);
    } else if (pattern.starts_with("[]") && key.front() == '[') {
      key.remove_prefix(std::min(key.find(']'), key.size() - 1) + 1);
      pattern.remove_prefix(2);
    } else {
      if (key.front() != pattern.front()) return false;
      key.remove_prefix(1);
      pattern.remove_prefix(1);
    }
  }
  return key.empty() && pattern.empty();
}

// Every number of a document with its key, elements of arrays as "key[0]".
void each_number(const toml::node& node, const std::string& key,
                 const std::function<void(const std::string&, double)>& visit) {
  if (const toml::table* t = node.as_table())
    for (const auto& [k, v] : *t)
      each_number(v, key.empty() ? std::string(k.str()) : key + "." + std::string(k.str()), visit);
  else if (const toml::array* a = node.as_array())
    for (std::size_t i = 0; i < a->size(); ++i) each_number((*a)[i], fmt::format("{}[{}]", key, i), visit);
  else if (node.is_number())
    visit(key, node.value<double>().value_or(0));
}

// What a topology that leaves a constant out has: its transport's, or the default.
void add_what_topologies_leave_out(const toml::table& document, const Library& library,
                                   std::map<std::string, double>& values) {
  if (!document["node"]["nics"]) return;
  values.emplace("node.network_overhead_us", 1.0);
  const auto named = document["node"]["transport"].value<std::string>(),
             based_on = document["node"]["transport"]["based_on"].value<std::string>();
  const auto& transport = named ? named : based_on;
  if (!transport) return;
  each_number(parse_toml_file(library.find("topologies/transports", *transport, {})), "",
              [&](const std::string& key, double value) { values.emplace("node.transport." + key, value); });
}

const Bounds* bounds_of(std::string_view section, std::string_view constant) {
  const auto* found = std::find_if(std::begin(table), std::end(table), [&](const Bounds& b) {
    return b.section == section && matches(constant, b.pattern);
  });
  return found == std::end(table) ? nullptr : found;
}

void add_constants(std::vector<FreeConstant>& all, const OverlaySection& section, const std::string& file,
                   const Library& library) {
  const toml::table document = parse_constants(section.name, library.find(section.folder, file, {}));
  std::map<std::string, double> values;
  each_number(document, "", [&](const std::string& key, double value) { values.emplace(key, value); });
  if (section.name == "topology") add_what_topologies_leave_out(document, library, values);
  for (const auto& [constant, value] : values) {
    const Bounds* b = bounds_of(section.name, constant);
    if (b == nullptr) continue;
    FreeConstant& c = all.emplace_back();
    c.key = fmt::format("{}.{}.{}", section.name, file, constant);
    c.section = section.name;
    c.file = file;
    c.constant = constant;
    c.value = value;
    c.low = b->low;
    c.high = b->high;
    if (constant.ends_with("sustained_tflops"))  // not above the data sheet's peak
      c.high = values.at(constant.substr(0, constant.rfind('.')) + ".peak_tflops"), c.low = c.high / 10;
    c.decades = b->decades;
    c.unit = b->unit;
    c.meaning = b->meaning;
  }
}

std::string quoted_if_needed(const std::string& name) {
  const bool bare = std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
  });
  return bare ? name : "\"" + name + "\"";
}

}  // namespace

std::vector<FreeConstant> free_constants(const Library& library) {
  std::vector<FreeConstant> all;
  for (const OverlaySection& section : overlay_sections)
    for (const std::string& file : library.names(section.folder)) add_constants(all, section, file, library);
  return all;
}

std::vector<FreeConstant> free_constants(const std::string& keys, const Library& library) {
  const std::vector<FreeConstant> all = free_constants(library);
  std::vector<FreeConstant> chosen;
  std::string_view rest = keys;
  while (!rest.empty()) {
    const std::size_t comma = std::min(rest.find(','), rest.size());
    std::string key(rest.substr(0, comma));
    rest.remove_prefix(std::min(comma + 1, rest.size()));
    key.erase(0, key.find_first_not_of(' '));
    key.erase(key.find_last_not_of(' ') + 1);
    const Place place{"--free " + key};
    const auto found = std::find_if(all.begin(), all.end(), [&](const auto& c) { return c.key == key; });
    if (found == all.end()) {
      std::vector<std::string> known;
      for (const FreeConstant& c : all) known.push_back(c.key);
      const std::string near = nearest(key, known);
      throw InputError(place, "is no constant that can be fitted; " +
                                  (near.empty() ? "`shardsim calibrate --list` prints them"
                                                : fmt::format("did you mean \"{}\"?", near)));
    }
    if (std::any_of(chosen.begin(), chosen.end(), [&](const auto& c) { return c.key == key; }))
      throw InputError(place, "stands there twice");
    chosen.push_back(*found);
  }
  return chosen;
}

std::string overlay_text(const std::vector<FreeConstant>& constants, const std::vector<double>& values,
                         const std::vector<std::string>& comments) {
  std::string out, last;
  for (std::size_t i = 0; i < constants.size(); ++i) {  // one table per file, wherever its constants stand
    const std::string name = constants[i].section + "." + quoted_if_needed(constants[i].file);
    const auto same_file = [&](const FreeConstant& c) {
      return c.section == constants[i].section && c.file == constants[i].file;
    };
    if (std::any_of(constants.begin(), constants.begin() + static_cast<std::ptrdiff_t>(i), same_file))
      continue;
    out += fmt::format("{}[{}]\n", out.empty() ? "" : "\n", name);
    for (std::size_t k = i; k < constants.size(); ++k) {
      const std::string& constant = constants[k].constant;
      if (!same_file(constants[k])) continue;
      const bool quote = constant.find('[') != std::string::npos;
      out += fmt::format("{0}{1}{0} = {2}{3}{4}\n", quote ? "\"" : "", constant, values[k],
                         fmt::format("{}", values[k]).find_first_of(".en") == std::string::npos ? ".0" : "",
                         k < comments.size() ? comments[k] : "");
    }
  }
  return out;
}

Overlay overlay_of(const std::vector<FreeConstant>& constants, const std::vector<double>& values) {
  return {"calibration", overlay_text(constants, values, {})};
}

}  // namespace shardsim
