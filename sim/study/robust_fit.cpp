#include "sim/study/robust_fit.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <unsupported/Eigen/NonLinearOptimization>

#include "sim/study/statistics.h"

namespace shardsim {
namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr double difference_step = 0.02;  // wide enough to smooth the kinks of overlap and of NCCL's choices
constexpr double scale_min = 1e-5;        // residuals of an exact fit are rounding
constexpr int rounds_max = 12;
constexpr double settled = 2e-3;

// What Eigen's Levenberg-Marquardt asks for: residuals times the roots of their weights.
struct Weighted {
  const ResidualsAt& residuals;
  VectorXd roots;

  int values() const { return static_cast<int>(roots.size()); }
  int operator()(const VectorXd& x, VectorXd& f) const {
    f = roots.cwiseProduct(residuals({x}).front());
    return 0;
  }
  int df(const VectorXd& x, MatrixXd& j) const {
    j = roots.asDiagonal() * jacobian(residuals, x);
    return 0;
  }
};

MatrixXd scaled_columns(const MatrixXd& jacobian) {
  MatrixXd scaled = jacobian;
  for (Eigen::Index c = 0; c < scaled.cols(); ++c)
    if (const double norm = scaled.col(c).norm(); norm > 0) scaled.col(c) /= norm;
  return scaled;
}

MatrixXd only(const MatrixXd& m, const std::vector<std::size_t>& columns) {
  MatrixXd part(m.rows(), static_cast<Eigen::Index>(columns.size()));
  for (std::size_t c = 0; c < columns.size(); ++c)
    part.col(static_cast<Eigen::Index>(c)) = m.col(static_cast<Eigen::Index>(columns[c]));
  return part;
}

}  // namespace

MatrixXd jacobian(const ResidualsAt& residuals, const VectorXd& at) {
  std::vector<VectorXd> points;
  for (Eigen::Index c = 0; c < at.size(); ++c)
    for (const double sign : {-1.0, 1.0}) {
      points.push_back(at);
      points.back()[c] += sign * difference_step;
    }
  const std::vector<VectorXd> values = residuals(points);
  MatrixXd j(values.front().size(), at.size());
  for (Eigen::Index c = 0; c < at.size(); ++c)
    j.col(c) = (values[static_cast<std::size_t>(2 * c + 1)] - values[static_cast<std::size_t>(2 * c)]) /
               (2 * difference_step);
  return j;
}

double robust_scale(const VectorXd& residuals) {
  std::vector<double> r(residuals.data(), residuals.data() + residuals.size());
  const double middle = median(r);
  for (double& x : r) x = std::abs(x - middle);
  return std::max(scale_min, 1.4826 * median(r));
}

VectorXd huber_weights(const VectorXd& residuals, double scale) {
  return residuals.unaryExpr(
      [&](double r) { return std::min(1.0, 1.345 * scale / std::max(std::abs(r), 1e-300)); });
}

RobustFit robust_fit(const ResidualsAt& residuals, const VectorXd& start) {
  RobustFit fit;
  fit.at = start;
  fit.residuals = residuals({start}).front();
  for (fit.rounds = 1; fit.rounds <= rounds_max; ++fit.rounds) {
    fit.scale = robust_scale(fit.residuals);
    fit.weights = huber_weights(fit.residuals, fit.scale);
    Weighted problem{residuals, fit.weights.cwiseSqrt()};
    Eigen::LevenbergMarquardt<Weighted> solver(problem);
    solver.parameters.maxfev = 15;
    solver.parameters.ftol = solver.parameters.xtol = 1e-5;
    solver.parameters.factor = 1;  // first steps of about one unit: the simulation is no straight line
    VectorXd next = fit.at;
    solver.minimize(next);
    const double moved = (next - fit.at).cwiseAbs().maxCoeff();
    fit.at = next;
    fit.residuals = residuals({next}).front();
    fit.converged = moved < settled;
    if (fit.converged) break;
  }
  fit.scale = robust_scale(fit.residuals);
  fit.weights = huber_weights(fit.residuals, fit.scale);
  fit.jacobian = jacobian(residuals, fit.at);
  const MatrixXd normal = fit.jacobian.transpose() * fit.weights.asDiagonal() * fit.jacobian;
  const double rows = static_cast<double>(fit.jacobian.rows()), columns = static_cast<double>(fit.at.size());
  fit.covariance = fit.scale * fit.scale * (rows / std::max(1.0, rows - columns)) *
                   normal.completeOrthogonalDecomposition().pseudoInverse();
  return fit;
}

VectorXd linear_refit(const RobustFit& fit, const VectorXd& start, const std::vector<std::size_t>& rows) {
  MatrixXd j(static_cast<Eigen::Index>(rows.size()), fit.at.size());
  VectorXd r(j.rows());
  for (Eigen::Index i = 0; i < j.rows(); ++i) {
    const auto row = static_cast<Eigen::Index>(rows[static_cast<std::size_t>(i)]);
    j.row(i) = fit.jacobian.row(row);
    r[i] = fit.residuals[row];
  }
  VectorXd x = fit.at;
  for (int round = 0; round < 20; ++round) {
    const VectorXd now = r + j * (x - fit.at);
    const VectorXd w = huber_weights(now, robust_scale(now));
    MatrixXd normal = j.transpose() * w.asDiagonal() * j;
    const VectorXd right = j.transpose() * w.asDiagonal() * (j * fit.at - r);
    const double ridge = 1e-6 * std::max(normal.diagonal().maxCoeff(), 1e-12);
    normal.diagonal().array() += ridge;
    const VectorXd next = normal.ldlt().solve(right + ridge * start);
    const double moved = (next - x).cwiseAbs().maxCoeff();
    x = next;
    if (moved < 1e-6) break;
  }
  return x;
}

double condition_index(const MatrixXd& jacobian) {
  const VectorXd s = Eigen::JacobiSVD<MatrixXd>(scaled_columns(jacobian)).singularValues();
  return s[s.size() - 1] > 0 ? s[0] / s[s.size() - 1] : 1e300;
}

std::vector<Unidentified> unidentified(const MatrixXd& jacobian) {
  std::vector<Unidentified> out;
  std::vector<std::size_t> left(static_cast<std::size_t>(jacobian.cols()));
  std::iota(left.begin(), left.end(), std::size_t{0});
  const double largest = jacobian.colwise().norm().maxCoeff();
  std::erase_if(left, [&](std::size_t c) {
    const double norm = jacobian.col(static_cast<Eigen::Index>(c)).norm();
    const double relative = largest > 0 ? norm / largest : 0;
    if (relative < relative_norm_min) out.push_back({c, c, relative, 0});
    return relative < relative_norm_min;
  });
  while (left.size() > 1) {
    const MatrixXd part = only(jacobian, left);
    const double condition = condition_index(part);
    if (condition <= condition_index_max) break;
    const Eigen::JacobiSVD<MatrixXd> svd(scaled_columns(part), Eigen::ComputeThinV);
    const VectorXd weak = svd.matrixV().col(part.cols() - 1).cwiseAbs();
    Eigen::Index a = 0, b = 0;  // the two that make up most of the weak direction
    weak.maxCoeff(&a);
    VectorXd rest = weak;
    rest[a] = -1;
    rest.maxCoeff(&b);
    if (part.col(a).norm() > part.col(b).norm()) std::swap(a, b);
    out.push_back({left[static_cast<std::size_t>(a)], left[static_cast<std::size_t>(b)], 0, condition});
    left.erase(left.begin() + a);
  }
  return out;
}

}  // namespace shardsim
