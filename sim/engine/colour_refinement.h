// Which vertices of a graph cannot be told apart by their neighbourhoods: colour refinement (1-dimensional
// Weisfeiler-Leman). Two vertices end with one colour if and only if they began with one and have, for every
// colour and edge label, equally many neighbours of it. The partition is the coarsest such ("equitable") one.
//
// A vertex may stand for many that are known to be alike, such as those that a symmetry exchanges. An edge
// then says how many such neighbours each vertex at one end has at the other; the result is that of the
// graph written out, since its coarsest equitable partition is a union of classes of any finer one.
//   source  Grohe, Kersting, Mladenov, Selman, "Dimension reduction via colour refinement", ESA 2014: on an
//           equitable partition a linear or max-min problem has a solution that is constant on the classes.
//           Berkholz, Bonsma, Grohe, "Tight lower and upper bounds for the complexity of canonical colour
//           refinement", ESA 2013: classes split their neighbours, of the parts of a class all but the
//           largest have to.
#pragma once

#include <cstdint>
#include <vector>

namespace shardsim {

struct ColouredGraph {
  std::vector<int> colour;  // initial, per vertex
  struct Edge {
    int a, b;                                   // undirected
    std::int64_t label;                         // edges of different labels are different kinds
    std::int64_t seen_by_a = 1, seen_by_b = 1;  // neighbours at the other end
  };
  std::vector<Edge> edges;
};

// Final colours 0, 1, ... in the order of each colour's lowest vertex. Takes O(m log n) steps but for
// sorting.
std::vector<int> refine(const ColouredGraph& graph);

}  // namespace shardsim
