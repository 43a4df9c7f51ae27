#include "sim/simulate/memory_recorder.h"

#include <utility>

namespace shardsim {
namespace {

// Addresses look like those of a device, and 0 means none.
constexpr std::int64_t base_address = std::int64_t{0x7f} << 40;

MemoryEvent::Action action_of(AllocatorEvent::Kind kind) {
  using Kind = AllocatorEvent::Kind;
  using Action = MemoryEvent::Action;
  switch (kind) {
    case Kind::alloc: return Action::alloc;
    case Kind::free_requested: return Action::free_requested;
    case Kind::free_completed: return Action::free_completed;
    case Kind::segment_alloc: return Action::segment_alloc;
    case Kind::segment_free: return Action::segment_free;
    case Kind::segment_map: return Action::segment_map;
    case Kind::segment_unmap: return Action::segment_unmap;
  }
  return {};
}

MemoryBlock::State state_of(SegmentView::State state) {
  switch (state) {
    case SegmentView::State::cached: return MemoryBlock::State::inactive;
    case SegmentView::State::live: return MemoryBlock::State::active_allocated;
    case SegmentView::State::pending: return MemoryBlock::State::active_pending_free;
  }
  return {};
}

}  // namespace

void MemoryRecorder::happened(Time at, int step, const std::string& phase, TensorId tensor) {
  for (const AllocatorEvent& event : log_) {
    MemoryEvent e{.action = action_of(event.kind),
                  .address = base_address + event.address,
                  .size = event.size,
                  .stream = event.stream.index,
                  .at = at};
    const auto known = owners_.find(event.address);
    if (event.kind == AllocatorEvent::Kind::alloc)
      owners_[event.address] = e.owner = owner(step, phase, tensor);
    else if (event.kind == AllocatorEvent::Kind::free_requested)
      e.owner = known->second;
    else if (event.kind == AllocatorEvent::Kind::free_completed)
      e.owner = std::exchange(known->second, {}), owners_.erase(known);
    else
      e.owner = owner(step, phase, tensor);
    add(e);
  }
  log_.clear();
}

void MemoryRecorder::out_of_memory(Time at, int step, const std::string& phase, TensorId tensor,
                                   Bytes refused, Bytes device_free) {
  add({.action = MemoryEvent::Action::oom,
       .size = refused,
       .stream = program_.tensors[tensor].stream.index,
       .at = at,
       .owner = owner(step, phase, tensor),
       .device_free = device_free});
}

MemorySnapshot MemoryRecorder::snapshot(const CachingAllocator& allocator, bool expandable) {
  MemorySnapshot result = std::move(snapshot_);
  if (result.events.size() > MemorySnapshot::events_max)
    result.events.erase(result.events.begin(), result.events.end() - MemorySnapshot::events_max);
  for (const SegmentView& view : allocator.segments()) {
    MemorySegment segment{.address = base_address + view.blocks.front().address,
                          .size = {},
                          .stream = view.stream.index,
                          .small = view.small,
                          .expandable = expandable,
                          .blocks = {}};
    for (const SegmentView::Block& block : view.blocks) {
      const auto known = owners_.find(block.address);
      segment.size += block.size;
      segment.blocks.push_back({.address = base_address + block.address,
                                .size = block.size,
                                .state = state_of(block.state),
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
