// Are kernel times those of the tile and wave model, and can a collective beside a kernel only slow it down?
#include "sim/hardware/kernel_time.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include <doctest/doctest.h>

#include "sim/base/random.h"

#include "tests/support/hardware.h"
#include "tests/support/print.h"
#include "tests/support/seed.h"

namespace shardsim {
namespace {
using namespace literals;

double microseconds(Time t) { return seconds(t) * 1e6; }
Gemm product(std::int64_t m, std::int64_t n, std::int64_t k, DType dtype) {
  return {.m = m, .n = n, .k = k, .dtype = dtype};
}
GemmProfile& profile(Gpu& gpu, DType dtype) { return *gpu.gemm[static_cast<std::size_t>(dtype)]; }

constexpr FlopRate no_limit{1e30};
constexpr Bandwidth no_bandwidth_limit{std::int64_t{1} << 62};

// The same GPU in a benchmark loop that never meets its power limit: tiles and waves alone.
Gpu in_benchmark(Gpu gpu) {
  for (auto& gemm : gpu.gemm)
    if (gemm) gemm->training_context = 1, gemm->sustained = no_limit;
  return gpu;
}

// --- matrix products --------------------------------------------------------------------------------------

// Output of an independent implementation of the model with the constants of the GPU files, in microseconds;
// V100's products were made with a memory efficiency of 0.70 instead of 0.65, which does not matter for these
// shapes. Its training context was that of before BERT's rows set it. The fits behind the constants: NVIDIA's
// CUDA 11 blog, figure 6, and baidu-research/DeepBench, NV_V100.xlsx.
struct Reference {
  std::int64_t m, n, k;
  struct {
    double benchmark, training;  // tiles and waves alone; capped by the power limit, over training_context
  } v100_fp16, a100_bf16;
};
constexpr Reference references[] = {
    {4096, 4096, 4096, {1368.6, 1540.1}, {514.9, 581.3}},
    {8192, 8192, 8192, {10659.5, 12320.8}, {3836.4, 4650.3}},
    {12288, 12288, 4096, {11941.3, 13860.9}, {4405.3, 5231.6}},
    {4096, 12288, 8192, {8126.3, 9240.6}, {3029.4, 3487.7}},
    {1024, 1024, 8192, {208.8, 227.0}, {86.5, 94.1}},
    {512, 50257, 1600, {818.0, 922.7}, {337.6, 366.9}},
};
// The references are rounded to 0.1 us, our times to the picosecond.
constexpr double rounding_us = 0.05 + 1e-6;

TEST_CASE("matrix products take the times of the reference implementation") {
  Gpu v100 = gpu_named("v100-sxm-32gb"), a100 = gpu_named("a100-sxm-80gb");
  constexpr double context = 0.92;  // of the implementation
  profile(v100, DType::fp16).training_context = profile(a100, DType::bf16).training_context = context;
  REQUIRE(v100.gemm_fixed == 3_us);
  REQUIRE(a100.gemm_fixed == 3_us);
  for (const Reference& r : references) {
    CAPTURE(r.m);
    CAPTURE(r.n);
    CAPTURE(r.k);
    const Gemm fp16 = product(r.m, r.n, r.k, DType::fp16), bf16 = product(r.m, r.n, r.k, DType::bf16);
    const auto is = [](Time time, double reference_us) {
      return std::abs(microseconds(time) - reference_us) <= rounding_us;
    };
    CHECK(is(kernel_time(in_benchmark(v100), fp16, 0), r.v100_fp16.benchmark));
    CHECK(is(kernel_time(v100, fp16, 0), r.v100_fp16.training));
    CHECK(is(kernel_time(in_benchmark(a100), bf16, 0), r.a100_bf16.benchmark));
    CHECK(is(kernel_time(a100, bf16, 0), r.a100_bf16.training));
  }
}

// 108 SMs on which a tile of 256 x 128 outputs takes as many picoseconds as it has FLOP, smaller tiles do not
// pay, and everything else is free.
Gpu wave_machine() {
  Gpu gpu;
  gpu.sms = 108;
  gpu.memory_bandwidth = no_bandwidth_limit;
  gpu.gemm[static_cast<std::size_t>(DType::bf16)] =
      GemmProfile{.peak = {108e12},
                  .sustained = no_limit,
                  .tile_efficiency = {1, 1e-3, 1e-3, 1e-3, 1e-3},
                  .prologue = {},
                  .memory_efficiency = 1};
  return gpu;
}
// So many tiles of 256 x 128, too short to split along k.
Gemm tiles(std::int64_t count) { return product(256 * count, 128, 128, DType::bf16); }
constexpr Time one_wave{2 * 256 * 128 * 128};

TEST_CASE("109 tiles on 108 SMs cost two waves") {
  const Gpu gpu = wave_machine();
  CHECK(kernel_time(gpu, tiles(1), 0) == one_wave);
  CHECK(kernel_time(gpu, tiles(108), 0) == one_wave);
  CHECK(kernel_time(gpu, tiles(109), 0) == one_wave * 2);
  CHECK(kernel_time(gpu, tiles(216), 0) == one_wave * 2);
  CHECK(kernel_time(gpu, tiles(217), 0) == one_wave * 3);
}

TEST_CASE("SMs that collectives hold are missing from every wave") {
  const Gpu gpu = wave_machine();
  for (const int taken : {0, 1, 8, 16, 24, 107})
    for (std::int64_t count = 1; count <= 300; ++count) {
      const std::int64_t free = gpu.sms - taken, waves = (count + free - 1) / free;
      CHECK(kernel_time(gpu, tiles(count), taken) == one_wave * waves);
    }
}

TEST_CASE("batched products share waves") {
  const Gpu gpu = wave_machine();
  for (const std::int64_t batch : {1, 54, 108, 109, 1000}) {
    Gemm batched = tiles(1);
    batched.batch = batch;
    CHECK(kernel_time(gpu, batched, 0) == kernel_time(gpu, tiles(batch), 0));
  }
}

TEST_CASE("a long reduction into one tile is split over SMs where the partial sums cost less") {
  Gpu gpu = wave_machine();
  const Gemm longer = product(256, 128, 128 * 32, DType::bf16), shorter = product(256, 128, 128, DType::bf16);
  CHECK(kernel_time(gpu, longer, 0) == kernel_time(gpu, shorter, 0));
  gpu.memory_bandwidth = 1_GBps;  // 8 bytes per output and part, at 1 GB/s
  CHECK(kernel_time(gpu, longer, 0) > kernel_time(gpu, shorter, 0) * 2);
}

// 108 SMs that multiply in no time and stream 1 byte per nanosecond.
Gpu memory_machine() {
  Gpu gpu = wave_machine();
  gpu.memory_bandwidth = 1_GBps;
  profile(gpu, DType::bf16).peak = no_limit;
  profile(gpu, DType::bf16).tile_efficiency = {1, 1, 1, 1, 1};
  return gpu;
}

TEST_CASE("a product that fills the SMs reads its operands and writes its result once") {
  CHECK(kernel_time(memory_machine(), product(4096, 2048, 64, DType::bf16), 0) ==
        1_ns * (2 * (4096 * 64 + 64 * 2048 + 4096 * 2048)));
}

TEST_CASE("with fewer tiles than three in ten SMs bandwidth falls as their square root") {
  const Gemm one_tile = product(32, 32, 64, DType::bf16);
  const double bytes = 2.0 * (32 * 64 + 64 * 32 + 32 * 32), tiles_that_fill = 0.3 * 108;
  const auto with_batch = [&](std::int64_t batch) {
    Gemm g = one_tile;
    g.batch = batch;
    return seconds(kernel_time(memory_machine(), g, 0)) * 1e9;
  };
  CHECK(with_batch(1) == doctest::Approx(bytes * std::sqrt(tiles_that_fill)));
  CHECK(with_batch(4) == doctest::Approx(4 * bytes * std::sqrt(tiles_that_fill / 4)));
  CHECK(with_batch(33) == doctest::Approx(33 * bytes));
  CHECK(with_batch(1000) == doctest::Approx(1000 * bytes));
}

TEST_CASE("every part of a split product writes and reads its sums in fp32") {
  const Gemm g = product(32, 32, 8192, DType::bf16);
  const double bytes = 2.0 * (2 * 32 * 8192 + 32 * 32) + 32 * 8.0 * 32 * 32;  // 32 parts fill the most SMs
  CHECK(seconds(kernel_time(memory_machine(), g, 0)) * 1e9 ==
        doctest::Approx(bytes * std::sqrt(0.3 * 108 / 32)));
}

TEST_CASE("few rows are bound by the weights: they take the time to read them") {
  const Gpu gpu = gpu_named("a100-sxm-80gb");
  const double weights = 2.0 * 16384 * 16384;
  const double reading =
      weights / (gb_per_s(gpu.memory_bandwidth) * 1e9 * gpu.profile(DType::bf16)->memory_efficiency);
  const double context = gpu.profile(DType::bf16)->training_context;
  for (const std::int64_t rows : {1, 8, 32}) {
    const double time = seconds(kernel_time(gpu, product(rows, 16384, 16384, DType::bf16), 0));
    CHECK(time * context >= reading);
    // Inputs and outputs are rows / 8192 of the weights; a kernel starts and ends in 3 us.
    CHECK(time * context <= reading * (1 + static_cast<double>(rows) / 8192) + 3.01e-6);
  }
}

// --- memory-bound kernels and attention -------------------------------------------------------------------

TEST_CASE("a memory-bound kernel takes its start and its bytes over usable bandwidth, whatever the SMs do") {
  // 0.83 * 2039 GB/s and 0.86 * 900 GB/s: Azure/AI-benchmarking-guide, chsasank/device-benchmarks.
  const Gpu a100 = gpu_named("a100-sxm-80gb"), v100 = gpu_named("v100-sxm-16gb");
  CHECK(kernel_time(a100, MemoryBound{0_B}, 0) == 2500_ns);
  CHECK(kernel_time(a100, MemoryBound{Bytes{1'692'370'000}}, 0) == 2500_ns + 1_ms);
  CHECK(kernel_time(v100, MemoryBound{Bytes{774'000'000}}, 0) == 2500_ns + 1_ms);
  CHECK(kernel_time(v100, MemoryBound{Bytes{774'000'000}}, 24) == 2500_ns + 1_ms);
}

FusedAttention attention(const AttentionProfile& p, std::int64_t sequence, bool backward) {
  const DType dtype = p.full_precision ? DType::fp32 : DType::bf16;
  return {p.kind, backward, p.causal, 96, sequence, sequence, p.head_dim, dtype};
}
// FLOP per second once the kernel has started.
double rate(const Gpu& gpu, const FusedAttention& kernel) {
  return executed_flop(kernel).count / seconds(kernel_time(gpu, kernel, 0) - gpu.gemm_fixed);
}

TEST_CASE("fused attention reaches half its limit at half_sequence and nearly all of it on long sequences") {
  for (const char* name : {"a100-sxm-40gb", "a100-sxm-80gb"}) {
    const Gpu gpu = gpu_named(name);
    REQUIRE_FALSE(gpu.attention.empty());
    for (const AttentionProfile& p : gpu.attention)
      for (const bool backward : {false, true}) {
        const double limit = (backward ? p.backward : p.forward).count;
        const auto half = static_cast<std::int64_t>(p.half_sequence);
        REQUIRE(static_cast<double>(half) == p.half_sequence);
        CHECK(rate(gpu, attention(p, half, backward)) == doctest::Approx(limit / 2));
        double before = 0;
        for (std::int64_t sequence = 128; sequence <= 1 << 17; sequence *= 2) {
          const double now = rate(gpu, attention(p, sequence, backward));
          CHECK(now > before);
          CHECK(now < limit);
          before = now;
        }
        CHECK(before > 0.995 * limit);
      }
  }
}

TEST_CASE("a head dimension between two measured ones takes the rate of the nearer") {
  const Gpu gpu = gpu_named("a100-sxm-80gb");
  const auto rate_at = [&](std::int64_t head_dim, bool causal) {
    return rate(gpu, {AttentionKind::flash2, false, causal, 96, 4096, 4096, head_dim, DType::bf16});
  };
  CHECK(rate_at(80, true) == doctest::Approx(rate_at(64, true)));
  CHECK(rate_at(112, true) == doctest::Approx(rate_at(128, true)));
  CHECK(rate_at(128, true) != doctest::Approx(rate_at(64, true)));
  CHECK(rate_at(112, false) == doctest::Approx(rate_at(128, false)));
}

TEST_CASE("attention in fp32 takes the rates of fp32, whatever the head dimension") {
  for (const std::string name : {"a100-sxm-80gb", "v100-sxm-32gb", "h100-sxm-80gb", "titan-rtx-24gb"}) {
    const Gpu gpu = gpu_named(name);
    const auto rate_in = [&](DType dtype, std::int64_t head_dim) {
      return rate(gpu, {AttentionKind::mem_efficient, false, true, 96, 4096, 4096, head_dim, dtype});
    };
    CHECK(rate_in(DType::fp32, 64) == doctest::Approx(rate_in(DType::fp32, 256)));
    CHECK(rate_in(DType::tf32, 64) == doctest::Approx(rate_in(DType::fp32, 64)));
    CHECK(rate_in(DType::fp32, 64) < gpu.profile(DType::fp32)->peak.count);
    CHECK(rate_in(DType::fp16, 64) > rate_in(DType::fp32, 64));
  }
}

TEST_CASE("a rate measured with the same mask goes before one measured without") {
  Gpu gpu;
  gpu.sms = 1;
  for (const bool causal : {false, true}) {
    const FlopRate limit{causal ? 1e12 : 2e12};
    gpu.attention.push_back({.kind = AttentionKind::flash2,
                             .head_dim = 64,
                             .causal = causal,
                             .forward = limit,
                             .backward = limit,
                             .half_sequence = 0});
  }
  for (const AttentionProfile& p : gpu.attention)
    CHECK(rate(gpu, attention(p, 1024, false)) == doctest::Approx(p.forward.count));
}

TEST_CASE("fused attention slows down with the share of its SMs") {
  const Gpu gpu = gpu_named("a100-sxm-80gb");
  const FusedAttention kernel = attention(gpu.attention.front(), 2048, false);
  const Time all = kernel_time(gpu, kernel, 0) - gpu.gemm_fixed,
             half = kernel_time(gpu, kernel, 54) - gpu.gemm_fixed;
  CHECK(ratio(half, all) == doctest::Approx(2));
}

// --- laws, on random shapes -------------------------------------------------------------------------------

constexpr DType formats[] = {DType::fp32, DType::tf32, DType::fp16, DType::bf16};

// From 1 to 2^bits, as often short as long, as often round as odd.
std::int64_t extent(Random& random, int bits) {
  const std::int64_t n = std::int64_t{1} << random.between(0, bits);
  return random.chance(2) ? n : random.between(1, n);
}
Gemm some_product(Random& random, const Gpu& gpu) {
  DType dtype = DType::fp32;
  do dtype = formats[random.between(0, 3)];
  while (!gpu.profile(dtype));
  return {.batch = random.chance(2) ? 1 : extent(random, 9),
          .m = extent(random, 14),
          .n = extent(random, 14),
          .k = extent(random, 14),
          .dtype = dtype};
}
Kernel some_kernel(Random& random, const Gpu& gpu) {
  const auto kind = random.between(0, gpu.attention.empty() ? 1 : 2);
  if (kind == 0) return some_product(random, gpu);
  if (kind == 1) return MemoryBound{Bytes{extent(random, 33)}};
  const AttentionProfile& p = gpu.attention[static_cast<std::size_t>(random.next() % gpu.attention.size())];
  return attention(p, extent(random, 14), random.chance(2));
}

// Runs the law on random numbers and one GPU of each memory size and generation.
template <class Law>
void for_all(std::uint64_t fallback_seed, const Law& law) {
  const std::uint64_t seed = seed_of_run(fallback_seed);
  CAPTURE(seed);
  for (const char* name : {"v100-sxm-32gb", "a100-sxm-40gb", "a100-sxm-80gb"}) {
    const Gpu gpu = gpu_named(name);
    CAPTURE(gpu.name);
    Random random(seed);
    for (int i = 0; i < 1000; ++i) law(gpu, random);
  }
}

TEST_CASE("no product beats the sustained rate, and none starts and ends in no time") {
  for_all(1, [](const Gpu& gpu, Random& random) {
    const Gemm g = some_product(random, gpu);
    const double time = seconds(kernel_time(gpu, g, 0)) * gpu.profile(g.dtype)->training_context + 1e-12;
    CHECK(time >= seconds(executed_flop(g) / gpu.profile(g.dtype)->sustained));
    CHECK(time >= seconds(gpu.gemm_fixed));
  });
}

TEST_CASE("a product and its transpose take the same time") {
  for_all(2, [](const Gpu& gpu, Random& random) {
    const Gemm g = some_product(random, gpu);
    Gemm transposed = g;
    std::swap(transposed.m, transposed.n);
    CHECK(kernel_time(gpu, g, 0) == kernel_time(gpu, transposed, 0));
  });
}

TEST_CASE("fewer SMs never make a kernel faster") {
  for_all(3, [](const Gpu& gpu, Random& random) {
    const Kernel kernel = some_kernel(random, gpu);
    const int a = static_cast<int>(random.between(0, gpu.sms - 1)),
              b = static_cast<int>(random.between(0, gpu.sms - 1));
    CHECK(kernel_time(gpu, kernel, std::max(a, b)) >= kernel_time(gpu, kernel, std::min(a, b)));
  });
}

TEST_CASE("a larger batch never takes less time") {
  for_all(4, [](const Gpu& gpu, Random& random) {
    const Gemm g = some_product(random, gpu);
    Gemm more = g;
    more.batch += extent(random, 6);
    CHECK(kernel_time(gpu, more, 0) >= kernel_time(gpu, g, 0));
  });
}

// Split-K factors come into reach at k = 256, 512, 1024, 2048 and 4096, and each can make a longer product
// faster; between these there is nothing to gain from a longer k.
TEST_CASE("a longer reduction never takes less time while the same split-K factors are allowed") {
  const auto splits = [](std::int64_t k) {
    return std::bit_width(static_cast<std::uint64_t>(std::min(k / 128, std::int64_t{32}) | 1));
  };
  for_all(5, [&](const Gpu& gpu, Random& random) {
    const Gemm g = some_product(random, gpu);
    Gemm longer = g;
    longer.k += extent(random, 12);
    if (splits(g.k) == splits(longer.k)) CHECK(kernel_time(gpu, longer, 0) >= kernel_time(gpu, g, 0));
  });
}

// With finite bandwidth it can: a second tile keeps more loads in flight.
TEST_CASE("where memory is no limit, more rows or columns never take less time") {
  for_all(6, [](Gpu gpu, Random& random) {
    gpu.memory_bandwidth = no_bandwidth_limit;
    const Gemm g = some_product(random, gpu);
    Gemm larger = g;
    larger.m += extent(random, 10) - 1;
    larger.n += extent(random, 10) - 1;
    CHECK(kernel_time(gpu, larger, 0) >= kernel_time(gpu, g, 0));
  });
}

TEST_CASE("more bytes never take less time, nor does a longer sequence") {
  for_all(7, [](const Gpu& gpu, Random& random) {
    const std::int64_t bytes = extent(random, 33), more = bytes + extent(random, 33);
    CHECK(kernel_time(gpu, MemoryBound{Bytes{more}}, 0) >= kernel_time(gpu, MemoryBound{Bytes{bytes}}, 0));
    if (gpu.attention.empty()) return;
    const AttentionProfile& p = gpu.attention.front();
    const std::int64_t sequence = extent(random, 14), longer = sequence + extent(random, 10);
    CHECK(kernel_time(gpu, attention(p, longer, false), 0) >=
          kernel_time(gpu, attention(p, sequence, false), 0));
  });
}

TEST_CASE("a GPU with more bandwidth, a higher peak and a higher power limit is never slower") {
  for_all(8, [](const Gpu& gpu, Random& random) {
    const Gemm g = some_product(random, gpu);
    Gpu better = gpu;
    if (random.chance(2)) better.memory_bandwidth += 100_GBps;
    if (random.chance(2)) profile(better, g.dtype).peak.count *= 1.5;
    if (random.chance(2)) profile(better, g.dtype).sustained.count *= 1.5;
    CHECK(kernel_time(better, g, 0) <= kernel_time(gpu, g, 0));
  });
}

// --- beside collectives -----------------------------------------------------------------------------------

Time beside(const Gpu& gpu, const Kernel& kernel, const Taken& taken) {
  return contended(gpu, kernel, kernel_time(gpu, kernel, 0), kernel_time(gpu, kernel, taken.sms), taken);
}
Taken some_share(Random& random, const Gpu& gpu) {
  return {.sms = static_cast<int>(random.between(0, 32)),
          .hbm_ppm = random.between(0, std::llround(gpu.interference.hbm_share_max * 1e6))};
}

TEST_CASE("beside a collective that takes nothing a kernel is as fast as alone") {
  for_all(9, [](const Gpu& gpu, Random& random) {
    const Kernel kernel = some_kernel(random, gpu);
    CHECK(beside(gpu, kernel, {}) == kernel_time(gpu, kernel, 0));
  });
}

TEST_CASE("the more a collective takes, the longer a kernel beside it") {
  for_all(10, [](const Gpu& gpu, Random& random) {
    const Kernel kernel = some_kernel(random, gpu);
    const Taken a = some_share(random, gpu), b = some_share(random, gpu);
    const Taken less{std::min(a.sms, b.sms), std::min(a.hbm_ppm, b.hbm_ppm)},
        more{std::max(a.sms, b.sms), std::max(a.hbm_ppm, b.hbm_ppm)};
    CHECK(beside(gpu, kernel, less) <= beside(gpu, kernel, more));
    CHECK(beside(gpu, kernel, more) >= kernel_time(gpu, kernel, more.sms));
  });
}

TEST_CASE("a memory-bound kernel loses the share of HBM, and at least the share of SMs") {
  for_all(11, [](const Gpu& gpu, Random& random) {
    const MemoryBound kernel{Bytes{extent(random, 33)}};
    const Taken taken = some_share(random, gpu);
    const Time free = kernel_time(gpu, kernel, 0);
    const double by_hbm = 1 / (1 - 1e-6 * static_cast<double>(taken.hbm_ppm)),
                 by_sms = static_cast<double>(gpu.sms) / (gpu.sms - taken.sms);
    // Two roundings of a picosecond each, of times above 2.5 us.
    CHECK(ratio(beside(gpu, kernel, taken), free) == doctest::Approx(std::max(by_hbm, by_sms)).epsilon(1e-6));
  });
}

TEST_CASE("a matrix product feels only a part of the lost bandwidth") {
  for_all(12, [](const Gpu& gpu, Random& random) {
    const Gemm g = some_product(random, gpu);
    const Taken taken{.sms = 0, .hbm_ppm = some_share(random, gpu).hbm_ppm};
    const double share = 1e-6 * static_cast<double>(taken.hbm_ppm);
    const double slower = ratio(beside(gpu, g, taken), kernel_time(gpu, g, 0));
    CHECK(slower == doctest::Approx(1 / (1 - gpu.interference.gemm_sensitivity * share)).epsilon(1e-6));
    CHECK(slower <= 1 / (1 - share) + 1e-6);
  });
}

TEST_CASE("a collective takes 2.5 bytes of HBM per byte on the wire, up to a cap") {
  // NVIDIA/nccl#1428: 2 to 3 times the bus bandwidth.
  const Gpu gpu = gpu_named("a100-sxm-80gb");
  CHECK(hbm_taken_ppm(gpu, {}) == 0);
  CHECK(hbm_taken_ppm(gpu, 231_GBps) == std::llround(2.5 * 231 / (0.83 * 2039) * 1e6));
  CHECK(hbm_taken_ppm(gpu, 406_GBps) < 600'000);  // 0.6 * 0.83 * 2039 / 2.5 = 406.2 GB/s
  CHECK(hbm_taken_ppm(gpu, 407_GBps) == 600'000);
  CHECK(hbm_taken_ppm(gpu, 100'000_GBps) == 600'000);
  std::int64_t before = 0;
  for (int gb = 0; gb <= 1000; ++gb) {
    const std::int64_t now = hbm_taken_ppm(gpu, 1_GBps * gb);
    CHECK(now >= before);
    before = now;
  }
}

}  // namespace
}  // namespace shardsim
