// Every key a scenario may have: its type, its legal values, what it means. The one list from which reading,
// checking, `--set`, sweeps and messages work.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sim/base/error.h"
#include "sim/base/scalar.h"

namespace shardsim {

struct KeySpec {
  enum class Type : std::uint8_t { flag, integer, number, text, choice, integer_or_choice, flag_or_integer };
  std::string_view key;  // dotted; elements of lists of tables as "straggler[].gpu"
  Type type;
  // Of a choice "a|b|!c", where ! is known but not built yet; of a flag that is not built, its only value.
  std::string_view legal;
  double low, high;  // of integers and numbers
  std::string_view meaning;
};
std::span<const KeySpec> keys();

// The spec of a key such as "straggler[2].gpu". Throws InputError at `place` with the nearest key of its
// table, or says that the feature is not supported yet.
const KeySpec& key_spec(std::string_view key, const Place& place);
// The same for a table that is empty: some key must begin with its name.
void check_table(std::string_view table, const Place& place);
// Those of its choices that are built, in the order of the table; none for keys without choices.
std::vector<std::string> built_choices(const KeySpec& spec);

// Whether strategies of a kind have an option, such as "strategy.wrap".
bool has_option(std::string_view strategy_kind, std::string_view key);

// `value` as the key's type (an integer serves as a number). Throws InputError for wrong types, values out of
// range, unknown or not yet supported choices.
Scalar checked(const KeySpec& spec, const Scalar& value, const Place& place);

}  // namespace shardsim
