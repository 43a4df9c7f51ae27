// Strong types for what the simulator counts, and the few ways they combine.
//
// Time, Bytes and Bandwidth are exact integers, so results do not depend on the order of sums; Flop and
// FlopRate are doubles because a large step passes 2^63 FLOP. Decimal prefixes are powers of ten
// (GB = 1e9 B), binary prefixes carry an i (GiB = 2^30 B). What is not declared here does not compile.
#pragma once

#include <cmath>
#include <compare>
#include <cstdint>

namespace shardsim {

__extension__ using Wide = __int128;  // products of two 64-bit counts

template <class Tag, class Rep>
struct Quantity {
  Rep count{};

  friend constexpr auto operator<=>(Quantity, Quantity) = default;
  friend constexpr Quantity operator+(Quantity a, Quantity b) { return {a.count + b.count}; }
  friend constexpr Quantity operator-(Quantity a, Quantity b) { return {a.count - b.count}; }
  friend constexpr Quantity operator*(Quantity a, Rep k) { return {a.count * k}; }
  friend constexpr Quantity operator*(Rep k, Quantity a) { return {k * a.count}; }
  friend constexpr double ratio(Quantity a, Quantity b) {
    return static_cast<double>(a.count) / static_cast<double>(b.count);
  }
  constexpr Quantity& operator+=(Quantity b) { return count += b.count, *this; }
  constexpr Quantity& operator-=(Quantity b) { return count -= b.count, *this; }
};

using Time = Quantity<struct TimeTag, std::int64_t>;            // picoseconds; spans 106 days
using Bytes = Quantity<struct BytesTag, std::int64_t>;          // bytes
using Bandwidth = Quantity<struct BandwidthTag, std::int64_t>;  // bytes per second
using Flop = Quantity<struct FlopTag, double>;                  // floating-point operations
using FlopRate = Quantity<struct FlopRateTag, double>;          // FLOP per second

inline constexpr std::int64_t picoseconds_per_second = 1'000'000'000'000;
constexpr double seconds(Time t) { return static_cast<double>(t.count) * 1e-12; }

// Where work becomes time, longer times are cut to this one, 20 hours; simulate() refuses work that takes it.
inline constexpr Time longest_work{std::int64_t{1} << 56};
constexpr Time work_time(Wide picoseconds) {
  return picoseconds < longest_work.count ? Time{static_cast<std::int64_t>(picoseconds)} : longest_work;
}

// Rounded to the nearest picosecond, byte, byte per second. The doors from the real numbers of kernel models
// and input files into the integers of the simulation.
inline Time from_picoseconds(double ps) {
  return ps < static_cast<double>(longest_work.count) ? Time{std::llround(ps)} : longest_work;
}
inline Time from_seconds(double s) { return from_picoseconds(s * 1e12); }
inline Time from_microseconds(double us) { return from_picoseconds(us * 1e6); }
inline Bandwidth from_gb_per_s(double gb) { return {std::llround(gb * 1e9)}; }

// Bytes / Bandwidth and Flop / FlopRate are the only two ways in which work becomes time. A transfer never
// finishes early: the quotient is an exact 128-bit ceiling. Requires: w > 0.
constexpr Time operator/(Bytes b, Bandwidth w) {
  return work_time((Wide{b.count} * picoseconds_per_second + w.count - 1) / w.count);
}
inline Time operator/(Flop f, FlopRate r) { return from_seconds(f.count / r.count); }

constexpr double gib(Bytes b) { return static_cast<double>(b.count) / 1073741824.0; }
constexpr double gb_per_s(Bandwidth w) { return static_cast<double>(w.count) * 1e-9; }

namespace literals {
constexpr Time operator""_ps(unsigned long long v) { return {static_cast<std::int64_t>(v)}; }
constexpr Time operator""_ns(unsigned long long v) { return {static_cast<std::int64_t>(v) * 1'000}; }
constexpr Time operator""_us(unsigned long long v) { return {static_cast<std::int64_t>(v) * 1'000'000}; }
constexpr Time operator""_ms(unsigned long long v) { return {static_cast<std::int64_t>(v) * 1'000'000'000}; }
constexpr Bytes operator""_B(unsigned long long v) { return {static_cast<std::int64_t>(v)}; }
constexpr Bytes operator""_KiB(unsigned long long v) { return {static_cast<std::int64_t>(v) << 10}; }
constexpr Bytes operator""_MiB(unsigned long long v) { return {static_cast<std::int64_t>(v) << 20}; }
constexpr Bytes operator""_GiB(unsigned long long v) { return {static_cast<std::int64_t>(v) << 30}; }
constexpr Bandwidth operator""_GBps(unsigned long long v) {
  return {static_cast<std::int64_t>(v) * 1'000'000'000};
}
}  // namespace literals
}  // namespace shardsim
