// A value of a scenario or a table cell: what TOML and JSON scalars have in common.
#pragma once

#include <cstdint>
#include <string>
#include <variant>

namespace shardsim {

using Scalar = std::variant<bool, std::int64_t, double, std::string>;

std::string to_string(const Scalar& value);  // "true", "8", "0.1", "bf16-mixed"

// The text as a cell of a CSV table, in quotes where it needs them (RFC 4180).
std::string csv_cell(const std::string& text);

}  // namespace shardsim
