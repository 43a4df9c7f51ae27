#include "sim/engine/colour_refinement.h"

#include <algorithm>
#include <map>
#include <numeric>

namespace shardsim {
namespace {

using Signature = std::vector<std::int64_t>;  // own colour, then (label, colour) of each neighbour, sorted

// Numbers the signatures by first appearance, so colours do not depend on their values.
std::vector<int> number(const std::vector<Signature>& signatures, int& count) {
  std::map<Signature, int> numbers;
  std::vector<int> colours;
  colours.reserve(signatures.size());
  for (const Signature& s : signatures)
    colours.push_back(numbers.try_emplace(s, static_cast<int>(numbers.size())).first->second);
  count = static_cast<int>(numbers.size());
  return colours;
}

}  // namespace

std::vector<int> refine(const ColouredGraph& graph) {
  struct Neighbour {
    std::int64_t label;
    int vertex;
  };
  std::vector<std::vector<Neighbour>> neighbours(graph.colour.size());
  for (const auto& e : graph.edges) {
    neighbours[static_cast<std::size_t>(e.a)].push_back({e.label, e.b});
    neighbours[static_cast<std::size_t>(e.b)].push_back({e.label, e.a});
  }
  std::vector<Signature> signatures(graph.colour.size());
  for (std::size_t v = 0; v < graph.colour.size(); ++v) signatures[v] = {graph.colour[v]};
  int count = 0;
  std::vector<int> colours = number(signatures, count);
  std::vector<std::pair<std::int64_t, int>> seen;
  for (;;) {
    for (std::size_t v = 0; v < colours.size(); ++v) {
      seen.clear();
      for (const Neighbour& n : neighbours[v])
        seen.push_back({n.label, colours[static_cast<std::size_t>(n.vertex)]});
      std::sort(seen.begin(), seen.end());
      signatures[v].assign(1, colours[v]);
      for (const auto& [label, colour] : seen) signatures[v].insert(signatures[v].end(), {label, colour});
    }
    const int before = count;
    colours = number(signatures, count);
    if (count == before) return colours;
  }
}

}  // namespace shardsim
