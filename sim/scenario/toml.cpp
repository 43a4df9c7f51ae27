#include "sim/scenario/toml.h"

#include <algorithm>
#include <cmath>
#include <sstream>

#include <fmt/format.h>

#include "sim/scenario/text_file.h"

namespace shardsim {
namespace {

constexpr std::uintmax_t file_mib_max = 16;

std::string_view type_name(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::table: return "a table";
    case toml::node_type::array: return "an array";
    case toml::node_type::string: return "a string";
    case toml::node_type::integer: return "an integer";
    case toml::node_type::floating_point: return "a number";
    case toml::node_type::boolean: return "true or false";
    default: return "a date or time";
  }
}

void replace(toml::table& base, toml::table&& over) {
  for (auto&& [key, value] : over) {
    toml::table* below = base[key.str()].as_table();
    if (below != nullptr && value.is_table())
      replace(*below, std::move(*value.as_table()));
    else
      value.visit([&, &name = key](auto& node) { base.insert_or_assign(name, std::move(node)); });
  }
}

}  // namespace

std::optional<Scalar> scalar_of(const toml::node& node) {
  if (const auto* b = node.as_boolean()) return Scalar{b->get()};
  if (const auto* i = node.as_integer()) return Scalar{i->get()};
  if (const auto* d = node.as_floating_point()) return Scalar{d->get()};
  if (const auto* s = node.as_string()) return Scalar{s->get()};
  return std::nullopt;
}

toml::table merged(toml::table base, toml::table over) {
  replace(base, std::move(over));
  return base;
}

Place place_of(const toml::node& node, const std::string& file) {
  const auto& source = node.source();  // of merged tables from either file
  return {source.path ? *source.path : file, static_cast<int>(source.begin.line),
          static_cast<int>(source.begin.column)};
}

Place place_of(const toml::key& key, const std::string& file) {
  const auto& at = key.source().begin;
  return {file, static_cast<int>(at.line), static_cast<int>(at.column)};
}

toml::table parse_toml_text(std::string_view text, const std::string& name) {
  try {
    return toml::parse(text, std::string_view(name));
  } catch (const toml::parse_error& e) {
    const auto& at = e.source().begin;
    throw InputError({name, static_cast<int>(at.line), static_cast<int>(at.column)},
                     std::string(e.description()));
  }
}

toml::table parse_toml_file(const std::string& path) {
  return parse_toml_text(read_text_file(path, file_mib_max), path);
}

std::optional<Bytes> parse_bytes(std::string_view text) {
  struct Unit {
    std::string_view name;
    double bytes;
  };
  constexpr Unit units[] = {{"GiB", 1073741824.0}, {"MiB", 1048576.0}, {"KiB", 1024.0}, {"GB", 1e9},
                            {"MB", 1e6},           {"KB", 1e3},        {"B", 1.0}};
  double count = 0;
  std::istringstream in{std::string(text)};
  in.imbue(std::locale::classic());
  std::string unit, rest;
  if (!(in >> count >> unit) || in >> rest || !std::isfinite(count) || count < 0) return std::nullopt;
  for (const Unit& u : units)
    if (u.name == unit && count * u.bytes < 9e18) return Bytes{std::llround(count * u.bytes)};
  return std::nullopt;
}

Place TableReader::place(std::string_view key) const {
  for (const auto& [k, v] : table_)
    if (k.str() == key) return place_of(v, file_);
  return place_of(table_, file_);
}

void TableReader::fail(std::string_view key, const std::string& message) const {
  throw InputError(place(key), message);
}

void TableReader::fail_element(std::string_view key, std::size_t index, const std::string& message) const {
  throw InputError(place_of(*table_.get_as<toml::array>(key)->get(index), file_), message);
}

const toml::node* TableReader::node(std::string_view key) {
  known_.emplace_back(key);
  return table_.get(key);
}

const toml::node& TableReader::required(std::string_view key, std::string_view type) {
  const toml::node* found = node(key);
  if (found == nullptr) fail(key, fmt::format("{} needs \"{}\" ({})", what_, key, type));
  return *found;
}

std::string TableReader::text(std::string_view key) {
  const toml::node& n = required(key, "a string");
  if (!n.is_string()) fail(key, fmt::format("\"{}\" is {}; a string is expected", key, type_name(n)));
  return n.as_string()->get();
}

std::string TableReader::text(std::string_view key, std::string fallback) {
  if (!has(key)) {
    known_.emplace_back(key);
    return fallback;
  }
  return text(key);
}

std::string TableReader::choice(std::string_view key, const std::vector<std::string>& choices) {
  std::string value = text(key);
  if (std::find(choices.begin(), choices.end(), value) == choices.end())
    fail(key, fmt::format("\"{}\" cannot be \"{}\"{}", key, value, suggestion(value, choices)));
  return value;
}

bool TableReader::flag(std::string_view key) {
  const toml::node& n = required(key, "true or false");
  if (!n.is_boolean()) fail(key, fmt::format("\"{}\" is {}; true or false is expected", key, type_name(n)));
  return n.as_boolean()->get();
}

std::int64_t TableReader::integer(std::string_view key, std::int64_t low, std::int64_t high) {
  const toml::node& n = required(key, "an integer");
  if (!n.is_integer()) fail(key, fmt::format("\"{}\" is {}; an integer is expected", key, type_name(n)));
  const std::int64_t value = n.as_integer()->get();
  if (value < low || value > high)
    fail(key, fmt::format("\"{}\" is {}; between {} and {} is expected", key, value, low, high));
  return value;
}

double TableReader::number(std::string_view key, double low, double high) {
  const toml::node& n = required(key, "a number");
  const std::optional<double> value = n.is_number() ? n.value<double>() : std::nullopt;
  if (!value) fail(key, fmt::format("\"{}\" is {}; a number is expected", key, type_name(n)));
  if (!std::isfinite(*value) || *value < low || *value > high)
    fail(key, high < std::numeric_limits<double>::max()
                  ? fmt::format("\"{}\" is {}; between {} and {} is expected", key, *value, low, high)
                  : fmt::format("\"{}\" is {}; a finite number, at least {}, is expected", key, *value, low));
  return *value;
}

double TableReader::positive(std::string_view key) {
  const double value = number(key, std::numeric_limits<double>::lowest());
  if (value <= 0) fail(key, fmt::format("\"{}\" is {}; a positive number is expected", key, value));
  return value;
}

Bytes TableReader::bytes(std::string_view key) {
  const std::string value = text(key);
  const std::optional<Bytes> bytes = parse_bytes(value);
  if (!bytes)
    fail(key, fmt::format("\"{}\" is \"{}\"; an amount such as \"80 GiB\" is expected", key, value));
  return *bytes;
}

std::vector<double> TableReader::numbers(std::string_view key, std::size_t count) {
  const toml::node& n = required(key, "an array of numbers");
  const toml::array* array = n.as_array();
  if (array == nullptr)
    fail(key, fmt::format("\"{}\" is {}; an array of numbers is expected", key, type_name(n)));
  std::vector<double> values;
  for (const toml::node& element : *array) {
    const std::optional<double> value = element.is_number() ? element.value<double>() : std::nullopt;
    if (!value || !std::isfinite(*value))
      throw InputError(place_of(element, file_),
                       fmt::format("\"{}\" holds {}; a finite number is expected", key, type_name(element)));
    values.push_back(*value);
  }
  if (count > 0 && values.size() != count)
    fail(key, fmt::format("\"{}\" has {} numbers; {} are expected", key, values.size(), count));
  return values;
}

std::vector<std::string> TableReader::texts(std::string_view key) {
  const toml::node& n = required(key, "an array of strings");
  const toml::array* array = n.as_array();
  if (array == nullptr)
    fail(key, fmt::format("\"{}\" is {}; an array of strings is expected", key, type_name(n)));
  std::vector<std::string> values;
  for (const toml::node& element : *array) {
    if (!element.is_string())
      throw InputError(place_of(element, file_),
                       fmt::format("\"{}\" holds {}; a string is expected", key, type_name(element)));
    values.push_back(element.as_string()->get());
  }
  return values;
}

TableReader TableReader::table(std::string_view key) {
  const toml::node& n = required(key, "a table");
  if (!n.is_table()) fail(key, fmt::format("\"{}\" is {}; a table is expected", key, type_name(n)));
  return {*n.as_table(), file_, fmt::format("[{}]", key)};
}

std::vector<TableReader> TableReader::tables(std::string_view key) {
  std::vector<TableReader> result;
  const toml::node* n = node(key);
  if (n == nullptr) return result;
  const toml::array* array = n->as_array();
  if (array == nullptr) fail(key, fmt::format("\"{}\" is {}; [[{}]] is expected", key, type_name(*n), key));
  for (const toml::node& element : *array) {
    if (!element.is_table())
      throw InputError(place_of(element, file_),
                       fmt::format("\"{}\" holds {}; tables are expected", key, type_name(element)));
    result.emplace_back(*element.as_table(), file_, fmt::format("[[{}]]", key));
  }
  return result;
}

void TableReader::finish() const {
  for (const auto& [key, value] : table_)
    if (std::find(known_.begin(), known_.end(), key.str()) == known_.end())
      throw InputError(place_of(key, file_), fmt::format("unknown key \"{}\" in {}{}", key.str(), what_,
                                                         suggestion(key.str(), known_)));
}

}  // namespace shardsim
