// Physical constants from measured runs: the values with which simulated step times agree best with measured
// ones, how sure they are, and how far the fit is off on rows it has not seen.
//   method      residual = ln(simulated / measured step time); Huber's loss; constants stay within physical
//               bounds by a logit; numerical Jacobian; rows simulated on all cores, each setting once
//   leaves out  memory figures, priors on the constants, prices of a wrong model structure
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "sim/scenario/constants.h"
#include "sim/scenario/measured_runs.h"

namespace shardsim {

struct FittedConstant {
  FreeConstant constant;
  double after = 0;
  double standard_error = 0, low95 = 0, high95 = 0;
  bool at_low = false, at_high = false;  // within 1% of a bound
};
struct RefusedConstant {
  FreeConstant constant;
  std::string why;
};
struct ConfoundedPair {
  std::string a, b;
  double correlation = 0;  // of the estimates
};
// Mean |error| of rows that a fit has not seen, with the constants of the files and with those of that fit.
struct HeldOut {
  std::string name;
  std::int64_t rows = 0;
  double before = 0, after = 0;
};

struct CalibrateResult {
  std::string file;
  std::int64_t rows = 0;                                       // used
  std::vector<std::pair<std::string, std::int64_t>> excluded;  // reason, rows
  std::vector<FittedConstant> constants;
  std::vector<RefusedConstant> refused;
  std::vector<ConfoundedPair> confounded;  // |correlation| of 0.95 or more
  double before = 0, after = 0;            // mean |error| of the rows used
  double median_before = 0, median_after = 0;
  double scale = 0;               // robust standard deviation of the residuals that are left
  double condition = 0;           // condition index at the fit
  std::int64_t downweighted = 0;  // rows with less than half their weight
  std::optional<HeldOut> folds;
  int fold_count = 0;
  std::string group;  // column
  std::vector<HeldOut> groups;
  std::optional<HeldOut> all_groups, many_nodes;  // many_nodes: fitted on rows of one node
  std::int64_t simulations = 0;
  int rounds = 0;
  bool converged = false;
};

struct CalibrateOptions {
  std::string free;             // keys, with commas
  std::string group = "model";  // "model", or a column of the table
  int folds = 5;
  std::uint64_t seed = 1;  // of the folds
};

// Throws InputError for unknown keys or columns, and if no constant or too few rows are left. Folds and
// groups are refitted on the linearised simulation around the fit; the rows left out are simulated.
CalibrateResult calibrate(const MeasuredRuns& table, const CalibrateOptions& options, const Library& library,
                          const std::function<void(const std::string&)>& progress);

}  // namespace shardsim
