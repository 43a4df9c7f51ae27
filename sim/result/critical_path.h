// Why a step took as long as it did: what had to happen one after the other, from the end of the step before
// to its own on the slowest rank. Where a rank waits for another, the path goes on there.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "sim/base/collective_kind.h"
#include "sim/base/id.h"
#include "sim/base/units.h"

namespace shardsim {

enum class PathKind : std::uint8_t {
  compute,    // forward and backward kernels
  optimizer,  // its kernels, clipping, loss scaling, or the host running it
  all_gather,
  reduce_scatter,
  all_reduce,
  copy,       // between host and device
  host,       // issues work, from there to the GPU, or wakes up
  allocator,  // the driver gives or takes back memory
  straggler,  // kernels take longer on a rank that is slower than its GPU should be
  jitter,     // the slowest of equal ranks is slower than the mean
};
inline constexpr int path_kinds = 10;
constexpr std::string_view name(PathKind k) {
  constexpr std::string_view names[] = {"compute", "optimizer", "all_gather", "reduce_scatter", "all_reduce",
                                        "copy",    "host",      "allocator",  "straggler",      "jitter"};
  return names[static_cast<int>(k)];
}
constexpr PathKind of(CollectiveKind kind) {
  return static_cast<PathKind>(static_cast<int>(PathKind::all_gather) + static_cast<int>(kind));
}
constexpr bool is_collective(PathKind k) { return k >= PathKind::all_gather && k <= PathKind::all_reduce; }

struct PathSegment {
  PathKind kind{};
  Rank rank{};
  std::string phase;   // marks it was issued under: "forward / decoder 17"
  std::string label;   // "all-gather of decoder 17", "rank 5"
  std::string reason;  // why it began when it did
  Time begin{}, time{};
  Time latency{};  // of a collective: before data moves; the rest of its time is transfer
  Time slowed{};   // of a kernel, or of a transfer: by what ran beside it
};

struct CriticalPath {
  Rank rank;                          // on which it ends
  std::vector<PathSegment> segments;  // contiguous, by time; they sum to the step
};

// Segments of one kind together, with the reason of those that took longest in total.
struct PathPart {
  PathKind kind{};
  std::string reason;
  std::int64_t segments = 0;
  Time time{}, latency{}, slowed{};
};

// A part of the step: consecutive segments on one rank whose phases are alike but for a number.
struct PathStretch {
  Rank rank;
  std::string label;  // "backward / decoder 31 ... 0"
  std::int64_t times = 1;
  std::vector<PathPart> parts;  // by kind
};

std::vector<PathStretch> stretches(const CriticalPath& path);
// Stretches that are alike as one, in the order of the first: micro-batches repeat.
std::vector<PathStretch> stretches_at_once(const CriticalPath& path);
std::vector<PathPart> totals(const CriticalPath& path);                // by kind
std::vector<std::pair<Rank, Time>> by_rank(const CriticalPath& path);  // the longest first
// The longest first, one for all that are alike but for numbers.
std::vector<PathSegment> longest(const CriticalPath& path, std::size_t count);

}  // namespace shardsim
