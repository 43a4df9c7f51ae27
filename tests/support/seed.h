// Random tests: fixed seeds, which a failure prints and SHARDSIM_SEED replaces.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <string>

#include <doctest/doctest.h>

#include "sim/base/random.h"

namespace shardsim {

inline std::uint64_t seed_of_run(std::uint64_t fallback) {
  const char* given = std::getenv("SHARDSIM_SEED");
  return given != nullptr ? std::stoull(given) : fallback;
}

// For runs of whole scenarios: sanitizers make each ten times as slow, and find what they find in fewer of
// them.
constexpr int random_runs(int of_optimised_build) {
#ifdef __SANITIZE_ADDRESS__
  return (of_optimised_build + 3) / 4;
#else
  return of_optimised_build;
#endif
}

// Calls check(random) with the seeds 0 .. runs-1.
template <class Check>
void for_each_seed(std::uint64_t runs, const Check& check) {
  for (std::uint64_t run = 0; run < runs; ++run) {
    const std::uint64_t seed = seed_of_run(run);
    CAPTURE(seed);
    Random random(seed);
    check(random);
  }
}

}  // namespace shardsim
