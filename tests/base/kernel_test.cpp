// Do kernels count the FLOP they execute: every product once, masked halves not, recomputation too?
#include "sim/base/kernel.h"

#include <doctest/doctest.h>

namespace shardsim {
namespace {

FusedAttention attention(bool backward, bool causal) {
  return {AttentionKind::flash2, backward, causal, 96, 2048, 1024, 128, DType::bf16};
}
double flop(const Kernel& kernel) { return executed_flop(kernel).count; }

TEST_CASE("a matrix product multiplies and adds once per element of m, n, k and batch") {
  CHECK(flop(Gemm{.m = 1, .n = 1, .k = 1, .dtype = DType::fp32}) == 2);
  CHECK(flop(Gemm{.m = 3, .n = 5, .k = 7, .dtype = DType::fp32}) == 2 * 3 * 5 * 7);
  CHECK(flop(Gemm{.batch = 11, .m = 3, .n = 5, .k = 7, .dtype = DType::fp32}) == 11 * 2 * 3 * 5 * 7);
}

TEST_CASE("the number format does not change the count") {
  for (const DType t : {DType::tf32, DType::fp16, DType::bf16, DType::fp8})
    CHECK(flop(Gemm{.m = 64, .n = 64, .k = 64, .dtype = t}) ==
          flop(Gemm{.m = 64, .n = 64, .k = 64, .dtype = DType::fp32}));
}

TEST_CASE("a product of more than 2^63 FLOP does not overflow") {
  const std::int64_t large = std::int64_t{1} << 22;
  CHECK(flop(Gemm{.m = large, .n = large, .k = large, .dtype = DType::bf16}) == 0x1p67);
}

TEST_CASE("memory-bound kernels are not counted") { CHECK(flop(MemoryBound{Bytes{1 << 30}}) == 0); }

TEST_CASE("attention forward is two products of queries, keys and head dimension per head") {
  CHECK(flop(attention(false, false)) == 2 * (2.0 * 96 * 2048 * 1024 * 128));
}

TEST_CASE("causal attention computes half the scores, forward and backward") {
  for (const bool backward : {false, true})
    CHECK(2 * flop(attention(backward, true)) == flop(attention(backward, false)));
}

TEST_CASE("attention backward is two and a half times its forward") {
  for (const bool causal : {false, true})
    CHECK(flop(attention(true, causal)) == 2.5 * flop(attention(false, causal)));
}

}  // namespace
}  // namespace shardsim
