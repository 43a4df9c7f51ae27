// Numbers and names as the text reports write them.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>

#include <fmt/format.h>

#include "sim/base/units.h"

namespace shardsim {

inline std::string with_commas(std::int64_t n) {
  std::string digits = fmt::format("{}", n);
  for (std::ptrdiff_t i = static_cast<std::ptrdiff_t>(digits.size()) - 3; i > (n < 0 ? 1 : 0); i -= 3)
    digits.insert(static_cast<std::size_t>(i), ",");
  return digits;
}
inline std::string rounded(double x) { return with_commas(std::llround(x)); }
inline std::string percent(double share) { return fmt::format("{:.1f}%", 100 * share); }
inline std::string tflops(FlopRate rate) { return fmt::format("{:.1f}", rate.count * 1e-12); }
inline std::string gib_text(Bytes b) { return fmt::format("{:.2f}", gib(b)); }

inline std::string seconds_text(Time t) {
  const double s = seconds(t);
  return s >= 10    ? fmt::format("{:.2f} s", s)
         : s >= 0.1 ? fmt::format("{:.3f} s", s)
                    : fmt::format("{:.3f} ms", s * 1e3);
}

inline std::string with_spaces(std::string_view name) {
  std::string text(name);
  for (char& c : text)
    if (c == '_') c = ' ';
  return text;
}

}  // namespace shardsim
