#include "sim/memory/caching_allocator.h"

#include <algorithm>
#include <utility>

#include "sim/base/check.h"

namespace shardsim {
namespace {

constexpr std::int64_t min_block = 512;
constexpr std::int64_t small_max = 1 << 20;           // requests up to here live in the small pool
constexpr std::int64_t small_segment = 2 << 20;       // its segments, and pages of expandable ones
constexpr std::int64_t large_request_min = 10 << 20;  // below it a large request takes a shared segment
constexpr std::int64_t large_segment = 20 << 20;      // that segment, and the pages of expandable ones
constexpr std::int64_t segment_granule = 2 << 20;
constexpr std::int32_t none = -1;

std::int64_t ceil_to(std::int64_t n, std::int64_t granule) { return (n + granule - 1) / granule * granule; }
std::int64_t page_size(bool small) { return small ? small_segment : large_segment; }

// Up to the next of so many equal divisions of the range between two powers of two.
std::int64_t next_division(std::int64_t n, std::int64_t divisions) {
  std::int64_t floor = 1;
  while (2 * floor <= n) floor *= 2;
  return ceil_to(n, std::max<std::int64_t>(1, floor / divisions));
}

// PyTorch multiplies in double and truncates.
Bytes share_of(Bytes whole, double share) {
  return {static_cast<std::int64_t>(share * static_cast<double>(whole.count))};
}

bool power_of_two(int n) { return n > 0 && (n & (n - 1)) == 0; }

}  // namespace

Bytes CachingAllocator::round_up(Bytes request) const {
  const std::int64_t n = request.count, divisions = config_.roundup_power2_divisions;
  if (divisions > 1 && n > min_block * divisions) return {next_division(n, divisions)};
  return {std::max(min_block, ceil_to(n, min_block))};
}

Bytes CachingAllocator::segment_size(Bytes block_bytes) {
  if (block_bytes.count <= small_max) return {small_segment};
  if (block_bytes.count < large_request_min) return {large_segment};
  return {ceil_to(block_bytes.count, segment_granule)};
}

CachingAllocator::CachingAllocator(Bytes capacity, int streams, const AllocatorConfig& config, Bytes outside)
    : config_(config),
      capacity_(capacity),
      allowed_(config.memory_fraction ? share_of(capacity + outside, *config.memory_fraction)
                                      : AllocatorConfig::unlimited),
      // 1 1/8 of the device, so that pages unmapped in the middle can come back at the end
      address_space_{ceil_to((capacity + outside).count / 8 * 9, large_segment) + large_segment},
      collects_(config.memory_fraction && config.garbage_collection_threshold > 0),
      pools_(static_cast<std::size_t>(2 * streams)),
      unmapped_(static_cast<std::size_t>(2 * streams)) {
  require(streams <= 64, "more streams than bits in a mask");
  require(config.max_split_size > AllocatorConfig::max_split_size_above, "segments of 20 MiB are split");
  require(!config.expandable_segments || config.max_split_size == AllocatorConfig::unlimited,
          "expandable segments are one block that is split");
  require(config.roundup_power2_divisions == 0 || power_of_two(config.roundup_power2_divisions),
          "divisions between powers of two are a power of two");
}

CachingAllocator::Pool::iterator CachingAllocator::lower_bound(Pool::iterator begin, Pool::iterator end,
                                                               Bytes size, std::int64_t address) {
  return std::lower_bound(begin, end, size, [&](const Cached& c, Bytes) {
    return c.size < size || (c.size == size && c.address < address);
  });
}

bool CachingAllocator::whole_segment(const Block& block) {
  return block.previous == none && block.next == none;
}

CachingAllocator::Allocation CachingAllocator::allocate(Bytes bytes, StreamId stream) {
  ++stats_.calls;
  const Bytes size = round_up(bytes);
  const bool small = size.count <= small_max;
  if (!small) ++large_searches_;
  Pool& cached = pools_[pool_index(stream, small)];
  if (const auto fit = best_fit(cached, size); fit != cached.end()) return hand_out(take(cached, fit, size));
  if (collects_) collect_garbage();
  std::optional<BlockId> block = obtain(size, stream, small);
  if (!block && release_available(cached, size)) block = obtain(size, stream, small);
  return hand_out(block);
}

CachingAllocator::Allocation CachingAllocator::allocate_after_release(Bytes bytes, StreamId stream) {
  const Bytes size = round_up(bytes);
  release_all();
  return hand_out(obtain(size, stream, size.count <= small_max));
}

// Of an expandable segment, the block before its unmapped end counts with all it can grow to.
CachingAllocator::Pool::iterator CachingAllocator::best_fit(Pool& cached, Bytes size) {
  auto fit = lower_bound(cached.begin(), cached.end(), size, 0);
  if (fit == cached.end()) return fit;
  if (config_.expandable_segments) {
    const auto expandable_size = [&](const Cached& c) {
      const std::int32_t next = blocks_[c.block].next;
      const bool grows = next != none && blocks_[BlockId{next}].state == State::unmapped;
      return grows ? c.size + blocks_[BlockId{next}].size : c.size;
    };
    while (fit + 1 != cached.end() && expandable_size(fit[1]) < expandable_size(*fit)) ++fit;
  }
  const Bytes oversize = config_.max_split_size;
  if (size < oversize && fit->size >= oversize) return cached.end();
  if (size >= oversize && fit->size >= size + Bytes{large_segment}) return cached.end();
  return fit;
}

// Takes a block of `size` out of the pool, whole or split off.
BlockId CachingAllocator::take(Pool& cached, Pool::iterator fit, Bytes size) {
  const BlockId id = fit->block;
  if (worth_splitting(blocks_[id], size))
    replace(cached, fit, split(id, size));
  else
    cached.erase(fit);
  return id;
}

bool CachingAllocator::worth_splitting(const Block& block, Bytes size) const {
  const Bytes rest = block.size - size;
  if (block.small || config_.expandable_segments) return rest.count >= min_block;
  return size < config_.max_split_size && rest.count > small_max;
}

CachingAllocator::Allocation CachingAllocator::hand_out(std::optional<BlockId> id) {
  Allocation result{.block = id, .calls = std::exchange(calls_, {}), .refused = id ? Bytes{} : refused_};
  if (!id) return result;
  Block& block = blocks_[*id];
  block.state = State::live;
  stats_.allocated += block.size;
  stats_.active += block.size;
  stats_.peak_allocated = std::max(stats_.peak_allocated, stats_.allocated);
  stats_.peak_active = std::max(stats_.peak_active, stats_.active);
  log(MemoryAction::alloc, block);
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
  log(MemoryAction::free_requested, block);
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

DriverCalls CachingAllocator::release_cached() {
  release_all();
  return std::exchange(calls_, {});
}

Bytes CachingAllocator::fragmented() const {
  Bytes total;
  for (const Pool& p : pools_)
    for (const Cached& c : p) {
      const Block& block = blocks_[c.block];
      if (whole_segment(block)) continue;
      total += c.size;
      if (!config_.expandable_segments) continue;
      const std::int64_t page = page_size(block.small);
      const std::int64_t begin = ceil_to(c.address, page), end = (c.address + c.size.count) / page * page;
      total -= Bytes{std::max<std::int64_t>(0, end - begin)};
    }
  return total;
}

std::vector<SegmentView> CachingAllocator::segments() const {
  std::vector<bool> unused(blocks_.size(), false);
  for (const BlockId id : unused_) unused[static_cast<std::size_t>(id.index)] = true;
  std::vector<SegmentView> result;
  for (const BlockId first : ids(blocks_)) {
    if (unused[static_cast<std::size_t>(first.index)] || blocks_[first].previous != none) continue;
    bool mapped = false;  // the last block
    for (std::int32_t b = first.index; b != none; b = blocks_[BlockId{b}].next) {
      const Block& block = blocks_[BlockId{b}];
      const bool begins = !std::exchange(mapped, block.state != State::unmapped);
      if (!mapped) continue;
      if (begins) result.push_back({block.stream, block.small, config_.expandable_segments, {}});
      const BlockState state = block.state == State::live      ? BlockState::active_allocated
                               : block.state == State::pending ? BlockState::active_pending_free
                                                               : BlockState::inactive;
      result.back().blocks.push_back({block.address, block.size, state});
    }
  }
  std::sort(result.begin(), result.end(), [](const SegmentView& a, const SegmentView& b) {
    return a.blocks.front().address < b.blocks.front().address;
  });
  return result;
}

std::uint64_t CachingAllocator::fingerprint() const {
  std::uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a over 64-bit words
  const auto mix = [&](std::int64_t word) {
    hash = (hash ^ static_cast<std::uint64_t>(word)) * 0x100000001b3u;
  };
  for (const Bytes b : {stats_.allocated, stats_.active, stats_.reserved}) mix(b.count);
  for (std::size_t p = 0; p < pools_.size(); ++p) {
    mix(-1);
    for (const Cached& c : pools_[p]) mix(2 * c.size.count + (whole_segment(blocks_[c.block]) ? 1 : 0));
    for (const BlockId gap : unmapped_[p]) mix(-2 - blocks_[gap].size.count);
  }
  return hash;
}

// --- from and to CUDA -------------------------------------------------------------------------------------

std::optional<BlockId> CachingAllocator::obtain(Bytes size, StreamId stream, bool small) {
  const Bytes segment = segment_size(size);
  refused_ = segment;
  if (segment > allowed_ - stats_.reserved) return std::nullopt;
  if (config_.expandable_segments) return expand(size, stream, small);
  if (segment > capacity_ - stats_.reserved) return std::nullopt;
  const BlockId block = make_block({next_address_, segment, stream, none, none, State::cached, small});
  next_address_ += segment.count;
  reserve(blocks_[block]);
  if (worth_splitting(blocks_[block], size)) insert(split(block, size));
  return block;
}

// Maps what is missing of a run of free and unmapped blocks. What was mapped before CUDA ran out stays.
std::optional<BlockId> CachingAllocator::expand(Bytes size, StreamId stream, bool small) {
  BlockId block = expandable_block(size, stream, small);
  if (blocks_[block].state == State::unmapped && !map(block, std::min(blocks_[block].size, size)))
    return std::nullopt;
  while (blocks_[block].size < size) {
    const BlockId gap{blocks_[block].next};
    if (!map(gap, std::min(blocks_[gap].size, size - blocks_[block].size))) return std::nullopt;
    block = gap;
  }
  Pool& cached = pools_[pool_index(stream, small)];
  return take(cached, entry_of(block), size);
}

// At the lowest address where free and unmapped blocks make room; a new segment if there is none.
BlockId CachingAllocator::expandable_block(Bytes size, StreamId stream, bool small) {
  for (const BlockId gap : unmapped_[pool_index(stream, small)]) {
    const std::int32_t before = blocks_[gap].previous;
    const bool joins = before != none && blocks_[BlockId{before}].state == State::cached;
    const std::int32_t first = joins ? before : gap.index;
    if (has_room(first, size)) return {first};
  }
  next_address_ = ceil_to(next_address_, large_segment);  // pages are found by address alone
  const BlockId whole =
      make_block({next_address_, address_space_, stream, none, none, State::unmapped, small});
  next_address_ += address_space_.count;
  insert(whole);
  return whole;
}

bool CachingAllocator::has_room(std::int32_t block, Bytes size) const {
  while (size.count > 0 && block != none) {
    const Block& b = blocks_[BlockId{block}];
    if (b.state != State::cached && b.state != State::unmapped) return false;
    size -= b.size;
    block = b.next;
  }
  return size.count <= 0;
}

// Backs the first `bytes` of an unmapped block, rounded up to pages, and joins them with free neighbours.
bool CachingAllocator::map(BlockId id, Bytes bytes) {
  const Bytes pages{ceil_to(bytes.count, page_size(blocks_[id].small))};
  refused_ = pages;
  if (pages > capacity_ - stats_.reserved) return false;
  remove(id);
  if (pages < blocks_[id].size) insert(split(id, pages));
  blocks_[id].state = State::cached;
  reserve(blocks_[id]);
  absorb(id, blocks_[id].previous);
  absorb(id, blocks_[id].next);
  insert(id);
  return true;
}

// Returns the pages that lie wholly in a free block.
void CachingAllocator::unmap(BlockId id) {
  const Block free = blocks_[id];
  const std::int64_t page = page_size(free.small), end = free.address + free.size.count;
  const std::int64_t first = ceil_to(free.address, page), last = end / page * page;
  if (first >= last) return;
  remove(id);
  BlockId gap = id;
  if (first > free.address) {
    gap = split(id, Bytes{first - free.address});
    insert(id);
  }
  if (last < end) insert(split(gap, Bytes{last - first}));
  blocks_[gap].state = State::unmapped;
  release(blocks_[gap]);
  absorb(gap, blocks_[gap].previous);
  absorb(gap, blocks_[gap].next);
  if (whole_segment(blocks_[gap]))
    unused_.push_back(gap);  // its addresses go, too
  else
    insert(gap);
}

void CachingAllocator::reserve(const Block& block) {
  ++stats_.mallocs;
  ++calls_.mallocs;
  calls_.reserved += block.size;
  stats_.reserved += block.size;
  stats_.peak_reserved = std::max(stats_.peak_reserved, stats_.reserved);
  log(config_.expandable_segments ? MemoryAction::segment_map : MemoryAction::segment_alloc, block);
}

void CachingAllocator::release(const Block& block) {
  ++stats_.releases;
  ++calls_.frees;
  calls_.released += block.size;
  stats_.reserved -= block.size;
  log(config_.expandable_segments ? MemoryAction::segment_unmap : MemoryAction::segment_free, block);
}

// Of a block that is a whole segment and has left its pool.
void CachingAllocator::release_segment(BlockId id) {
  require(whole_segment(blocks_[id]), "only whole segments are returned");
  release(blocks_[id]);
  unused_.push_back(id);
}

// Above the threshold, frees whole large segments whose age, in searches since they were last used, is at
// least the average, until the excess is gone.
void CachingAllocator::collect_garbage() {
  const Bytes threshold = share_of(allowed_, config_.garbage_collection_threshold);
  if (stats_.reserved <= threshold) return;
  const Bytes excess = stats_.reserved - threshold, reserved = stats_.reserved;
  const auto age = [&](const Cached& c) { return large_searches_ - blocks_[c.block].cached_at; };
  std::int64_t total_age = 0, freeable = 0;
  for (std::size_t p = 1; p < pools_.size(); p += 2)  // the large pools
    for (const Cached& c : pools_[p])
      if (whole_segment(blocks_[c.block])) total_age += age(c), ++freeable;
  for (bool freed = true; freed && freeable > 0 && reserved - stats_.reserved < excess;) {
    const double average = static_cast<double>(total_age) / static_cast<double>(freeable);
    freed = false;
    for (std::size_t p = 1; p < pools_.size(); p += 2)
      std::erase_if(pools_[p], [&](const Cached& c) {
        if (!whole_segment(blocks_[c.block]) || static_cast<double>(age(c)) < average) return false;
        freed = true;
        total_age -= age(c);
        --freeable;
        release_segment(c.block);
        return true;
      });
  }
}

// With a finite max_split_size: frees one cached block that is larger than the request, or as many of the
// largest oversize ones as make up for it.
bool CachingAllocator::release_available(Pool& cached, Bytes size) {
  const Bytes oversize = config_.max_split_size, wanted = std::max(size, oversize);
  if (oversize == AllocatorConfig::unlimited) return false;
  const auto larger = lower_bound(cached.begin(), cached.end(), wanted, 0);
  if (larger != cached.end()) {
    release_segment(larger->block);
    cached.erase(larger);
    return true;
  }
  Bytes released;
  while (!cached.empty() && released < wanted && cached.back().size >= oversize) {
    released += cached.back().size;
    release_segment(cached.back().block);
    cached.pop_back();
  }
  return released >= wanted;
}

void CachingAllocator::release_all() {
  std::vector<BlockId> expandable;
  for (Pool& p : pools_)
    std::erase_if(p, [&](const Cached& c) {
      if (config_.expandable_segments) expandable.push_back(c.block);
      if (!whole_segment(blocks_[c.block])) return false;
      release_segment(c.block);
      return true;
    });
  for (const BlockId block : expandable) unmap(block);
}

// --- blocks -----------------------------------------------------------------------------------------------

void CachingAllocator::make_cached(BlockId id) {
  stats_.active -= blocks_[id].size;
  blocks_[id].state = State::cached;
  log(MemoryAction::free_completed, blocks_[id]);
  const std::int32_t previous = blocks_[id].previous, next = blocks_[id].next;
  const auto free = [&](std::int32_t b) { return b != none && blocks_[BlockId{b}].state == State::cached; };
  if (free(next) && free(previous)) absorb(id, next);
  const std::int32_t neighbour = free(previous) ? previous : next;
  if (!free(neighbour)) {
    insert(id);
    return;
  }
  const auto entry = entry_of(BlockId{neighbour});
  join(id, BlockId{neighbour});
  replace(pool(blocks_[id]), entry, id);
}

// Merges a neighbour that is cached, or unmapped, like the block; the block is not in its pool yet.
void CachingAllocator::absorb(BlockId into, std::int32_t neighbour) {
  if (neighbour == none || blocks_[BlockId{neighbour}].state != blocks_[into].state) return;
  remove(BlockId{neighbour});
  join(into, BlockId{neighbour});
}

void CachingAllocator::join(BlockId into, BlockId gone) {
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

// Leaves `size` bytes in the block and gives the rest, in the same state and not in a pool yet.
BlockId CachingAllocator::split(BlockId id, Bytes size) {
  const Block head = blocks_[id];
  const BlockId rest = make_block({head.address + size.count, head.size - size, head.stream, id.index,
                                   head.next, head.state, head.small});
  if (head.next != none) blocks_[BlockId{head.next}].previous = rest.index;
  blocks_[id].next = rest.index;
  blocks_[id].size = size;
  return rest;
}

BlockId CachingAllocator::make_block(const Block& block) {
  if (unused_.empty()) return blocks_.add(block);
  const BlockId id = unused_.back();
  unused_.pop_back();
  blocks_[id] = block;
  return id;
}

void CachingAllocator::insert(BlockId id) {
  Block& block = blocks_[id];
  if (block.state == State::unmapped) {
    std::vector<BlockId>& gaps = unmapped_[pool_index(block.stream, block.small)];
    const auto after = [&](BlockId gap) { return blocks_[gap].address > block.address; };
    gaps.insert(std::find_if(gaps.begin(), gaps.end(), after), id);
    return;
  }
  block.cached_at = large_searches_;
  Pool& p = pool(block);
  p.insert(lower_bound(p.begin(), p.end(), block.size, block.address), {block.size, block.address, id});
}

// Instead of removing one block and inserting another: only the entries between the two move.
void CachingAllocator::replace(Pool& cached, Pool::iterator entry, BlockId by) {
  Block& block = blocks_[by];
  block.cached_at = large_searches_;
  if (block.size < entry->size || (block.size == entry->size && block.address < entry->address)) {
    const auto to = lower_bound(cached.begin(), entry, block.size, block.address);
    std::move_backward(to, entry, entry + 1);
    entry = to;
  } else {
    const auto to = lower_bound(entry + 1, cached.end(), block.size, block.address);
    entry = std::move(entry + 1, to, entry);
  }
  *entry = {block.size, block.address, by};
}

CachingAllocator::Pool::iterator CachingAllocator::entry_of(BlockId id) {
  const Block& block = blocks_[id];
  Pool& p = pool(block);
  return lower_bound(p.begin(), p.end(), block.size, block.address);
}

void CachingAllocator::remove(BlockId id) {
  const Block& block = blocks_[id];
  if (block.state == State::unmapped) {
    std::vector<BlockId>& gaps = unmapped_[pool_index(block.stream, block.small)];
    gaps.erase(std::find(gaps.begin(), gaps.end(), id));
    return;
  }
  pool(block).erase(entry_of(id));
}

}  // namespace shardsim
