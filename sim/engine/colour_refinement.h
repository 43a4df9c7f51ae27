// Which vertices of a graph cannot be told apart by their neighbourhoods: colour refinement (1-dimensional
// Weisfeiler-Leman). Two vertices end with one colour if and only if they began with one and have, for every
// colour and edge label, equally many neighbours of it. The partition is the coarsest such ("equitable") one.
//   source  Grohe, Kersting, Mladenov, Selman, "Dimension reduction via colour refinement", ESA 2014: on an
//           equitable partition a linear or max-min problem has a solution that is constant on the classes.
#pragma once

#include <cstdint>
#include <vector>

namespace shardsim {

struct ColouredGraph {
  std::vector<int> colour;  // initial, per vertex
  struct Edge {
    int a, b;            // undirected
    std::int64_t label;  // edges of different labels are different kinds
  };
  std::vector<Edge> edges;
};

// Final colours 0, 1, ... in the order of each colour's lowest vertex.
std::vector<int> refine(const ColouredGraph& graph);

}  // namespace shardsim
