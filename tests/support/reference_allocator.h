// The caching allocator once more, as plainly as it can be written: every question is answered by walking
// over all blocks. Meant to be compared with sim/memory, and shares no code with it.
//   source  pytorch c10/cuda/CUDACachingAllocator.cpp: malloc, get_free_block, should_split, free_block,
//           garbage_collect_cached_blocks, release_available_cached_blocks, release_cached_blocks,
//           try_allocate_expandable_block, unmap_block
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <list>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <vector>

namespace shardsim {

class ReferenceAllocator {
 public:
  struct Options {
    std::int64_t device = 0;                     // its memory; `capacity` is what is left of it
    bool expandable = false;                     // segments
    std::optional<std::int64_t> max_split = {};  // bytes
    double collect_above = 0;                    // share of the limit
    std::optional<double> fraction = {};         // of the device
    int divisions = 0;                           // of the range between powers of two
  };
  enum class State { cached, live, pending };
  struct Block {
    std::int64_t size;
    State state = State::cached;
    std::set<int> used_on = {};  // streams other than the block's own
    long cached_at = 0;          // requests for large blocks until then
  };
  // Blocks are told apart by their address in this process, which the containers do not change.
  using Handle = Block*;

  ReferenceAllocator(std::int64_t capacity, Options options) : capacity_(capacity), options_(options) {}
  explicit ReferenceAllocator(std::int64_t capacity) : ReferenceAllocator(capacity, {.device = capacity}) {}

  // nullptr when no block fits and CUDA has nothing left.
  Handle allocate(std::int64_t bytes, int stream) {
    const std::int64_t size = rounded(bytes);
    const bool small = size <= mib;
    if (!small) ++large_requests_;
    if (options_.expandable) {
      if (const auto hole = best_hole(size, stream, small)) return place(*hole, size);
      return map(size, stream, small);
    }
    if (const auto fit = best_fit(size, stream, small)) return serve(*fit, size);
    collect();
    if (const auto fresh = cuda_malloc(size, stream, small)) return serve(*fresh, size);
    if (release_oversize(size, stream, small))
      if (const auto fresh = cuda_malloc(size, stream, small)) return serve(*fresh, size);
    return nullptr;
  }

  // After the caller has waited for everything.
  Handle allocate_after_release(std::int64_t bytes, int stream) {
    const std::int64_t size = rounded(bytes);
    release_cached();
    if (options_.expandable) return map(size, stream, size <= mib);
    const auto fresh = cuda_malloc(size, stream, size <= mib);
    return fresh ? serve(*fresh, size) : nullptr;
  }

  void record_use(Handle block, int stream) {
    if (stream != stream_of(block)) block->used_on.insert(stream);
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
    for (Space& space : spaces_)
      for (auto b = space.used.begin(); b != space.used.end(); ++b)
        if (&b->second == block) {
          space.used.erase(b);
          return;
        }
    block->state = State::cached;
    block->cached_at = large_requests_;
    std::list<Block>& blocks = segment_of(block).blocks;
    for (auto b = blocks.begin(); std::next(b) != blocks.end();) {
      const auto next = std::next(b);
      if (b->state == State::cached && next->state == State::cached) {
        b->size += next->size;
        b->cached_at = large_requests_;
        blocks.erase(next);
      } else {
        b = next;
      }
    }
  }

  // Returns the bytes given back.
  std::int64_t release_cached() {
    const std::int64_t before = reserved();
    segments_.remove_if([](const Segment& s) { return whole_and_cached(s); });
    for (Space& space : spaces_)
      for (std::size_t page = 0; page < space.mapped.size(); ++page)
        if (page_is_free(space, static_cast<std::int64_t>(page))) space.mapped[page] = false;
    spaces_.remove_if([](const Space& space) {
      return std::find(space.mapped.begin(), space.mapped.end(), true) == space.mapped.end();
    });
    return before - reserved();
  }

  std::int64_t allocated() const {
    return total([](const Segment&, const Block& b) { return b.state == State::live; }) +
           used([](const Block& b) { return b.state == State::live; });
  }
  std::int64_t active() const {
    return total([](const Segment&, const Block& b) { return b.state != State::cached; }) +
           used([](const Block&) { return true; });
  }
  std::int64_t reserved() const {
    std::int64_t sum = total([](const Segment&, const Block&) { return true; });
    for (const Space& space : spaces_)
      sum += space.page * std::count(space.mapped.begin(), space.mapped.end(), true);
    return sum;
  }
  // What release_cached() would leave behind.
  std::int64_t fragmented() const {
    std::int64_t sum = total(
        [](const Segment& s, const Block& b) { return b.state == State::cached && s.blocks.size() > 1; });
    for (const Space& space : spaces_) {
      for (std::size_t page = 0; page < space.mapped.size(); ++page)
        if (space.mapped[page] && !page_is_free(space, static_cast<std::int64_t>(page))) sum += space.page;
      for (const auto& [at, block] : space.used) sum -= block.size;
    }
    return sum;
  }

 private:
  static constexpr std::int64_t mib = 1 << 20;
  struct Segment {
    int stream;
    bool small;
    std::list<Block> blocks;  // by ascending address; they tile the segment
  };
  struct Found {
    Segment* segment;
    std::list<Block>::iterator block;
  };

  std::int64_t rounded(std::int64_t bytes) const {
    if (options_.divisions > 1 && bytes > 512 * options_.divisions) {
      std::int64_t power = 512;
      while (power * 2 <= bytes) power *= 2;
      for (std::int64_t to = power;; to += power / options_.divisions)
        if (to >= bytes) return to;
    }
    return bytes < 512 ? 512 : (bytes + 511) / 512 * 512;
  }
  static std::int64_t segment_size(std::int64_t size) {
    if (size <= mib) return 2 * mib;
    if (size < 10 * mib) return 20 * mib;
    return (size + 2 * mib - 1) / (2 * mib) * (2 * mib);
  }
  bool oversize(std::int64_t size) const { return options_.max_split && size >= *options_.max_split; }
  bool over_limit(std::int64_t more) const {
    return options_.fraction &&
           reserved() + more >
               static_cast<std::int64_t>(*options_.fraction * static_cast<double>(options_.device));
  }

  // --- segments of cudaMalloc ---

  std::optional<Found> best_fit(std::int64_t size, int stream, bool small) {
    std::optional<Found> best;
    for (Segment& s : segments_)
      if (s.stream == stream && s.small == small)
        for (auto b = s.blocks.begin(); b != s.blocks.end(); ++b)
          // Segments and blocks are visited by ascending address, so of equal sizes the first one stays.
          if (b->state == State::cached && b->size >= size && (!best || b->size < best->block->size))
            best = Found{&s, b};
    if (!best) return {};
    if (!oversize(size) && oversize(best->block->size)) return {};
    if (oversize(size) && best->block->size >= size + 20 * mib) return {};
    return best;
  }

  std::optional<Found> cuda_malloc(std::int64_t size, int stream, bool small) {
    const std::int64_t fresh = segment_size(size);
    if (over_limit(fresh) || reserved() + fresh > capacity_) return {};
    segments_.push_back({stream, small, {Block{fresh}}});
    return Found{&segments_.back(), segments_.back().blocks.begin()};
  }

  Handle serve(const Found& found, std::int64_t size) {
    const std::int64_t rest = found.block->size - size;
    if (found.segment->small ? rest >= 512 : rest > mib && !oversize(size)) {
      found.block->size = size;
      Block tail{rest};
      tail.cached_at = large_requests_;
      found.segment->blocks.insert(std::next(found.block), tail);
    }
    found.block->state = State::live;
    return &*found.block;
  }

  static bool whole_and_cached(const Segment& s) {
    return s.blocks.size() == 1 && s.blocks.front().state == State::cached;
  }

  void collect() {
    if (!options_.fraction || options_.collect_above <= 0) return;
    const auto limit = static_cast<std::int64_t>(*options_.fraction * static_cast<double>(options_.device));
    const auto threshold = static_cast<std::int64_t>(options_.collect_above * static_cast<double>(limit));
    const std::int64_t goal = threshold;
    while (reserved() > goal) {
      long ages = 0, count = 0;
      for (const Segment& s : segments_)
        if (!s.small && whole_and_cached(s)) ages += large_requests_ - s.blocks.front().cached_at, ++count;
      if (count == 0) return;
      const double average = static_cast<double>(ages) / static_cast<double>(count);
      segments_.remove_if([&](const Segment& s) {
        return !s.small && whole_and_cached(s) &&
               static_cast<double>(large_requests_ - s.blocks.front().cached_at) >= average;
      });
    }
  }

  bool release_oversize(std::int64_t size, int stream, bool small) {
    if (!options_.max_split) return false;
    const std::int64_t wanted = std::max(size, *options_.max_split);
    const auto mine = [&](const Segment& s) {
      return s.stream == stream && s.small == small && whole_and_cached(s);
    };
    auto one = segments_.end();
    for (auto s = segments_.begin(); s != segments_.end(); ++s)
      if (mine(*s) && s->blocks.front().size >= wanted &&
          (one == segments_.end() || s->blocks.front().size < one->blocks.front().size))
        one = s;
    if (one != segments_.end()) {
      segments_.erase(one);
      return true;
    }
    std::int64_t released = 0;
    while (released < wanted) {
      auto largest = segments_.end();
      for (auto s = segments_.begin(); s != segments_.end(); ++s)
        if (mine(*s) && oversize(s->blocks.front().size) &&
            (largest == segments_.end() || s->blocks.front().size >= largest->blocks.front().size))
          largest = s;
      if (largest == segments_.end()) return false;
      released += largest->blocks.front().size;
      segments_.erase(largest);
    }
    return true;
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

  // --- expandable segments: a range of addresses, which pages of it are mapped, and what is in use where ---

  struct Space {
    int stream;
    bool small;
    std::int64_t page;
    std::vector<bool> mapped;
    std::map<std::int64_t, Block> used;  // live and pending, by address
    std::int64_t end() const { return page * static_cast<std::int64_t>(mapped.size()); }
  };
  struct Hole {
    Space* space;
    std::int64_t begin, end;
  };

  bool page_is_free(const Space& space, std::int64_t page) const {
    for (const auto& [at, block] : space.used)
      if (at < (page + 1) * space.page && at + block.size > page * space.page) return false;
    return true;
  }

  // Where nothing is in use, by address.
  static std::vector<Hole> gaps(Space& space) {
    std::vector<Hole> result;
    std::int64_t at = 0;
    for (const auto& [begin, block] : space.used) {
      if (begin > at) result.push_back({&space, at, begin});
      at = begin + block.size;
    }
    if (space.end() > at) result.push_back({&space, at, space.end()});
    return result;
  }

  // Gaps cut where mapped pages begin and end: the mapped parts, or the others.
  static std::vector<Hole> parts(Space& space, bool mapped) {
    std::vector<Hole> result;
    for (const Hole& gap : gaps(space))
      for (std::int64_t at = gap.begin; at < gap.end;) {
        const std::int64_t next = std::min(gap.end, (at / space.page + 1) * space.page);
        if (space.mapped[static_cast<std::size_t>(at / space.page)] == mapped) {
          if (!result.empty() && result.back().end == at && result.back().begin >= gap.begin)
            result.back().end = next;
          else
            result.push_back({&space, at, next});
        }
        at = next;
      }
    return result;
  }

  // Best fit by size and address; then larger ones, as long as each could grow to less than the one before.
  std::optional<Hole> best_hole(std::int64_t size, int stream, bool small) {
    std::vector<Hole> fits;
    for (Space& space : spaces_)
      if (space.stream == stream && space.small == small)
        for (const Hole& hole : parts(space, true))
          if (hole.end - hole.begin >= size) fits.push_back(hole);
    std::stable_sort(fits.begin(), fits.end(),
                     [](const Hole& a, const Hole& b) { return a.end - a.begin < b.end - b.begin; });
    const auto grown = [](const Hole& hole) {
      for (const Hole& beyond : parts(*hole.space, false))
        if (beyond.begin == hole.end) return beyond.end - hole.begin;
      return hole.end - hole.begin;
    };
    if (fits.empty()) return {};
    std::size_t i = 0;
    while (i + 1 < fits.size() && grown(fits[i + 1]) < grown(fits[i])) ++i;
    return fits[i];
  }

  // Mapped or not, the lowest gap with room that has unmapped pages and begins at or just before them.
  std::optional<Hole> room(std::int64_t size, int stream, bool small) {
    for (Space& space : spaces_)
      if (space.stream == stream && space.small == small)
        for (const Hole& gap : gaps(space))
          for (const Hole& unmapped : parts(space, false)) {
            if (unmapped.begin < gap.begin || unmapped.end > gap.end) continue;
            std::int64_t begin = unmapped.begin;
            for (const Hole& free : parts(space, true))
              if (free.end == unmapped.begin && free.begin >= gap.begin) begin = free.begin;
            if (gap.end - begin >= size) return Hole{&space, begin, gap.end};
          }
    return {};
  }

  Handle map(std::int64_t size, int stream, bool small) {
    if (over_limit(segment_size(size))) return nullptr;
    auto where = room(size, stream, small);
    if (!where) {
      const std::int64_t page = small ? 2 * mib : 20 * mib;
      const std::int64_t space =
          (options_.device / 8 * 9 + 20 * mib - 1) / (20 * mib) * (20 * mib) + 20 * mib;
      if (size > space) return nullptr;
      spaces_.push_back({stream, small, page, std::vector<bool>(static_cast<std::size_t>(space / page)), {}});
      where = Hole{&spaces_.back(), 0, space};
    }
    Space& space = *where->space;
    // Each run of missing pages is mapped as a whole or not at all.
    for (std::int64_t at = where->begin; at < where->begin + size;) {
      const auto page = static_cast<std::size_t>(at / space.page);
      if (space.mapped[page]) {
        at = (at / space.page + 1) * space.page;
        continue;
      }
      std::int64_t last = static_cast<std::int64_t>(page);
      while ((last + 1) * space.page < where->begin + size &&
             !space.mapped[static_cast<std::size_t>(last + 1)])
        ++last;
      const std::int64_t pages = last - static_cast<std::int64_t>(page) + 1;
      if (reserved() + pages * space.page > capacity_) return nullptr;
      for (std::int64_t p = static_cast<std::int64_t>(page); p <= last; ++p)
        space.mapped[static_cast<std::size_t>(p)] = true;
      at = (last + 1) * space.page;
    }
    return place({&space, where->begin, 0}, size);
  }

  static Handle place(const Hole& hole, std::int64_t size) {
    Block& block = hole.space->used[hole.begin];
    block = Block{size, State::live, {}, 0};
    return &block;
  }

  template <class Select>
  std::int64_t used(const Select& select) const {
    std::int64_t sum = 0;
    for (const Space& space : spaces_)
      for (const auto& [at, block] : space.used)
        if (select(block)) sum += block.size;
    return sum;
  }

  int stream_of(Handle block) {
    for (const Space& space : spaces_)
      for (const auto& [at, b] : space.used)
        if (&b == block) return space.stream;
    return segment_of(block).stream;
  }

  std::int64_t capacity_;
  Options options_;
  std::list<Segment> segments_;  // in the order of their cudaMalloc; addresses only grow
  std::list<Space> spaces_;
  long large_requests_ = 0;
};

}  // namespace shardsim
