// Max-min fair sharing of link capacity, in integers.
//
// Each flow consists of `channels` equal channels; on a link that carries `weight` of them it uses
// weight / channels of its rate. All channels rise together until a link is full or the flow's own cap is
// reached. The level is a fraction (residual capacity / sum of weights) that is compared exactly, and all
// links that tie for the lowest level are filled in one round, so the result does not depend on the order of
// links or flows, and symmetric flows get equal rates to the byte: folding relies on it.
//   result  rate[f] <= cap[f], and at least 1 byte/s; no link over capacity, as long as it has 1 byte/s for
//   every
//           flow; every flow below its cap crosses a link that is full, on which no flow has a higher level,
//           both up to 1 byte/s per flow of the link
//   source  Bertsekas and Gallager, Data Networks, 2nd ed., sec. 6.5.2 (progressive filling)
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "sim/base/units.h"

namespace shardsim {

struct LinkShare {
  int link;                // index into the capacities
  std::int64_t weight;     // channels of the flow on this link, > 0
  std::int64_t count = 1;  // equal flows that this one stands for and that cross this link too
};
struct Flow {
  std::int64_t channels;             // > 0
  Bandwidth cap;                     // of the whole flow, > 0
  std::span<const LinkShare> links;  // a link may stand here several times; weight <= channels
};

// Keeps its buffers between calls.
class MaxMin {
 public:
  // Requires: every link index of a flow < capacity.size().
  std::span<const Bandwidth> solve(std::span<const Bandwidth> capacity, std::span<const Flow> flows);

 private:
  std::vector<std::int64_t> residual_, weight_;  // per link
  std::vector<bool> full_, fixed_;               // per link, per flow
  std::vector<Bandwidth> rate_;                  // per flow
};

}  // namespace shardsim
