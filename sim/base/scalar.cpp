#include "sim/base/scalar.h"

#include <fmt/format.h>

namespace shardsim {

std::string to_string(const Scalar& value) {
  if (const auto* text = std::get_if<std::string>(&value)) return *text;
  return std::visit([](const auto& v) { return fmt::format("{}", v); }, value);
}

}  // namespace shardsim
