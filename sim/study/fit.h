// Does a scenario fit in memory, and where along one key does it cease to?
//
// Reserved memory is not monotone in anything: segments have sizes, caches fragment. So a value is ruled out
// without a simulation only when the tensors that are live at once already exceed the GPU; all others are
// simulated, from the largest down, until one fits.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "sim/result/record.h"
#include "sim/scenario/scenario.h"
#include "sim/scenario/settings.h"

namespace shardsim {

// What any run of a scenario needs, from its program alone: bounds from below, whatever the allocator does.
struct MemoryFloor {
  Bytes live;      // requested bytes of tensors, the most at once
  Bytes outside;   // CUDA context and NCCL's code, without the buffers of its communicators
  Bytes capacity;  // of the GPU, the smallest if they differ
  bool exceeds() const { return live + outside > capacity; }
};
MemoryFloor memory_floor(const Scenario& scenario);

struct Trial {
  std::string refusal;           // why the scenario is illegal, or ""
  MemoryFloor floor;             // of a legal one
  std::optional<RunRecord> run;  // unless the floor decides

  bool legal() const { return refusal.empty(); }
  bool fits() const { return run && !run->result.out_of_memory(); }
};
using MakeSettings = std::function<Settings()>;  // may throw InputError: then the trial is refused
Trial try_floor(const MakeSettings& settings, const Library& library);  // never runs
// Runs unless refused or, with `even_if_hopeless` not set, ruled out by the floor.
Trial try_run(const MakeSettings& settings, const Library& library, bool even_if_hopeless = false);

struct FitPoint {
  Scalar value;
  Trial trial;
};

// Along values in the order in which memory is expected to grow.
struct Boundary {
  std::string refusal;                // why no value is legal, or ""
  std::optional<FitPoint> last_fit;   // the furthest value that fits
  std::optional<FitPoint> first_oom;  // the legal value after it, or the first of all; none if all fit
  std::string refused_after;          // if all legal ones fit: why the next value is not legal, or ""
  std::vector<Scalar> holes;          // out of memory before last_fit, among the two values before it
  std::int64_t simulated = 0;         // values
};

struct SearchOptions {
  // Live requested bytes never fall along the values, so the floor can be bisected. A theorem for batch,
  // sequence and layers with the same options (see live_bytes_grow_with).
  bool floor_is_monotone = false;
  // Also simulate what surrounds the boundary: the first value after it, two before it.
  bool surroundings = true;
  std::function<void(const Scalar&)> progress;  // before each simulation, if set
};
Boundary find_boundary(const std::vector<Scalar>& values,
                       const std::function<Settings(const Scalar&)>& settings_at, const Library& library,
                       const SearchOptions& options);

bool live_bytes_grow_with(const std::string& key, const Settings& settings);
bool live_bytes_fall_with(const std::string& key);  // by and large: more GPUs, more sharding

// Copies: with one more value, or another one; without a key; without the keys of a table.
Settings with(const Settings& settings, const std::string& key, const Scalar& value, const Place& place);
Settings without_key(const Settings& settings, const std::string& key);
Settings without_table(const Settings& settings, const std::string& table);

}  // namespace shardsim
