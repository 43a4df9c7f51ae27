// Who owns the allocated bytes: totals by category, and how they stood at the peak.
#pragma once

#include "sim/base/category.h"
#include "sim/base/units.h"

namespace shardsim {

class Ledger {
 public:
  void add(Category c, Bytes b) {
    now_[static_cast<std::size_t>(c)] += b;
    total_ += b;
    if (total_ > peak_total_) {
      peak_total_ = total_;
      peak_ = now_;
    }
  }
  void remove(Category c, Bytes b) {
    now_[static_cast<std::size_t>(c)] -= b;
    total_ -= b;
  }
  const ByCategory& now() const { return now_; }
  const ByCategory& at_peak() const { return peak_; }  // the first instant of the highest total

 private:
  ByCategory now_{}, peak_{};
  Bytes total_, peak_total_;
};

}  // namespace shardsim
