#include "sim/scenario/settings.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>

#include <fmt/format.h>

#include "sim/scenario/overlay_document.h"
#include "sim/scenario/toml.h"

namespace shardsim {
namespace {

constexpr std::size_t axis_points_max = 10'000;

using Visit = std::function<void(const std::string& key, const Scalar& value, const Place& place)>;

// Calls `visit` for every scalar under `node`, in file order within a table.
void flatten(const toml::node& node, const std::string& key, const std::string& file, const Visit& visit) {
  if (const toml::table* table = node.as_table()) {
    if (table->empty() && !key.empty()) check_table(key, place_of(node, file));
    for (const auto& [k, child] : *table) {
      const std::string name(k.str());
      if (name.empty()) throw InputError(place_of(k, file), "a key is empty");
      flatten(child, key.empty() ? name : key + "." + name, file, visit);
    }
    return;
  }
  if (const toml::array* array = node.as_array()) {
    for (std::size_t i = 0; i < array->size(); ++i) {
      if (!(*array)[i].is_table()) {
        if (key == "strategy.wrap")
          throw InputError(place_of(node, file), "strategy.wrap as a list is not supported yet");
        throw InputError(place_of(node, file),
                         fmt::format("{} is a list; one value is expected (a list belongs in [sweep])", key));
      }
      flatten((*array)[i], fmt::format("{}[{}]", key, i), file, visit);
    }
    return;
  }
  const std::optional<Scalar> value = scalar_of(node);
  if (!value)
    throw InputError(place_of(node, file), fmt::format("{} is a date or time; no key takes one", key));
  visit(key, *value, place_of(node, file));
}

// "8..512 x2", "1..8", "0..100 +25"
std::optional<std::vector<std::int64_t>> range(const std::string& text, const Place& place) {
  const std::size_t dots = text.find("..");
  if (dots == std::string::npos) return std::nullopt;
  const auto number = [&](std::string_view part) -> std::optional<std::int64_t> {
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value);
    if (error != std::errc{} || end != part.data() + part.size()) return std::nullopt;
    return value;
  };
  std::string_view rest = std::string_view(text).substr(dots + 2);
  const std::size_t space = std::min(rest.find(' '), rest.size());
  const auto low = number(std::string_view(text).substr(0, dots)), high = number(rest.substr(0, space));
  rest.remove_prefix(space);
  while (rest.starts_with(' ')) rest.remove_prefix(1);
  const char step_kind = rest.empty() ? '+' : rest.front();
  const auto step = rest.empty() ? std::optional<std::int64_t>(1) : number(rest.substr(1));
  const bool legal_step = step && ((step_kind == '+' && *step >= 1) || (step_kind == 'x' && *step >= 2));
  if (!low || !high || !legal_step || *low > *high || (step_kind == 'x' && *low < 1))
    throw InputError(place,
                     fmt::format("\"{}\" is not a range; \"8..512 x2\" or \"1..8 +1\" is expected", text));
  std::vector<std::int64_t> values;
  for (Wide v = *low; v <= *high; v = step_kind == 'x' ? v * *step : v + *step) {
    if (values.size() == axis_points_max)
      throw InputError(place, fmt::format("\"{}\" has more than {} values", text, axis_points_max));
    values.push_back(static_cast<std::int64_t>(v));
  }
  return values;
}

SweepAxis::Point point(const std::string& key, const toml::node& node, const std::string& file) {
  SweepAxis::Point p{.sets = {}, .label = {}, .place = place_of(node, file)};
  flatten(node, key, file, [&](const std::string& k, const Scalar& value, const Place& place) {
    p.sets.emplace_back(k, checked(key_spec(k, place), value, place));
    p.label += (p.label.empty() ? "" : " ") + to_string(value);
  });
  if (p.sets.empty()) throw InputError(p.place, fmt::format("a point of axis \"{}\" sets nothing", key));
  return p;
}

SweepAxis range_axis(const std::string& key, const std::vector<std::int64_t>& values, const Place& place) {
  SweepAxis axis{.key = key, .place = place, .points = {}};
  for (const std::int64_t v : values)
    axis.points.push_back({{{key, checked(key_spec(key, place), v, place)}}, fmt::format("{}", v), place});
  return axis;
}

SweepAxis read_axis(const std::string& key, const toml::node& node, const std::string& file) {
  SweepAxis axis{.key = key, .place = place_of(node, file), .points = {}};
  if (const toml::array* array = node.as_array()) {
    for (const toml::node& element : *array) axis.points.push_back(point(key, element, file));
  } else if (const auto* text = node.as_string()) {
    const auto values = range(text->get(), axis.place);
    if (!values)
      throw InputError(
          axis.place,
          fmt::format("axis \"{}\" is \"{}\"; a list or a range such as \"8..512 x2\" is expected", key,
                      text->get()));
    axis.points = range_axis(key, *values, axis.place).points;
  } else {
    throw InputError(axis.place,
                     fmt::format("axis \"{}\" needs a list or a range such as \"8..512 x2\"", key));
  }
  if (axis.points.empty()) throw InputError(axis.place, fmt::format("axis \"{}\" has no values", key));
  if (axis.points.size() > axis_points_max)
    throw InputError(axis.place, fmt::format("axis \"{}\" has more than {} values", key, axis_points_max));
  return axis;
}

// A value of the command line, as TOML or as a bare word.
Scalar typed(const std::string& text) {
  try {
    const toml::table parsed = toml::parse("x = " + text, std::string_view("--set"));
    if (const std::optional<Scalar> value = scalar_of(*parsed.get("x")); value && parsed.size() == 1)
      return *value;
  } catch (const toml::parse_error&) {  // a bare word
  }
  return text;
}

SkipRule read_skip(const toml::table& table, const std::string& file) {
  SkipRule rule;
  for (const auto& [k, node] : table) {
    const std::string key(k.str());
    const auto add = [&](const toml::node& one) {
      const Place place = place_of(one, file);
      const std::optional<Scalar> value = scalar_of(one);
      if (!value)
        throw InputError(place,
                         fmt::format("[[sweep.skip]] compares \"{}\" with a value or a list of values", key));
      rule.when[key].push_back(checked(key_spec(key, place), *value, place));
    };
    if (const toml::array* array = node.as_array())
      for (const toml::node& one : *array) add(one);
    else
      add(node);
  }
  if (rule.when.empty())
    throw InputError(place_of(table, file), "a [[sweep.skip]] without keys would skip everything");
  return rule;
}

void read_sweep(ScenarioFile& scenario, const toml::node& node, const std::string& file) {
  const toml::table* sweep = node.as_table();
  if (sweep == nullptr)
    throw InputError(place_of(node, file), "\"sweep\" is not a table; [sweep] is expected");
  for (const auto& [key, value] : *sweep) {
    if (key.str() != "skip") {
      scenario.axes.push_back(read_axis(std::string(key.str()), value, file));
      continue;
    }
    const toml::array* rules = value.as_array();
    if (rules == nullptr) throw InputError(place_of(value, file), "[[sweep.skip]] is expected");
    for (const toml::node& rule : *rules) {
      if (!rule.is_table()) throw InputError(place_of(rule, file), "[[sweep.skip]] is expected");
      scenario.skips.push_back(read_skip(*rule.as_table(), file));
    }
  }
  std::sort(scenario.axes.begin(), scenario.axes.end(), [](const SweepAxis& a, const SweepAxis& b) {
    return std::pair(a.place.line, a.place.column) < std::pair(b.place.line, b.place.column);
  });
}

// The key now has this value from the command line.
void pin(ScenarioFile& scenario, const std::string& key) {
  const Setting& given = *scenario.settings.find(key);
  std::erase_if(scenario.axes, [&](const SweepAxis& axis) { return axis.key == key; });
  for (SweepAxis& axis : scenario.axes) {
    bool varies = false;
    std::string points;
    for (const SweepAxis::Point& p : axis.points) {
      points += (points.empty() ? "" : ", ") + p.label;
      for (const auto& set : p.sets) varies |= set.first == key;
    }
    if (!varies) continue;
    std::erase_if(axis.points, [&](const SweepAxis::Point& p) {
      return std::find(p.sets.begin(), p.sets.end(), std::pair(key, given.value)) == p.sets.end();
    });
    if (axis.points.empty())
      throw InputError(given.origin.place, fmt::format("no point of axis \"{}\" has {} = {}; they are: {}",
                                                       axis.key, key, to_string(given.value), points));
  }
}

ScenarioFile from_table(const toml::table& document, const std::string& name) {
  ScenarioFile scenario;
  scenario.settings.scenario = {name, 1, 1};
  if (document.empty())
    throw InputError(scenario.settings.scenario,
                     "is empty; a scenario needs at least \"model\" and \"topology\"");
  for (const auto& [key, node] : document) {
    if (key.str() == "sweep") {
      read_sweep(scenario, node, name);
      continue;
    }
    flatten(node, std::string(key.str()), name,
            [&](const std::string& k, const Scalar& value, const Place& place) {
              scenario.settings.set(k, value, {Origin::Kind::file, place, {}});
            });
  }
  return scenario;
}

}  // namespace

bool may_be_a_table(std::string_view key) {
  return key == "model" || key == "topology" || key.ends_with(".topology") ||
         key.ends_with("topology.node.transport");
}

std::string to_string(const Origin& origin) {
  if (origin.kind == Origin::Kind::fallback) return "default: " + origin.reason;
  return to_string(origin.place);
}

void Settings::set(const std::string& key, const Scalar& value, const Origin& origin) {
  const Scalar legal = checked(key_spec(key, origin.place), value, origin.place);
  if (may_be_a_table(key))
    std::erase_if(values_, [&](const auto& v) {
      return v.first.starts_with(key + ".") && v.second.origin.kind < origin.kind;
    });
  // A library file is read after the scenario that names another transport than it.
  const std::size_t in_transport = key.find("topology.node.transport.");
  if (in_transport != std::string::npos && origin.kind == Origin::Kind::library)
    if (const Setting* transport = find(key.substr(0, key.rfind('.')));
        transport != nullptr && transport->origin.kind > origin.kind)
      return;
  const auto found = values_.find(key);
  if (found == values_.end())
    values_.emplace(key, Setting{legal, origin});
  else if (found->second.origin.kind <= origin.kind)
    found->second = {legal, origin};
}

void Settings::drop(const std::string& key) {
  std::erase_if(values_, [&](const auto& v) { return v.first == key || v.first.starts_with(key + "."); });
}

const Setting* Settings::find(const std::string& key) const {
  const auto found = values_.find(key);
  return found == values_.end() ? nullptr : &found->second;
}

bool Settings::has_table(const std::string& prefix) const {
  const auto first = values_.lower_bound(prefix + ".");
  return first != values_.end() && first->first.starts_with(prefix + ".");
}

int Settings::list_size(const std::string& key) const {
  int size = 0;
  while (has_table(fmt::format("{}[{}]", key, size))) ++size;
  return size;
}

Place Settings::place(const std::string& key) const {
  const auto explicit_place = [](const Setting& s) { return !s.origin.place.source.empty(); };
  if (const Setting* setting = find(key); setting != nullptr && explicit_place(*setting))
    return setting->origin.place;
  const std::string table = key.substr(0, key.rfind('.') + 1);  // a missing key: the place of its neighbours
  if (!table.empty())
    for (auto next = values_.lower_bound(table); next != values_.end() && next->first.starts_with(table);
         ++next)
      if (explicit_place(next->second)) return next->second.origin.place;
  return scenario;
}

ScenarioFile read_scenario(const std::string& path) { return from_table(parse_toml_file(path), path); }

ScenarioFile read_scenario_text(std::string_view text, const std::string& name) {
  return from_table(parse_toml_text(text, name), name);
}

void assign(ScenarioFile& scenario, const std::string& assignment) {
  const std::size_t equals = assignment.find('=');
  if (equals == std::string::npos || equals == 0)
    throw InputError({fmt::format("--set {}", assignment)}, "key=value is expected");
  const std::string key = assignment.substr(0, equals);
  assign(scenario, key, assignment.substr(equals + 1), "--set " + key);
}

void assign(ScenarioFile& scenario, const std::string& key, const std::string& text,
            const std::string& option) {
  const Place place{fmt::format("{}{}{}", option, option.starts_with("--set") ? "=" : " ", text)};
  scenario.settings.set(key, typed(text), {Origin::Kind::flag, place, {}});
  pin(scenario, key);
}

Scalar typed(const KeySpec& spec, const std::string& text) {
  using Type = KeySpec::Type;
  if (spec.type == Type::text || spec.type == Type::choice) return text;
  if (spec.type == Type::flag || spec.type == Type::flag_or_integer) {
    if (text == "true" || text == "True" || text == "TRUE") return true;
    if (text == "false" || text == "False" || text == "FALSE") return false;
    if (spec.type == Type::flag && (text == "0" || text == "1")) return text == "1";
  }
  const Scalar value = typed(text);
  const double* number = std::get_if<double>(&value);
  if (number != nullptr && spec.type != Type::number && std::abs(*number) < 1e15 &&
      std::trunc(*number) == *number)
    return static_cast<std::int64_t>(*number);
  return value;
}

SweepAxis read_axis_text(const std::string& key, const std::string& text, const Place& place) {
  if (const auto values = range(text, place)) return range_axis(key, *values, place);
  const KeySpec& spec = key_spec(key, place);
  SweepAxis axis{.key = key, .place = place, .points = {}};
  const bool list = text.starts_with('[') && text.ends_with(']');
  std::string_view rest = list ? std::string_view(text).substr(1, text.size() - 2) : std::string_view(text);
  while (!rest.empty()) {
    const std::size_t comma = std::min(rest.find(','), rest.size());
    std::string one(rest.substr(0, comma));
    rest.remove_prefix(std::min(comma + 1, rest.size()));
    one.erase(0, one.find_first_not_of(' '));
    one.erase(one.find_last_not_of(' ') + 1);
    if (one.empty()) throw InputError(place, fmt::format("\"{}\" has an empty value", text));
    const Scalar value = checked(spec, typed(one), place);
    axis.points.push_back({{{key, value}}, to_string(value), place});
  }
  if (axis.points.empty()) throw InputError(place, fmt::format("axis \"{}\" has no values", key));
  return axis;
}

void add_library_file(Settings& settings, const std::string& path, const std::string& prefix) {
  const toml::table document = parse_toml_file(path);
  if (document.empty()) throw InputError({path, 1, 1}, fmt::format("is empty; a {} is expected", prefix));
  flatten(document, prefix, path, [&](const std::string& key, const Scalar& value, const Place& place) {
    settings.set(key, value, {Origin::Kind::library, place, {}});
  });
}

void add_topology_overlay(Settings& settings, const Overlay& overlay, const std::string& topology,
                          const std::string& prefix) {
  for (const toml::table& constants : overlay_tables(overlay, "topology", topology))
    flatten(constants, prefix, overlay.file,
            [&](const std::string& key, const Scalar& value, const Place& place) {
              settings.set(key, value, {Origin::Kind::overlay, place, {}});
            });
}

}  // namespace shardsim
