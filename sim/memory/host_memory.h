// What one rank takes of its node's memory.
//
// Pageable tensors come and go. Pinned ones come from PyTorch's caching host allocator: blocks of powers of
// two, which are reused but never given back.
//   source  pytorch at/core/CachingHostAllocator.h
//   leaves out  the time of cudaHostAlloc (blocks are cached, so it is spent once), events that delay a reuse
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "sim/base/units.h"

namespace shardsim {

class HostMemory {
 public:
  void allocate(Bytes bytes, bool pinned) {
    if (!pinned) {
      hold(bytes);
      return;
    }
    const std::size_t size = size_class(bytes);
    if (cached_[size] > 0)
      --cached_[size];
    else
      hold(Bytes{std::int64_t{1} << size});
  }
  void free(Bytes bytes, bool pinned) {
    if (pinned)
      ++cached_[size_class(bytes)];
    else
      held_ -= bytes;
  }
  Bytes held() const { return held_; }
  Bytes peak() const { return peak_; }

 private:
  static std::size_t size_class(Bytes bytes) {  // log2 of the block, rounded up
    std::size_t size = 0;
    while ((std::int64_t{1} << size) < bytes.count) ++size;
    return size;
  }
  void hold(Bytes bytes) {
    held_ += bytes;
    peak_ = std::max(peak_, held_);
  }

  Bytes held_, peak_;
  std::array<std::int64_t, 63> cached_{};  // free blocks by log2 of their size
};

}  // namespace shardsim
