#include "sim/topology/graph.h"

#include <map>
#include <sstream>

#include <boost/graph/adjacency_list.hpp>
#include <boost/graph/breadth_first_search.hpp>
#include <boost/graph/graphviz.hpp>

namespace shardsim {
namespace {

using Graph = boost::adjacency_list<boost::vecS, boost::vecS, boost::directedS, boost::no_property, int>;
using Vertex = boost::graph_traits<Graph>::vertex_descriptor;

Graph make_graph(int devices, std::span<const LocalLink> links) {
  Graph graph(static_cast<std::size_t>(devices));
  for (std::size_t l = 0; l < links.size(); ++l)
    if (links[l].from != NodeShape::network && links[l].to != NodeShape::network)
      boost::add_edge(static_cast<Vertex>(links[l].from), static_cast<Vertex>(links[l].to),
                      static_cast<int>(l), graph);
  return graph;
}

// Remembers the link by which breadth-first search first reached each vertex.
struct Arrivals : boost::default_bfs_visitor {
  std::vector<int>* link;
  explicit Arrivals(std::vector<int>& by) : link(&by) {}
  template <class Edge>
  void tree_edge(Edge e, const Graph& g) const {
    (*link)[boost::target(e, g)] = g[e];
  }
};

std::string speed(Bandwidth w) {
  std::ostringstream text;
  text << gb_per_s(w) << " GB/s";
  return text.str();
}

}  // namespace

std::vector<std::vector<std::vector<int>>> shortest_routes(int devices, int gpus,
                                                           std::span<const LocalLink> links) {
  const Graph graph = make_graph(devices, links);
  const auto n = static_cast<std::size_t>(gpus);
  std::vector<std::vector<std::vector<int>>> routes(n, std::vector<std::vector<int>>(n));
  for (std::size_t a = 0; a < n; ++a) {
    std::vector<int> arrival(static_cast<std::size_t>(devices), -1);
    boost::breadth_first_search(graph, a, boost::visitor(Arrivals(arrival)));
    for (std::size_t b = 0; b < n; ++b) {
      if (a == b || arrival[b] < 0) continue;
      std::vector<int>& route = routes[a][b];
      for (auto at = b; at != a;
           at = static_cast<std::size_t>(links[static_cast<std::size_t>(route.back())].from))
        route.push_back(arrival[at]);
      std::reverse(route.begin(), route.end());
    }
  }
  return routes;
}

std::string graphviz(const Topology& topology) {
  using Drawn = boost::adjacency_list<boost::vecS, boost::vecS, boost::undirectedS, std::string, std::string>;
  Drawn graph;
  std::map<std::string, Drawn::vertex_descriptor> vertex;
  const auto at = [&](const std::string& name) {
    const auto [it, fresh] = vertex.try_emplace(name, 0);
    if (fresh) it->second = boost::add_vertex(name, graph);
    return it->second;
  };
  const NodeShape& node = topology.node();
  for (const std::string& name : node.devices) at(name);
  const auto leaf_name = [&](int nic) {
    const int leaf = topology.leaf_of(0, nic);
    return leaf < 0 ? std::string("fabric switch") : "leaf" + std::to_string(leaf);
  };
  for (std::size_t l = 0; l < node.links.size(); l += 2) {  // each odd link is the way back of the one before
    const LocalLink& link = node.links[l];
    const std::string& from = node.devices[static_cast<std::size_t>(link.from)];
    const bool leaves_node = link.to == NodeShape::network;
    const std::string to =
        leaves_node ? leaf_name(std::stoi(from.substr(3))) : node.devices[static_cast<std::size_t>(link.to)];
    boost::add_edge(at(from), at(to), std::string(name(link.kind)) + " " + speed(link.capacity), graph);
  }
  if (topology.leaves() > 0)
    for (int nic = 0; nic < node.nics; ++nic)
      if (const auto leaf = at(leaf_name(nic)); !boost::edge(leaf, at("spine"), graph).second)
        boost::add_edge(leaf, at("spine"), "uplink " + speed(topology.capacity({topology.links() - 1})),
                        graph);
  std::ostringstream out;
  boost::write_graphviz(
      out, graph, [&](std::ostream& o, auto v) { o << "[label=\"" << graph[v] << "\"]"; },
      [&](std::ostream& o, auto e) { o << "[label=\"" << graph[e] << "\"]"; });
  return out.str();
}

}  // namespace shardsim
