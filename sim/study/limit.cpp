#include "sim/study/limit.h"

#include <algorithm>

#include <fmt/format.h>

#include "sim/study/sweep.h"

namespace shardsim {
namespace {

constexpr std::int64_t gpus_up_to = 512;
constexpr std::int64_t values_max = 10'000;

void drop_axis(ScenarioFile& scenario, const std::string& key) {
  std::erase_if(scenario.axes, [&](const SweepAxis& axis) { return axis.key == key; });
}

void check_bound(const std::optional<std::int64_t>& bound, const char* option) {
  if (bound && *bound < 1)
    throw InputError({fmt::format("{} {}", option, *bound)}, "a positive integer is expected");
}

std::vector<Scalar> multiples(std::int64_t step, std::int64_t up_to, const Place& place) {
  if (up_to / step > values_max)
    throw InputError(place, fmt::format("there are more than {} values up to {}; give a larger --step",
                                        values_max, up_to));
  std::vector<Scalar> values;
  for (std::int64_t v = step; v <= up_to; v += step) values.emplace_back(v);
  return values;
}

// A value from which on the live tensors exceed the memory, or all that is legal.
std::int64_t hopeless(const KeySpec& spec, std::int64_t step, const Library& library,
                      const std::function<Settings(const Scalar&)>& at) {
  std::int64_t legal = step;
  for (std::int64_t v = step; static_cast<double>(v) <= spec.high; v *= 2) {
    const Trial trial = try_floor([&] { return at(Scalar(v)); }, library);
    if (trial.legal() && trial.floor.exceeds()) return v;
    if (trial.legal()) legal = v;
  }
  return 2 * legal;
}

// The scenario under another strategy: options that it has too stay, unless the change sets them. The
// sharding factor is part of what a variant is.
Settings under(const Settings& base, const std::vector<Change>& change, const Place& place) {
  const std::string kind = to_string(change.front().value);
  Settings settings = base;
  for (const auto& [key, setting] : base.all())
    if (key.starts_with("strategy.") && (key == "strategy.sharding_factor" || !has_option(kind, key)))
      settings = without_key(settings, key);
  for (const Change& c : change) settings.set(c.key, c.value, {Origin::Kind::flag, place, {}});
  return settings;
}

// The scenario with another strategy.
struct Variant {
  std::string label;
  std::vector<Change> change;
};

std::vector<Variant> variants(const Settings& own, const std::string& own_kind) {
  const std::string key = "strategy.kind", factor = "strategy.sharding_factor";
  const Setting* own_factor = own.find(factor);
  const bool full = own_factor == nullptr || own_factor->value == Scalar(std::string("full"));
  const std::string own_label = full ? own_kind
                                : std::holds_alternative<std::string>(own_factor->value)
                                    ? own_kind + " node"
                                    : own_kind + " F=" + to_string(own_factor->value);
  std::vector<Variant> all{{own_label, {}}};
  for (const std::string& kind : built_choices(key_spec(key, {}))) {
    all.push_back({kind, {{key, kind}}});
    if (!kind.starts_with("fsdp")) continue;
    all.push_back({kind + " node", {{key, kind}, {factor, std::string("node")}}});
    all.push_back({kind + " F=1", {{key, kind}, {factor, std::int64_t{1}}}});
  }
  std::erase_if(all, [&](const Variant& v) { return !v.change.empty() && v.label == own_label; });
  return all;
}

}  // namespace

LimitResult largest_value(ScenarioFile scenario, const std::string& key, const LimitOptions& options,
                          const Library& library, const Progress& progress) {
  const Place place{"--max " + key};
  const KeySpec& spec = key_spec(key, place);
  if (spec.type != KeySpec::Type::integer)
    throw InputError(place,
                     fmt::format("{} is not an integer; --max needs a key such as training.micro_batch, "
                                 "training.sequence_length or model.layers",
                                 key));
  check_bound(options.step, "--step");
  check_bound(options.up_to, "--up-to");
  drop_axis(scenario, key);
  const Settings base = only_one(scenario);
  const std::int64_t step = options.step.value_or(key == "training.sequence_length" ? 128 : 1);
  const std::function<Settings(const Scalar&)> at = [&](const Scalar& value) {
    return with(base, key, value, place);
  };
  const bool grows = live_bytes_grow_with(key, base);
  std::int64_t up_to = options.up_to.value_or(0);
  if (!options.up_to && key == "training.micro_batch" && !grows) {
    const Scenario resolved =
        resolve(with(without_key(base, key), "training.grad_accum", std::int64_t{1}, place), library);
    up_to = resolved.workload.micro_batch;
  } else if (!options.up_to && !grows) {
    throw InputError(place,
                     fmt::format("memory need not grow with {}; give the largest value with --up-to", key));
  } else if (!options.up_to) {
    up_to = hopeless(spec, step, library, at);
  }
  if (up_to < step) throw InputError(place, fmt::format("no multiple of {} is at most {}", step, up_to));

  LimitResult result{.largest = true, .key = key, .values = multiples(step, up_to, place), .rows = {}};
  const SearchOptions search{.floor_is_monotone = grows, .progress = [&](const Scalar& value) {
                               progress(fmt::format("{} = {}", key, to_string(value)));
                             }};
  LimitRow row{"", {}, find_boundary(result.values, at, library, search)};
  if (!row.boundary.refusal.empty()) throw InputError({}, row.boundary.refusal);
  result.rows.push_back(std::move(row));
  return result;
}

LimitResult fewest_gpus(ScenarioFile scenario, const LimitOptions& options, const Library& library,
                        const Progress& progress) {
  const std::string key = "cluster.gpus";
  const Place place{"--min " + key};
  check_bound(options.up_to, "--up-to");
  if (options.step) throw InputError({fmt::format("--step {}", *options.step)}, "goes with --max");
  drop_axis(scenario, key);
  const Settings base = only_one(scenario);
  if (base.has_table("cluster.part[0]"))
    throw InputError(place, "the GPUs of a mixed cluster are those of its parts; vary cluster.part[0].gpus");
  const Scenario sample =
      resolve(with(without_table(base, "strategy"), key, std::int64_t{1}, place), library);
  const std::string own_kind =
      base.has("strategy.kind") ? to_string(base.find("strategy.kind")->value) : "fsdp";
  const std::int64_t node = sample.topology.node.gpus,
                     most = sample.topology.node.nics > 0 ? options.up_to.value_or(gpus_up_to)
                                                          : std::min(node, options.up_to.value_or(node));

  LimitResult result{.largest = false, .key = key, .values = {}, .rows = {}};
  for (std::int64_t g = 1; g <= std::min(node, most); ++g) result.values.emplace_back(g);
  for (std::int64_t g = 2 * node; g <= most; g += node) result.values.emplace_back(g);
  std::reverse(result.values.begin(), result.values.end());

  for (const Variant& variant : variants(base, own_kind)) {
    const Settings settings = variant.change.empty() ? base : under(base, variant.change, place);
    const auto at = [&](const Scalar& value) { return with(settings, key, value, place); };
    const SearchOptions search{.progress = [&](const Scalar& value) {
      progress(fmt::format("{}: {} GPUs", variant.label, to_string(value)));
    }};
    result.rows.push_back({variant.label, variant.change, find_boundary(result.values, at, library, search)});
  }
  if (!result.rows.front().boundary.refusal.empty())
    throw InputError({}, result.rows.front().boundary.refusal);
  return result;
}

}  // namespace shardsim
