// Results as text for a terminal: memory in GiB, bandwidth in GB/s (10^9), TFLOPS per GPU.
#pragma once

#include <string>

#include "sim/result/record.h"
#include "sim/study/calibrate.h"
#include "sim/study/collective_table.h"
#include "sim/study/frontier.h"
#include "sim/study/limit.h"
#include "sim/study/sweep.h"
#include "sim/study/validate.h"

namespace shardsim {

std::string to_text(const RunRecord& run);
std::string to_text(const SweepResult& sweep);
std::string to_text(const FrontierResult& frontier);
std::string to_text(const LimitResult& limit);
std::string to_text(const ValidateResult& result);
std::string to_text(const CalibrateResult& result);
std::string to_overlay(const CalibrateResult& result);  // TOML, as scenario/overlay.h reads it
std::string constants_text(const std::vector<FreeConstant>& constants);
std::string to_text(const OomAdvice& advice);
std::string to_text(const CollectiveResult& result);  // as nccl-tests prints it

// Every value of a scenario with its origin.
std::string values_text(const std::vector<RecordedValue>& values);

}  // namespace shardsim
