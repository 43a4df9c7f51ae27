#include "sim/study/sweep.h"

#include <algorithm>

#include <fmt/format.h>

#include "sim/engine/parallel.h"
#include "sim/study/confidence.h"

namespace shardsim {
namespace {

using Combination = std::vector<std::size_t>;  // a point per axis

Settings settings_of(const ScenarioFile& scenario, const Combination& combination) {
  Settings settings = scenario.settings;
  for (std::size_t a = 0; a < combination.size(); ++a) {
    const SweepAxis::Point& point = scenario.axes[a].points[combination[a]];
    for (const auto& [key, value] : point.sets)
      settings.set(key, value, {Origin::Kind::sweep, point.place, {}});
  }
  return settings;
}

bool skipped(const Settings& settings, const std::vector<SkipRule>& rules) {
  return std::any_of(rules.begin(), rules.end(), [&](const SkipRule& rule) {
    return std::all_of(rule.when.begin(), rule.when.end(), [&](const auto& condition) {
      const Setting* setting = settings.find(condition.first);
      return setting != nullptr && std::find(condition.second.begin(), condition.second.end(),
                                             setting->value) != condition.second.end();
    });
  });
}

constexpr std::size_t combinations_max = 100'000;

std::vector<Combination> combinations(const ScenarioFile& scenario) {
  std::size_t product = 1;
  for (const SweepAxis& axis : scenario.axes) {
    product *= axis.points.size();  // both factors are below 1e5 here
    if (product > combinations_max)
      throw InputError(axis.place, fmt::format("the sweep has more than {} combinations", combinations_max));
  }
  std::vector<Combination> result;
  Combination current(scenario.axes.size(), 0);
  for (;;) {
    if (!skipped(settings_of(scenario, current), scenario.skips)) result.push_back(current);
    std::size_t a = current.size();
    while (a > 0 && ++current[a - 1] == scenario.axes[a - 1].points.size()) current[--a] = 0;
    if (a == 0) return result;
  }
}

std::string scaling(const ScenarioFile& scenario) {
  const bool over_gpus = std::any_of(scenario.axes.begin(), scenario.axes.end(),
                                     [](const SweepAxis& a) { return a.key == "cluster.gpus"; });
  if (!over_gpus) return "";
  const bool fixed_global =
      scenario.settings.has("training.global_batch") || scenario.settings.has("training.global_batch_tokens");
  return fixed_global ? "strong" : "weak";
}

}  // namespace

SweepSample first_of(const ScenarioFile& scenario) {
  const std::vector<Combination> all = combinations(scenario);
  if (all.empty()) throw InputError(scenario.settings.scenario, "the sweep skips every combination");
  SweepSample sample{.settings = settings_of(scenario, all.front()), .label = {}, .runs = all.size()};
  for (const SweepAxis& axis : scenario.axes)
    sample.label += (sample.label.empty() ? "" : ", ") + axis.key + " = " +
                    axis.points[all.front()[static_cast<std::size_t>(&axis - scenario.axes.data())]].label;
  return sample;
}

Settings only_one(const ScenarioFile& scenario) {
  SweepSample sample = first_of(scenario);
  if (sample.runs > 1)
    throw InputError(
        scenario.axes.front().place,
        fmt::format("this scenario is a sweep of {} runs, the first with {}; pin every other axis "
                    "with --set",
                    sample.runs, sample.label));
  return std::move(sample.settings);
}

SweepResult sweep(const ScenarioFile& scenario, const Library& library, const RunOptions& options,
                  const std::function<void(std::size_t, std::size_t, const std::string&)>& progress) {
  SweepResult result;
  for (const SweepAxis& axis : scenario.axes) result.axes.push_back(axis.key);
  result.scaling = scaling(scenario);
  const std::vector<Combination> all = combinations(scenario);
  const std::vector<Residual> validated = read_residuals(library);
  result.rows.resize(all.size());
  progress(0, all.size(), "");
  in_parallel(
      all.size(),
      [&](std::size_t i) {
        SweepRow& row = result.rows[i];
        for (std::size_t a = 0; a < all[i].size(); ++a)
          row.point.push_back(scenario.axes[a].points[all[i][a]].label);
        try {
          row.run = run(resolve(settings_of(scenario, all[i]), library), options);
          row.run->confidence = confidence(*row.run, validated);
        } catch (const InputError& error) {
          row.error = error.what();
        }
      },
      [&](std::size_t i, std::size_t done) {
        progress(done, all.size(), fmt::format("{}", fmt::join(result.rows[i].point, ", ")));
      });
  const auto failed = [](const SweepRow& row) { return !row.run; };
  if (std::all_of(result.rows.begin(), result.rows.end(), failed))
    throw InputError({},
                     result.rows.empty() ? "the sweep skips every combination" : result.rows.front().error);
  return result;
}

}  // namespace shardsim
