// Small statistics of samples. Requires: not empty, unless said otherwise.
#pragma once

#include <span>
#include <vector>

namespace shardsim {

double mean(std::span<const double> x);
// Of the sorted sample, with linear interpolation between neighbours; 0 <= share <= 1.
double quantile(std::vector<double> x, double share);
inline double median(std::vector<double> x) { return quantile(std::move(x), 0.5); }
// Rank correlation, ties sharing their mean rank; 0 for fewer than two pairs or a constant side.
double spearman(std::span<const double> x, std::span<const double> y);

}  // namespace shardsim
