// What a run gives, as plain data. How it came about is the simulation's business, how it looks the report's.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sim/base/category.h"
#include "sim/base/collective_kind.h"
#include "sim/base/id.h"
#include "sim/base/units.h"
#include "sim/result/critical_path.h"

namespace shardsim {

// Where the time of a step goes, seen from the default stream: what it runs, or what it waits for.
enum class Spent : std::uint8_t {
  compute,             // forward and backward kernels
  exposed_all_gather,  // idle, a collective of the kind being the last unmet dependency
  exposed_reduce_scatter,
  exposed_all_reduce,
  exposed_other,    // idle, waiting for kernels of other streams
  copies,           // copies between host and device, or idle waiting for one
  optimizer,        // kernels of the optimizer, clipping, loss scaling, or idle while the host runs it
  host_stall,       // idle, the host has not issued the next operation yet
  allocator_retry,  // the part of that in which the host synchronises and frees to find memory
  straggler_wait,   // idle, a collective waits for another rank to arrive
  jitter,           // expected beyond that, because the slowest of equal ranks is slower than the mean
};
inline constexpr int spent_kinds = 11;
constexpr std::string_view name(Spent s) {
  constexpr std::string_view names[] = {"compute",
                                        "exposed_all_gather",
                                        "exposed_reduce_scatter",
                                        "exposed_all_reduce",
                                        "exposed_other",
                                        "copies",
                                        "optimizer",
                                        "host_stall",
                                        "allocator_retry",
                                        "straggler_wait",
                                        "jitter"};
  return names[static_cast<int>(s)];
}
using Breakdown = std::array<Time, spent_kinds>;  // sums to the step

struct Communication {
  std::int64_t count = 0;
  Bytes bytes;   // of one rank's collectives in a step, as nccl-tests counts them
  Bytes wire;    // that the rank sends to its neighbours
  Time busy;     // from the arrival of the last rank to the end
  Time exposed;  // of that, what the default stream waited for
};

struct Memory {
  Bytes capacity;           // as CUDA reports it
  Bytes outside_allocator;  // context, NCCL
  Bytes peak_allocated, peak_active, peak_reserved;
  ByCategory at_peak{};  // sums to peak_allocated
  std::int64_t alloc_retries = 0;
  Bytes peak_host;  // of the node's memory, for this GPU
  Rank rank;        // with the highest reserved peak, as a share of its capacity; the figures are its own

  friend bool operator==(const Memory&, const Memory&) = default;
};

// One part of a mixed cluster.
struct PartResult {
  Rank slowest;           // of the part
  Time step_time;         // of the last step, on that rank
  Breakdown breakdown{};  // of that step: where the fast parts wait
  Memory memory;          // of the fullest rank of the part
};

struct OutOfMemory {
  Rank rank;
  Time at;            // on the host's clock, from the start of the job
  int step = 0;       // 0 = while the model is set up, 1 = first step
  std::string phase;  // "backward / decoder 17"
  std::string tensor;
  Category category{};
  bool on_host = false;  // not the GPU's memory ran out but the node's; the bytes are a GPU's share
  Bytes requested;       // by the tensor
  Bytes segment;         // from CUDA, in the last attempt: a segment, or pages to map
  Bytes free;            // left on the device
  Bytes limit;           // of what can be reserved: the capacity without what is outside, or memory_fraction
  Bytes allocated;       // sums `live`
  Bytes reserved;        // after everything that could be returned was
  Bytes fragmented;      // of that, cached in segments or pages that cannot be returned
  ByCategory live{};
  struct Live {
    std::string tensor;
    Category category{};
    Bytes bytes;
  };
  std::vector<Live> largest_live;
};

std::string oom_place(const OutOfMemory& oom);  // "step 1, backward / decoder 17"

// Time between marks of the default stream, in the reported step.
struct Phase {
  std::string name;
  Time time;
};

struct Throughput {
  double tokens_per_s_per_gpu = 0, encoder_tokens_per_s_per_gpu = 0, decoder_tokens_per_s_per_gpu = 0;
  double samples_per_s = 0;            // of the whole job
  FlopRate model, hardware, executed;  // per GPU
  FlopRate peak;                       // dense, of the format of the matrix products
  std::string peak_dtype;
};

struct EngineStatistics {
  std::int64_t events = 0, allocator_calls = 0, solves = 0, messages = 0;
  std::int64_t ranks = 0, rank_classes = 0;
  bool folded = true;  // ranks that are alike were simulated once
};

struct Result {
  bool out_of_memory() const { return oom.has_value(); }

  bool steady = false;
  int steps = 0;                 // completed on every rank
  Time step_time;                // of the last step, on the slowest rank
  std::vector<Time> step_times;  // of every step, on that rank
  Breakdown breakdown{};         // of the last step
  Rank slowest;
  std::array<Communication, collective_kinds> communication{};  // of the last step
  std::vector<Phase> phases;
  Memory memory;
  std::vector<PartResult> parts;  // in the order of their ranks; none if all GPUs are of one part
  std::optional<OutOfMemory> oom;
  Flop executed;  // by one rank in a step
  Throughput throughput;
  std::optional<CriticalPath> critical_path;  // of the last step on that rank, if asked for
  bool sampled_jitter = false;  // each rank has a speed of its own, so that none could be folded
  EngineStatistics engine;
};

// What ran when, if asked for: one entry per kernel, collective and copy.
struct Span {
  enum class Kind : std::uint8_t { kernel, collective, copy };
  Kind kind;
  Rank rank;  // the representative of its class
  int stream;
  Time begin, end;
  int label;  // of the program
};

}  // namespace shardsim
