// What would have made a run fit: changes of its scenario, each with what the simulation made of it.
#pragma once

#include <string>
#include <vector>

#include "sim/base/scalar.h"
#include "sim/base/units.h"

namespace shardsim {

struct Change {
  std::string key;  // of the scenario, dotted
  Scalar value;
};

struct WouldFit {
  std::vector<Change> change;  // one key, if that is enough, and those that have to follow it
  Time step_time;
  double tokens_per_s_per_gpu = 0;
  double cost = 0;  // share of the throughput lost against the unchanged scenario on GPUs of unlimited memory
  Bytes peak_reserved;
};

// The largest change of its kind, and still out of memory.
struct DoesNotHelp {
  std::vector<Change> change;
  std::string dies_in;  // "step 1, backward / decoder 17"
  Bytes live;           // tensors that would have to be live at once
};

struct OomAdvice {
  double unlimited_tokens_per_s_per_gpu = 0;  // of the unchanged scenario, were memory unlimited
  std::vector<WouldFit> would_fit;            // the cheapest first
  std::vector<DoesNotHelp> tried;
};

}  // namespace shardsim
