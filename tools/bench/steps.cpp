// Whole simulations: a training step folded and with every rank simulated, and a sweep of them.

#include <cstdlib>
#include <numeric>

#include "sim/simulate/simulate.h"
#include "sim/study/sweep.h"

#include "tools/bench/bench.h"

namespace shardsim {
namespace {

struct StepCase {
  const char* name;
  const char* model;
  std::int64_t gpus, micro_batch;
  bool fold;
  bool straggler = false;
  bool large = false;  // takes minutes: only when asked for
};
constexpr StepCase step_cases[] = {
    {"folded/t5-11b/512", "t5-11b", 512, 8, true},
    {"folded/gpt-175b/1024", "mingpt-175b", 1'024, 1, true},
    {"folded/t5-11b/1048576", "t5-11b", 1'048'576, 8, true},
    {"folded/t5-11b/16384/straggler", "t5-11b", 16'384, 8, true, true},
    {"unfolded/t5-11b/8", "t5-11b", 8, 8, false},
    {"unfolded/t5-11b/64", "t5-11b", 64, 8, false},
    {"unfolded/t5-11b/512", "t5-11b", 512, 8, false},
    {"unfolded/mpt-7b/1024", "mpt-7b", 1'024, 4, false},
    {"unfolded/mpt-7b/16384", "mpt-7b", 16'384, 4, false, false, true},
};

// simulate() alone, without compiling. Three steps or more are simulated, until they repeat.
void step(benchmark::State& state, const StepCase& of) {
  const Scenario s =
      scenario(of.model, of.gpus, of.micro_batch,
               of.straggler ? std::vector<std::string>{"straggler[0].gpu=3", "straggler[0].compute_scale=0.8"}
                            : std::vector<std::string>{});
  const Program program = compile(s);
  const Topology topology = make_topology(s);
  const Cluster cluster = make_cluster(s, topology);
  const Result folded = simulate(program, cluster);
  Work work;
  for (auto _ : state) {
    const Result result = simulate(program, cluster, {.fold = of.fold});
    expect(result.step_time == folded.step_time && result.memory == folded.memory,
           "every rank simulated gives what the folded run gives");
    expect(result.steady &&
               std::accumulate(result.breakdown.begin(), result.breakdown.end(), Time{}) == result.step_time,
           "the breakdown sums to a steady step");
    expect(result.engine.rank_classes == of.gpus || (of.fold && result.engine.rank_classes < 64),
           "ranks that are alike are simulated once");
    work.add(result);
  }
  work.report(state);
}

// Compiling is part of it.
constexpr std::string_view grid = R"(
topology = "a100-80gb-roce-2000"
training.stack = "eager-2022"
training.activation_checkpointing = "full"
[sweep]
model = ["mpt-1b", "gpt3-2.7b", "t5-2.28b", "mpt-7b", "llama-13b"]
"cluster.gpus" = "64..1024 x2"
"strategy.sharding_factor" = [1, 8, 16, 32, 64]
"training.micro_batch" = "1..8"
)";

void sweep_of_1000(benchmark::State& state) {
  const ScenarioFile file = read_scenario_text(grid, "grid");
  const Library library({SHARDSIM_SOURCE_DIR});
  double runs = 0, work = 0;
  for (auto _ : state) {
    const SweepResult result = sweep(file, library, {}, [](auto...) {});
    expect(result.rows.size() == 1'000, "the grid has 1,000 points");
    for (std::size_t i = 0; i < result.rows.size(); ++i) {
      const SweepRow& row = result.rows[i];
      expect(row.run.has_value(), "every point is legal");
      runs += 1;
      work += static_cast<double>(row.run->result.engine.events + row.run->result.engine.allocator_calls);
      if (i % 97 != 0) continue;
      state.PauseTiming();
      ScenarioFile alone = scenario_file(row.point[0], {"strategy.sharding_factor=" + row.point[2]});
      assign(alone, "cluster.gpus=" + row.point[1]);
      assign(alone, "training.micro_batch=" + row.point[3]);
      const RunRecord again = run(resolve(alone.settings, library));
      expect(again.result.step_time == row.run->result.step_time &&
                 again.result.memory == row.run->result.memory,
             "a row is what its scenario gives alone");
      state.ResumeTiming();
    }
  }
  state.counters["scenarios/s"] = benchmark::Counter(runs, benchmark::Counter::kIsRate);
  state.counters["work/s"] = benchmark::Counter(work, benchmark::Counter::kIsRate);
}

}  // namespace

void add_steps() {
  for (const StepCase& of : step_cases) {
    if (of.large && std::getenv("SHARDSIM_BENCH_LARGE") == nullptr) continue;
    auto* added = benchmark::RegisterBenchmark(of.name, step, of)->Unit(benchmark::kMillisecond);
    if (!of.fold) added->UseRealTime();  // it uses several cores
    if (!of.fold && of.gpus >= 512) added->Iterations(1);
  }
  benchmark::RegisterBenchmark("sweep/1000", sweep_of_1000)
      ->Unit(benchmark::kMillisecond)
      ->Iterations(1)
      ->UseRealTime();
}

}  // namespace shardsim
