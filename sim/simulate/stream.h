// A CUDA stream of a simulated rank: a queue of operations, executed one after the other.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <vector>

#include "sim/base/collective_kind.h"
#include "sim/engine/fifo.h"
#include "sim/memory/caching_allocator.h"
#include "sim/program/program.h"

namespace shardsim {

// What a stream did or depended on, for explaining what others waited for.
struct Activity {
  enum class Kind : std::uint8_t { kernel, copy, collective };
  Kind kind;
  CollectiveKind collective{};
  std::int16_t stream = 0;  // of a collective
  Time begin, end;          // of a collective: from its issue, so that queueing counts as waiting for it
  Time arrived{}, began{};  // of a collective: this rank there, all ranks there
};

// The last activities of a stream. Where they overlap, the later one is what mattered.
class ActivityLog {
 public:
  static constexpr std::size_t capacity = 16;

  void push(const Activity& a) { ring_[count_++ % capacity] = a; }
  std::size_t size() const { return std::min(count_, capacity); }
  // By age, 0 = the latest.
  const Activity& operator[](std::size_t age) const { return ring_[(count_ - 1 - age) % capacity]; }
  // The stream waited since `since` for the stream of the other log.
  void inherit(const ActivityLog& other, Time since) {
    for (std::size_t age = other.size(); age-- > 0;)
      if (other[age].end > since) push(other[age]);
  }

 private:
  std::array<Activity, capacity> ring_{};
  std::size_t count_ = 0;
};

struct StreamOp {
  enum class Kind : std::uint8_t {
    kernel,
    collective,
    copy,
    record,  // an event completes here
    wait,    // for an event
    marker,  // memory freed earlier may be reused from here on
    phase,   // a top-level mark begins or ends
    step_end,
  };
  Kind kind;
  HostWork host{};             // kernel
  std::int32_t id = 0;         // KernelId, CollectiveId, EventId; copy: direction; phase: LabelId or -1
  std::int32_t label = 0;      // wait: the stream of the last record
  std::int32_t issued_by = 0;  // if the causes are recorded: the occurrence on the host
  // wait: how many records of the event must have completed; copy: bytes; kernel, if foreseen: its pace
  std::int64_t value = 0;
  Time work{};   // kernel, collective: takes at least so long; wait: work before the last record
  Time ready{};  // the host has issued it and the launch has reached the GPU
};

constexpr bool is_work(const StreamOp& op) {
  return op.kind == StreamOp::Kind::kernel || op.kind == StreamOp::Kind::collective;
}

// Some of a rank's streams, a bit each; visited in ascending order.
class StreamSet {
 public:
  void insert(int stream) { bits_ |= bit(stream); }
  void erase(int stream) { bits_ &= ~bit(stream); }
  bool empty() const { return bits_ == 0; }
  int size() const { return std::popcount(bits_); }
  int lowest() const { return std::countr_zero(bits_); }

  struct iterator {
    std::uint64_t left;
    int operator*() const { return std::countr_zero(left); }
    iterator& operator++() { return left &= left - 1, *this; }
    friend bool operator==(iterator, iterator) = default;
  };
  // Of the set as it is now, whatever is inserted or erased meanwhile.
  iterator begin() const { return {bits_}; }
  iterator end() const { return {0}; }

 private:
  static std::uint64_t bit(int stream) { return std::uint64_t{1} << stream; }
  std::uint64_t bits_ = 0;
};

struct FreedBlock {
  BlockId block;
  Time work;  // before its marker
};

struct StreamState {
  static constexpr std::int32_t not_blocked = -1;

  Fifo<StreamOp> queue;
  bool busy = false;                      // the front is running
  std::int32_t blocked_on = not_blocked;  // event the front waits for
  int outstanding = 0;                    // launches issued and not begun
  Time began;                             // of the front, or of its wait

  // A running kernel: its duration if nothing changes, and what is left of it at `updated`.
  bool paced = false;
  std::uint32_t foreseen = 0;  // operations behind it whose pace is known
  Time pace, left, updated;

  Time work_queued, work_done;  // least times of all that was ever in the queue, and has left it

  // Freed blocks that wait for this stream, in order; a marker in the queue stands for each.
  Fifo<FreedBlock> freed;
  std::int64_t markers_passed = 0, markers_polled = 0;

  ActivityLog log;

  void pop() {
    if (is_work(queue.front())) work_done += queue.front().work;
    queue.pop();
  }
  bool idle() const { return queue.empty() && !busy; }
};

}  // namespace shardsim
