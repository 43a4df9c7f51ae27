#include "sim/memory/caching_allocator.h"

#include <algorithm>

#include "sim/base/check.h"

namespace shardsim {
namespace {

constexpr std::int64_t min_block = 512;
constexpr std::int64_t small_max = 1 << 20;           // requests up to here live in the small pool
constexpr std::int64_t small_segment = 2 << 20;       // its segments
constexpr std::int64_t large_request_min = 10 << 20;  // below it a large request takes a shared segment
constexpr std::int64_t large_segment = 20 << 20;
constexpr std::int64_t segment_granule = 2 << 20;
constexpr std::int32_t none = -1;

std::int64_t ceil_to(std::int64_t n, std::int64_t granule) { return (n + granule - 1) / granule * granule; }

bool worth_splitting(Bytes remainder, bool small) {
  return small ? remainder.count >= min_block : remainder.count > small_max;
}

}  // namespace

Bytes CachingAllocator::round_up(Bytes request) {
  return {std::max(min_block, ceil_to(request.count, min_block))};
}

Bytes CachingAllocator::segment_size(Bytes block_bytes) {
  if (block_bytes.count <= small_max) return {small_segment};
  if (block_bytes.count < large_request_min) return {large_segment};
  return {ceil_to(block_bytes.count, segment_granule)};
}

CachingAllocator::CachingAllocator(Bytes capacity, int streams)
    : capacity_(capacity), pools_(static_cast<std::size_t>(2 * streams)) {
  require(streams <= 64, "more streams than bits in a mask");
}

bool CachingAllocator::whole_segment(const Block& block) {
  return block.previous == none && block.next == none;
}

std::optional<CachingAllocator::Allocated> CachingAllocator::allocate(Bytes bytes, StreamId stream) {
  ++stats_.calls;
  const Bytes size = round_up(bytes);
  const bool small = size.count <= small_max;
  Pool& cached = pool(stream, small);
  Allocated result{};
  const auto fit = std::lower_bound(cached.begin(), cached.end(), Cached{size, 0, BlockId{0}});
  if (fit != cached.end()) {
    result.block = fit->block;
    cached.erase(fit);
  } else {
    const Bytes segment = segment_size(size);
    if (stats_.reserved + segment > capacity_) return std::nullopt;
    result = {make_block({next_address_, segment, stream, none, none, State::cached, small, 0}), segment};
    next_address_ += segment.count;
    ++stats_.mallocs;
    stats_.reserved += segment;
    stats_.peak_reserved = std::max(stats_.peak_reserved, stats_.reserved);
  }
  if (worth_splitting(blocks_[result.block].size - size, small)) split(result.block, size);
  blocks_[result.block].state = State::live;
  stats_.allocated += blocks_[result.block].size;
  stats_.active += blocks_[result.block].size;
  stats_.peak_allocated = std::max(stats_.peak_allocated, stats_.allocated);
  stats_.peak_active = std::max(stats_.peak_active, stats_.active);
  return result;
}

void CachingAllocator::record_use(BlockId id, StreamId stream) {
  ++stats_.calls;
  require(blocks_[id].state == State::live, "a use of memory that is not live");
  if (stream != blocks_[id].stream) blocks_[id].uses |= std::uint64_t{1} << stream.index;
}

std::uint64_t CachingAllocator::free(BlockId id) {
  ++stats_.calls;
  Block& block = blocks_[id];
  require(block.state == State::live, "freed memory is live");
  stats_.allocated -= block.size;
  const std::uint64_t waits = block.uses;
  block.uses = 0;
  if (waits == 0)
    make_cached(id);
  else
    block.state = State::pending;
  return waits;
}

void CachingAllocator::retire(BlockId id) {
  require(blocks_[id].state == State::pending, "only a pending block retires");
  make_cached(id);
}

void CachingAllocator::make_cached(BlockId id) {
  stats_.active -= blocks_[id].size;
  blocks_[id].state = State::cached;
  absorb(id, blocks_[id].previous);
  absorb(id, blocks_[id].next);
  insert(id);
}

// Merges a cached neighbour into the block, which is not in its pool yet.
void CachingAllocator::absorb(BlockId into, std::int32_t neighbour) {
  if (neighbour == none || blocks_[BlockId{neighbour}].state != State::cached) return;
  const BlockId gone{neighbour};
  remove(gone);
  Block& block = blocks_[into];
  const Block& other = blocks_[gone];
  block.size += other.size;
  if (other.address < block.address) {
    block.address = other.address;
    block.previous = other.previous;
    if (block.previous != none) blocks_[BlockId{block.previous}].next = into.index;
  } else {
    block.next = other.next;
    if (block.next != none) blocks_[BlockId{block.next}].previous = into.index;
  }
  unused_.push_back(gone);
}

// Leaves `size` bytes in the block and returns the rest to the pool.
void CachingAllocator::split(BlockId id, Bytes size) {
  const Block head = blocks_[id];
  const BlockId rest = make_block({head.address + size.count, head.size - size, head.stream, id.index,
                                   head.next, State::cached, head.small, 0});
  if (head.next != none) blocks_[BlockId{head.next}].previous = rest.index;
  blocks_[id].next = rest.index;
  blocks_[id].size = size;
  insert(rest);
}

BlockId CachingAllocator::make_block(const Block& block) {
  if (unused_.empty()) return blocks_.add(block);
  const BlockId id = unused_.back();
  unused_.pop_back();
  blocks_[id] = block;
  return id;
}

void CachingAllocator::insert(BlockId id) {
  const Block& block = blocks_[id];
  Pool& p = pool(block.stream, block.small);
  const Cached entry{block.size, block.address, id};
  p.insert(std::lower_bound(p.begin(), p.end(), entry), entry);
}

void CachingAllocator::remove(BlockId id) {
  const Block& block = blocks_[id];
  Pool& p = pool(block.stream, block.small);
  p.erase(std::lower_bound(p.begin(), p.end(), Cached{block.size, block.address, id}));
}

CachingAllocator::Released CachingAllocator::release_cached() {
  Released released;
  for (Pool& p : pools_)
    std::erase_if(p, [&](const Cached& c) {
      const Block& block = blocks_[c.block];
      if (!whole_segment(block)) return false;
      ++released.segments;
      released.bytes += block.size;
      unused_.push_back(c.block);
      return true;
    });
  stats_.reserved -= released.bytes;
  stats_.releases += released.segments;
  return released;
}

Bytes CachingAllocator::cached_in_split_segments() const {
  Bytes total;
  for (const Pool& p : pools_)
    for (const Cached& c : p)
      if (!whole_segment(blocks_[c.block])) total += c.size;
  return total;
}

std::uint64_t CachingAllocator::fingerprint() const {
  std::uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a over 64-bit words
  const auto mix = [&](std::int64_t word) {
    hash = (hash ^ static_cast<std::uint64_t>(word)) * 0x100000001b3u;
  };
  for (const Bytes b : {stats_.allocated, stats_.active, stats_.reserved}) mix(b.count);
  for (const Pool& p : pools_) {
    mix(-1);
    for (const Cached& c : p) mix(2 * c.size.count + (whole_segment(blocks_[c.block]) ? 1 : 0));
  }
  return hash;
}

}  // namespace shardsim
