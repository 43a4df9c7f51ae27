#include "sim/study/validate.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "sim/engine/parallel.h"
#include "sim/scenario/scenario.h"
#include "sim/study/statistics.h"

namespace shardsim {
namespace {

std::vector<std::string> measured_metrics(const Settings& settings) {
  std::vector<std::string> metrics;
  for (const auto& [key, setting] : settings.all())
    if (key.starts_with("measured.") && std::holds_alternative<double>(setting.value))
      metrics.push_back(key.substr(key.find('.') + 1));
  return metrics;
}

// A run with any figure fitted.
std::optional<bool> fitted(const Settings& settings, const std::vector<std::string>& metrics) {
  if (const Setting* fits = settings.find("measured.fits")) return std::get<bool>(fits->value);
  return metrics.empty() ? std::nullopt : std::optional(true);
}

void simulate_row(ValidatedRow& row, const MeasuredRuns& table, std::size_t index, const Library& library,
                  const Overlay& overlay) {
  row.id = table.id(index);
  row.source = table.cell(index, "source");
  row.quality = table.cell(index, "quality");
  for (const std::string& column : table.carried_columns())
    row.carried.emplace_back(column, table.cell(index, column));
  try {
    const MeasuredRun measured = table.run(index);
    row.unanswered = measured_metrics(measured.settings);
    row.fitted = fitted(measured.settings, row.unanswered);
    const RunRecord run = shardsim::run(resolve(measured.settings, library, overlay));
    row.label = fmt::format("{}, {} x {}, {}", run.model, run.gpus, run.topology, run.strategy);
    row.simulated = true;
    row.features = features(run);
    row.log_time_error = log_time_error(run.comparisons);
    row.out_of_memory = run.result.out_of_memory();
    if (row.out_of_memory)
      row.why = "out of memory in " + oom_place(*run.result.oom) + ": " + run.result.oom->tensor;
    for (const Comparison& c : run.comparisons) {
      if (c.metric == "fits") continue;
      row.comparisons.push_back(c);
      std::erase(row.unanswered, c.metric);
    }
  } catch (const InputError& error) {
    row.why = error.what();
  }
}

void check_column(const MeasuredRuns& table, const std::string& column, const std::string& option) {
  if (!table.has_column(column))
    throw InputError({option + " " + column}, fmt::format("{} has no such column{}", table.file(),
                                                          suggestion(column, table.columns())));
}

FitsSummary summarise_fits(const std::vector<ValidatedRow>& rows) {
  FitsSummary fits;
  for (const ValidatedRow& row : rows) {
    if (!row.simulated || !row.fitted) continue;
    ++fits.rows;
    if (*row.fitted == !row.out_of_memory)
      ++fits.right;
    else
      ++(*row.fitted ? fits.predicted_out_of_memory : fits.missed_out_of_memory);
  }
  return fits;
}

std::vector<std::string> metrics_of(const std::vector<const ValidatedRow*>& rows) {
  std::vector<std::string> metrics;
  const auto add = [&](const std::string& metric) {
    if (std::find(metrics.begin(), metrics.end(), metric) == metrics.end()) metrics.push_back(metric);
  };
  for (const ValidatedRow* row : rows) {
    for (const Comparison& c : row->comparisons) add(c.metric);
    for (const std::string& metric : row->unanswered) add(metric);
  }
  return metrics;
}

}  // namespace

std::optional<double> log_time_error(const std::vector<Comparison>& comparisons) {
  for (const std::string_view metric :
       {"step_time_s", "tokens_per_s_per_gpu", "tflops_per_gpu.model", "tflops_per_gpu.hardware"})
    for (const Comparison& c : comparisons)
      if (c.metric == metric) {
        const double log = std::log(c.predicted / c.measured);
        return metric == "step_time_s" ? log : -log;
      }
  return std::nullopt;
}

std::vector<Residual> residuals(const ValidateResult& result, const std::string& table) {
  std::vector<Residual> rows;
  for (const ValidatedRow& row : result.rows)
    if (row.log_time_error) rows.push_back({row.id, table, row.quality, row.features, *row.log_time_error});
  return rows;
}

std::string_view status(const ValidatedRow& row) {
  return !row.simulated ? "failed" : row.out_of_memory ? "oom" : "ok";
}

MetricSummary summarise(const std::string& metric, const std::vector<const ValidatedRow*>& rows) {
  MetricSummary s{.metric = metric, .group = {}};
  std::vector<double> errors, sizes, predicted, measured;
  for (const ValidatedRow* row : rows) {
    s.rows += std::count(row->unanswered.begin(), row->unanswered.end(), metric);
    for (const Comparison& c : row->comparisons) {
      if (c.metric != metric) continue;
      ++s.rows;
      errors.push_back(c.error());
      sizes.push_back(std::abs(c.error()));
      predicted.push_back(c.predicted);
      measured.push_back(c.measured);
    }
  }
  s.simulated = static_cast<std::int64_t>(errors.size());
  if (errors.empty()) return s;
  s.mean_abs_error = mean(sizes);
  s.median_abs_error = median(sizes);
  s.bias = mean(errors);
  s.p90_abs_error = quantile(sizes, 0.90);
  s.p95_abs_error = quantile(sizes, 0.95);
  s.spearman = spearman(predicted, measured);
  return s;
}

ValidateResult validate(const MeasuredRuns& table, const ValidateOptions& options, const Library& library,
                        const std::function<void(std::size_t, std::size_t)>& progress) {
  if (!options.by.empty()) check_column(table, options.by, "--by");
  for (const auto& [column, text] : options.where) check_column(table, column, "--where");
  std::vector<std::size_t> chosen;
  for (std::size_t i = 0; i < table.size(); ++i)
    if (std::all_of(options.where.begin(), options.where.end(), [&](const auto& condition) {
          return table.cell(i, condition.first) == condition.second;
        }))
      chosen.push_back(i);
  if (chosen.empty()) throw InputError({table.file()}, "no row matches --where");

  ValidateResult result{.file = table.file(), .by = options.by, .rows = {}, .summary = {}, .fits = {}};
  result.rows.resize(chosen.size());
  in_parallel(
      chosen.size(),
      [&](std::size_t i) {
        simulate_row(result.rows[i], table, chosen[i], library, options.overlay);
        if (!options.by.empty()) result.rows[i].group = table.cell(chosen[i], options.by);
      },
      [&](std::size_t, std::size_t done) { progress(done, chosen.size()); });

  std::vector<const ValidatedRow*> all;
  std::vector<std::string> groups;
  for (const ValidatedRow& row : result.rows) {
    all.push_back(&row);
    if (!row.simulated) ++result.failed;
    if (std::find(groups.begin(), groups.end(), row.group) == groups.end()) groups.push_back(row.group);
  }
  if (result.failed == static_cast<std::int64_t>(all.size())) throw InputError({}, all.front()->why);
  for (const std::string& metric : metrics_of(all)) result.summary.push_back(summarise(metric, all));
  if (!options.by.empty())
    for (const std::string& group : groups) {
      std::vector<const ValidatedRow*> members;
      std::copy_if(all.begin(), all.end(), std::back_inserter(members),
                   [&](const ValidatedRow* row) { return row->group == group; });
      for (const std::string& metric : metrics_of(members)) {
        result.summary.push_back(summarise(metric, members));
        result.summary.back().group = group.empty() ? "(empty)" : group;
      }
    }
  result.fits = summarise_fits(result.rows);
  return result;
}

}  // namespace shardsim
