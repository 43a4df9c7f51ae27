// Keeps what one rank's allocator does: the totals after each change, and, if asked, every event of it.
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "sim/memory/caching_allocator.h"
#include "sim/program/program.h"
#include "sim/result/memory_snapshot.h"
#include "sim/result/memory_timeline.h"

namespace shardsim {

class MemoryRecorder {
 public:
  MemoryRecorder(const Program& program, bool events) : program_(program), events_(events) {}

  bool events() const { return events_; }
  std::vector<AllocatorEvent>& log() { return log_; }  // for the allocator
  std::vector<MemoryRow>& rows() { return rows_; }

  // What the allocator has logged since the last call happened now; `tensor` is what it was asked for, if
  // anything.
  void happened(Time at, int step, const std::string& phase, TensorId tensor);
  void out_of_memory(Time at, int step, const std::string& phase, TensorId tensor, Bytes refused,
                     Bytes device_free);
  MemorySnapshot snapshot(const CachingAllocator& allocator);

 private:
  std::int32_t name(const std::string& text);
  MemoryOwner owner(int step, const std::string& phase, TensorId tensor);
  void add(const MemoryEvent& event);

  const Program& program_;
  bool events_;
  std::vector<MemoryRow> rows_;
  std::vector<AllocatorEvent> log_;
  MemorySnapshot snapshot_;
  std::unordered_map<std::string, std::int32_t> names_;
  std::unordered_map<std::int64_t, MemoryOwner> owners_;  // of blocks in use, by address
};

}  // namespace shardsim
