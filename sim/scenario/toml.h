// Reading TOML tables with places for every complaint. The door to toml++: include only in .cpp files of this
// room.
#pragma once

#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <toml++/toml.h>

#include "sim/base/error.h"
#include "sim/base/scalar.h"
#include "sim/base/units.h"

namespace shardsim {

// Parses a file or a text. Throws InputError for what cannot be read: missing, a directory, larger than
// 16 MiB, not TOML.
toml::table parse_toml_file(const std::string& path);
toml::table parse_toml_text(std::string_view text, const std::string& name);

// None for tables, arrays, dates and times.
std::optional<Scalar> scalar_of(const toml::node& node);

// What `over` says replaces what `base` says, table by table; values keep their places.
toml::table merged(toml::table base, toml::table over);

Place place_of(const toml::node& node, const std::string& file);
Place place_of(const toml::key& key, const std::string& file);

// One table of a file whose keys are all known: each getter marks its key as known, finish() rejects the
// rest.
class TableReader {
 public:
  // `what` names the table in messages: "[node]", "the GPU file".
  TableReader(const toml::table& table, std::string file, std::string what)
      : table_(table), file_(std::move(file)), what_(std::move(what)) {}

  bool has(std::string_view key) const { return table_.contains(key); }
  std::string text(std::string_view key);
  std::string text(std::string_view key, std::string fallback);
  std::string choice(std::string_view key, const std::vector<std::string>& choices);
  bool flag(std::string_view key);
  std::int64_t integer(std::string_view key, std::int64_t low, std::int64_t high);
  // Finite, in [low, high].
  double number(std::string_view key, double low, double high = std::numeric_limits<double>::max());
  double positive(std::string_view key);
  Bytes bytes(std::string_view key);                                     // "80 GiB"
  std::vector<double> numbers(std::string_view key, std::size_t count);  // count 0 = any
  std::vector<std::string> texts(std::string_view key);
  TableReader table(std::string_view key);
  std::vector<TableReader> tables(std::string_view key);  // [[key]]; none if absent
  const toml::node* node(std::string_view key);           // raw, may be null

  Place place(std::string_view key) const;  // of the key, or of the table
  [[noreturn]] void fail(std::string_view key, const std::string& message) const;
  [[noreturn]] void fail_element(std::string_view key, std::size_t index, const std::string& message) const;
  void finish() const;

 private:
  const toml::node& required(std::string_view key, std::string_view type);

  const toml::table& table_;
  std::string file_, what_;
  std::vector<std::string> known_;
};

// "80 GiB", "8.125 MiB", "512 KiB", "100 MB", "64 B".
std::optional<Bytes> parse_bytes(std::string_view text);

}  // namespace shardsim
