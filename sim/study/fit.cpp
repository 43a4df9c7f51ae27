#include "sim/study/fit.h"

#include <algorithm>
#include <map>

#include "sim/engine/parallel.h"
#include "sim/program/count.h"

namespace shardsim {
namespace {

constexpr std::size_t looked_at_below = 2;  // for islands: values before the last that fits
constexpr std::size_t at_once = 2;          // fixed, so that the number of simulations is the same everywhere

class BoundarySearch {
 public:
  BoundarySearch(const std::vector<Scalar>& values, const std::function<Settings(const Scalar&)>& settings_at,
                 const Library& library, const SearchOptions& options)
      : values_(values), settings_at_(settings_at), library_(library), options_(options) {}

  Boundary find() {
    std::size_t end = options_.floor_is_monotone ? bisect_floor() : values_.size();
    std::optional<std::size_t> last;
    while (end > 0 && !last) {
      const std::size_t begin = end - std::min<std::size_t>(end, options_.surroundings ? at_once : 1);
      run(begin, end);
      for (std::size_t i = end; i-- > begin && !last;)
        if (trials_.at(i).fits()) last = i;
      end = begin;
    }
    Boundary boundary;
    if (last) boundary.last_fit = FitPoint{values_[*last], trials_.at(*last)};
    if (last && !options_.surroundings) return boundary;
    if (last) {
      const std::size_t below = *last - std::min(*last, looked_at_below);
      run(below, *last);
      for (std::size_t i = below; i < *last; ++i)
        if (trials_.at(i).legal() && !trials_.at(i).fits()) boundary.holes.push_back(values_[i]);
    }
    boundary.first_oom = first_legal(last ? *last + 1 : 0);
    if (last && !boundary.first_oom && *last + 1 < values_.size())
      boundary.refused_after = trials_.at(*last + 1).refusal;
    if (!last && !boundary.first_oom)
      boundary.refusal = values_.empty() ? "no values" : trials_.at(0).refusal;
    for (const auto& [index, trial] : trials_) boundary.simulated += trial.run ? 1 : 0;
    return boundary;
  }

 private:
  MakeSettings maker(std::size_t i) const {
    return [this, i] { return settings_at_(values_[i]); };
  }

  // Values from here on cannot fit.
  std::size_t bisect_floor() {
    std::vector<std::size_t> legal;
    std::vector<Trial> floors(values_.size());
    std::vector<char> known(values_.size(), 0);
    const auto floor = [&](std::size_t i) -> const Trial& {
      if (!known[i]) floors[i] = try_floor(maker(i), library_), known[i] = 1;
      return floors[i];
    };
    // A refused value has no floor: the nearest legal one before it answers for it.
    std::size_t begin = 0, end = values_.size();
    while (begin < end) {
      const std::size_t middle = begin + (end - begin) / 2;
      std::size_t probe = middle;
      while (probe > begin && !floor(probe).legal()) --probe;
      if (floor(probe).legal() && floor(probe).floor.exceeds())
        end = probe;
      else
        begin = middle + 1;
    }
    return end;
  }

  // Trials of [begin, end), as far as they are still missing.
  void run(std::size_t begin, std::size_t end) {
    std::vector<std::size_t> missing;
    for (std::size_t i = begin; i < end; ++i)
      if (!trials_.contains(i)) missing.push_back(i);
    if (options_.progress)
      for (const std::size_t i : missing) options_.progress(values_[i]);
    std::vector<Trial> results(missing.size());
    in_parallel(missing.size(), [&](std::size_t m) { results[m] = try_run(maker(missing[m]), library_); });
    for (std::size_t m = 0; m < missing.size(); ++m) trials_.emplace(missing[m], std::move(results[m]));
  }

  std::optional<FitPoint> first_legal(std::size_t from) {
    for (std::size_t i = from; i < values_.size(); ++i) {
      if (const auto known = trials_.find(i); known != trials_.end()) {
        if (!known->second.legal()) continue;
        if (known->second.run) return FitPoint{values_[i], known->second};
      }
      Trial trial = try_run(maker(i), library_, true);  // to see where it dies
      const bool legal = trial.legal();
      trials_.insert_or_assign(i, trial);
      if (legal) return FitPoint{values_[i], std::move(trial)};
    }
    return std::nullopt;
  }

  const std::vector<Scalar>& values_;
  const std::function<Settings(const Scalar&)>& settings_at_;
  const Library& library_;
  const SearchOptions& options_;
  std::map<std::size_t, Trial> trials_;
};

// Fills the refusal instead of throwing.
template <class Work>
Trial guarded(const Work& work) {
  Trial trial;
  try {
    work(trial);
  } catch (const InputError& error) {
    trial = {};
    trial.refusal = error.what();
  }
  return trial;
}

template <class Keep>
Settings filtered(const Settings& settings, const Keep& keep) {
  Settings kept;
  kept.scenario = settings.scenario;
  for (const auto& [key, setting] : settings.all())
    if (keep(key)) kept.set(key, setting.value, setting.origin);
  return kept;
}

}  // namespace

MemoryFloor memory_floor(const Scenario& scenario) {
  const Program program = compile(scenario);
  MemoryFloor floor{.live = peak_live_bytes(program), .outside = {}, .capacity = {}};
  const auto room = [](Bytes capacity, Bytes outside) { return capacity - outside; };
  for (const Gpu* gpu : gpu_types(scenario)) {
    const Bytes nccl = program.groups.empty() ? Bytes{} : scenario.stack.nccl.of(gpu->architecture).first_use;
    const Bytes outside = gpu->context + nccl;
    if (floor.capacity == Bytes{} || room(gpu->memory, outside) < room(floor.capacity, floor.outside))
      floor.outside = outside, floor.capacity = gpu->memory;
  }
  return floor;
}

Trial try_floor(const MakeSettings& settings, const Library& library) {
  return guarded([&](Trial& trial) { trial.floor = memory_floor(resolve(settings(), library)); });
}

Trial try_run(const MakeSettings& settings, const Library& library, bool even_if_hopeless) {
  return guarded([&](Trial& trial) {
    const Scenario scenario = resolve(settings(), library);
    trial.floor = memory_floor(scenario);
    if (even_if_hopeless || !trial.floor.exceeds()) trial.run = run(scenario);
  });
}

Boundary find_boundary(const std::vector<Scalar>& values,
                       const std::function<Settings(const Scalar&)>& settings_at, const Library& library,
                       const SearchOptions& options) {
  return BoundarySearch(values, settings_at, library, options).find();
}

// A fixed global batch changes the accumulation with them, which is not the same program any more.
bool live_bytes_grow_with(const std::string& key, const Settings& settings) {
  constexpr std::string_view grow[] = {
      "training.micro_batch", "training.sequence_length", "training.decoder_sequence_length",
      "model.layers",         "model.encoder_layers",     "model.decoder_layers"};
  return std::find(std::begin(grow), std::end(grow), key) != std::end(grow) &&
         !settings.has("training.global_batch") && !settings.has("training.global_batch_tokens");
}

bool live_bytes_fall_with(const std::string& key) {
  return key == "cluster.gpus" || key == "strategy.sharding_factor";
}

Settings with(const Settings& settings, const std::string& key, const Scalar& value, const Place& place) {
  Settings changed = settings;
  changed.set(key, value, {Origin::Kind::flag, place, {}});
  return changed;
}

Settings without_key(const Settings& settings, const std::string& key) {
  return filtered(settings, [&](const std::string& k) { return k != key; });
}

Settings without_table(const Settings& settings, const std::string& table) {
  return filtered(settings, [&](const std::string& k) { return !k.starts_with(table + "."); });
}

}  // namespace shardsim
