#include <fmt/format.h>

#include "sim/report/numbers.h"
#include "sim/report/table.h"
#include "sim/report/text.h"

namespace shardsim {
namespace {

std::string figure(double x) { return fmt::format("{:.4g}", x); }

std::string bound(const FittedConstant& c) {
  return c.at_low ? "at its lower bound" : c.at_high ? "at its upper bound" : "";
}

void add_row(Table& table, const HeldOut& h) {
  table.rows.push_back({h.name, with_commas(h.rows), percent(h.before), percent(h.after)});
}

// Six digits: finer than any confidence interval, and the same on every machine.
double written(double x) { return std::stod(fmt::format("{:.6g}", x)); }

}  // namespace

std::string to_text(const CalibrateResult& result) {
  Table constants{{"constant", "unit", "before", "after", "standard\nerror", "95% interval\nlow", "\nhigh",
                   "bounds\nlow", "\nhigh", "remarks"},
                  {}};
  for (const FittedConstant& c : result.constants)
    constants.rows.push_back({c.constant.key, std::string(c.constant.unit), figure(c.constant.value),
                              figure(c.after), figure(c.standard_error), figure(c.low95), figure(c.high95),
                              figure(c.constant.low), figure(c.constant.high), bound(c)});
  std::string out = to_text(constants);
  for (const RefusedConstant& r : result.refused)
    out += fmt::format("not fitted: {} = {}: {}\n", r.constant.key, figure(r.constant.value), r.why);
  for (const ConfoundedPair& p : result.confounded)
    out += fmt::format("hard to tell apart: {} and {}, correlation {:+.3f}\n", p.a, p.b, p.correlation);

  Table errors{{"mean |error| of the step time", "rows", "before", "after"}, {}};
  add_row(errors, {"rows of the fit", result.rows, result.before, result.after});
  if (result.folds)
    add_row(errors, {"left out, " + result.folds->name, result.folds->rows, result.folds->before,
                     result.folds->after});
  if (result.all_groups)
    add_row(errors, {fmt::format("left out, one {} at a time", result.group), result.all_groups->rows,
                     result.all_groups->before, result.all_groups->after});
  for (const HeldOut& g : result.groups) add_row(errors, {"  " + g.name, g.rows, g.before, g.after});
  if (result.many_nodes) add_row(errors, *result.many_nodes);
  out += "\n" + to_text(errors);
  out += fmt::format("median |error|: {} before, {} after; residuals left: {} (robust standard deviation)\n",
                     percent(result.median_before), percent(result.median_after), percent(result.scale));
  if (result.downweighted > 0)
    out += fmt::format("{} rows far from the fit count less than half (Huber)\n", result.downweighted);
  for (const auto& [reason, rows] : result.excluded)
    out += fmt::format("{} rows excluded: {}\n", rows, reason);
  out += fmt::format("{} in {} rounds, {} simulations; condition index {:.3g}\n",
                     result.converged ? "converged" : "NOT converged", result.rounds,
                     with_commas(result.simulations), result.condition);
  return out;
}

std::string to_overlay(const CalibrateResult& result) {
  std::vector<FreeConstant> constants;
  std::vector<double> values;
  std::vector<std::string> comments;
  for (const FittedConstant& c : result.constants) {
    constants.push_back(c.constant);
    values.push_back(written(c.after));
    comments.push_back(fmt::format("  # {}; was {}; 95%: {} to {}{}", c.constant.unit,
                                   figure(c.constant.value), figure(c.low95), figure(c.high95),
                                   bound(c).empty() ? "" : "; " + bound(c)));
  }
  std::string out = fmt::format(
      "# Fitted by `shardsim calibrate` to {} runs of {}: mean |error| of the step time {} before, {} after",
      result.rows, result.file, percent(result.before), percent(result.after));
  if (result.all_groups)
    out += fmt::format(", {} on runs left out, one {} at a time", percent(result.all_groups->after),
                       result.group);
  out += ".\n";
  for (const RefusedConstant& r : result.refused)
    out += fmt::format("# Not fitted: {}: {}.\n", r.constant.key, r.why);
  return out + "\n" + overlay_text(constants, values, comments);
}

std::string constants_text(const std::vector<FreeConstant>& constants) {
  Table table{{"constant", "value", "low", "high", "unit", "meaning"}, {}};
  for (const FreeConstant& c : constants)
    table.rows.push_back(
        {c.key, figure(c.value), figure(c.low), figure(c.high), std::string(c.unit), std::string(c.meaning)});
  return to_text(table);
}

}  // namespace shardsim
