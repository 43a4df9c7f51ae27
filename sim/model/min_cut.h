// The cheapest values to keep so that everything wanted can be made again from them: a minimum cut over
// vertices, by augmenting paths. For graphs of tens of vertices.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace shardsim {

struct KeepGraph {
  struct Vertex {
    std::int64_t cost;    // of keeping it
    bool given = false;   // cannot be made from others: it is kept, or what needs it is
    bool wanted = false;  // has to be there in the end
  };
  std::vector<Vertex> vertices;
  std::vector<std::pair<int, int>> edges;  // the second is made from the first
};

// Indices of the vertices to keep, ascending. Requires: costs >= 0, edges without cycles.
std::vector<int> cheapest_to_keep(const KeepGraph& graph);

}  // namespace shardsim
