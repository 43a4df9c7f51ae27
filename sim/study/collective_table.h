// What nccl-tests would measure: one collective over a range of sizes, for each number of GPUs.
//
// Times are those of the simulator: the plan that NCCL would choose (or a forced one) and the max-min share
// of the links, with all groups of an axis at work at once. Kernels beside it, stragglers and the spread of
// real measurements are left out, so in place and out of place are the same.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "sim/base/collective_kind.h"
#include "sim/base/units.h"
#include "sim/scenario/library.h"

namespace shardsim {

// As on the command line; empty = the default.
struct CollectiveQuery {
  std::string topology, stack;
  std::string kind = "all_reduce";
  std::string sizes = "1M..8G x2";  // K, M and G are binary, as in nccl-tests
  std::string gpus;                 // a list or a range; one node
  std::string datatype = "float";
  std::string algorithm, protocol;  // force one, as NCCL_ALGO and NCCL_PROTO do
  // Hybrid sharding: the groups of `shard` (neighbours, sharding_factor each) or of `replica` (the same
  // position in each of them), all at once.
  std::string axis = "world";
  std::optional<std::int64_t> sharding_factor;
};

struct CollectiveLine {
  Bytes bytes;           // rounded down, as nccl-tests does, to what the ranks can share evenly
  std::int64_t count{};  // elements as nccl-tests counts them: of one rank's part in gather and scatter
  Time time, latency;
  Bytes bus, wire;
  Bandwidth rate;  // of the wire, after the latency
  std::string algorithm, protocol;
  int channels{};

  double algorithm_gb_per_s() const { return static_cast<double>(bytes.count) * 1e-9 / seconds(time); }
  double bus_gb_per_s() const { return static_cast<double>(bus.count) * 1e-9 / seconds(time); }
};

struct CollectiveTable {
  std::int64_t gpus{};
  int groups = 1, ranks{}, nodes{};  // ranks and nodes of a group
  std::vector<CollectiveLine> lines;

  double average_bus_gb_per_s() const;
};

struct CollectiveResult {
  std::string topology, gpu, stack, datatype, axis;
  CollectiveKind kind{};
  Bytes bytes_min, bytes_max;  // asked for
  std::int64_t step = 1;       // between sizes
  bool step_factor = true;     // else an increment; both only if the sizes are a range
  std::vector<CollectiveTable> tables;
};

// Throws InputError for what is no kind, size, number of GPUs, or cannot be forced.
CollectiveResult collective_table(const CollectiveQuery& query, const Library& library);

}  // namespace shardsim
