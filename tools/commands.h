// The words of the command line, as values, and the commands that answer them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "sim/scenario/library.h"
#include "sim/study/collective_table.h"
#include "sim/study/limit.h"

namespace shardsim {

enum ExitCode { done = 0, internal_error = 1, bad_input = 2, out_of_memory = 3 };

// An option that stands for a key of the scenario.
struct Shorthand {
  const char *option, *key, *help;
};
inline constexpr Shorthand shorthands[] = {
    {"--model", "model", "a name in models/ or a path"},
    {"--topology", "topology", "a name in topologies/ or a path"},
    {"--gpus", "cluster.gpus", "GPUs of the job"},
    {"--strategy", "strategy.kind", "ddp, fsdp, fsdp2, zero1, zero2, zero3, mics or megatron-dp"},
    {"--sharding-factor", "strategy.sharding_factor", "ranks that share one copy of the model"},
    {"--micro-batch", "training.micro_batch", "sequences per GPU and micro-step"},
    {"--global-batch", "training.global_batch", "sequences per step over all GPUs"},
    {"--sequence-length", "training.sequence_length", "tokens"},
    {"--precision", "training.precision",
     "fp32, tf32, fp16-mixed, bf16-mixed, fp8-mixed, fp16-pure or bf16-pure"},
    {"--checkpointing", "training.activation_checkpointing",
     "none, full, selective, selective-op or every-k"},
    {"--stack", "training.stack", "a name in topologies/stacks or a path"},
    {"--overlay", "overlay", "a file of constants, such as `calibrate` writes"},
};

struct Options {
  std::string scenario, format, output;
  std::vector<std::string> sets;
  std::vector<std::string> short_values = std::vector<std::string>(std::size(shorthands));
  bool quiet = false, no_fold = false, fail_on_oom = false, no_advice = false;
  std::string memory_timeline, memory_snapshot, explain;
  bool force = false;
  std::string over, max, min;
  LimitOptions limit;
  std::string kind, name, graphviz;
  std::string table, by, overlay, free, group = "model";
  int folds = 5, threads = 0;
  bool residuals = false, list = false;
  std::vector<std::string> where;
  CollectiveQuery collective;
};

// Each prints its answer and gives the exit code; bad input is an InputError.
int run_command(const Options& o, const Library& library);
int sweep_command(const Options& o, const Library& library);
int frontier_command(const Options& o, const Library& library);
int limit_command(const Options& o, const Library& library);
int validate_command(const Options& o, const Library& library);
int calibrate_command(const Options& o, const Library& library);
int collective_command(const Options& o, const Library& library);
int check_command(const Options& o, const Library& library);
int show_command(const Options& o, const Library& library);
int schema_command(const Options& o);

}  // namespace shardsim
