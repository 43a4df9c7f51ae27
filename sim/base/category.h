// What memory on the GPU is used for.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "sim/base/units.h"

namespace shardsim {

enum class Category : std::uint8_t {
  parameters,
  gradients,
  optimizer_state,
  activations,
  unsharded_parameters,   // all-gather buffers
  communication_buffers,  // flat gradients, buckets, reduced shards on their way
  temporaries,            // workspaces, gradients of activations, optimizer temporaries
};
inline constexpr int categories = 7;

constexpr std::string_view name(Category c) {
  constexpr std::string_view names[] = {"parameters",           "gradients",
                                        "optimizer_state",      "activations",
                                        "unsharded_parameters", "communication_buffers",
                                        "temporaries"};
  return names[static_cast<int>(c)];
}

using ByCategory = std::array<Bytes, categories>;

}  // namespace shardsim
