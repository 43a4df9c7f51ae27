// The physical constants that a calibration may change: those of GPU, stack, transport and topology files
// that measurements decide, each with its unit and the bounds that physics puts on it.
//   leaves out  what data sheets say (peaks, line rates, SMs, capacities), memory, NCCL's own tuning tables
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "sim/scenario/library.h"

namespace shardsim {

struct FreeConstant {
  std::string key;                      // "gpu.a100-sxm-40gb.training_context", as overlays have it
  std::string section, file, constant;  // its parts
  double value = 0;                     // in the file
  double low = 0, high = 0;
  bool decades = false;  // it may be off by a factor rather than by an amount
  std::string_view unit, meaning;
};

// All, in the order of the files.
std::vector<FreeConstant> free_constants(const Library& library);

// "gpu.a100-sxm-40gb.training_context,transport.ib.efficiency". Throws InputError with the nearest key.
std::vector<FreeConstant> free_constants(const std::string& keys, const Library& library);

// An overlay with these values, one per constant.
Overlay overlay_of(const std::vector<FreeConstant>& constants, const std::vector<double>& values);

// Tables of an overlay, and what follows each value ("  # us, ..."), if anything.
std::string overlay_text(const std::vector<FreeConstant>& constants, const std::vector<double>& values,
                         const std::vector<std::string>& comments);

}  // namespace shardsim
