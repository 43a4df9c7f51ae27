// Do kernel times agree with published benchmarks? tests/hardware/measured/ holds them, each row with its
// source. A benchmark launches back to back and runs long enough to meet the power limit.
#include <algorithm>
#include <map>

#include <doctest/doctest.h>

#include "sim/hardware/kernel_time.h"
#include "sim/scenario/csv.h"
#include "sim/scenario/library.h"

#include "tests/support/hardware.h"

namespace shardsim {
namespace {

CsvTable measured(const std::string& name) {
  return read_csv_file(std::string(SHARDSIM_SOURCE_DIR) + "/tests/hardware/measured/" + name);
}

struct Errors {
  std::vector<double> sizes;
  void add(double predicted, double published) { sizes.push_back(std::abs(predicted / published - 1)); }
  double quantile(double share) {
    std::sort(sizes.begin(), sizes.end());
    return sizes[static_cast<std::size_t>(share * static_cast<double>(sizes.size() - 1))];
  }
  double within(double bound) const {
    return static_cast<double>(
               std::count_if(sizes.begin(), sizes.end(), [&](double e) { return e <= bound; })) /
           static_cast<double>(sizes.size());
  }
};

// Names of the tables, by their beginnings; PCIe cards and GPUs that the source only infers are left out.
std::string gpu_file(const std::string& name) {
  const std::pair<const char*, const char*> known[] = {{"V100-SXM2", "v100-sxm-32gb"},
                                                       {"A100-SXM4-40GB", "a100-sxm-40gb"},
                                                       {"A100-SXM4", "a100-sxm-80gb"},
                                                       {"H100-SXM5-80GB", "h100-sxm-80gb"},
                                                       {"H200-SXM", "h200-sxm-141gb"}};
  for (const auto& [begin, file] : known)
    if (name.starts_with(begin)) return file;
  return "";
}

std::optional<DType> dtype_of(const std::string& text) {
  if (text.find("bmm") != std::string::npos || text.find("emulated") != std::string::npos)
    return std::nullopt;
  for (const DType t : {DType::fp16, DType::bf16, DType::tf32, DType::fp32, DType::fp8})
    if (text.starts_with(name(t))) return t;
  return std::nullopt;
}

TEST_CASE("matrix products with every side of 512 or more: median within 5%, 90% within 15%") {
  // A loop of launches leaves gaps that the step simulation has as host time.
  constexpr double gap_us = 2.5;
  std::map<std::string, Errors> by;
  for (const CsvRow& row : measured("gemm.csv").rows) {
    const std::string file = gpu_file(row[0].text);
    const auto dtype = dtype_of(row[1].text);
    const auto side = [&](std::size_t c) { return std::atoll(row[c].text.c_str()); };
    const Gemm g{1, side(2), side(3), side(4), dtype.value_or(DType::fp32)};
    if (file.empty() || !dtype || std::min({g.m, g.n, g.k}) < 512) continue;
    Gpu gpu = read_gpu(std::string(SHARDSIM_SOURCE_DIR) + "/topologies/gpus/" + file + ".toml");
    if (!gpu.profile(g.dtype)) continue;
    gpu.gemm[static_cast<std::size_t>(g.dtype)]->training_context = 1;
    const double rate = executed_flop(g).count / (seconds(kernel_time(gpu, g, 0)) + gap_us * 1e-6) * 1e-12;
    for (const std::string& group : {std::string("all"), row[0].text + " " + row[1].text})
      by[group].add(rate, std::atof(row[5].text.c_str()));
  }
  for (auto& [group, errors] : by)
    MESSAGE(group << ": " << errors.sizes.size() << " products, median " << 100 * errors.quantile(0.5)
                  << "%, " << 100 * errors.within(0.15) << "% within 15%");
  CHECK(by["all"].sizes.size() > 250);
  CHECK(by["all"].quantile(0.5) <= 0.05);
  CHECK(by["all"].within(0.15) >= 0.90);
}

// Rates by the charts' convention: 4 * batch * heads * queries * keys * head_dim forward, half if causal; 2.5
// times that backward.
double flash_rate(const Gpu& gpu, const FusedAttention& forward) {
  FusedAttention backward = forward;
  backward.backward = true;
  const double flop = 14.0 *
                      static_cast<double>(forward.heads * forward.queries * forward.keys * forward.head_dim) *
                      (forward.causal ? 0.5 : 1.0);
  return flop / (seconds(kernel_time(gpu, forward, 0)) + seconds(kernel_time(gpu, backward, 0))) * 1e-12;
}

TEST_CASE("flash attention 1 and 2, forward and backward, on A100 and H100: median within 5%") {
  const std::pair<const char*, AttentionKind> kinds[] = {{"fa1", AttentionKind::flash},
                                                         {"fa2", AttentionKind::flash2}};
  std::map<std::string, Errors> by;
  for (const CsvRow& row : measured("flash.csv").rows) {
    const auto kind = std::find_if(std::begin(kinds), std::end(kinds),
                                   [&](const auto& k) { return row[1].text == k.first; });
    if (kind == std::end(kinds) || row[2].text != "fwd+bwd") continue;
    const std::int64_t head_dim = std::atoll(row[4].text.c_str()), length = std::atoll(row[5].text.c_str());
    const std::int64_t tokens = 16384, hidden = 2048;  // of the charts
    const FusedAttention forward{.kind = kind->second,
                                 .backward = false,
                                 .causal = row[3].text == "1",
                                 .heads = tokens / length * hidden / head_dim,
                                 .queries = length,
                                 .keys = length,
                                 .head_dim = head_dim,
                                 .dtype = DType::fp16};
    const Gpu gpu =
        read_gpu(std::string(SHARDSIM_SOURCE_DIR) + "/topologies/gpus/" + gpu_file(row[0].text) + ".toml");
    for (const std::string& group : {std::string("all"), row[0].text + " " + row[1].text})
      by[group].add(flash_rate(gpu, forward), std::atof(row[6].text.c_str()));
  }
  for (auto& [group, errors] : by) {
    MESSAGE(group << ": " << errors.sizes.size() << " points, median " << 100 * errors.quantile(0.5)
                  << "%, worst " << 100 * errors.quantile(1.0) << "%");
    CHECK(errors.quantile(0.5) <= 0.05);
  }
  CHECK(by["all"].sizes.size() == 96);
}

}  // namespace
}  // namespace shardsim
