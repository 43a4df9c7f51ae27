// An event queue for many small items of which a lot are due at the same instants: items of one instant share
// a bucket, so most pushes cost a look at the bucket used last. For items that wait once at a time; nothing
// is allocated in steady state. Items of an instant come in the order in which they were pushed.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "sim/base/units.h"

namespace shardsim {

class TimeBuckets {
 public:
  static constexpr std::int32_t none = -1;

  explicit TimeBuckets(std::size_t items) : next_(items, none) { recent_.fill(none); }

  bool empty() const { return heap_.empty(); }
  Time next() const { return heap_.front().at; }

  // Requires: the item is not in the queue.
  void push(std::int32_t item, Time at) {
    std::int32_t& recent = recent_[slot(at)];
    if (recent == none || buckets_[index(recent)].at != at || !buckets_[index(recent)].live)
      recent = open(at);
    Bucket& bucket = buckets_[index(recent)];
    next_[index(item)] = none;
    if (bucket.last == none)
      bucket.first = item;
    else
      next_[index(bucket.last)] = item;
    bucket.last = item;
  }

  // Takes the bucket that is due next out of the queue and calls visit(item) for its items; they may be
  // pushed again meanwhile, into other buckets.
  template <class Visit>
  void take(const Visit& visit) {
    const std::int32_t b = heap_.front().bucket;
    std::pop_heap(heap_.begin(), heap_.end(), later);
    heap_.pop_back();
    buckets_[index(b)].live = false;
    for (std::int32_t item = buckets_[index(b)].first; item != none;) {
      const std::int32_t following = next_[index(item)];
      visit(item);
      item = following;
    }
    free_.push_back(b);
  }

 private:
  struct Bucket {
    Time at;
    std::int32_t first, last;
    bool live;
  };
  struct Entry {
    Time at;
    std::int64_t opened;  // of buckets of one instant the first opened comes first
    std::int32_t bucket;
  };
  static bool later(const Entry& a, const Entry& b) {
    return a.at != b.at ? a.at > b.at : a.opened > b.opened;
  }
  static std::size_t index(std::int32_t i) { return static_cast<std::size_t>(i); }
  static std::size_t slot(Time at) {
    return static_cast<std::size_t>(static_cast<std::uint64_t>(at.count) * 0x9e3779b97f4a7c15u >> 58);
  }

  std::int32_t open(Time at) {
    if (free_.empty()) {
      free_.push_back(static_cast<std::int32_t>(buckets_.size()));
      buckets_.emplace_back();
    }
    const std::int32_t b = free_.back();
    free_.pop_back();
    buckets_[index(b)] = {at, none, none, true};
    heap_.push_back({at, opened_++, b});
    std::push_heap(heap_.begin(), heap_.end(), later);
    return b;
  }

  std::vector<std::int32_t> next_;  // of each item, in its bucket
  std::vector<Bucket> buckets_;
  std::vector<std::int32_t> free_;
  std::vector<Entry> heap_;
  std::array<std::int32_t, 64> recent_{};  // buckets, by a hash of their time
  std::int64_t opened_ = 0;
};

}  // namespace shardsim
