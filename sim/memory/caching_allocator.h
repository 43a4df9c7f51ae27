// PyTorch's CUDA caching allocator: segments from cudaMalloc, split into blocks, kept in pools per stream.
//
// Three quantities are tracked, with their peaks:
//   allocated  owned by live tensors
//   active     allocated, or freed but still waiting for a stream that used the block
//   reserved   everything obtained from cudaMalloc; only this can exceed the GPU
// A block is reused only by the stream that allocated it. Time is not the allocator's business: the caller
// says when events have completed, and pays for driver calls.
//   source  pytorch c10/cuda/CUDACachingAllocator.cpp, class DeviceCachingAllocator
//   leaves out  max_split_size, expandable segments, garbage collection, roundup_power2_divisions
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "sim/base/id.h"
#include "sim/base/units.h"
#include "sim/program/program.h"

namespace shardsim {

using BlockId = Id<struct BlockTag>;

struct MemoryStats {
  Bytes allocated, active, reserved;
  Bytes peak_allocated, peak_active, peak_reserved;
  std::int64_t calls = 0;     // allocate, free and record_use
  std::int64_t mallocs = 0;   // segments obtained from cudaMalloc
  std::int64_t releases = 0;  // and returned
};

class CachingAllocator {
 public:
  // `capacity` is what cudaMalloc can give in all. Requires: streams <= 64.
  CachingAllocator(Bytes capacity, int streams);

  struct Allocated {
    BlockId block;
    Bytes fresh_segment;  // obtained from cudaMalloc for this request; 0 when a cached block served it
  };
  // nullopt when no cached block fits and cudaMalloc fails: the caller synchronises, releases and tries
  // again. Requires: bytes > 0.
  std::optional<Allocated> allocate(Bytes bytes, StreamId stream);

  // The block's memory is used on another stream.
  void record_use(BlockId block, StreamId stream);
  // Streams that must pass this point before the freed block can be reused, as a bit mask by stream; 0 =
  // none, and the block is free at once. Otherwise it stays active until `retire`.
  std::uint64_t free(BlockId block);
  void retire(BlockId block);

  struct Released {
    std::int64_t segments = 0;
    Bytes bytes;
  };
  // cudaFree of every segment without a live or pending block.
  Released release_cached();

  Bytes size(BlockId block) const { return blocks_[block].size; }  // with rounding
  Bytes capacity() const { return capacity_; }
  const MemoryStats& stats() const { return stats_; }
  Bytes cached() const { return stats_.reserved - stats_.active; }
  Bytes cached_in_split_segments() const;  // what fragmentation keeps from cudaFree
  // Equal before and after a step that leaves the pools as it found them (addresses aside).
  std::uint64_t fingerprint() const;

  static Bytes round_up(Bytes request);          // to the block size
  static Bytes segment_size(Bytes block_bytes);  // of the cudaMalloc that would serve it

 private:
  enum class State : std::uint8_t { cached, live, pending };
  struct Block {
    std::int64_t address;
    Bytes size;
    StreamId stream;
    std::int32_t previous, next;  // neighbours in the segment
    State state;
    bool small;
    std::uint64_t uses;
  };
  struct Cached {  // ordered as the allocator's set: by size, then address
    Bytes size;
    std::int64_t address;
    BlockId block;
    friend auto operator<=>(const Cached&, const Cached&) = default;
  };
  using Pool = std::vector<Cached>;

  Pool& pool(StreamId stream, bool small) {
    return pools_[static_cast<std::size_t>(stream.index) * 2 + (small ? 0 : 1)];
  }
  static bool whole_segment(const Block& block);
  BlockId make_block(const Block& block);
  void insert(BlockId block);
  void remove(BlockId block);
  void split(BlockId block, Bytes size);
  void make_cached(BlockId block);
  void absorb(BlockId into, std::int32_t neighbour);

  Bytes capacity_;
  IdVector<BlockId, Block> blocks_;
  std::vector<BlockId> unused_;  // slots of blocks_ to be taken again
  std::vector<Pool> pools_;
  std::int64_t next_address_ = 0;
  MemoryStats stats_;
};

}  // namespace shardsim
