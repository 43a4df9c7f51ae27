#include "sim/hardware/kernel_time.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "sim/base/check.h"

namespace shardsim {
namespace {

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

struct Tile {
  std::int64_t m, n;
};
constexpr Tile tiles[] = {{256, 128}, {128, 256}, {128, 128}, {128, 64},
                          {64, 128},  {64, 64},   {64, 32},   {32, 64}};
constexpr int splits[] = {1, 2, 4, 8, 16, 32};

double efficiency(const GemmProfile& profile, Tile tile) {
  const std::int64_t outputs = tile.m * tile.n;
  const int size = outputs >= 32768   ? 0
                   : outputs >= 16384 ? 1
                   : outputs >= 8192  ? 2
                   : outputs >= 4096  ? 3
                                      : 4;
  return profile.tile_efficiency[static_cast<std::size_t>(size)];
}

// Below this share of the SMs a kernel cannot keep enough loads in flight to fill the memory system. Fitted
// to small-batch products of DeepBench on V100 (baidu-research/DeepBench, NV_V100.xlsx).
constexpr double sms_that_saturate_memory = 0.3;

// Seconds of one product with one tile shape and split-K factor; infinity where the library would not use it.
double gemm_seconds(const Gpu& gpu, const GemmProfile& profile, const Gemm& g, Tile tile, int split,
                    int sms) {
  const auto not_used = std::numeric_limits<double>::infinity();
  const std::int64_t tiles_total = g.batch * ceil_div(g.m, tile.m) * ceil_div(g.n, tile.n);
  if (split > 1 && (g.k / split < 128 || tiles_total * split > std::int64_t{4} * gpu.sms)) return not_used;
  const std::int64_t blocks = tiles_total * split;
  const double per_sm = profile.peak.count / gpu.sms * efficiency(profile, tile);
  const double tile_flop = 2.0 * static_cast<double>(tile.m * tile.n * ceil_div(g.k, split));
  const double math =
      static_cast<double>(ceil_div(blocks, sms)) * (tile_flop / per_sm + seconds(profile.prologue));

  const double m = static_cast<double>(g.m), n = static_cast<double>(g.n), k = static_cast<double>(g.k);
  double bytes = (m * k + k * n + m * n) * static_cast<double>(bytes_per_element(g.dtype));
  if (split > 1) bytes += 8.0 * split * m * n;  // partial sums in fp32, written and read
  bytes *= static_cast<double>(g.batch);
  const double filled = std::min(1.0, static_cast<double>(blocks) / (sms_that_saturate_memory * gpu.sms));
  const double memory = bytes / (static_cast<double>(gpu.memory_bandwidth.count) * profile.memory_efficiency *
                                 std::sqrt(filled));
  return std::max(math, memory);
}

struct Seconds {
  const Gpu& gpu;
  int sms;  // left to kernels

  double operator()(const Gemm& g) const {
    const auto& profile = gpu.profile(g.dtype);
    require(profile.has_value(), "a matrix product in a format the GPU has no profile for");
    double best = std::numeric_limits<double>::infinity();
    for (const Tile& tile : tiles)
      for (const int split : splits) best = std::min(best, gemm_seconds(gpu, *profile, g, tile, split, sms));
    const double sustained = executed_flop(g).count / profile->sustained.count;
    return std::max(seconds(gpu.gemm_fixed) + best, sustained) / profile->training_context;
  }
  double operator()(const MemoryBound& k) const {
    const double usable = static_cast<double>(gpu.memory_bandwidth.count) * gpu.memory_efficiency *
                          (k.narrow ? gpu.narrow_efficiency : 1.0);
    return seconds(gpu.memory_fixed) + static_cast<double>(k.traffic.count) / usable;
  }
  double operator()(const FusedAttention& a) const {
    const bool full_precision = bytes_per_element(a.dtype) == 4;
    const AttentionProfile* nearest = nullptr;
    for (const AttentionProfile& p : gpu.attention) {
      if (p.kind != a.kind || p.full_precision != full_precision) continue;
      const auto distance = [&](const AttentionProfile& q) {
        return std::abs(q.head_dim - a.head_dim) * 2 + (q.causal != a.causal);
      };
      if (nearest == nullptr || distance(p) < distance(*nearest)) nearest = &p;
    }
    require(nearest != nullptr, "an attention kernel the GPU has no profile for");
    const double s = static_cast<double>(a.keys);
    const FlopRate limit = a.backward ? nearest->backward : nearest->forward;
    const double rate = limit.count * s / (s + nearest->half_sequence);
    return seconds(gpu.gemm_fixed) + executed_flop(a).count / rate * gpu.sms / sms;
  }
};

constexpr std::int64_t million = 1'000'000;

Time slower(Time t, std::int64_t share_ppm) {
  return work_time(Wide{t.count} * million / (million - share_ppm));
}

}  // namespace

std::int64_t hbm_taken_ppm(const Gpu& gpu, Bandwidth wire) {
  const double usable = static_cast<double>(gpu.memory_bandwidth.count) * gpu.memory_efficiency;
  const double share = gpu.interference.hbm_bytes_per_bus_byte * static_cast<double>(wire.count) / usable;
  return std::llround(std::min(share, gpu.interference.hbm_share_max) * 1e6);
}

Time kernel_time(const Gpu& gpu, const Kernel& kernel, int sms_taken) {
  require(sms_taken < gpu.sms, "collectives take every SM of the GPU");
  return from_seconds(std::visit(Seconds{gpu, gpu.sms - sms_taken}, kernel));
}

Time contended(const Gpu& gpu, const Kernel& kernel, Time free, Time alone, const Taken& taken) {
  if (std::holds_alternative<MemoryBound>(kernel)) {
    const Time by_sms = work_time(Wide{free.count} * gpu.sms / (gpu.sms - taken.sms));
    return std::max(slower(free, taken.hbm_ppm), by_sms);
  }
  const double felt = gpu.interference.gemm_sensitivity * static_cast<double>(taken.hbm_ppm);
  return slower(alone, std::llround(felt));
}

}  // namespace shardsim
