#include "sim/study/calibrate.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include <fmt/format.h>

#include "sim/base/random.h"
#include "sim/engine/parallel.h"
#include "sim/scenario/scenario.h"
#include "sim/study/robust_fit.h"
#include "sim/study/statistics.h"
#include "sim/study/validate.h"

namespace shardsim {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr double logit_max = 8;      // 0.03% from a bound
constexpr double logit_start = 4.5;  // a start at a bound must be able to leave it
constexpr double near_bound = 0.01;  // of the range
constexpr double confounded_at = 0.95;

// --- bounds: a constant is low + (high - low) * logistic(u), or the same in logarithms ---

double to_u(const FreeConstant& c, double value) {
  const double low = c.decades ? std::log(c.low) : c.low, high = c.decades ? std::log(c.high) : c.high;
  const double x = c.decades ? std::log(std::max(value, c.low)) : value;
  const double share = std::clamp((x - low) / (high - low), 1e-6, 1 - 1e-6);
  return std::clamp(std::log(share / (1 - share)), -logit_start, logit_start);
}
double to_value(const FreeConstant& c, double u) {
  const double low = c.decades ? std::log(c.low) : c.low, high = c.decades ? std::log(c.high) : c.high;
  const double x = low + (high - low) / (1 + std::exp(-std::clamp(u, -logit_max, logit_max)));
  return c.decades ? std::exp(x) : x;
}
double slope(const FreeConstant& c, double u) {
  return (to_value(c, u + 1e-4) - to_value(c, u - 1e-4)) / 2e-4;
}
double place_in_bounds(double u) { return 1 / (1 + std::exp(-u)); }

// --- rows ---

struct Row {
  Settings settings;
  std::string id, group;
  std::vector<std::size_t> depends_on;  // constants of its GPU, stack, transport and topology
  double before = 0;                    // ln(simulated / measured) with the constants of the files
  bool one_node = false;
};

std::vector<std::size_t> constants_of(const Scenario& s, const std::string& topology,
                                      const std::vector<FreeConstant>& constants) {
  std::vector<std::size_t> used;
  for (std::size_t k = 0; k < constants.size(); ++k) {
    const FreeConstant& c = constants[k];
    const bool uses = c.section == "gpu"         ? c.file == s.gpu.name
                      : c.section == "stack"     ? c.file == s.stack.name
                      : c.section == "transport" ? c.file == s.topology.node.transport.name
                                                 : c.file == topology;
    if (uses) used.push_back(k);
  }
  return used;
}

struct Candidate {
  Row row;
  std::string excluded;  // why
};

Candidate candidate(const MeasuredRuns& table, std::size_t index, const CalibrateOptions& options,
                    const std::vector<FreeConstant>& constants, const Library& library) {
  Candidate c;
  c.row.id = table.id(index);
  if (const std::string quality = table.cell(index, "quality"); !trusted(quality)) {
    c.excluded = fmt::format("quality \"{}\"", quality);
    return c;
  }
  try {
    const MeasuredRun measured = table.run(index);
    const Scenario scenario = resolve(measured.settings, library);
    const RunRecord run = shardsim::run(scenario);
    const std::optional<double> error = log_time_error(run.comparisons);
    const Setting* topology = measured.settings.find("topology");
    c.excluded = run.result.out_of_memory() ? "simulated: out of memory"
                 : !error                   ? "no measured time or rate"
                                            : "";
    c.row.settings = measured.settings;
    c.row.group = options.group == "model" ? features(run).model : table.cell(index, options.group);
    c.row.depends_on =
        constants_of(scenario, topology ? std::get<std::string>(topology->value) : "", constants);
    c.row.before = error.value_or(0);
    c.row.one_node = scenario.gpus <= scenario.topology.node.gpus;
  } catch (const InputError&) {
    c.excluded = "cannot be simulated (`shardsim validate` says why)";
  }
  return c;
}

// --- simulations ---

// ln(simulated / measured) of rows under settings of the constants, each simulated once.
class Simulations {
 public:
  Simulations(const std::vector<Row>& rows, const std::vector<FreeConstant>& constants,
              const Library& library, const std::function<void(const std::string&)>& progress)
      : rows_(rows), constants_(constants), library_(library), progress_(progress), known_(rows.size()) {}

  std::vector<VectorXd> at(const std::vector<VectorXd>& points) {
    std::vector<std::size_t> all(rows_.size());
    std::iota(all.begin(), all.end(), std::size_t{0});
    simulate(points, all);
    std::vector<VectorXd> residuals(points.size(), VectorXd(static_cast<Eigen::Index>(rows_.size())));
    for (std::size_t p = 0; p < points.size(); ++p)
      for (std::size_t i = 0; i < rows_.size(); ++i)
        residuals[p][static_cast<Eigen::Index>(i)] = known_[i].at(values_of(i, points[p]));
    return residuals;
  }
  double one(const VectorXd& point, std::size_t row) const { return known_[row].at(values_of(row, point)); }
  void simulate(const std::vector<VectorXd>& points, const std::vector<std::size_t>& rows) {
    std::vector<Task> tasks;
    for (const VectorXd& point : points)
      for (const std::size_t i : rows)
        if (const auto values = values_of(i, point); !known_[i].count(values)) {
          known_[i].emplace(values, 0.0);
          tasks.push_back({i, values});
        }
    in_parallel(tasks.size(), [&](std::size_t t) { tasks[t].residual = residual(tasks[t]); });
    for (const Task& task : tasks) known_[task.row][task.values] = task.residual;
    count_ += static_cast<std::int64_t>(tasks.size());
    progress_(fmt::format("{} simulations", count_));
  }
  std::int64_t count() const { return count_; }

 private:
  struct Task {
    std::size_t row;
    std::vector<double> values;  // of the constants that the row depends on
    double residual = 0;
  };
  std::vector<double> values_of(std::size_t row, const VectorXd& point) const {
    std::vector<double> values;
    for (const std::size_t k : rows_[row].depends_on)
      values.push_back(to_value(constants_[k], point[static_cast<Eigen::Index>(k)]));
    return values;
  }
  double residual(const Task& task) const {
    const Row& row = rows_[task.row];
    if (task.values.empty()) return row.before;
    std::vector<FreeConstant> constants;
    for (const std::size_t k : row.depends_on) constants.push_back(constants_[k]);
    const RunRecord run = shardsim::run(resolve(row.settings, library_, overlay_of(constants, task.values)));
    return log_time_error(run.comparisons).value_or(row.before);  // out of memory: tells nothing of time
  }

  const std::vector<Row>& rows_;
  const std::vector<FreeConstant>& constants_;
  const Library& library_;
  const std::function<void(const std::string&)>& progress_;
  std::vector<std::map<std::vector<double>, double>> known_;
  std::int64_t count_ = 0;
};

// --- errors ---

// (predicted - measured) / measured of the step time.
double size(double log_error) { return std::abs(std::expm1(log_error)); }

HeldOut held_out(const std::string& name, const std::vector<Row>& rows, const std::vector<std::size_t>& out,
                 const RobustFit& fit, const VectorXd& start, Simulations& simulations) {
  std::vector<std::size_t> in;
  for (std::size_t i = 0; i < rows.size(); ++i)
    if (std::find(out.begin(), out.end(), i) == out.end()) in.push_back(i);
  HeldOut result{.name = name, .rows = static_cast<std::int64_t>(out.size())};
  const VectorXd at = in.empty() ? start : linear_refit(fit, start, in).eval();
  simulations.simulate({at}, out);
  for (const std::size_t i : out) {
    result.before += size(rows[i].before) / static_cast<double>(out.size());
    result.after += size(simulations.one(at, i)) / static_cast<double>(out.size());
  }
  return result;
}

HeldOut sum(const std::string& name, const std::vector<HeldOut>& parts) {
  HeldOut all{.name = name};
  for (const HeldOut& p : parts) {
    all.rows += p.rows;
    all.before += p.before * static_cast<double>(p.rows);
    all.after += p.after * static_cast<double>(p.rows);
  }
  all.before /= static_cast<double>(all.rows);
  all.after /= static_cast<double>(all.rows);
  return all;
}

std::vector<std::size_t> shuffled(std::size_t n, std::uint64_t seed) {
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), std::size_t{0});
  Random random(seed);
  for (std::size_t i = n; i > 1; --i)
    std::swap(order[i - 1],
              order[static_cast<std::size_t>(random.between(0, static_cast<std::int64_t>(i) - 1))]);
  return order;
}

void leave_out(CalibrateResult& result, const std::vector<Row>& rows, const CalibrateOptions& options,
               const RobustFit& fit, const VectorXd& start, Simulations& simulations) {
  const auto folds = std::min(static_cast<std::size_t>(options.folds), rows.size());
  if (folds >= 2) {
    const std::vector<std::size_t> order = shuffled(rows.size(), options.seed);
    std::vector<HeldOut> parts;
    for (std::size_t f = 0; f < folds; ++f) {
      std::vector<std::size_t> out;
      for (std::size_t i = f; i < order.size(); i += folds) out.push_back(order[i]);
      std::sort(out.begin(), out.end());
      parts.push_back(held_out("", rows, out, fit, start, simulations));
    }
    result.folds = sum(fmt::format("{} folds", folds), parts);
    result.fold_count = static_cast<int>(folds);
  }
  std::vector<std::string> groups;
  for (const Row& row : rows)
    if (std::find(groups.begin(), groups.end(), row.group) == groups.end()) groups.push_back(row.group);
  if (groups.size() >= 2) {
    for (const std::string& group : groups) {
      std::vector<std::size_t> out;
      for (std::size_t i = 0; i < rows.size(); ++i)
        if (rows[i].group == group) out.push_back(i);
      result.groups.push_back(
          held_out(group.empty() ? "(empty)" : group, rows, out, fit, start, simulations));
    }
    result.all_groups = sum("each group left out", result.groups);
  }
  std::vector<std::size_t> many;
  for (std::size_t i = 0; i < rows.size(); ++i)
    if (!rows[i].one_node) many.push_back(i);
  const std::size_t few = rows.size() - many.size();
  if (!many.empty() && few > static_cast<std::size_t>(start.size()))
    result.many_nodes =
        held_out("fitted on one node, several nodes predicted", rows, many, fit, start, simulations);
}

// Drops the constants that the rows cannot tell.
void refuse(CalibrateResult& result, std::vector<FreeConstant>& constants, const MatrixXd& at_start) {
  const std::vector<Unidentified> lost = unidentified(at_start);
  for (const Unidentified& u : lost) {
    const std::string why =
        u.with != u.column
            ? fmt::format(
                  "cannot be told from {}: condition index {} (at most {:.0f})", constants[u.with].key,
                  u.condition > 1e6 ? "beyond 1e6" : fmt::format("{:.0f}", u.condition), condition_index_max)
        : u.relative_norm == 0
            ? std::string("no row's step time depends on it")
            : fmt::format("step times hardly depend on it: {:.1e} of the most influential (at least {:.0e})",
                          u.relative_norm, relative_norm_min);
    result.refused.push_back({constants[u.column], why});
  }
  for (const RefusedConstant& r : result.refused)
    std::erase_if(constants, [&](const FreeConstant& c) { return c.key == r.constant.key; });
  if (constants.empty()) {
    std::string list;
    for (const RefusedConstant& r : result.refused)
      list += (list.empty() ? " " : "; ") + r.constant.key + ": " + r.why;
    throw InputError({"--free"}, fmt::format("{} can tell none of these constants:{}", result.file, list));
  }
}

VectorXd start_of(const std::vector<FreeConstant>& constants) {
  VectorXd start(static_cast<Eigen::Index>(constants.size()));
  for (std::size_t k = 0; k < constants.size(); ++k)
    start[static_cast<Eigen::Index>(k)] = to_u(constants[k], constants[k].value);
  return start;
}

void report(CalibrateResult& result, const std::vector<FreeConstant>& constants, const RobustFit& fit) {
  for (std::size_t k = 0; k < constants.size(); ++k) {
    const auto i = static_cast<Eigen::Index>(k);
    const double u = fit.at[i], error = std::sqrt(std::max(0.0, fit.covariance(i, i)));
    const double place = place_in_bounds(u);
    result.constants.push_back({.constant = constants[k],
                                .after = to_value(constants[k], u),
                                .standard_error = error * slope(constants[k], u),
                                .low95 = to_value(constants[k], u - 1.96 * error),
                                .high95 = to_value(constants[k], u + 1.96 * error),
                                .at_low = place<near_bound, .at_high = place> 1 - near_bound});
    for (std::size_t other = 0; other < k; ++other) {
      const auto o = static_cast<Eigen::Index>(other);
      const double both = std::sqrt(fit.covariance(i, i) * fit.covariance(o, o));
      const double correlation = both > 0 ? fit.covariance(i, o) / both : 0;
      if (std::abs(correlation) >= confounded_at)
        result.confounded.push_back({constants[other].key, constants[k].key, correlation});
    }
  }
}

}  // namespace

CalibrateResult calibrate(const MeasuredRuns& table, const CalibrateOptions& options, const Library& library,
                          const std::function<void(const std::string&)>& progress) {
  std::vector<FreeConstant> constants = free_constants(options.free, library);
  if (options.group != "model" && !table.has_column(options.group))
    throw InputError({"--group " + options.group}, fmt::format("{} has no such column{}", table.file(),
                                                               suggestion(options.group, table.columns())));
  if (options.folds < 0)
    throw InputError({fmt::format("--folds {}", options.folds)}, "0 or more is expected");

  CalibrateResult result;
  result.file = table.file();
  result.group = options.group;
  std::vector<Candidate> candidates(table.size());
  in_parallel(table.size(),
              [&](std::size_t i) { candidates[i] = candidate(table, i, options, constants, library); });
  std::vector<Row> rows;
  for (Candidate& c : candidates) {
    if (c.excluded.empty()) {
      rows.push_back(std::move(c.row));
      continue;
    }
    const auto reason = std::find_if(result.excluded.begin(), result.excluded.end(),
                                     [&](const auto& e) { return e.first == c.excluded; });
    if (reason == result.excluded.end())
      result.excluded.emplace_back(c.excluded, 1);
    else
      ++reason->second;
  }
  result.rows = static_cast<std::int64_t>(rows.size());
  if (rows.size() <= constants.size())
    throw InputError({table.file()},
                     fmt::format("{} rows with a measured time are too few to fit {} constants", rows.size(),
                                 constants.size()));
  {
    Simulations first(rows, constants, library, progress);
    const MatrixXd at_start =
        jacobian([&](const auto& points) { return first.at(points); }, start_of(constants));
    result.simulations = first.count() + static_cast<std::int64_t>(table.size());
    std::vector<FreeConstant> kept = constants;
    refuse(result, kept, at_start);
    for (Row& row : rows) {  // the numbers of the constants that are left
      std::vector<std::size_t> left;
      for (const std::size_t k : row.depends_on)
        for (std::size_t n = 0; n < kept.size(); ++n)
          if (kept[n].key == constants[k].key) left.push_back(n);
      row.depends_on = std::move(left);
    }
    constants = std::move(kept);
  }

  Simulations simulations(rows, constants, library, progress);
  const VectorXd start = start_of(constants);
  const RobustFit fit = robust_fit([&](const auto& points) { return simulations.at(points); }, start);
  report(result, constants, fit);
  std::vector<double> before, after;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    before.push_back(size(rows[i].before));
    after.push_back(size(fit.residuals[static_cast<Eigen::Index>(i)]));
  }
  result.before = mean(before);
  result.after = mean(after);
  result.median_before = median(before);
  result.median_after = median(after);
  result.scale = fit.scale;
  result.condition = condition_index(fit.jacobian);
  result.downweighted = (fit.weights.array() < 0.5).count();
  result.rounds = fit.rounds;
  result.converged = fit.converged;
  leave_out(result, rows, options, fit, start, simulations);
  result.simulations += simulations.count();
  return result;
}

}  // namespace shardsim
