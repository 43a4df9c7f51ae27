// How far from measured runs: a table of them (scenario/measured_runs.h) simulated row by row.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "sim/result/record.h"
#include "sim/scenario/library.h"
#include "sim/scenario/measured_runs.h"
#include "sim/study/confidence.h"

namespace shardsim {

struct ValidatedRow {
  std::string id, source, quality;
  std::vector<std::pair<std::string, std::string>> carried;  // the table's x.* columns with the row's texts
  std::string group;                                         // of ValidateOptions::by
  std::string label;                                         // what ran, in a few words
  std::string why;  // a row that cannot be simulated, or where memory runs out: the reason
  bool simulated = false, out_of_memory = false;
  std::vector<Comparison> comparisons;  // without `fits`
  std::vector<std::string> unanswered;  // metrics measured and not predicted
  std::optional<bool> fitted;           // what was measured; a row with any figure ran
  RunFeatures features;                 // of a simulated row
  std::optional<double>
      log_time_error;  // ln(predicted / measured step time), of the first metric that has it
};

struct MetricSummary {
  std::string metric, group;
  std::int64_t rows = 0, simulated = 0;  // with a measurement; of those with a prediction
  // Of (predicted - measured) / measured; 0 if nothing was predicted.
  double mean_abs_error = 0, median_abs_error = 0, bias = 0, p90_abs_error = 0, p95_abs_error = 0;
  double spearman = 0;  // rank correlation of predicted and measured
};

struct FitsSummary {
  std::int64_t rows = 0, right = 0;                                    // with a measurement and a prediction
  std::int64_t predicted_out_of_memory = 0, missed_out_of_memory = 0;  // though it ran; though it did not
};

struct ValidateResult {
  std::string file;
  std::string by;                      // column of the groups, "" = none
  std::vector<ValidatedRow> rows;      // in the order of the table
  std::vector<MetricSummary> summary;  // over all rows, metrics in order of first appearance; then by group
  FitsSummary fits;
  std::int64_t failed = 0;  // rows that could not be simulated
};

struct ValidateOptions {
  std::string by;                                          // a column of the table: summaries per value, too
  std::vector<std::pair<std::string, std::string>> where;  // only rows whose column has this text
  Overlay overlay{};                                       // constants for all rows
};

// A row that is wrong or cannot be simulated says why and the rest go on. Throws InputError for the table as
// a whole, for an unknown column in `options`, and, with its reason, when no row at all can be simulated.
// `progress` is called from any thread, one call at a time, with how many rows are done and how many there
// are.
ValidateResult validate(const MeasuredRuns& table, const ValidateOptions& options, const Library& library,
                        const std::function<void(std::size_t, std::size_t)>& progress);

// ln(predicted / measured step time) by the first that there is of step time, tokens per second and TFLOPS.
std::optional<double> log_time_error(const std::vector<Comparison>& comparisons);

// Of the rows that have a measured time and a simulated one.
std::vector<Residual> residuals(const ValidateResult& result, const std::string& table);

// "ok", "oom" or "failed".
std::string_view status(const ValidatedRow& row);

// The mean, median, ... of the rows of one metric.
MetricSummary summarise(const std::string& metric, const std::vector<const ValidatedRow*>& rows);

}  // namespace shardsim
