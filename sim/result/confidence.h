// How far a run's step time may be off, judged by measured runs like it.
#pragma once

#include <string>
#include <vector>

namespace shardsim {

struct Confidence {
  double step_time_low_s = 0, step_time_high_s = 0;
  double level = 0;  // share of validated rows that such an interval holds, aimed at
  std::string basis;
  std::string nearest_validated;
  std::vector<std::string> extrapolating;  // what no validated row has
};

}  // namespace shardsim
