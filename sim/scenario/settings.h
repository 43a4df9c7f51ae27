// A scenario's explicit values, flattened to dotted keys, each with where it came from.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "sim/base/error.h"
#include "sim/scenario/keys.h"
#include "sim/scenario/overlay.h"

namespace shardsim {

struct Origin {
  enum class Kind : std::uint8_t {
    fallback,  // a default, with its reason
    library,   // a model or topology file named by the scenario
    overlay,   // an overlay over that file
    file,      // the scenario file
    sweep,     // an axis of its [sweep]
    flag,      // the command line
  };
  Kind kind = Kind::fallback;
  Place place;
  std::string reason;
};
std::string to_string(const Origin& origin);  // "scenario.toml:5:8", "default: the model's"

// Keys of text that names a file or gives way to a table with its contents.
bool may_be_a_table(std::string_view key);

struct Setting {
  Scalar value;
  Origin origin;
};

// Only legal, typed values get in: set() throws InputError for unknown keys and illegal values.
class Settings {
 public:
  // Replaces what the key had, unless that has a stronger origin. A name for a model or topology from a
  // stronger origin drops the table that was given before, and the other way round.
  void set(const std::string& key, const Scalar& value, const Origin& origin);
  void drop(const std::string& key);  // and its table, all keys "key.…"
  const Setting* find(const std::string& key) const;
  bool has(const std::string& key) const { return find(key) != nullptr; }
  bool has_table(const std::string& prefix) const;  // any key "prefix.…"
  int list_size(const std::string& key) const;      // n for "key[0]…" to "key[n-1]…"
  Place place(const std::string& key) const;        // of the setting, else of its table, else of the scenario
  const std::map<std::string, Setting>& all() const { return values_; }

  Place scenario;  // the file or command line as a whole

 private:
  std::map<std::string, Setting> values_;
};

// One axis of a [sweep]: each value sets one key, or several (a table).
struct SweepAxis {
  std::string key;
  Place place;
  struct Point {
    std::vector<std::pair<std::string, Scalar>> sets;
    std::string label;
    Place place;
  };
  std::vector<Point> points;
};
// [[sweep.skip]]: combinations in which every key has one of the values are not run.
struct SkipRule {
  std::map<std::string, std::vector<Scalar>> when;
};

struct ScenarioFile {
  Settings settings;
  std::vector<SweepAxis> axes;  // in the order of the file
  std::vector<SkipRule> skips;
};

// Throws InputError for anything that is not a scenario.
ScenarioFile read_scenario(const std::string& path);
ScenarioFile read_scenario_text(std::string_view text, const std::string& name);

// "key=value" from the command line; the value as TOML, or a bare word. It pins a [sweep]: an axis over this
// key goes, and of an axis of tables only the points with this value stay.
void assign(ScenarioFile& scenario, const std::string& assignment);
// The same for an option of its own, such as --gpus.
void assign(ScenarioFile& scenario, const std::string& key, const std::string& text,
            const std::string& option);

// A table cell as a value of the key's type, as far as it is one: "8.0" is an integer, "1" a flag, as
// spreadsheets and pandas write them.
Scalar typed(const KeySpec& spec, const std::string& text);

// An axis given as text: "1..64", "512..8192 x2", "[1, 2, 4]" or a single value.
SweepAxis read_axis_text(const std::string& key, const std::string& text, const Place& place);

// The keys of a model or topology file, under `prefix` ("model"), with origin `library`.
void add_library_file(Settings& settings, const std::string& path, const std::string& prefix);
// The constants of an overlay for a topology, with origin `overlay`.
void add_topology_overlay(Settings& settings, const Overlay& overlay, const std::string& topology,
                          const std::string& prefix);

}  // namespace shardsim
