// PyTorch's CUDA caching allocator: segments from CUDA, split into blocks, kept in pools per stream.
//
// Three quantities are tracked, with their peaks:
//   allocated  owned by live tensors
//   active     allocated, or freed but still waiting for a stream that used the block
//   reserved   everything obtained from CUDA; only this can exceed the GPU
// A block is reused only by the stream that allocated it. Time is not the allocator's business: the caller
// says when events have completed, and pays for the driver calls it is told of.
//   source  pytorch c10/cuda/CUDACachingAllocator.cpp, class DeviceCachingAllocator
//   leaves out  private pools of CUDA graphs, roundup_power2_divisions by size, memory other processes take
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

#include "sim/base/id.h"
#include "sim/base/memory_event.h"
#include "sim/base/units.h"
#include "sim/program/program.h"

namespace shardsim {

using BlockId = Id<struct BlockTag>;

// PYTORCH_CUDA_ALLOC_CONF and torch.cuda.set_per_process_memory_fraction; PyTorch's defaults.
struct AllocatorConfig {
  static constexpr Bytes unlimited{std::numeric_limits<std::int64_t>::max()};
  static constexpr Bytes max_split_size_above{20 << 20};

  bool expandable_segments = false;  // segments grow and shrink by pages, behind one range of addresses
  Bytes max_split_size = unlimited;  // blocks of this size and more are not split; > 20 MiB
  double garbage_collection_threshold = 0;  // of the limit by memory_fraction, without which it does nothing
  std::optional<double> memory_fraction{};  // of the device's memory; (0, 1]
  int roundup_power2_divisions = 0;         // a power of two; 0 and 1: round to 512 B only
};

struct MemoryStats {
  Bytes allocated, active, reserved;
  Bytes peak_allocated, peak_active, peak_reserved;
  std::int64_t calls = 0;     // allocate, free and record_use
  std::int64_t mallocs = 0;   // segments obtained from CUDA, or ranges of pages mapped
  std::int64_t releases = 0;  // and returned
};

// What one call asked of the driver.
struct DriverCalls {
  std::int64_t mallocs = 0, frees = 0;
  Bytes reserved, released;
};

// What the allocator did, if it is asked to keep a record.
struct AllocatorEvent {
  MemoryAction action;
  std::int64_t address;
  Bytes size;
  StreamId stream;
};

// A segment, or the mapped part of one, and what it consists of.
struct SegmentView {
  struct Block {
    std::int64_t address;
    Bytes size;
    BlockState state;
  };
  StreamId stream;
  bool small, expandable;
  std::vector<Block> blocks;  // without gaps
};

class CachingAllocator {
 public:
  // `capacity` is what CUDA can give in all, `outside` what else of the device's memory is in use.
  // Requires: streams <= 64; max_split_size is unlimited or > 20 MiB, and unlimited with expandable segments.
  CachingAllocator(Bytes capacity, int streams, const AllocatorConfig& config = {}, Bytes outside = {});

  struct Allocation {
    std::optional<BlockId> block;
    DriverCalls calls;
    Bytes refused;  // without a block: what CUDA was asked for last
    explicit operator bool() const { return block.has_value(); }
  };
  // No block when no cached one fits and CUDA has none, after what garbage collection and max_split_size
  // allow to free: the caller synchronises, retires what was pending, and calls `allocate_after_release`.
  // Requires: bytes > 0.
  Allocation allocate(Bytes bytes, StreamId stream);
  // The last attempt: everything that can be is returned, then CUDA is asked again. Cached blocks that fit by
  // now are not looked for.
  Allocation allocate_after_release(Bytes bytes, StreamId stream);

  // The block's memory is used on another stream.
  void record_use(BlockId block, StreamId stream);
  // Streams that must pass this point before the freed block can be reused, as a bit mask by stream; 0 =
  // none, and the block is free at once. Otherwise it stays active until `retire`.
  std::uint64_t free(BlockId block);
  void retire(BlockId block);

  // empty_cache: returns every segment, or page of an expandable one, without a live or pending block.
  DriverCalls release_cached();

  Bytes size(BlockId block) const { return blocks_[block].size; }  // with rounding
  Bytes capacity() const { return capacity_; }
  Bytes limit() const { return std::min(capacity_, allowed_); }  // of `reserved`
  const MemoryStats& stats() const { return stats_; }
  Bytes cached() const { return stats_.reserved - stats_.active; }
  // From now on every event is appended to `log`.
  void record(std::vector<AllocatorEvent>* log) { log_ = log; }
  std::vector<SegmentView> segments() const;  // by address
  Bytes fragmented() const;  // cached, but its segment or page is in use and cannot be returned
  // Equal before and after a step that leaves the pools as it found them (addresses and ages aside).
  std::uint64_t fingerprint() const;

  Bytes round_up(Bytes request) const;           // to the block size
  static Bytes segment_size(Bytes block_bytes);  // of the cudaMalloc that would serve it

 private:
  enum class State : std::uint8_t { cached, live, pending, unmapped };
  struct Block {
    std::int64_t address;
    Bytes size;
    StreamId stream;
    std::int32_t previous, next;  // neighbours in the segment
    State state;
    bool small;
    std::uint64_t uses = 0;
    std::int64_t cached_at = 0;  // large_searches_ then
  };
  struct Cached {
    Bytes size;
    std::int64_t address;
    BlockId block;
  };
  using Pool = std::vector<Cached>;  // ordered by size, then address, as PyTorch's set

  std::size_t pool_index(StreamId stream, bool small) const {
    return static_cast<std::size_t>(stream.index) * 2 + (small ? 0 : 1);
  }
  Pool& pool(const Block& b) { return pools_[pool_index(b.stream, b.small)]; }
  static Pool::iterator lower_bound(Pool::iterator begin, Pool::iterator end, Bytes size,
                                    std::int64_t address);
  static bool whole_segment(const Block& block);
  Pool::iterator best_fit(Pool& cached, Bytes size);
  BlockId take(Pool& cached, Pool::iterator fit, Bytes size);
  Allocation hand_out(std::optional<BlockId> block);
  bool worth_splitting(const Block& block, Bytes size) const;

  // From and to CUDA.
  std::optional<BlockId> obtain(Bytes size, StreamId stream, bool small);
  std::optional<BlockId> expand(Bytes size, StreamId stream, bool small);
  BlockId expandable_block(Bytes size, StreamId stream, bool small);
  bool has_room(std::int32_t block, Bytes size) const;
  bool map(BlockId block, Bytes bytes);
  void unmap(BlockId block);
  void reserve(const Block& block);
  void release(const Block& block);
  void log(MemoryAction action, const Block& block) {
    if (log_ != nullptr) log_->push_back({action, block.address, block.size, block.stream});
  }
  void release_segment(BlockId block);
  void collect_garbage();
  bool release_available(Pool& cached, Bytes size);
  void release_all();

  BlockId make_block(const Block& block);
  void insert(BlockId block);
  void remove(BlockId block);
  BlockId split(BlockId block, Bytes size);
  void make_cached(BlockId block);
  void absorb(BlockId into, std::int32_t neighbour);
  void join(BlockId into, BlockId neighbour);
  Pool::iterator entry_of(BlockId block);
  void replace(Pool& cached, Pool::iterator entry, BlockId by);

  AllocatorConfig config_;
  Bytes capacity_;
  Bytes allowed_;        // by memory_fraction
  Bytes address_space_;  // of an expandable segment
  bool collects_;
  IdVector<BlockId, Block> blocks_;
  std::vector<BlockId> unused_;                 // slots of blocks_ to be taken again
  std::vector<Pool> pools_;                     // by pool_index
  std::vector<std::vector<BlockId>> unmapped_;  // by pool_index, by address
  std::int64_t next_address_ = 0;
  std::int64_t large_searches_ = 0;  // the clock of block ages
  DriverCalls calls_;                // of the request under way
  Bytes refused_;
  MemoryStats stats_;
  std::vector<AllocatorEvent>* log_ = nullptr;
};

}  // namespace shardsim
