#include "sim/simulate/accumulation.h"

#include <algorithm>

namespace shardsim {
namespace {

constexpr std::int64_t fewest = 6;               // repeats in the first replay
constexpr std::int64_t worthwhile = 4 * fewest;  // three short replays cost less than one of so many

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
  explicit Continue(std::int64_t repeats) : further_(std::max<std::int64_t>(0, repeats - (fewest + 2))) {}

  std::int64_t operator()(std::int64_t a, std::int64_t b, std::int64_t c) {
    periodic_ = periodic_ && c - b == b - a;
    return c + further_ * (c - b);
  }
  Time operator()(Time a, Time b, Time c) { return {(*this)(a.count, b.count, c.count)}; }
  Bytes operator()(Bytes a, Bytes b, Bytes c) { return {(*this)(a.count, b.count, c.count)}; }
  bool periodic() const { return periodic_; }

 private:
  std::int64_t further_;
  bool periodic_ = true;
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

}  // namespace

std::optional<Result> extrapolate_accumulation(const Program& program,
                                               const std::function<Result(const Program&)>& replay) {
  const std::optional<LongRepeats> repeats = long_repeats(program);
  if (!repeats) return std::nullopt;
  std::array<Result, 3> runs;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    runs[i] = replay(with_repeats(program, fewest + static_cast<std::int64_t>(i)));
    if (!alike(runs.front(), runs[i])) return std::nullopt;
  }
  const auto& [a, b, c] = runs;
  Result result = c;
  bool periodic = true;
  for (std::size_t step = 0; step < c.step_times.size(); ++step) {
    Continue on((*repeats)[static_cast<std::size_t>(section_of_step(step))]);
    result.step_times[step] = on(a.step_times[step], b.step_times[step], c.step_times[step]);
    periodic = periodic && on.periodic();
  }
  Continue on((*repeats)[static_cast<std::size_t>(section_of_step(c.step_times.size() - 1))]);
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
  for (const Result* other : {&a, &b}) {
    result.engine.events += other->engine.events;
    result.engine.allocator_calls += other->engine.allocator_calls;
    result.engine.solves += other->engine.solves;
    result.engine.messages += other->engine.messages;
  }
  return periodic && on.periodic() ? std::optional(std::move(result)) : std::nullopt;
}

}  // namespace shardsim
