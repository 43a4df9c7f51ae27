// The caching allocator once more, as plainly as it can be written: every question is answered by walking
// over all blocks. Meant to be compared with sim/memory, and shares no code with it.
//   source  pytorch c10/cuda/CUDACachingAllocator.cpp: malloc, get_free_block, should_split, free_block,
//           release_cached_blocks
#pragma once

#include <cstdint>
#include <list>
#include <set>
#include <stdexcept>

namespace shardsim {

class ReferenceAllocator {
 public:
  enum class State { cached, live, pending };
  struct Block {
    std::int64_t size;
    State state = State::cached;
    std::set<int> used_on = {};  // streams other than the block's own
  };
  // Blocks are told apart by their address, which std::list does not change.
  using Handle = Block*;

  explicit ReferenceAllocator(std::int64_t capacity) : capacity_(capacity) {}

  // nullptr when no block fits and cudaMalloc fails.
  Handle allocate(std::int64_t bytes, int stream) {
    const std::int64_t size = rounded(bytes);
    const bool small = size <= mib;
    Segment* segment = nullptr;
    std::list<Block>::iterator best;
    for (Segment& s : segments_)
      if (s.stream == stream && s.small == small)
        for (auto b = s.blocks.begin(); b != s.blocks.end(); ++b)
          // Segments and blocks are visited by ascending address, so of equal sizes the first one stays.
          if (b->state == State::cached && b->size >= size && (segment == nullptr || b->size < best->size))
            segment = &s, best = b;
    if (segment == nullptr) {
      const std::int64_t fresh = segment_size(size);
      if (reserved() + fresh > capacity_) return nullptr;
      segments_.push_back({stream, small, {Block{fresh}}});
      segment = &segments_.back();
      best = segment->blocks.begin();
    }
    const std::int64_t rest = best->size - size;
    if (small ? rest >= 512 : rest > mib) {
      best->size = size;
      segment->blocks.insert(std::next(best), Block{rest});
    }
    best->state = State::live;
    return &*best;
  }

  void record_use(Handle block, int stream) {
    if (stream != segment_of(block).stream) block->used_on.insert(stream);
  }

  // The streams to wait for; when there are none, the block can be reused at once.
  std::set<int> free(Handle block) {
    std::set<int> waits;
    waits.swap(block->used_on);
    block->state = State::pending;
    if (waits.empty()) retire(block);
    return waits;
  }

  void retire(Handle block) {
    block->state = State::cached;
    std::list<Block>& blocks = segment_of(block).blocks;
    for (auto b = blocks.begin(); std::next(b) != blocks.end();) {
      const auto next = std::next(b);
      if (b->state == State::cached && next->state == State::cached) {
        b->size += next->size;
        blocks.erase(next);
      } else {
        b = next;
      }
    }
  }

  // Returns the bytes of the segments given back.
  std::int64_t release_cached() {
    const std::int64_t before = reserved();
    segments_.remove_if(
        [](const Segment& s) { return s.blocks.size() == 1 && s.blocks.front().state == State::cached; });
    return before - reserved();
  }

  std::int64_t allocated() const {
    return total([](const Segment&, const Block& b) { return b.state == State::live; });
  }
  std::int64_t active() const {
    return total([](const Segment&, const Block& b) { return b.state != State::cached; });
  }
  std::int64_t reserved() const {
    return total([](const Segment&, const Block&) { return true; });
  }
  std::int64_t cached_in_split_segments() const {
    return total(
        [](const Segment& s, const Block& b) { return b.state == State::cached && s.blocks.size() > 1; });
  }

 private:
  static constexpr std::int64_t mib = 1 << 20;
  struct Segment {
    int stream;
    bool small;
    std::list<Block> blocks;  // by ascending address; they tile the segment
  };

  static std::int64_t rounded(std::int64_t bytes) { return bytes < 512 ? 512 : (bytes + 511) / 512 * 512; }
  static std::int64_t segment_size(std::int64_t size) {
    if (size <= mib) return 2 * mib;
    if (size < 10 * mib) return 20 * mib;
    return (size + 2 * mib - 1) / (2 * mib) * (2 * mib);
  }

  Segment& segment_of(Handle block) {
    for (Segment& s : segments_)
      for (const Block& b : s.blocks)
        if (&b == block) return s;
    throw std::logic_error("a block of no segment");
  }

  template <class Select>
  std::int64_t total(const Select& select) const {
    std::int64_t sum = 0;
    for (const Segment& s : segments_)
      for (const Block& b : s.blocks)
        if (select(s, b)) sum += b.size;
    return sum;
  }

  std::int64_t capacity_;
  std::list<Segment> segments_;  // in the order of their cudaMalloc; addresses only grow
};

}  // namespace shardsim
