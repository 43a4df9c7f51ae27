// `run --explain`: where the step goes and why, and the definitions behind MFU, with a run's numbers in
// place.
#pragma once

#include <string>

#include "sim/result/record.h"

namespace shardsim {

// The breakdown, a sentence for each line, and the critical path, if the run has one.
std::string explain_step(const RunRecord& run);
// Model, hardware and executed FLOPs, MFU and HFU, so that a reader can do the arithmetic again.
std::string explain_mfu(const RunRecord& run);

}  // namespace shardsim
