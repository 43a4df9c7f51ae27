// One run as reports and tables need it: what was asked, in full, and what came out.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "sim/base/scalar.h"
#include "sim/result/advice.h"
#include "sim/result/confidence.h"
#include "sim/result/result.h"

namespace shardsim {

struct RecordedValue {
  std::string key;  // of the scenario, dotted
  Scalar value;
  std::string origin;  // "a.toml:5:8", "default: the model's"
};

// A figure of this run beside that of a real one, of which the scenario tells. `fits` counts as 0 or 1.
struct Comparison {
  std::string metric;  // "peak_active_gib"
  double predicted, measured;
  double error() const { return (predicted - measured) / measured; }
};

// Floating-point operations of one GPU. `forward_*` are of a micro-batch, matrix products only, without
// causal discount; the others of a step.
struct FlopAccount {
  std::int64_t tokens = 0;  // of a step, encoder + decoder
  Flop forward_linear, forward_attention;
  Flop model, hardware, executed;
};

// What a part of a mixed cluster is.
struct RecordedPart {
  std::string topology, gpu;
  std::int64_t gpus = 0;
  FlopRate peak;  // dense, of the format of the matrix products
};

struct RunRecord {
  std::string model, topology, gpu, generation, stack, stack_versions, strategy, precision;
  std::int64_t parameters = 0;
  std::int64_t sharding_factor = 0;  // ranks that share one copy of the model; 0 = the strategy has none
  std::int64_t gpus = 0, micro_batch = 0, grad_accum = 0;
  std::vector<RecordedPart> parts;  // of a mixed cluster, in the order of the ranks
  std::int64_t global_batch = 0, global_batch_tokens = 0;
  bool encoder_decoder = false;
  std::vector<RecordedValue> values;
  std::uint64_t scenario_hash = 0;
  FlopAccount flops;
  Result result;
  std::vector<Comparison> comparisons;
  std::optional<OomAdvice> advice;       // if out of memory, and asked for
  std::optional<Confidence> confidence;  // unless out of memory
  double wall_s = 0;                     // the simulation took
};

// One line: "t5-11b on 512 x a100-sxm-80gb (a100-80gb-roce-2000), fsdp F=512, bf16-mixed, micro-batch 8".
std::string title(const RunRecord& run);
std::string gpus_text(
    const RunRecord& run);  // "512 x a100-sxm-80gb", "8 x v100-sxm-16gb + 8 x a100-sxm-40gb"

}  // namespace shardsim
