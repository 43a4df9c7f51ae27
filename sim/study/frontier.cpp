#include "sim/study/frontier.h"

#include <algorithm>

#include <fmt/format.h>

#include "sim/study/sweep.h"

namespace shardsim {
namespace {

// "a=1..4,b=[1,2],c" at the commas outside of brackets.
std::vector<std::string> parts(const std::string& text) {
  std::vector<std::string> all(1);
  int depth = 0;
  for (const char c : text) {
    depth += c == '[' ? 1 : c == ']' ? -1 : 0;
    if (c == ',' && depth == 0)
      all.emplace_back();
    else
      all.back() += c;
  }
  for (std::string& one : all) {
    one.erase(0, one.find_first_not_of(' '));
    one.erase(one.find_last_not_of(' ') + 1);
  }
  return all;
}

struct KeyAxis : SweepAxis {
  bool usual = false;  // values nobody asked for: those that are illegal are left out
};

KeyAxis axis_of(ScenarioFile& scenario, const std::string& part, const Place& place) {
  const std::size_t equals = part.find('=');
  const std::string key = part.substr(0, equals);
  const auto in_sweep = std::find_if(scenario.axes.begin(), scenario.axes.end(),
                                     [&](const SweepAxis& a) { return a.key == key; });
  KeyAxis axis{{}, false};
  if (equals != std::string::npos) {
    axis = {read_axis_text(key, part.substr(equals + 1), place), false};
  } else if (in_sweep != scenario.axes.end()) {
    axis = {*in_sweep, false};
  } else {
    const KeySpec& spec = key_spec(key, place);
    std::string values = default_values(key);
    for (const std::string& choice : built_choices(spec))
      if (spec.type == KeySpec::Type::choice) values += (values.empty() ? "[" : ", ") + choice;
    if (values.starts_with('[')) values += "]";
    if (spec.type == KeySpec::Type::flag) values = "[false, true]";
    if (values.empty())
      throw InputError(place,
                       fmt::format("{0} has no usual values; give them: {0}=1..64 or {0}=[1,2,4]", key));
    axis = {read_axis_text(key, values, place), true};
  }
  if (in_sweep != scenario.axes.end()) scenario.axes.erase(in_sweep);
  return axis;
}

// The integers of the second axis, in the order in which memory grows.
std::vector<Scalar> integers(const SweepAxis& axis, bool falling, const Place& place) {
  std::vector<std::int64_t> numbers;
  for (const SweepAxis::Point& point : axis.points) {
    const auto* number = std::get_if<std::int64_t>(&point.sets.front().second);
    if (point.sets.size() != 1 || number == nullptr)
      throw InputError(place, fmt::format("the boundary is searched along the second key, which must be an "
                                          "integer; {} = {} is not",
                                          axis.key, point.label));
    numbers.push_back(*number);
  }
  std::sort(numbers.begin(), numbers.end());
  numbers.erase(std::unique(numbers.begin(), numbers.end()), numbers.end());
  if (falling) std::reverse(numbers.begin(), numbers.end());
  return {numbers.begin(), numbers.end()};
}

}  // namespace

bool FrontierResult::everything_fits() const {
  return std::all_of(rows.begin(), rows.end(), [](const FrontierRow& row) {
    return row.boundary.last_fit && !row.boundary.first_oom && row.boundary.holes.empty();
  });
}
bool FrontierResult::nothing_fits() const {
  return std::none_of(rows.begin(), rows.end(),
                      [](const FrontierRow& row) { return row.boundary.last_fit.has_value(); });
}

FrontierResult frontier(ScenarioFile scenario, const std::string& over, const Library& library,
                        const std::function<void(const std::string&)>& progress) {
  const Place place{"--over " + over};
  const std::vector<std::string> keys = parts(over);
  if (keys.size() != 2)
    throw InputError(
        place, "two keys are expected, separated by a comma: training.micro_batch,training.sequence_length");
  const KeyAxis first = axis_of(scenario, keys[0], place), second = axis_of(scenario, keys[1], place);
  if (first.key == second.key) throw InputError(place, fmt::format("{} is given twice", first.key));
  const Settings base = only_one(scenario);

  FrontierResult result{.over = first.key,
                        .along = second.key,
                        .smallest = live_bytes_fall_with(second.key),
                        .values = {},
                        .rows = {}};
  result.values = integers(second, result.smallest, place);
  for (const SweepAxis::Point& point : first.points) {
    Settings row = base;
    for (const auto& [key, value] : point.sets) row.set(key, value, {Origin::Kind::flag, point.place, {}});
    const auto at = [&](const Scalar& value) { return with(row, second.key, value, place); };
    const SearchOptions options{
        .floor_is_monotone = live_bytes_grow_with(second.key, row), .progress = [&](const Scalar& value) {
          progress(fmt::format("{} = {}, {} = {}", first.key, point.label, second.key, to_string(value)));
        }};
    result.rows.push_back({point.label, find_boundary(result.values, at, library, options)});
  }
  const auto illegal = [](const FrontierRow& row) { return !row.boundary.refusal.empty(); };
  if (std::all_of(result.rows.begin(), result.rows.end(), illegal))
    throw InputError({}, result.rows.front().boundary.refusal);
  if (first.usual) std::erase_if(result.rows, illegal);
  return result;
}

std::string default_values(const std::string& key) {
  if (key == "training.micro_batch") return "1..64 x2";
  if (key == "training.sequence_length") return "512..16384 x2";
  if (key == "training.grad_accum") return "1..16 x2";
  if (key == "model.layers" || key == "model.encoder_layers" || key == "model.decoder_layers")
    return "8..128 +8";
  if (key == "cluster.gpus" || key == "strategy.sharding_factor") return "1..512 x2";
  return "";
}

}  // namespace shardsim
