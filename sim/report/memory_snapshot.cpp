#include "sim/report/memory_snapshot.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <string_view>
#include <unordered_map>
#include <variant>

namespace shardsim {
namespace {

constexpr std::size_t batch_max = 1000;  // the viewer spreads a batch over the arguments of a call

// Pickle protocol 2; texts that come again are named by their number.
class Pickle {
 public:
  Pickle() { put("\x80\x02"); }
  std::string end() && {
    put(".");
    return std::move(bytes_);
  }

  void boolean(bool value) { put(value ? "\x88" : "\x89"); }
  void integer(std::int64_t value) {
    if (value >= 0 && value < 256) {
      put("K");
      little_endian(value, 1);
    } else if (value >= std::numeric_limits<std::int32_t>::min() &&
               value <= std::numeric_limits<std::int32_t>::max()) {
      put("J");
      little_endian(value, 4);
    } else {
      put("\x8a\x08");
      little_endian(value, 8);
    }
  }
  void real(double value) {
    std::uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    put("G");
    for (int shift = 56; shift >= 0; shift -= 8) bytes_ += static_cast<char>(bits >> shift & 0xff);
  }
  void text(std::string_view value) {
    const auto [known, is_new] = texts_.emplace(value, static_cast<std::int64_t>(texts_.size()));
    if (is_new) {
      put("X");
      little_endian(static_cast<std::int64_t>(value.size()), 4);
      put(value);
    }
    put(is_new ? "r" : "j");
    little_endian(known->second, 4);
  }

  template <class Fill>
  void dictionary(const Fill& fill) {
    put("}(");
    fill();
    put("u");
  }
  // `one(i)` writes element i of n.
  template <class One>
  void list(std::size_t n, const One& one) {
    put("]");
    for (std::size_t begin = 0; begin < n; begin += batch_max) {
      put("(");
      for (std::size_t i = begin; i < std::min(n, begin + batch_max); ++i) one(i);
      put("e");
    }
  }

  void item(std::string_view key, std::int64_t value) { text(key), integer(value); }
  void item(std::string_view key, int value) { text(key), integer(value); }
  void item(std::string_view key, Bytes value) { text(key), integer(value.count); }
  void item(std::string_view key, bool value) { text(key), boolean(value); }
  void item(std::string_view key, double value) { text(key), real(value); }
  void item(std::string_view key, std::string_view value) { text(key), text(value); }
  void item(std::string_view key, const char* value) { text(key), text(value); }

 private:
  void put(std::string_view bytes) { bytes_ += bytes; }
  void little_endian(std::int64_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) bytes_ += static_cast<char>(value >> (8 * i) & 0xff);
  }

  std::string bytes_;
  std::unordered_map<std::string, std::int64_t> texts_;
};

// A frame is shown as file:line:function.
void frames(Pickle& p, const MemorySnapshot& snapshot, const MemoryOwner& owner) {
  const auto named = [&](std::int32_t id) -> std::string_view {
    return id < 0 ? "" : std::string_view(snapshot.names[static_cast<std::size_t>(id)]);
  };
  p.text("frames");
  p.list(owner.phase < 0 ? 0 : 1, [&](std::size_t) {
    p.dictionary([&] {
      p.item("name", named(owner.tensor));
      p.item("filename", named(owner.phase));
      p.item("line", owner.step);
    });
  });
}

void event(Pickle& p, const MemorySnapshot& snapshot, const MemoryEvent& e) {
  p.dictionary([&] {
    p.item("action", name(e.action));
    p.item("addr", e.address);
    p.item("size", e.size);
    p.item("stream", e.stream);
    p.item("time_us", e.at.count / 1'000'000);
    p.item("category", name(e.owner.category));
    if (e.action == MemoryAction::oom) p.item("device_free", e.device_free);
    frames(p, snapshot, e.owner);
  });
}

// Ends the trace. A viewer that finds categories wants one of this name.
void snapshot_event(Pickle& p, Time at) {
  p.dictionary([&] {
    p.item("action", "snapshot");
    p.item("addr", 0);
    p.item("size", 0);
    p.item("stream", 0);
    p.item("time_us", at.count / 1'000'000);
    p.item("category", "unknown");
    p.text("frames");
    p.list(0, [](std::size_t) {});
  });
}

void segment(Pickle& p, const MemorySnapshot& snapshot, const MemorySegment& s) {
  Bytes allocated, active, requested;
  for (const MemoryBlock& b : s.blocks) {
    if (b.state == BlockState::active_allocated) allocated += b.size, requested += b.owner.requested;
    if (b.state != BlockState::inactive) active += b.size;
  }
  p.dictionary([&] {
    p.item("device", 0);
    p.item("address", s.address);
    p.item("total_size", s.size);
    p.item("allocated_size", allocated);
    p.item("active_size", active);
    p.item("requested_size", requested);
    p.item("stream", s.stream);
    p.item("segment_type", s.small ? "small" : "large");
    p.item("is_expandable", s.expandable);
    p.text("frames");
    p.list(0, [](std::size_t) {});
    p.text("blocks");
    p.list(s.blocks.size(), [&](std::size_t i) {
      const MemoryBlock& b = s.blocks[i];
      p.dictionary([&] {
        p.item("address", b.address);
        p.item("size", b.size);
        p.item("requested_size", b.owner.requested);
        p.item("state", name(b.state));
        frames(p, snapshot, b.owner);
      });
    });
  });
}

void settings(Pickle& p, const RunRecord& run) {
  constexpr std::string_view prefix = "allocator.";
  p.dictionary([&] {
    for (const RecordedValue& v : run.values)
      if (v.key.starts_with(prefix))
        std::visit([&](const auto& value) { p.item(v.key.substr(prefix.size()), value); }, v.value);
  });
}

}  // namespace

std::string to_pickle(const MemorySnapshot& snapshot, const RunRecord& run) {
  Pickle p;
  p.dictionary([&] {
    p.text("segments");
    p.list(snapshot.segments.size(), [&](std::size_t i) { segment(p, snapshot, snapshot.segments[i]); });
    p.text("device_traces");
    p.list(1, [&](std::size_t) {
      const std::size_t n = snapshot.events.size();
      p.list(n + 1, [&](std::size_t i) {
        if (i < n)
          event(p, snapshot, snapshot.events[i]);
        else
          snapshot_event(p, n == 0 ? Time{} : snapshot.events.back().at);
      });
    });
    p.text("allocator_settings");
    settings(p, run);
  });
  return std::move(p).end();
}

}  // namespace shardsim
