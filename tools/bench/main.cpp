// Benchmarks; README.md says what each shows. Run them with `build/release/tools/bench/shardsim_bench`.

#include <cstdio>
#include <cstdlib>
#include <fstream>

#include <malloc.h>

#include "tools/bench/bench.h"

namespace shardsim {
namespace {

// A line of /proc/self/status, in kB there.
std::optional<double> status(const std::string& name) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);)
    if (line.compare(0, name.size(), name) == 0) return std::stod(line.substr(name.size())) * 1024;
  return std::nullopt;
}

}  // namespace

void expect(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "wrong answer: %s\n", what);
  std::exit(1);
}

ScenarioFile scenario_file(const std::string& model, const std::vector<std::string>& more) {
  ScenarioFile file;
  file.settings.scenario = {"bench"};
  for (const std::string& set :
       {"model=" + model, std::string("topology=a100-80gb-roce-2000"),
        std::string("training.activation_checkpointing=full"), std::string("training.stack=eager-2022")})
    assign(file, set);
  for (const std::string& set : more) assign(file, set);
  return file;
}

Scenario scenario(const std::string& model, std::int64_t gpus, std::int64_t micro_batch,
                  const std::vector<std::string>& more) {
  ScenarioFile file = scenario_file(model, more);
  assign(file, "cluster.gpus=" + std::to_string(gpus));
  assign(file, "training.micro_batch=" + std::to_string(micro_batch));
  return resolve(file.settings, Library({SHARDSIM_SOURCE_DIR}));
}

PeakMemory::PeakMemory() {
  malloc_trim(0);
  std::ofstream reset("/proc/self/clear_refs");
  reset << "5" << std::flush;  // the peak becomes what is held now
  if (reset) before_ = status("VmHWM:");
}

std::optional<double> PeakMemory::growth() const {
  const std::optional<double> peak = status("VmHWM:");
  if (!before_ || !peak) return std::nullopt;
  return *peak - *before_;
}

void Work::add(const Result& result) {
  ++runs_;
  sum_.events += result.engine.events;
  sum_.allocator_calls += result.engine.allocator_calls;
  sum_.messages += result.engine.messages;
  sum_.rank_classes = result.engine.rank_classes;
}

void Work::report(benchmark::State& state) const {
  const auto per_run = [&](std::int64_t n) {
    return benchmark::Counter(static_cast<double>(n) / static_cast<double>(runs_));
  };
  const auto rate = [](std::int64_t n) {
    return benchmark::Counter(static_cast<double>(n), benchmark::Counter::kIsRate);
  };
  state.counters["events"] = per_run(sum_.events);
  state.counters["calls"] = per_run(sum_.allocator_calls);
  state.counters["work/s"] = rate(sum_.events + sum_.allocator_calls + sum_.messages);
  if (sum_.messages > 0) state.counters["messages"] = per_run(sum_.messages);
  state.counters["ranks"] = static_cast<double>(sum_.rank_classes);
  if (const auto grown = memory_.growth())
    state.counters["B/rank"] = *grown / static_cast<double>(sum_.rank_classes);
}

}  // namespace shardsim

int main(int argc, char** argv) {
  shardsim::add_parts();
  shardsim::add_steps();
  shardsim::add_peers();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
}
