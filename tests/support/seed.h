// Random tests: a fixed seed, which a failure prints and SHARDSIM_SEED replaces.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <string>

namespace shardsim {

inline std::uint64_t seed_of_run(std::uint64_t fallback) {
  const char* given = std::getenv("SHARDSIM_SEED");
  return given != nullptr ? std::stoull(given) : fallback;
}

}  // namespace shardsim
