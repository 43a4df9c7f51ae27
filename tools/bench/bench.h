// What the benchmarks share. Each file adds its own to the list; main.cpp runs them.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include "sim/result/result.h"
#include "sim/scenario/scenario.h"

namespace shardsim {

void add_parts();
void add_steps();
void add_peers();

// Every benchmark checks its own answer: ends the program if it is wrong.
void expect(bool holds, const char* what);

// FSDP on A100-80GB nodes with 8 NICs of 200 Gbit/s, all activations checkpointed; `more` as `--set`.
ScenarioFile scenario_file(const std::string& model, const std::vector<std::string>& more);
Scenario scenario(const std::string& model, std::int64_t gpus, std::int64_t micro_batch,
                  const std::vector<std::string>& more = {});

// How far the process grows beyond what it holds when this is made. Linux; elsewhere there is no answer.
class PeakMemory {
 public:
  PeakMemory();
  std::optional<double> growth() const;  // bytes

 private:
  std::optional<double> before_;
};

// Of all simulations of a benchmark: what was done, and how fast.
class Work {
 public:
  void add(const Result& result);
  void report(benchmark::State& state) const;

 private:
  PeakMemory memory_;
  std::int64_t runs_ = 0;
  EngineStatistics sum_;
};

}  // namespace shardsim
