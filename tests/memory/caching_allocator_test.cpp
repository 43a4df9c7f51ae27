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
  CachingAllocator allocator{1_GiB, 3};

  CachingAllocator::Allocated full(Bytes bytes, StreamId stream = main_stream) {
    const auto allocated = allocator.allocate(bytes, stream);
    REQUIRE(allocated);
    return *allocated;
  }
  BlockId allocate(Bytes bytes, StreamId stream = main_stream) { return full(bytes, stream).block; }
  Bytes fresh_segment(Bytes bytes, StreamId stream = main_stream) {
    return full(bytes, stream).fresh_segment;
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
    CHECK(CachingAllocator::round_up(e.request) == e.bytes);
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
    CHECK(CachingAllocator::segment_size(CachingAllocator::round_up(e.request)) == e.bytes);
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
    CHECK(memory.allocator.cached_in_split_segments() == 12_MiB - e.bytes);
  }
}

// --- which block ------------------------------------------------------------------------------------------

TEST_CASE("the smallest cached block that fits is taken") {
  Memory memory;
  for (const BlockId block : {memory.allocate(30_MiB), memory.allocate(14_MiB), memory.allocate(20_MiB)})
    memory.allocator.free(block);
  const auto fit = memory.full(13_MiB);
  CHECK(fit.fresh_segment == 0_B);
  CHECK(memory.allocator.size(fit.block) == 14_MiB);
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
      CHECK(memory.allocator.release_cached().bytes == (whole_is_lower ? 0_B : 12_MiB));
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
  CHECK(memory.allocator.release_cached().segments == 0);
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
    CHECK(memory.allocator.cached_in_split_segments() == 0_B);
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
  CHECK(memory.allocator.cached_in_split_segments() == 14_MiB);
  CHECK(memory.allocator.release_cached().segments == 0);
  memory.allocator.retire(middle);
  CHECK(memory.allocator.cached_in_split_segments() == 0_B);
  CHECK(memory.allocator.release_cached().bytes == 20_MiB);
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
  CHECK(released.segments == 2);
  CHECK(released.bytes == 42_MiB);
  CHECK(memory.stats().reserved == 32_MiB);
  CHECK(memory.stats().releases == 2);
  CHECK(memory.allocator.cached_in_split_segments() == 18_MiB);
  memory.allocator.free(split);
  CHECK(memory.allocator.release_cached().bytes == 20_MiB);
  CHECK(memory.allocator.release_cached().segments == 0);
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
  allocator.free(block->block);
  CHECK_FALSE(allocator.allocate(1_B, main_stream));  // the cached block is in the other pool
  CHECK(allocator.allocate(14_MiB, main_stream));
  CHECK(allocator.allocate(9_MiB, main_stream));  // 20 MiB if it were fresh
}

TEST_CASE("a failed request changes nothing, and succeeds once enough is given back") {
  CachingAllocator allocator(40_MiB, 2);
  const auto block = allocator.allocate(30_MiB, main_stream);
  REQUIRE(block);
  allocator.free(block->block);
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
