#include <fmt/format.h>

#include "sim/report/numbers.h"
#include "sim/report/table.h"
#include "sim/report/text.h"

namespace shardsim {
namespace {

std::string figure(double x) {
  return std::abs(x) >= 1000 ? rounded(x)
         : std::abs(x) >= 10 ? fmt::format("{:.1f}", x)
                             : fmt::format("{:.4g}", x);
}

std::string signed_percent(double share) { return fmt::format("{:+.1f}%", 100 * share); }

Table rows_table(const ValidateResult& result) {
  Table table{{"id", "metric", "predicted", "measured", "error", "quality", "what ran, or why not"}, {}};
  for (const ValidatedRow& row : result.rows) {
    for (const Comparison& c : row.comparisons)
      table.rows.push_back({row.id, c.metric, figure(c.predicted), figure(c.measured),
                            signed_percent(c.error()), row.quality, row.label});
    if (!row.simulated || row.out_of_memory)
      table.rows.push_back({row.id, row.simulated ? "fits" : "-", row.simulated ? "oom" : "-",
                            !row.fitted   ? "-"
                            : *row.fitted ? "ran"
                                          : "oom",
                            "-", row.quality, row.why});
    else if (row.fitted == false)
      table.rows.push_back({row.id, "fits", "ok", "oom", "-", row.quality, row.label});
  }
  return table;
}

Table summary_table(const ValidateResult& result) {
  Table table{{"metric", result.by.empty() ? "" : result.by, "\nrows", "\nsimulated", "mean\n|error|",
               "median\n|error|", "\nbias", "p90\n|error|", "p95\n|error|", "rank\ncorrelation"},
              {}};
  for (const MetricSummary& s : result.summary)
    table.rows.push_back({s.metric, s.group.empty() && !result.by.empty() ? "(all)" : s.group,
                          with_commas(s.rows), with_commas(s.simulated), percent(s.mean_abs_error),
                          percent(s.median_abs_error), signed_percent(s.bias), percent(s.p90_abs_error),
                          percent(s.p95_abs_error), fmt::format("{:.3f}", s.spearman)});
  return table;
}

}  // namespace

std::string to_text(const ValidateResult& result) {
  std::string out = to_text(rows_table(result)) + "\n" + to_text(summary_table(result));
  const FitsSummary& f = result.fits;
  if (f.rows > 0)
    out += fmt::format(
        "\nfits: {} of {} rows right; {} ran though predicted out of memory, {} out of memory though "
        "predicted to fit\n",
        f.right, f.rows, f.predicted_out_of_memory, f.missed_out_of_memory);
  if (result.failed > 0) out += fmt::format("{} rows could not be simulated; each says why\n", result.failed);
  return out;
}

}  // namespace shardsim
