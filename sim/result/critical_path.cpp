#include "sim/result/critical_path.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <tuple>

#include <fmt/format.h>

namespace shardsim {
namespace {

// A phase cut to two marks: "backward / decoder 17 / recompute" is of "backward / decoder", number 17.
struct Place {
  std::string stem, number;
};

Place place_of(const std::string& phase) {
  constexpr std::string_view mark = " / ";
  const std::size_t first = phase.find(mark);
  const std::size_t second = first == std::string::npos ? first : phase.find(mark, first + mark.size());
  const std::string two = phase.substr(0, second);
  std::size_t digits = two.size();
  while (digits > 0 && two[digits - 1] >= '0' && two[digits - 1] <= '9') --digits;
  return {two.substr(0, digits), two.substr(digits)};
}

class Parts {
 public:
  void add(const PathSegment& s) {
    Sum& sum = sums_[static_cast<std::size_t>(s.kind)];
    ++sum.part.segments;
    sum.part.time += s.time;
    sum.part.latency += s.latency;
    sum.part.slowed += s.slowed;
    sum.by_reason[s.reason] += s.time;
  }
  std::vector<PathPart> finish() const {
    std::vector<PathPart> parts;
    for (int k = 0; k < path_kinds; ++k) {
      const Sum& sum = sums_[static_cast<std::size_t>(k)];
      if (sum.part.segments == 0) continue;
      PathPart part = sum.part;
      part.kind = static_cast<PathKind>(k);
      part.reason =
          std::max_element(sum.by_reason.begin(), sum.by_reason.end(), [](const auto& a, const auto& b) {
            return a.second < b.second;
          })->first;
      parts.push_back(std::move(part));
    }
    return parts;
  }

 private:
  struct Sum {
    PathPart part{};
    std::map<std::string, Time> by_reason;
  };
  std::array<Sum, path_kinds> sums_;
};

// A run of segments of one stem, before it is written down.
struct Open {
  Rank rank;
  Place first, last;
  Parts parts;
  std::int64_t times = 1;

  PathStretch finish() const {
    std::string label =
        first.stem.empty() && first.number.empty() ? "between phases" : first.stem + first.number;
    if (first.number != last.number) label += " ... " + last.number;
    return {rank, std::move(label), times, parts.finish()};
  }
};

std::vector<Open> runs(const CriticalPath& path) {
  std::vector<Open> all;
  for (const PathSegment& s : path.segments) {
    const Place place = place_of(s.phase);
    if (all.empty() || all.back().rank != s.rank || all.back().first.stem != place.stem)
      all.push_back({s.rank, place, place, {}});
    all.back().last = place;
    all.back().parts.add(s);
  }
  return all;
}

}  // namespace

std::vector<PathStretch> stretches(const CriticalPath& path) {
  std::vector<PathStretch> result;
  for (const Open& run : runs(path)) result.push_back(run.finish());
  return result;
}

std::vector<PathStretch> stretches_at_once(const CriticalPath& path) {
  std::vector<Open> all;
  std::map<std::pair<Rank, std::string>, std::size_t> known;
  std::optional<std::size_t> last;
  for (const PathSegment& s : path.segments) {
    const Place place = place_of(s.phase);
    const auto [at, fresh] = known.try_emplace({s.rank, place.stem}, all.size());
    if (fresh) all.push_back({s.rank, place, place, {}, 0});
    Open& open = all[at->second];
    if (last != at->second) ++open.times;
    last = at->second;
    open.last = place;
    open.parts.add(s);
  }
  std::vector<PathStretch> result;
  for (const Open& open : all) result.push_back(open.finish());
  return result;
}

std::vector<PathPart> totals(const CriticalPath& path) {
  Parts parts;
  for (const PathSegment& s : path.segments) parts.add(s);
  return parts.finish();
}

std::vector<std::pair<Rank, Time>> by_rank(const CriticalPath& path) {
  std::map<Rank, Time> sums;
  for (const PathSegment& s : path.segments) sums[s.rank] += s.time;
  std::vector<std::pair<Rank, Time>> result(sums.begin(), sums.end());
  std::stable_sort(result.begin(), result.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  return result;
}

std::vector<PathSegment> longest(const CriticalPath& path, std::size_t count) {
  std::vector<PathSegment> all = path.segments, result;
  std::stable_sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.time > b.time; });
  std::set<std::tuple<PathKind, Rank, std::string>> shown;
  for (PathSegment& s : all)
    if (result.size() < count && shown.emplace(s.kind, s.rank, place_of(s.phase).stem).second)
      result.push_back(std::move(s));
  return result;
}

}  // namespace shardsim
