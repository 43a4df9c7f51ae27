#include "sim/simulate/simulate.h"

#include <algorithm>

#include "sim/base/normal.h"
#include "sim/base/random.h"
#include "sim/program/count.h"
#include "sim/simulate/accumulation.h"
#include "sim/simulate/executor.h"
#include "sim/simulate/job.h"

namespace shardsim {
namespace {

Time duration(const RankState& rank, int step) {
  const auto s = static_cast<std::size_t>(step);
  return rank.steps[s].end - rank.steps[s - 1].end;
}

// The lowest of the classes for which nothing is `more`: of a part, or of all.
template <class More>
RankClassId most(const Job& job, const More& more, std::optional<int> part = {}) {
  std::optional<RankClassId> best;
  for (const RankClassId r : ids(job.ranks))
    if ((!part || job.ranks[r].part == *part) && (!best || more(r, *best))) best = r;
  return *best;
}

RankClassId slowest_of(const Job& job, const Executor& run, std::optional<int> part = {}) {
  const auto time = [&](RankClassId r) { return duration(run.ranks()[r], run.steps_completed()); };
  return most(
      job, [&](RankClassId a, RankClassId b) { return time(a) > time(b); }, part);
}

// By the share of its GPU that a rank has reserved.
RankClassId fullest_of(const Cluster& cluster, const Job& job, const Executor& run,
                       std::optional<int> part = {}) {
  const auto reserved = [&](RankClassId r) { return run.ranks()[r].allocator.stats().peak_reserved.count; };
  const auto capacity = [&](RankClassId r) { return cluster.gpu_of(job.ranks[r].part).memory.count; };
  const auto fuller = [&](RankClassId a, RankClassId b) {
    return Wide{reserved(a)} * capacity(b) > Wide{reserved(b)} * capacity(a);
  };
  return most(job, fuller, part);
}

void describe_step(Result& result, const Program& program, const Job& job, const Executor& run) {
  const int step = run.steps_completed();
  if (step < 1) return;
  const RankClassId slowest = slowest_of(job, run);
  const RankState& rank = run.ranks()[slowest];
  const StepRecord& record = rank.steps[static_cast<std::size_t>(step)];
  result.slowest = job.ranks[slowest].rank;
  result.step_time = duration(rank, step);
  for (int i = 1; i <= step; ++i) result.step_times.push_back(duration(rank, i));
  result.breakdown = record.breakdown;
  result.communication = record.communication;
  for (const auto& [label, time] : record.phases)
    result.phases.push_back({program.labels[LabelId{label}], time});
}

Memory memory_of_rank(RankClassId fullest, const Cluster& cluster, const Job& job, const Executor& run) {
  const Bytes capacity = cluster.gpu_of(job.ranks[fullest].part).memory;
  const RankState& rank = run.ranks()[fullest];
  const MemoryStats& stats = rank.allocator.stats();
  return {.capacity = capacity,
          .outside_allocator = capacity - rank.allocator.capacity(),
          .peak_allocated = stats.peak_allocated,
          .peak_active = stats.peak_active,
          .peak_reserved = stats.peak_reserved,
          .at_peak = rank.ledger.at_peak(),
          .alloc_retries = rank.alloc_retries,
          .peak_host = rank.host_memory.peak(),
          .rank = job.ranks[fullest].rank};
}

void describe_parts(Result& result, const Cluster& cluster, const Job& job, const Executor& run) {
  const int parts = static_cast<int>(cluster.topology.parts().size()), step = run.steps_completed();
  for (int p = 0; parts > 1 && p < parts; ++p) {
    PartResult part;
    if (step > 0) {
      const RankClassId slowest = slowest_of(job, run, p);
      part.slowest = job.ranks[slowest].rank;
      part.step_time = duration(run.ranks()[slowest], step);
      part.breakdown = run.ranks()[slowest].steps[static_cast<std::size_t>(step)].breakdown;
    }
    part.memory = memory_of_rank(fullest_of(cluster, job, run, p), cluster, job, run);
    result.parts.push_back(std::move(part));
  }
}

// Which rank is the fullest shows at the end only; recording all would take too much memory in a large job.
void record_memory(RankClassId rank, const Program& program, const Cluster& cluster, const Job& job,
                   const SimulateOptions& options) {
  MemoryRecorder recorder(program, options.snapshot != nullptr);
  Executor run(program, cluster, job, nullptr);
  run.record_memory(rank, recorder);
  run.run();
  const Rank of = job.ranks[rank].rank;
  if (options.snapshot != nullptr) {
    *options.snapshot = recorder.snapshot(run.ranks()[rank].allocator);
    options.snapshot->rank = of;
  }
  if (options.memory != nullptr) *options.memory = {of, std::move(recorder.rows())};
}

bool samples(const Jitter& jitter) { return jitter.mode == Jitter::Mode::sampled && jitter.step_sigma > 0; }

// Every rank a straggler of its own: its kernels take 1 + sigma z times as long, z normal. A draw below a
// tenth of the mean is drawn again (never at a sigma below 0.2 in practice).
Cluster sampled(const Cluster& cluster, std::int64_t ranks) {
  Cluster result = cluster;
  result.stragglers.clear();
  Random random(cluster.jitter.seed);
  for (std::int32_t r = 0; r < ranks; ++r) {
    double factor = 0;
    while (factor < 0.1) factor = 1 + cluster.jitter.step_sigma * random.normal();
    result.stragglers.push_back({Rank{r}, 1 / factor});
  }
  for (const Straggler& s : cluster.stragglers)
    result.stragglers[static_cast<std::size_t>(s.rank.index)].compute_scale *= s.compute_scale;
  return result;
}

void describe_path(Result& result, const Job& job, const Executor& run, const CausalLog& causes) {
  const auto step = static_cast<std::size_t>(run.steps_completed());
  if (step < 1) return;
  const RankClassId slowest = class_of(job, result.slowest);
  const std::vector<StepRecord>& steps = run.ranks()[slowest].steps;
  result.critical_path = causes.path(result.slowest, step, steps[step - 1].end, steps[step].end);
}

void add_expected_jitter(Result& result, const Jitter& jitter, std::int64_t ranks) {
  if (jitter.mode != Jitter::Mode::expected_maximum || jitter.step_sigma == 0) return;
  const double share = jitter.step_sigma * expected_maximum_of_normals(ranks);
  const auto more = [&](Time t) { return from_picoseconds(static_cast<double>(t.count) * share); };
  const Time jitter_time = more(result.step_time);
  result.breakdown[static_cast<std::size_t>(Spent::jitter)] = jitter_time;
  result.step_time += jitter_time;
  for (Time& step : result.step_times) step += more(step);
  if (result.critical_path && jitter_time > Time{})
    result.critical_path->segments.push_back({.kind = PathKind::jitter,
                                              .rank = result.slowest,
                                              .phase = "",
                                              .label = "expected maximum",
                                              .reason = "the slowest of all ranks is slower than the mean",
                                              .begin = result.step_time - jitter_time,
                                              .time = jitter_time});
}

// Of all ranks, for telling whether what a step repeats is periodic.
void describe_repeats(Replayed& replayed, const Executor& run) {
  for (const RankState& rank : run.ranks())
    for (int step = 1; step <= run.steps_completed(); ++step) {
      replayed.steps.push_back(duration(rank, step));
      replayed.hosts.push_back(rank.issued[static_cast<std::size_t>(step)].repeats);
    }
}

Replayed replay(const Program& program, const Cluster& cluster, const SimulateOptions& options) {
  const bool fold = options.fold && cluster.detail == NetworkDetail::fluid;
  const Job job = place(program, cluster, fold);
  std::optional<CausalLog> causes;
  if (options.critical_path) causes.emplace(program, job);
  Executor run(program, cluster, job, options.timeline, causes ? &*causes : nullptr);
  run.run();
  Replayed replayed;
  describe_repeats(replayed, run);
  Result& result = replayed.result;
  result.steady = run.steady();
  result.steps = run.steps_completed();
  result.oom = run.oom();
  describe_step(result, program, job, run);
  if (causes && !result.oom) describe_path(result, job, run, *causes);
  const RankClassId fullest = fullest_of(cluster, job, run);
  result.memory = memory_of_rank(fullest, cluster, job, run);
  describe_parts(result, cluster, job, run);
  if (options.memory != nullptr || options.snapshot != nullptr)
    record_memory(fullest, program, cluster, job, options);
  result.engine = {.events = run.events(),
                   .allocator_calls = 0,
                   .solves = run.solves(),
                   .messages = run.messages(),
                   .ranks = program.mesh.world,
                   .rank_classes = static_cast<std::int64_t>(job.ranks.size()),
                   .folded = fold};
  for (const RankState& rank : run.ranks()) result.engine.allocator_calls += rank.allocator.stats().calls;
  return replayed;
}

}  // namespace

Result simulate(const Program& program, const Cluster& given, const SimulateOptions& given_options) {
  const bool every_rank = samples(given.jitter);
  const Cluster cluster = every_rank ? sampled(given, program.mesh.world) : given;
  SimulateOptions options = given_options;
  options.fold = options.fold && !every_rank;
  std::optional<Result> result;
  if (options.timeline == nullptr && options.memory == nullptr && options.snapshot == nullptr &&
      !options.critical_path)
    result = extrapolate_accumulation(
        program, [&](const Program& shorter) { return replay(shorter, cluster, options); });
  if (!result) result = replay(program, cluster, options).result;
  add_expected_jitter(*result, cluster.jitter, program.mesh.world);
  result->sampled_jitter = every_rank;
  result->executed = count(program, Section::steady).executed;
  return std::move(*result);
}

}  // namespace shardsim
