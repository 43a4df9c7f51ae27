#include "sim/simulate/accumulation.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "sim/simulate/time_range.h"

namespace shardsim {
namespace {

constexpr std::int64_t fewest = 6;  // repeats in the first replay
constexpr std::int64_t saving = 4;  // three short replays cost less than one of so many times the repeats
constexpr std::int64_t worthwhile = saving * fewest;

// How often each section repeats its long body; 0 = none.
using LongRepeats = std::array<std::int64_t, sections>;

std::optional<LongRepeats> long_repeats(const Program& program) {
  LongRepeats times{};
  for (int s = 0; s < sections; ++s)
    for (const Repeat& repeat : program[static_cast<Section>(s)]) {
      if (repeat.times < worthwhile) continue;
      std::int64_t& one = times[static_cast<std::size_t>(s)];
      if (one > 0) return std::nullopt;
      one = repeat.times;
    }
  const bool any = std::any_of(times.begin(), times.end(), [](std::int64_t n) { return n > 0; });
  return any ? std::optional(times) : std::nullopt;
}

Program with_repeats(Program program, std::int64_t times) {
  for (auto& section : program.section)
    for (Repeat& repeat : section)
      if (repeat.times >= worthwhile) repeat.times = times;
  return program;
}

// A figure of three replays with n, n + 1 and n + 2 repeats, continued to `repeats`.
class Continue {
 public:
  Continue(std::int64_t n, std::int64_t repeats) : further_(std::max<std::int64_t>(0, repeats - (n + 2))) {}

  std::int64_t operator()(std::int64_t a, std::int64_t b, std::int64_t c) {
    periodic_ = periodic_ && c - b == b - a;
    const Wide continued = c + Wide{further_} * (c - b);
    in_range_ = in_range_ && continued < std::numeric_limits<std::int64_t>::max();
    return static_cast<std::int64_t>(continued);
  }
  Time operator()(Time a, Time b, Time c) {
    const Time continued{(*this)(a.count, b.count, c.count)};
    in_range_ = in_range_ && continued < latest;
    return continued;
  }
  Bytes operator()(Bytes a, Bytes b, Bytes c) { return {(*this)(a.count, b.count, c.count)}; }
  bool periodic() const { return periodic_; }
  bool in_range() const { return in_range_; }

 private:
  std::int64_t further_;
  bool periodic_ = true, in_range_ = true;
};

bool alike(const Result& a, const Result& b) {
  return a.steady && b.steady && !a.out_of_memory() && !b.out_of_memory() && a.steps == b.steps &&
         a.slowest == b.slowest && a.phases.size() == b.phases.size() && a.memory == b.memory &&
         std::equal(a.parts.begin(), a.parts.end(), b.parts.begin(), b.parts.end(),
                    [](const PartResult& p, const PartResult& q) {
                      return p.slowest == q.slowest && p.memory == q.memory;
                    });
}

Section section_of_step(std::size_t step) {  // counted from 0
  return step == 0 ? Section::first : step == 1 ? Section::second : Section::steady;
}

// The hosts get through the repeats exactly as fast as the steps grow.
bool in_step(const std::array<Replayed, 3>& runs) {
  const auto& [a, b, c] = runs;
  if (a.steps.size() != b.steps.size() || b.steps.size() != c.steps.size()) return false;
  for (std::size_t i = 0; i < c.steps.size(); ++i)
    for (const auto& [x, y] : {std::pair(&a, &b), std::pair(&b, &c)})
      if (y->steps[i] - x->steps[i] != y->hosts[i] - x->hosts[i]) return false;
  return true;
}

std::optional<Result> continued(const std::array<Replayed, 3>& runs, std::int64_t n,
                                const LongRepeats& repeats) {
  const Result &a = runs[0].result, &b = runs[1].result, &c = runs[2].result;
  if (!alike(a, b) || !alike(b, c) || !in_step(runs)) return std::nullopt;
  Result result = c;
  bool periodic = true, in_range = true;
  Time total;
  for (std::size_t step = 0; step < c.step_times.size(); ++step) {
    Continue on(n, repeats[static_cast<std::size_t>(section_of_step(step))]);
    result.step_times[step] = on(a.step_times[step], b.step_times[step], c.step_times[step]);
    periodic = periodic && on.periodic();
    in_range = in_range && on.in_range() && result.step_times[step] < latest - total;
    if (in_range) total += result.step_times[step];
  }
  Continue on(n, repeats[static_cast<std::size_t>(section_of_step(c.step_times.size() - 1))]);
  result.step_time = on(a.step_time, b.step_time, c.step_time);
  for (std::size_t k = 0; k < c.breakdown.size(); ++k)
    result.breakdown[k] = on(a.breakdown[k], b.breakdown[k], c.breakdown[k]);
  for (std::size_t p = 0; p < c.parts.size(); ++p) {
    const PartResult &x = a.parts[p], &y = b.parts[p], &z = c.parts[p];
    result.parts[p].step_time = on(x.step_time, y.step_time, z.step_time);
    for (std::size_t k = 0; k < z.breakdown.size(); ++k)
      result.parts[p].breakdown[k] = on(x.breakdown[k], y.breakdown[k], z.breakdown[k]);
  }
  for (std::size_t k = 0; k < c.communication.size(); ++k) {
    const Communication &x = a.communication[k], &y = b.communication[k], &z = c.communication[k];
    result.communication[k] = {.count = on(x.count, y.count, z.count),
                               .bytes = on(x.bytes, y.bytes, z.bytes),
                               .wire = on(x.wire, y.wire, z.wire),
                               .busy = on(x.busy, y.busy, z.busy),
                               .exposed = on(x.exposed, y.exposed, z.exposed)};
  }
  for (std::size_t p = 0; p < c.phases.size(); ++p) {
    periodic = periodic && a.phases[p].name == c.phases[p].name && b.phases[p].name == c.phases[p].name;
    result.phases[p].time = on(a.phases[p].time, b.phases[p].time, c.phases[p].time);
  }
  if (!periodic || !on.periodic()) return std::nullopt;
  if (!in_range || !on.in_range()) refuse_too_long();
  return result;
}

void add(EngineStatistics& total, const EngineStatistics& more) {
  total.events += more.events;
  total.allocator_calls += more.allocator_calls;
  total.solves += more.solves;
  total.messages += more.messages;
}

}  // namespace

std::optional<Result> extrapolate_accumulation(const Program& program,
                                               const std::function<Replayed(const Program&)>& replay) {
  const std::optional<LongRepeats> repeats = long_repeats(program);
  if (!repeats) return std::nullopt;
  std::int64_t least = std::numeric_limits<std::int64_t>::max();
  for (const std::int64_t times : *repeats)
    if (times > 0) least = std::min(least, times);
  EngineStatistics engine;
  for (std::int64_t n = fewest; saving * n <= least; n *= 2) {
    std::array<Replayed, 3> runs;
    for (std::size_t i = 0; i < runs.size(); ++i) {
      runs[i] = replay(with_repeats(program, n + static_cast<std::int64_t>(i)));
      if (runs[i].result.out_of_memory()) return std::nullopt;
      add(runs[i].result.engine, engine);
      engine = runs[i].result.engine;
    }
    if (std::optional<Result> result = continued(runs, n, *repeats)) return result;
  }
  return std::nullopt;
}

}  // namespace shardsim
