#include "sim/simulate/memory_recorder.h"

#include <utility>

namespace shardsim {
namespace {

// Addresses look like those of a device, and 0 means none.
constexpr std::int64_t base_address = std::int64_t{0x7f} << 40;

}  // namespace

void MemoryRecorder::happened(Time at, int step, const std::string& phase, TensorId tensor) {
  for (const AllocatorEvent& event : log_) {
    MemoryEvent e{.action = event.action,
                  .address = base_address + event.address,
                  .size = event.size,
                  .stream = event.stream.index,
                  .at = at};
    const bool frees =
        event.action == MemoryAction::free_requested || event.action == MemoryAction::free_completed;
    e.owner = frees ? owners_.at(event.address) : owner(step, phase, tensor);
    if (event.action == MemoryAction::alloc) owners_[event.address] = e.owner;
    if (event.action == MemoryAction::free_completed) owners_.erase(event.address);
    add(e);
  }
  log_.clear();
}

void MemoryRecorder::out_of_memory(Time at, int step, const std::string& phase, TensorId tensor,
                                   Bytes refused, Bytes device_free) {
  add({.action = MemoryAction::oom,
       .size = refused,
       .stream = program_.tensors[tensor].stream.index,
       .at = at,
       .owner = owner(step, phase, tensor),
       .device_free = device_free});
}

MemorySnapshot MemoryRecorder::snapshot(const CachingAllocator& allocator) {
  MemorySnapshot result = std::move(snapshot_);
  if (result.events.size() > MemorySnapshot::events_max)
    result.events.erase(result.events.begin(), result.events.end() - MemorySnapshot::events_max);
  for (const SegmentView& view : allocator.segments()) {
    MemorySegment segment{.address = base_address + view.blocks.front().address,
                          .size = {},
                          .stream = view.stream.index,
                          .small = view.small,
                          .expandable = view.expandable,
                          .blocks = {}};
    for (const SegmentView::Block& block : view.blocks) {
      const auto known = owners_.find(block.address);
      segment.size += block.size;
      segment.blocks.push_back({.address = base_address + block.address,
                                .size = block.size,
                                .state = block.state,
                                .owner = known == owners_.end() ? MemoryOwner{} : known->second});
    }
    result.segments.push_back(std::move(segment));
  }
  return result;
}

std::int32_t MemoryRecorder::name(const std::string& text) {
  const auto [known, is_new] = names_.emplace(text, static_cast<std::int32_t>(snapshot_.names.size()));
  if (is_new) snapshot_.names.push_back(text);
  return known->second;
}

MemoryOwner MemoryRecorder::owner(int step, const std::string& phase, TensorId id) {
  MemoryOwner owner{.phase = name(phase), .step = step, .category = Category::temporaries, .requested = {}};
  if (id == no_tensor) return owner;
  const Tensor& tensor = program_.tensors[id];
  owner.tensor = name(program_.labels[tensor.label]);
  owner.category = tensor.category;
  owner.requested = tensor.bytes;
  return owner;
}

// Twice what is kept may pile up before the oldest half goes.
void MemoryRecorder::add(const MemoryEvent& event) {
  std::vector<MemoryEvent>& events = snapshot_.events;
  if (events.size() == 2 * MemorySnapshot::events_max)
    events.erase(events.begin(), events.begin() + MemorySnapshot::events_max);
  events.push_back(event);
}

}  // namespace shardsim
