#include "sim/study/advise_oom.h"

#include <algorithm>

#include "sim/engine/parallel.h"
#include "sim/study/fit.h"

namespace shardsim {
namespace {

using Changes = std::vector<Change>;

// Changes of one kind, the largest first: the last that fits is the smallest change.
struct ChangeKind {
  std::vector<Changes> steps;
  bool floor_is_monotone = false;
};

// 0 for strategies without one.
std::int64_t sharding_factor(const Strategy& strategy) {
  return std::visit(
      [](const auto& s) -> std::int64_t {
        if constexpr (requires { s.sharding_factor; })
          return s.sharding_factor;
        else
          return 0;
      },
      strategy);
}

// Every value of a scenario as it was resolved.
Settings resolved_settings(const Scenario& scenario) {
  Settings all;
  for (const RecordedValue& v : scenario.values)
    if (!may_be_a_table(v.key)) all.set(v.key, v.value, {Origin::Kind::file, {}, {}});
  return all;
}

ChangeKind micro_batches(const Settings& settings, const Scenario& scenario) {
  const std::int64_t micro = scenario.workload.micro_batch, accum = scenario.training.micro_batches;
  const bool fixed_global =
      settings.has("training.global_batch") || settings.has("training.global_batch_tokens");
  ChangeKind kind;
  for (std::int64_t m = 1; m < micro; ++m) {
    if (!fixed_global) {
      kind.steps.push_back({{"training.micro_batch", m}});
    } else if (micro * accum % m == 0) {
      kind.steps.push_back({{"training.micro_batch", m}, {"training.grad_accum", micro * accum / m}});
    }
  }
  kind.floor_is_monotone = !fixed_global;
  return kind;
}

ChangeKind sharding_factors(const Scenario& scenario) {
  ChangeKind kind;
  const std::int64_t factor = sharding_factor(scenario.strategy);
  for (std::int64_t f = scenario.gpus; factor > 0 && f > factor; --f)
    if (scenario.gpus % f == 0) kind.steps.push_back({{"strategy.sharding_factor", f}});
  return kind;
}

// From the heaviest down to the one in use.
ChangeKind checkpointing(const Settings& resolved) {
  ChangeKind kind;
  const std::string key = "training.activation_checkpointing";
  for (const char* one : {"full", "selective-op", "selective"}) {
    if (resolved.find(key)->value == Scalar(std::string(one))) break;
    kind.steps.push_back({{key, std::string(one)}});
  }
  return kind;
}

ChangeKind shorter_sequences(const Settings& settings, const Scenario& scenario) {
  constexpr std::int64_t step = 128;
  ChangeKind kind;
  for (std::int64_t s = step; s < scenario.workload.sequence; s += step)
    kind.steps.push_back({{"training.sequence_length", s}});
  kind.floor_is_monotone = live_bytes_grow_with("training.sequence_length", settings);
  return kind;
}

// In the order in which they are listed when they do not help.
std::vector<ChangeKind> change_kinds(const Settings& settings, const Scenario& scenario) {
  const Settings resolved = resolved_settings(scenario);
  std::vector<ChangeKind> all = {micro_batches(settings, scenario), sharding_factors(scenario),
                                 checkpointing(resolved)};
  const auto single = [&](const std::string& key, const Scalar& value) {
    const Setting* now = resolved.find(key);
    if (now == nullptr || now->value != value) all.push_back({{{{key, value}}}});
  };
  for (const char* what : {"optimizer", "parameters", "none"})
    single("strategy.cpu_offload", std::string(what));
  for (const bool offload : {true, false}) single("training.activation_offload", offload);
  single("training.optimizer_impl", std::string("fused"));
  single("training.optimizer_impl", std::string("for-loop"));
  single("allocator.expandable_segments", true);
  single("strategy.reshard_after_forward", true);
  single("strategy.gradient_as_bucket_view", true);
  const std::string kind = std::get<std::string>(resolved.find("strategy.kind")->value);
  if (kind == "zero1" || kind == "zero2") single("strategy.kind", std::string("zero3"));
  if (!kind.starts_with("fsdp")) single("strategy.kind", std::string("fsdp"));
  all.push_back(shorter_sequences(settings, scenario));
  return all;
}

Settings changed(const Settings& settings, const Changes& changes) {
  Settings result = settings;
  const Place place{"advice"};
  if (changes.front().key == "strategy.kind") result = without_table(settings, "strategy");
  for (const Change& c : changes) result.set(c.key, c.value, {Origin::Kind::flag, place, {}});
  return result;
}

Boundary smallest_change(const ChangeKind& kind, const Settings& settings, const Library& library) {
  std::vector<Scalar> positions;
  for (std::size_t i = 0; i < kind.steps.size(); ++i) positions.emplace_back(static_cast<std::int64_t>(i));
  const auto at = [&](const Scalar& position) {
    return changed(settings, kind.steps[static_cast<std::size_t>(std::get<std::int64_t>(position))]);
  };
  return find_boundary(positions, at, library,
                       {.floor_is_monotone = kind.floor_is_monotone, .surroundings = false, .progress = {}});
}

// Changes that nothing else will do without: FSDP for what shards less, else the most checkpointing.
Changes drastic_change(const Scenario& scenario) {
  const std::string kind = "strategy.kind", checkpoints = "training.activation_checkpointing";
  const Settings resolved = resolved_settings(scenario);
  const std::string now = std::get<std::string>(resolved.find(kind)->value);
  if (!now.starts_with("fsdp") && now != "zero3") return {{kind, std::string("fsdp")}};
  return {{checkpoints, std::string("full")}};
}

double unlimited_throughput(Scenario scenario) {
  constexpr Bytes plenty{std::int64_t{1} << 50};
  scenario.gpu.memory = plenty;
  scenario.topology.node.host_memory = plenty * scenario.topology.node.gpus;
  for (ClusterPart& part : scenario.parts)
    part.gpu.memory = plenty, part.topology.node.host_memory = plenty * part.topology.node.gpus;
  return run(scenario).result.throughput.tokens_per_s_per_gpu;
}

// Tries every kind of change to `settings`, on top of `already`.
void try_all(OomAdvice& advice, const Settings& settings, const Library& library, const Changes& already) {
  const std::vector<ChangeKind> all = change_kinds(settings, resolve(settings, library));
  std::vector<Boundary> found(all.size());
  in_parallel(all.size(), [&](std::size_t i) { found[i] = smallest_change(all[i], settings, library); });
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto change_of = [&](const FitPoint& point) {
      const Changes& own = all[i].steps[static_cast<std::size_t>(std::get<std::int64_t>(point.value))];
      Changes changes = already;
      changes.insert(changes.end(), own.begin(), own.end());
      return changes;
    };
    if (found[i].last_fit) {
      const Result& r = found[i].last_fit->trial.run->result;
      const double tokens = r.throughput.tokens_per_s_per_gpu;
      advice.would_fit.push_back({.change = change_of(*found[i].last_fit),
                                  .step_time = r.step_time,
                                  .tokens_per_s_per_gpu = tokens,
                                  .cost = 1 - tokens / advice.unlimited_tokens_per_s_per_gpu,
                                  .peak_reserved = r.memory.peak_reserved});
    } else if (found[i].first_oom && already.empty()) {
      const Trial& trial = found[i].first_oom->trial;
      const bool optimizers = all[i].steps.front().front().key == "training.optimizer_impl";
      if (optimizers && trial.run->result.oom->phase.find("optimizer") == std::string::npos) continue;
      advice.tried.push_back({.change = change_of(*found[i].first_oom),
                              .dies_in = oom_place(*trial.run->result.oom),
                              .live = trial.floor.live});
    }
  }
}

}  // namespace

OomAdvice advise_oom(const Settings& settings, const Library& library) {
  const Scenario scenario = resolve(settings, library);
  OomAdvice advice;
  advice.unlimited_tokens_per_s_per_gpu = unlimited_throughput(scenario);
  try_all(advice, settings, library, {});
  if (advice.would_fit.empty()) {
    const Changes drastic = drastic_change(scenario);
    const MakeSettings with_it = [&] { return changed(settings, drastic); };
    if (try_floor(with_it, library).legal()) try_all(advice, with_it(), library, drastic);
  }
  std::stable_sort(advice.would_fit.begin(), advice.would_fit.end(),
                   [](const WouldFit& a, const WouldFit& b) { return a.cost < b.cost; });
  return advice;
}

}  // namespace shardsim
