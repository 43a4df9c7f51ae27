// Overlays: files of constants that replace those of GPU, stack, transport and topology files, written by
// `calibrate` or by hand.
//
//   [gpu.a100-sxm-40gb]        # or [gpu."*"]: all of them; a name's own table wins over it
//   training_context = 0.93
//   gemm.bf16.prologue_us = 2  # tables within tables as in the file that is overlaid
//   "gemm.bf16.tile_efficiency[0]" = 0.9  # an element of an array; or the whole array
//   [topology.leonardo-a100-64gb]
//   node.network_overhead_us = 2
//
// Keys and ranges are those of the files. What a scenario says itself wins over an overlay.
#pragma once

#include <string>
#include <vector>

#include "sim/base/error.h"
#include "sim/base/scalar.h"

namespace shardsim {

class Library;

struct Overlay {
  std::string file, text;
};

// Throws InputError for what cannot be read, an unknown file or constant, or an illegal value.
Overlay read_overlay(const std::string& path, const Library& library);
void check_overlay(const Overlay& overlay, const Library& library);

// One constant in force: "gpu.a100-sxm-40gb.training_context".
struct OverlaidConstant {
  std::string key;
  Scalar value, before;  // arrays as text
  Place place;
};

// The overlays of one scenario, and what they replaced so far; later overlays win.
struct Overlays {
  std::vector<Overlay> overlays;
  std::vector<OverlaidConstant> in_force;
};

}  // namespace shardsim
