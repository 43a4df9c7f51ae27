#include "sim/model/min_cut.h"

#include <algorithm>
#include <limits>

namespace shardsim {
namespace {

constexpr std::int64_t unlimited = std::numeric_limits<std::int64_t>::max() / 4;

// Every vertex is an edge from its entry to its exit; flow runs from the given to the wanted.
class Flow {
 public:
  explicit Flow(const KeepGraph& graph) : out_(2 * graph.vertices.size() + 2) {
    const int source = node_count() - 2, sink = node_count() - 1;
    for (int v = 0; v < static_cast<int>(graph.vertices.size()); ++v) {
      const KeepGraph::Vertex& vertex = graph.vertices[static_cast<std::size_t>(v)];
      connect(entry(v), exit(v), vertex.cost);
      if (vertex.given) connect(source, entry(v), unlimited);
      if (vertex.wanted) connect(exit(v), sink, unlimited);
    }
    for (const auto& [from, to] : graph.edges) connect(exit(from), entry(to), unlimited);
    while (augment(source, sink)) {
    }
  }
  // The source reaches its entry, not its exit.
  bool cut(int vertex) const { return reached(entry(vertex)) && !reached(exit(vertex)); }

 private:
  struct Edge {
    int to;
    std::int64_t left;
  };
  static int entry(int vertex) { return 2 * vertex; }
  static int exit(int vertex) { return 2 * vertex + 1; }
  int node_count() const { return static_cast<int>(out_.size()); }
  bool reached(int node) const { return by_[static_cast<std::size_t>(node)] >= 0; }
  Edge& edge(int e) { return edges_[static_cast<std::size_t>(e)]; }

  void connect(int from, int to, std::int64_t capacity) {  // an edge and its reverse
    out_[static_cast<std::size_t>(from)].push_back(static_cast<int>(edges_.size()));
    edges_.push_back({to, capacity});
    out_[static_cast<std::size_t>(to)].push_back(static_cast<int>(edges_.size()));
    edges_.push_back({from, 0});
  }

  // Along a shortest path, if there is one; by_ holds the edge that reached each node.
  bool augment(int source, int sink) {
    by_.assign(out_.size(), -1);
    constexpr int start = std::numeric_limits<int>::max();
    by_[static_cast<std::size_t>(source)] = start;
    std::vector<int> queue{source};
    for (std::size_t next = 0; next < queue.size(); ++next)
      for (const int e : out_[static_cast<std::size_t>(queue[next])])
        if (edge(e).left > 0 && !reached(edge(e).to)) {
          by_[static_cast<std::size_t>(edge(e).to)] = e;
          queue.push_back(edge(e).to);
        }
    if (!reached(sink)) return false;
    const auto along = [&](auto&& visit) {
      for (int node = sink; node != source;) {
        const int e = by_[static_cast<std::size_t>(node)];
        visit(e);
        node = edge(e ^ 1).to;
      }
    };
    std::int64_t amount = unlimited;
    along([&](int e) { amount = std::min(amount, edge(e).left); });
    along([&](int e) { edge(e).left -= amount, edge(e ^ 1).left += amount; });
    return true;
  }

  std::vector<std::vector<int>> out_;
  std::vector<Edge> edges_;
  std::vector<int> by_;
};

}  // namespace

std::vector<int> cheapest_to_keep(const KeepGraph& graph) {
  const Flow flow(graph);
  std::vector<int> kept;
  for (int v = 0; v < static_cast<int>(graph.vertices.size()); ++v)
    if (flow.cut(v)) kept.push_back(v);
  return kept;
}

}  // namespace shardsim
