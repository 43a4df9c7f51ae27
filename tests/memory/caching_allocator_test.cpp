// Does the caching allocator do what PyTorch's does: round, split, fit, merge, wait and give back?
#include "sim/memory/caching_allocator.h"

#include <algorithm>
#include <array>

#include <doctest/doctest.h>

#include "tests/support/print.h"

namespace shardsim {
namespace {
using namespace literals;

constexpr StreamId main_stream{0}, side_stream{1}, third_stream{2};

// An allocator of 1 GiB on which allocate() must succeed.
struct Memory {
  explicit Memory(const AllocatorConfig& config = {}, Bytes capacity = 1_GiB)
      : allocator(capacity, 3, config) {}
  CachingAllocator allocator;

  CachingAllocator::Allocation full(Bytes bytes, StreamId stream = main_stream) {
    const auto allocated = allocator.allocate(bytes, stream);
    REQUIRE(allocated);
    return allocated;
  }
  BlockId allocate(Bytes bytes, StreamId stream = main_stream) { return *full(bytes, stream).block; }
  Bytes fresh_segment(Bytes bytes, StreamId stream = main_stream) {
    return full(bytes, stream).calls.reserved;
  }
  const MemoryStats& stats() const { return allocator.stats(); }
};

struct Expected {
  Bytes request, bytes;
};

// --- sizes ------------------------------------------------------------------------------------------------

TEST_CASE("requests are rounded up to 512 B") {
  Memory memory;
  for (const Expected& e : {Expected{1_B, 512_B},
                            {511_B, 512_B},
                            {512_B, 512_B},
                            {513_B, 1024_B},
                            {1_KiB, 1_KiB},
                            {1_MiB - 1_B, 1_MiB},
                            {1_MiB + 1_B, 1_MiB + 512_B}}) {
    CAPTURE(e.request);
    CHECK(memory.allocator.round_up(e.request) == e.bytes);
    CHECK(memory.allocator.size(memory.allocate(e.request)) == e.bytes);
  }
}

TEST_CASE("up to 1 MiB a request takes a segment of 2 MiB, below 10 MiB one of 20, above a multiple of 2") {
  for (const Expected& e : {Expected{1_B, 2_MiB},
                            {1_MiB, 2_MiB},
                            {1_MiB + 1_B, 20_MiB},
                            {10_MiB - 512_B, 20_MiB},
                            {10_MiB - 1_B, 10_MiB},  // rounded to 10 MiB first
                            {10_MiB, 10_MiB},
                            {10_MiB + 1_B, 12_MiB},
                            {12_MiB, 12_MiB},
                            {101_MiB, 102_MiB}}) {
    CAPTURE(e.request);
    Memory memory;
    CHECK(CachingAllocator::segment_size(memory.allocator.round_up(e.request)) == e.bytes);
    CHECK(memory.fresh_segment(e.request) == e.bytes);
    CHECK(memory.stats().reserved == e.bytes);
  }
}

TEST_CASE("small requests share a segment of 2 MiB down to its last 512 B") {
  Memory memory;
  CHECK(memory.fresh_segment(512_B) == 2_MiB);
  for (int i = 1; i < 4096; ++i) CHECK(memory.fresh_segment(512_B) == 0_B);
  CHECK(memory.stats().allocated == 2_MiB);
  CHECK(memory.fresh_segment(512_B) == 2_MiB);
}

TEST_CASE("requests between 1 and 10 MiB share a segment of 20 MiB") {
  Memory memory;
  CHECK(memory.fresh_segment(9_MiB) == 20_MiB);
  CHECK(memory.fresh_segment(9_MiB) == 0_B);
  CHECK(memory.stats().allocated == 18_MiB);
  CHECK(memory.stats().reserved == 20_MiB);
}

TEST_CASE("of a large block, a rest of more than 1 MiB is split off, a smaller one counts as allocated") {
  for (const Expected& e : {Expected{11_MiB + 512_KiB, 12_MiB},
                            {11_MiB, 12_MiB},
                            {11_MiB - 512_B, 11_MiB - 512_B},
                            {10_MiB + 512_KiB, 10_MiB + 512_KiB}}) {
    CAPTURE(e.request);
    Memory memory;
    CHECK(memory.allocator.size(memory.allocate(e.request)) == e.bytes);
    CHECK(memory.stats().allocated == e.bytes);
    CHECK(memory.stats().reserved == 12_MiB);
    CHECK(memory.allocator.cached() == 12_MiB - e.bytes);
    CHECK(memory.allocator.fragmented() == 12_MiB - e.bytes);
  }
}

// --- which block ------------------------------------------------------------------------------------------

TEST_CASE("the smallest cached block that fits is taken") {
  Memory memory;
  for (const BlockId block : {memory.allocate(30_MiB), memory.allocate(14_MiB), memory.allocate(20_MiB)})
    memory.allocator.free(block);
  const auto fit = memory.full(13_MiB);
  CHECK(fit.calls.reserved == 0_B);
  CHECK(memory.allocator.size(*fit.block) == 14_MiB);
  CHECK(memory.allocator.size(memory.allocate(13_MiB)) == 13_MiB);  // split from the 20 MiB
  CHECK(memory.stats().reserved == 64_MiB);
}

// Two cached blocks of 12 MiB, one a segment of its own, the other the rest of a split one. Which of them
// served a request shows in whether the whole one can still be given back.
TEST_CASE("of blocks of equal size the one at the lowest address is taken, whenever they were freed") {
  for (const bool whole_is_lower : {false, true})
    for (const bool whole_is_freed_first : {false, true}) {
      CAPTURE(whole_is_lower);
      CAPTURE(whole_is_freed_first);
      Memory memory;
      BlockId whole{};
      if (whole_is_lower) whole = memory.allocate(12_MiB);
      const BlockId pair = memory.allocate(24_MiB);
      if (!whole_is_lower) whole = memory.allocate(12_MiB);
      memory.allocator.free(pair);
      memory.allocate(12_MiB);  // the first half of the pair stays live
      const BlockId rest = memory.allocate(12_MiB);
      memory.allocator.free(whole_is_freed_first ? whole : rest);
      memory.allocator.free(whole_is_freed_first ? rest : whole);
      CHECK(memory.fresh_segment(12_MiB) == 0_B);
      CHECK(memory.allocator.release_cached().released == (whole_is_lower ? 0_B : 12_MiB));
    }
}

TEST_CASE("pools of different streams do not mix") {
  Memory memory;
  memory.allocator.free(memory.allocate(12_MiB, main_stream));
  CHECK(memory.fresh_segment(12_MiB, side_stream) == 12_MiB);
  CHECK(memory.fresh_segment(12_MiB, main_stream) == 0_B);
}

TEST_CASE("small and large requests do not share segments") {
  Memory memory;
  memory.allocator.free(memory.allocate(9_MiB));
  CHECK(memory.fresh_segment(1_MiB) == 2_MiB);
  CHECK(memory.fresh_segment(2_MiB) == 0_B);
}

// --- freeing ----------------------------------------------------------------------------------------------

TEST_CASE("a block used on its own stream only is free at once") {
  Memory memory;
  const BlockId block = memory.allocate(12_MiB, side_stream);
  memory.allocator.record_use(block, side_stream);
  CHECK(memory.allocator.free(block) == 0);
  CHECK(memory.stats().active == 0_B);
  CHECK(memory.allocator.cached() == 12_MiB);
}

TEST_CASE("a block used on other streams stays active until it retires") {
  Memory memory;
  const BlockId block = memory.allocate(12_MiB, side_stream);
  memory.allocator.record_use(block, main_stream);
  memory.allocator.record_use(block, third_stream);
  memory.allocator.record_use(block, third_stream);
  CHECK(memory.allocator.free(block) == 0b101);
  CHECK(memory.stats().allocated == 0_B);
  CHECK(memory.stats().active == 12_MiB);
  CHECK(memory.allocator.release_cached().frees == 0);
  CHECK(memory.fresh_segment(12_MiB, side_stream) == 12_MiB);  // it cannot be reused yet
  memory.allocator.retire(block);
  CHECK(memory.stats().active == 12_MiB);
  CHECK(memory.fresh_segment(12_MiB, side_stream) == 0_B);
}

TEST_CASE("uses of a block are forgotten when it is freed") {
  Memory memory;
  const BlockId first = memory.allocate(12_MiB);
  memory.allocator.record_use(first, side_stream);
  CHECK(memory.allocator.free(first) == 0b10);
  memory.allocator.retire(first);
  CHECK(memory.allocator.free(memory.allocate(12_MiB)) == 0);
}

TEST_CASE("neighbours that are free merge, in whatever order they were freed") {
  std::array<std::size_t, 3> order{0, 1, 2};
  do {
    Memory memory;
    const std::array blocks{memory.allocate(6_MiB), memory.allocate(6_MiB), memory.allocate(6_MiB)};
    REQUIRE(memory.stats().reserved == 20_MiB);
    for (const std::size_t i : order) memory.allocator.free(blocks[i]);
    CHECK(memory.allocator.fragmented() == 0_B);
    CHECK(memory.fresh_segment(20_MiB) == 0_B);
  } while (std::next_permutation(order.begin(), order.end()));
}

TEST_CASE("neighbours in different segments do not merge") {
  Memory memory;
  for (const BlockId block : {memory.allocate(12_MiB), memory.allocate(12_MiB)}) memory.allocator.free(block);
  CHECK(memory.fresh_segment(24_MiB) == 24_MiB);
}

TEST_CASE("a block that waits for a stream merges with its neighbours only when it retires") {
  Memory memory;
  const BlockId left = memory.allocate(6_MiB), middle = memory.allocate(6_MiB);
  const BlockId right = memory.allocate(6_MiB);
  memory.allocator.record_use(middle, side_stream);
  for (const BlockId block : {left, middle, right}) memory.allocator.free(block);
  CHECK(memory.allocator.fragmented() == 14_MiB);
  CHECK(memory.allocator.release_cached().frees == 0);
  memory.allocator.retire(middle);
  CHECK(memory.allocator.fragmented() == 0_B);
  CHECK(memory.allocator.release_cached().released == 20_MiB);
}

// --- giving back and running out --------------------------------------------------------------------------

TEST_CASE("only whole free segments are given back, those of all streams and sizes") {
  Memory memory;
  memory.allocator.free(memory.allocate(1_KiB, side_stream));
  memory.allocator.free(memory.allocate(40_MiB, third_stream));
  memory.allocate(12_MiB);
  const BlockId split = memory.allocate(2_MiB);
  REQUIRE(memory.stats().reserved == 74_MiB);  // 2 + 40, and in use 12 + 20
  const auto released = memory.allocator.release_cached();
  CHECK(released.frees == 2);
  CHECK(released.released == 42_MiB);
  CHECK(memory.stats().reserved == 32_MiB);
  CHECK(memory.stats().releases == 2);
  CHECK(memory.allocator.fragmented() == 18_MiB);
  memory.allocator.free(split);
  CHECK(memory.allocator.release_cached().released == 20_MiB);
  CHECK(memory.allocator.release_cached().frees == 0);
}

TEST_CASE("a request fails when its segment does not fit, although the request itself would") {
  CachingAllocator allocator(19_MiB, 1);
  CHECK_FALSE(allocator.allocate(2_MiB, main_stream));
  CHECK(allocator.allocate(1_MiB, main_stream));
  CHECK(allocator.allocate(16_MiB, main_stream));
  CHECK_FALSE(allocator.allocate(16_MiB, main_stream));
}

TEST_CASE("the last byte can be reserved, and what is cached serves when nothing is left") {
  CachingAllocator allocator(24_MiB, 1);
  const auto block = allocator.allocate(24_MiB, main_stream);
  REQUIRE(block);
  CHECK(allocator.stats().reserved == allocator.capacity());
  CHECK_FALSE(allocator.allocate(1_B, main_stream));
  allocator.free(*block.block);
  CHECK_FALSE(allocator.allocate(1_B, main_stream));  // the cached block is in the other pool
  CHECK(allocator.allocate(14_MiB, main_stream));
  CHECK(allocator.allocate(9_MiB, main_stream));  // 20 MiB if it were fresh
}

TEST_CASE("a failed request changes nothing, and succeeds once enough is given back") {
  CachingAllocator allocator(40_MiB, 2);
  const auto block = allocator.allocate(30_MiB, main_stream);
  REQUIRE(block);
  allocator.free(*block.block);
  const std::uint64_t before = allocator.fingerprint();
  CHECK_FALSE(allocator.allocate(30_MiB, side_stream));
  CHECK(allocator.fingerprint() == before);
  CHECK(allocator.stats().mallocs == 1);
  allocator.release_cached();
  CHECK(allocator.allocate(30_MiB, side_stream));
}

// --- what is counted --------------------------------------------------------------------------------------

TEST_CASE("allocated, active and reserved each keep their own peak") {
  Memory memory;
  const BlockId first = memory.allocate(12_MiB);
  memory.allocator.record_use(first, side_stream);
  memory.allocator.free(first);                    // allocated 0, active 12, reserved 12
  const BlockId second = memory.allocate(16_MiB);  // allocated 16, active 28, reserved 28
  memory.allocator.retire(first);
  memory.allocator.free(second);
  memory.allocate(40_MiB);  // allocated 40, active 40, reserved 68
  memory.allocator.release_cached();
  CHECK(memory.stats().reserved == 40_MiB);
  CHECK(memory.stats().peak_allocated == 40_MiB);
  CHECK(memory.stats().peak_active == 40_MiB);
  CHECK(memory.stats().peak_reserved == 68_MiB);
}

TEST_CASE("a peak of active memory need not be one of allocated memory") {
  Memory memory;
  const BlockId first = memory.allocate(12_MiB);
  memory.allocator.record_use(first, side_stream);
  memory.allocator.free(first);
  memory.allocate(16_MiB);
  CHECK(memory.stats().peak_allocated == 16_MiB);
  CHECK(memory.stats().peak_active == 28_MiB);
}

TEST_CASE("calls, segments obtained and segments returned are counted") {
  Memory memory;
  const BlockId block = memory.allocate(12_MiB);
  memory.allocator.record_use(block, side_stream);
  memory.allocator.free(block);
  memory.allocator.retire(block);
  memory.allocate(12_MiB);
  memory.allocator.free(memory.allocate(1_KiB));
  memory.allocator.release_cached();
  CHECK(memory.stats().calls == 6);  // three allocate, two free, one record_use
  CHECK(memory.stats().mallocs == 2);
  CHECK(memory.stats().releases == 1);
}

// --- options ----------------------------------------------------------------------------------------------

TEST_CASE("after a release only CUDA is asked: a cached block that fits by now is not looked for") {
  CachingAllocator allocator(40_MiB, 2);
  const BlockId split = *allocator.allocate(4_MiB, main_stream).block;
  const BlockId busy = *allocator.allocate(12_MiB, main_stream).block;
  allocator.record_use(busy, side_stream);
  allocator.free(busy);
  REQUIRE_FALSE(allocator.allocate(22_MiB, main_stream));
  allocator.retire(busy);  // 16 MiB are free behind the 4
  const auto last = allocator.allocate_after_release(16_MiB, main_stream);
  REQUIRE(last);
  CHECK(last.calls.reserved == 16_MiB);
  CHECK(allocator.stats().reserved == 36_MiB);
  allocator.free(split);
}

TEST_CASE("a failed request says what CUDA refused") {
  CachingAllocator allocator(39_MiB, 1);
  CHECK(allocator.allocate(39_MiB - 1_KiB, main_stream).refused == 40_MiB);
  CHECK(allocator.allocate(1_MiB, main_stream));
  CHECK(allocator.allocate(37_MiB + 1_B, main_stream).refused == 38_MiB);
  CHECK(allocator.allocate_after_release(40_MiB, main_stream).refused == 40_MiB);
}

TEST_CASE("the fraction of the device is a limit of what is reserved, memory outside not counted") {
  CachingAllocator allocator(80_MiB, 1, {.memory_fraction = 0.5}, 20_MiB);
  CHECK(allocator.limit() == 50_MiB);
  CHECK_FALSE(allocator.allocate(51_MiB, main_stream));
  CHECK(allocator.allocate(50_MiB, main_stream));
  CHECK_FALSE(allocator.allocate(1_B, main_stream));
  CHECK(CachingAllocator(30_MiB, 1, {.memory_fraction = 0.5}, 70_MiB).limit() == 30_MiB);
}

TEST_CASE("blocks of max_split_size and more are not split, and serve only requests of that size") {
  Memory memory({.max_split_size = 32_MiB});
  const BlockId large = memory.allocate(40_MiB);
  memory.allocator.free(large);
  CHECK(memory.fresh_segment(31_MiB) == 32_MiB);  // not from the 40
  CHECK(memory.fresh_segment(33_MiB) == 0_B);     // from it, whole
  CHECK(memory.stats().allocated == 31_MiB + 512_KiB + 40_MiB + 512_KiB);
}

TEST_CASE("a block of 20 MiB and more too many does not serve an oversize request") {
  for (const bool fits : {false, true}) {
    Memory memory({.max_split_size = 32_MiB});
    memory.allocator.free(memory.allocate(60_MiB));
    CHECK(memory.fresh_segment(fits ? 40_MiB + 512_B : 40_MiB) == (fits ? 0_B : 40_MiB));
  }
}

TEST_CASE("with a max_split_size one oversize block that is large enough is freed before all are") {
  Memory memory({.max_split_size = 32_MiB}, 200_MiB);
  for (const BlockId b : {memory.allocate(40_MiB), memory.allocate(60_MiB), memory.allocate(80_MiB)})
    memory.allocator.free(b);
  const auto small = memory.full(30_MiB);  // 32 is what an oversize block has at least: the 40 go
  CHECK(small.calls.frees == 1);
  CHECK(small.calls.released == 40_MiB);
  const auto large = memory.allocator.allocate(100_MiB, main_stream);  // the 80, then the 60 as well
  REQUIRE(large);
  CHECK(large.calls.released == 140_MiB);
  CHECK(memory.stats().reserved == 130_MiB);
}

TEST_CASE("oversize blocks of other streams are not freed one by one") {
  Memory memory({.max_split_size = 32_MiB}, 100_MiB);
  memory.allocator.free(memory.allocate(80_MiB, side_stream));
  const auto failed = memory.allocator.allocate(40_MiB, main_stream);
  CHECK_FALSE(failed);
  CHECK(failed.calls.frees == 0);
  CHECK(memory.allocator.allocate_after_release(40_MiB, main_stream).calls.released == 80_MiB);
}

TEST_CASE("above its threshold, garbage collection frees whole large segments of at least average age") {
  Memory memory({.garbage_collection_threshold = 0.5, .memory_fraction = 1.0}, 100_MiB);
  const BlockId old = memory.allocate(20_MiB), young = memory.allocate(24_MiB, side_stream);
  memory.allocator.free(old);
  for (int i = 0; i < 3; ++i) memory.allocator.free(memory.allocate(12_MiB, third_stream));
  memory.allocator.free(young);
  CHECK(memory.full(13_MiB, third_stream).calls.frees == 1);  // the 12 MiB do not fit; 56 of 50 reserved
  CHECK(memory.stats().reserved == 24_MiB + 12_MiB + 14_MiB);
  CHECK(memory.stats().releases == 1);
}

TEST_CASE("without a memory fraction nothing is collected") {
  Memory memory({.garbage_collection_threshold = 0.5}, 100_MiB);
  memory.allocator.free(memory.allocate(60_MiB, side_stream));
  CHECK(memory.full(20_MiB).calls.frees == 0);
}

TEST_CASE("roundup_power2_divisions rounds up to equal parts between powers of two") {
  const CachingAllocator allocator(1_GiB, 1, {.roundup_power2_divisions = 4});
  for (const Expected& e : {Expected{1200_B, 1536_B},  // up to 512 * 4: as ever
                            {2048_B, 2048_B},
                            {2049_B, 2560_B},
                            {1_MiB + 1_B, 1_MiB + 256_KiB},
                            {5_MiB, 5_MiB},
                            {7_MiB + 1_B, 8_MiB}})
    CHECK(allocator.round_up(e.request) == e.bytes);
}

// --- expandable segments ----------------------------------------------------------------------------------

constexpr AllocatorConfig expandable{.expandable_segments = true};

TEST_CASE("an expandable segment grows by pages of 20 MiB, 2 MiB for small requests") {
  Memory memory(expandable);
  CHECK(memory.fresh_segment(11_MiB + 512_KiB) == 20_MiB);
  CHECK(memory.stats().allocated == 11_MiB + 512_KiB);  // always split
  CHECK(memory.fresh_segment(8_MiB) == 0_B);
  CHECK(memory.fresh_segment(50_MiB) == 60_MiB);  // 512 KiB are left of the first page
  CHECK(memory.stats().reserved == 80_MiB);
  CHECK(memory.fresh_segment(512_B) == 2_MiB);
  CHECK(memory.fresh_segment(12_MiB, side_stream) == 20_MiB);
}

TEST_CASE("the free end of an expandable segment is used before pages are mapped") {
  Memory memory(expandable);
  const BlockId first = memory.allocate(30_MiB);  // 10 MiB are left of two pages
  CHECK(memory.fresh_segment(45_MiB) == 40_MiB);
  CHECK(memory.stats().reserved == 80_MiB);
  CHECK(memory.allocator.cached() == 5_MiB);
  memory.allocator.free(first);
  CHECK(memory.fresh_segment(28_MiB) == 0_B);
}

TEST_CASE("blocks that cannot grow are taken before the one at the end, although larger") {
  Memory memory(expandable);
  const BlockId hole = memory.allocate(36_MiB);
  memory.allocate(24_MiB);
  memory.allocate(4_MiB);  // 16 MiB are left at the end
  memory.allocator.free(hole);
  const BlockId taken = memory.allocate(10_MiB);
  CHECK(memory.fresh_segment(16_MiB) == 0_B);
  CHECK(memory.fresh_segment(26_MiB) ==
        20_MiB);  // the hole has 10 left, so the end serves with one page more
  memory.allocator.free(taken);
}

TEST_CASE("after a failure wholly free pages are unmapped, in the middle too, and serve another stream") {
  Memory memory(expandable, 100_MiB);
  const BlockId low = memory.allocate(30_MiB), middle = memory.allocate(44_MiB),
                high = memory.allocate(6_MiB);
  REQUIRE(memory.stats().reserved == 80_MiB);
  memory.allocator.free(middle);  // 30 to 74 MiB: one whole page, 40 to 60
  CHECK(memory.allocator.fragmented() == 24_MiB);
  const auto failed = memory.allocator.allocate(30_MiB, side_stream);
  CHECK_FALSE(failed);
  CHECK(failed.refused == 40_MiB);
  const auto last = memory.allocator.allocate_after_release(30_MiB, side_stream);
  REQUIRE(last);
  CHECK(last.calls.released == 20_MiB);
  CHECK(last.calls.reserved == 40_MiB);
  CHECK(memory.stats().reserved == 100_MiB);
  memory.allocator.free(*last.block);
  CHECK(memory.allocator.release_cached().released == 40_MiB);
  CHECK(memory.fresh_segment(44_MiB) == 20_MiB);  // back in the gap
  for (const BlockId b : {low, high}) memory.allocator.free(b);
}

TEST_CASE("an expandable segment without a mapped page is gone") {
  Memory memory(expandable);
  const std::uint64_t before = memory.allocator.fingerprint();
  memory.allocator.free(memory.allocate(30_MiB));
  memory.allocator.free(memory.allocate(3_KiB));
  CHECK(memory.allocator.release_cached().released == 42_MiB);
  CHECK(memory.allocator.fingerprint() == before);
}

// --- fingerprint ------------------------------------------------------------------------------------------

TEST_CASE("the fingerprint returns when the pools are as they were") {
  Memory memory;
  memory.allocator.free(memory.allocate(12_MiB));
  const std::uint64_t before = memory.allocator.fingerprint();
  const BlockId block = memory.allocate(10_MiB);
  CHECK(memory.allocator.fingerprint() != before);
  memory.allocator.record_use(block, side_stream);
  memory.allocator.free(block);
  CHECK(memory.allocator.fingerprint() != before);
  memory.allocator.retire(block);
  CHECK(memory.allocator.fingerprint() == before);
}

TEST_CASE("the fingerprint does not see addresses") {
  Memory ascending, descending;
  for (const BlockId block : {ascending.allocate(12_MiB), ascending.allocate(14_MiB)})
    ascending.allocator.free(block);
  for (const BlockId block : {descending.allocate(14_MiB), descending.allocate(12_MiB)})
    descending.allocator.free(block);
  CHECK(ascending.allocator.fingerprint() == descending.allocator.fingerprint());
}

TEST_CASE("the fingerprint sees sizes and streams of what is cached") {
  Memory reference, other_sizes, other_stream;
  for (const BlockId block : {reference.allocate(12_MiB), reference.allocate(16_MiB)})
    reference.allocator.free(block);
  for (const BlockId block : {other_sizes.allocate(14_MiB), other_sizes.allocate(14_MiB)})
    other_sizes.allocator.free(block);
  for (const BlockId block : {other_stream.allocate(12_MiB), other_stream.allocate(16_MiB, side_stream)})
    other_stream.allocator.free(block);
  CHECK(other_sizes.allocator.fingerprint() != reference.allocator.fingerprint());
  CHECK(other_stream.allocator.fingerprint() != reference.allocator.fingerprint());
}

}  // namespace
}  // namespace shardsim
