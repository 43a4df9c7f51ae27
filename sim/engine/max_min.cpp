#include "sim/engine/max_min.h"

#include <algorithm>

namespace shardsim {
namespace {

// A level of filling, in bytes per second per channel, as an exact fraction.
struct Level {
  std::int64_t numerator, denominator;
  friend bool operator<(Level a, Level b) {
    return Wide{a.numerator} * b.denominator < Wide{b.numerator} * a.denominator;
  }
  friend bool operator==(Level a, Level b) {
    return Wide{a.numerator} * b.denominator == Wide{b.numerator} * a.denominator;
  }
};

std::int64_t ceil_div(Wide a, std::int64_t b) { return static_cast<std::int64_t>((a + b - 1) / b); }

}  // namespace

std::span<const Bandwidth> MaxMin::solve(std::span<const Bandwidth> capacity, std::span<const Flow> flows) {
  residual_.resize(capacity.size());
  weight_.assign(capacity.size(), 0);
  full_.assign(capacity.size(), false);
  fixed_.assign(flows.size(), false);
  rate_.assign(flows.size(), Bandwidth{});
  for (std::size_t l = 0; l < capacity.size(); ++l) residual_[l] = capacity[l].count;
  for (const Flow& flow : flows)
    for (const LinkShare& share : flow.links)
      weight_[static_cast<std::size_t>(share.link)] += share.weight * share.count;

  for (std::size_t open = flows.size(); open > 0;) {
    bool found = false;
    Level lowest{};
    const auto consider = [&](Level level) {
      if (!found || level < lowest) lowest = level;
      found = true;
    };
    for (std::size_t l = 0; l < capacity.size(); ++l)
      if (weight_[l] > 0) consider({residual_[l], weight_[l]});
    for (std::size_t f = 0; f < flows.size(); ++f)
      if (!fixed_[f]) consider({flows[f].cap.count, flows[f].channels});

    for (std::size_t l = 0; l < capacity.size(); ++l)
      full_[l] = weight_[l] > 0 && Level{residual_[l], weight_[l]} == lowest;
    for (std::size_t f = 0; f < flows.size(); ++f) {
      if (fixed_[f]) continue;
      const Flow& flow = flows[f];
      const bool at_cap = Level{flow.cap.count, flow.channels} == lowest;
      const bool blocked = std::any_of(flow.links.begin(), flow.links.end(), [&](const LinkShare& share) {
        return full_[static_cast<std::size_t>(share.link)];
      });
      if (!at_cap && !blocked) continue;
      const auto level =
          static_cast<std::int64_t>(Wide{flow.channels} * lowest.numerator / lowest.denominator);
      rate_[f].count = at_cap ? flow.cap.count : std::max<std::int64_t>(level, 1);
      fixed_[f] = true;
      --open;
    }
    // Subtracted after the whole round, so that ties see the same residuals.
    for (std::size_t l = 0; l < capacity.size(); ++l) weight_[l] = 0, residual_[l] = capacity[l].count;
    for (std::size_t f = 0; f < flows.size(); ++f)
      for (const LinkShare& share : flows[f].links) {
        const auto l = static_cast<std::size_t>(share.link);
        if (fixed_[f])
          residual_[l] -= share.count * ceil_div(Wide{rate_[f].count} * share.weight, flows[f].channels);
        else
          weight_[l] += share.weight * share.count;
      }
    for (std::int64_t& r : residual_) r = std::max<std::int64_t>(r, 0);
  }
  return rate_;
}

}  // namespace shardsim
