// Seeded random numbers that are the same on every compiler and standard library (std distributions are not).
// SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
#pragma once

#include <cmath>
#include <cstdint>

namespace shardsim {

class Random {
 public:
  explicit constexpr Random(std::uint64_t seed) : state_(seed) {}

  constexpr std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  // Uniform in [low, high], both included; the bias of the remainder is below 2^-32 for the ranges in use.
  constexpr std::int64_t between(std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>(next() % static_cast<std::uint64_t>(high - low + 1));
  }
  constexpr bool chance(int one_in) { return between(1, one_in) == 1; }
  // Uniform in (-1, 1), a multiple of 2^-53.
  constexpr double signed_unit() {
    return static_cast<double>(static_cast<std::int64_t>(next()) >> 10 | 1) * 0x1p-53;
  }
  // Normal with mean 0 and deviation 1. Marsaglia's polar method: Marsaglia and Bray, SIAM Review 6 (1964).
  double normal() {
    for (;;) {
      const double x = signed_unit(), y = signed_unit(), square = x * x + y * y;
      if (square < 1) return x * std::sqrt(-2 * std::log(square) / square);
    }
  }

 private:
  std::uint64_t state_;
};

}  // namespace shardsim
