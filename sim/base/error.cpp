#include "sim/base/error.h"

#include <algorithm>

namespace shardsim {
namespace {

// Optimal string alignment distance: edits of one character and swaps of neighbours.
std::size_t edits(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before_last, last, row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    before_last = std::move(last);
    last = row;
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        row[j] = std::min(row[j], before_last[j - 2] + 1);
    }
  }
  return row.back();
}

}  // namespace

std::string to_string(const Place& place) {
  if (place.line == 0) return place.source;
  return place.source + ":" + std::to_string(place.line) + ":" + std::to_string(place.column);
}

std::string nearest(std::string_view name, const std::vector<std::string>& known) {
  if (name.size() > 200) return "";  // bounds the work on hostile input
  const std::size_t limit = std::max<std::size_t>(1, name.size() / 3);
  std::size_t best = limit + 1;
  std::string found;
  for (const std::string& candidate : known) {
    const std::size_t distance = edits(name, candidate);
    if (distance < best) best = distance, found = candidate;
  }
  return found;
}

std::string suggestion(std::string_view name, const std::vector<std::string>& known) {
  if (const std::string near = nearest(name, known); !near.empty()) return "; did you mean \"" + near + "\"?";
  std::string list;
  for (const std::string& candidate : known) list += (list.empty() ? "; known: " : ", ") + candidate;
  return list;
}

}  // namespace shardsim
