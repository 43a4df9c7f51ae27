// Robust nonlinear least squares: Huber's loss by iteratively reweighted Levenberg-Marquardt (MINPACK's, in
// Eigen), what the data can tell of each parameter, and refits without some of the rows. The door to Eigen:
// include only in .cpp files of this room.
//   Huber, Robust Statistics, 1981; Belsley, Kuh, Welsch, Regression Diagnostics, 1980 (condition indices)
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <Eigen/Dense>

namespace shardsim {

// The residuals at several points at once, so that they can be computed in parallel.
using ResidualsAt = std::function<std::vector<Eigen::VectorXd>(const std::vector<Eigen::VectorXd>&)>;

// Central differences with this step.
Eigen::MatrixXd jacobian(const ResidualsAt& residuals, const Eigen::VectorXd& at);

// 1.4826 times the median absolute deviation from the median: the standard deviation of normal residuals.
double robust_scale(const Eigen::VectorXd& residuals);
// 1 for residuals within 1.345 scales, less beyond (Huber: 95% efficient if they are normal).
Eigen::VectorXd huber_weights(const Eigen::VectorXd& residuals, double scale);

struct RobustFit {
  Eigen::VectorXd at, residuals, weights;
  Eigen::MatrixXd jacobian, covariance;  // at the solution
  double scale = 0;
  int rounds = 0;
  bool converged = false;
};
RobustFit robust_fit(const ResidualsAt& residuals, const Eigen::VectorXd& start);

// The robust solution of residuals + jacobian * (x - at) over some of the rows. Directions that those rows do
// not see stay at `start`.
Eigen::VectorXd linear_refit(const RobustFit& fit, const Eigen::VectorXd& start,
                             const std::vector<std::size_t>& rows);

// What a column of a Jacobian is to the others.
inline constexpr double relative_norm_min = 1e-3;    // of the largest column
inline constexpr double condition_index_max = 30.0;  // Belsley, Kuh, Welsch: strong dependence
struct Unidentified {
  std::size_t column = 0;
  std::size_t with = 0;      // the column it is confounded with
  double relative_norm = 0;  // below the minimum, or
  double condition = 0;      // above the maximum
};
// Columns to leave out, one after the other, so that what is left can be told apart.
std::vector<Unidentified> unidentified(const Eigen::MatrixXd& jacobian);
double condition_index(const Eigen::MatrixXd& jacobian);  // of the columns scaled to length 1

}  // namespace shardsim
