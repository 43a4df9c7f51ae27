// Does colour refinement tell apart what neighbourhoods tell apart, and nothing else?
#include "sim/engine/colour_refinement.h"

#include <algorithm>
#include <map>
#include <numeric>

#include <doctest/doctest.h>

#include "sim/base/random.h"

#include "tests/support/seed.h"

namespace shardsim {
namespace {

using Colours = std::vector<int>;

ColouredGraph blank(int vertices) {
  return {.colour = Colours(static_cast<std::size_t>(vertices), 0), .edges = {}};
}
ColouredGraph path(int n) {
  ColouredGraph graph = blank(n);
  for (int v = 0; v + 1 < n; ++v) graph.edges.push_back({v, v + 1, 0});
  return graph;
}
ColouredGraph cycle(int n) {
  ColouredGraph graph = path(n);
  graph.edges.push_back({n - 1, 0, 0});
  return graph;
}

ColouredGraph random_graph(Random& random) {
  const auto n = static_cast<int>(random.between(1, 24));
  ColouredGraph graph = blank(n);
  const std::int64_t colours = random.between(1, 3), labels = random.between(1, 3);
  for (int& colour : graph.colour) colour = static_cast<int>(random.between(1, colours));
  for (std::int64_t e = n > 1 ? random.between(0, 2 * n) : 0; e > 0; --e) {
    const auto a = static_cast<int>(random.between(0, n - 1));
    const auto b = (a + static_cast<int>(random.between(1, n - 1))) % n;
    graph.edges.push_back({a, b, random.between(-1, labels)});
  }
  return graph;
}

// How many neighbours of each (label, colour) every vertex has.
std::vector<std::map<std::pair<std::int64_t, int>, int>> neighbours(const ColouredGraph& graph,
                                                                    const Colours& colours) {
  std::vector<std::map<std::pair<std::int64_t, int>, int>> counts(colours.size());
  for (const auto& edge : graph.edges) {
    const auto a = static_cast<std::size_t>(edge.a), b = static_cast<std::size_t>(edge.b);
    ++counts[a][{edge.label, colours[b]}];
    ++counts[b][{edge.label, colours[a]}];
  }
  return counts;
}

// Whether two colourings put the same vertices together, under any names of the colours.
bool same_classes(const Colours& a, const Colours& b) {
  if (a.size() != b.size()) return false;
  std::map<int, int> to_b, to_a;
  for (std::size_t v = 0; v < a.size(); ++v)
    if (to_b.try_emplace(a[v], b[v]).first->second != b[v] ||
        to_a.try_emplace(b[v], a[v]).first->second != a[v])
      return false;
  return true;
}

// Splits everything by everything until nothing changes.
Colours refine_naively(const ColouredGraph& graph) {
  using Seen = std::map<std::pair<std::int64_t, int>, std::int64_t>;
  const auto number = [](const auto& keys) {
    std::map<typename std::decay_t<decltype(keys)>::value_type, int> numbers;
    Colours colours;
    for (const auto& key : keys)
      colours.push_back(numbers.try_emplace(key, static_cast<int>(numbers.size())).first->second);
    return colours;
  };
  Colours colours = number(graph.colour);
  for (;;) {
    std::vector<std::pair<int, Seen>> seen;
    for (const int colour : colours) seen.push_back({colour, {}});
    for (const auto& e : graph.edges) {
      const auto a = static_cast<std::size_t>(e.a), b = static_cast<std::size_t>(e.b);
      seen[a].second[{e.label, colours[b]}] += e.seen_by_a;
      seen[b].second[{e.label, colours[a]}] += e.seen_by_b;
    }
    Colours next = number(seen);
    if (next == colours) return colours;
    colours = std::move(next);
  }
}

TEST_CASE("no vertices have no colours") { CHECK(refine({}).empty()); }

TEST_CASE("a cycle is one colour") {
  for (int n = 3; n < 10; ++n) CHECK(refine(cycle(n)) == Colours(static_cast<std::size_t>(n), 0));
}

TEST_CASE("a path is coloured by the distance to its nearer end") {
  for (int n = 1; n < 20; ++n) {
    Colours expected;
    for (int v = 0; v < n; ++v) expected.push_back(std::min(v, n - 1 - v));
    CHECK(refine(path(n)) == expected);
  }
}

TEST_CASE("a star is its centre and its leaves") {
  ColouredGraph star = blank(6);
  for (int leaf = 1; leaf < 6; ++leaf) star.edges.push_back({0, leaf, 0});
  CHECK(refine(star) == Colours{0, 1, 1, 1, 1, 1});
}

TEST_CASE("one marked vertex splits a cycle by the distance to it") {
  for (int n = 3; n < 20; ++n) {
    ColouredGraph graph = cycle(n);
    graph.colour[0] = 1;
    Colours expected;
    for (int v = 0; v < n; ++v) expected.push_back(std::min(v, n - v));
    CHECK(refine(graph) == expected);
  }
}

TEST_CASE("two triangles and a hexagon are not told apart, which is the known limit") {
  ColouredGraph graph = cycle(6);
  graph.colour.resize(12, 0);
  for (const int first : {6, 9})
    for (int i = 0; i < 3; ++i) graph.edges.push_back({first + i, first + (i + 1) % 3, 0});
  CHECK(refine(graph) == Colours(12, 0));
}

TEST_CASE("edges of different labels are different neighbours") {
  ColouredGraph square = cycle(4);
  CHECK(refine(square) == Colours{0, 0, 0, 0});
  square.edges = {{0, 1, 7}, {1, 2, 8}, {2, 3, 7}, {3, 0, 8}};  // one of each at every corner
  CHECK(refine(square) == Colours{0, 0, 0, 0});
  square.edges = {{0, 1, 7}, {1, 2, 7}, {2, 3, 8}, {3, 0, 8}};
  CHECK(refine(square) == Colours{0, 1, 0, 2});
}

TEST_CASE("two edges between the same vertices count twice") {
  ColouredGraph graph = path(4);
  graph.edges.push_back({0, 1, 0});
  CHECK(refine(graph) == Colours{0, 1, 2, 3});
}

TEST_CASE("initial colours keep vertices apart, and their values do not show") {
  ColouredGraph graph = blank(4);
  graph.colour = {9, -3, 9, 5};
  CHECK(refine(graph) == Colours{0, 1, 0, 2});
}

TEST_CASE("vertices of one colour began with one and have equally many neighbours of each colour and label") {
  for_each_seed(500, [&](Random& random) {
    const ColouredGraph graph = random_graph(random);
    const Colours colours = refine(graph);
    const auto counts = neighbours(graph, colours);
    REQUIRE(colours.size() == graph.colour.size());
    std::map<int, std::size_t> representative;
    int fresh = 0;
    for (std::size_t v = 0; v < colours.size(); ++v) {
      const auto [found, is_new] = representative.try_emplace(colours[v], v);
      if (is_new) CHECK(colours[v] == fresh++);  // 0, 1, ... in the order of each colour's lowest vertex
      CHECK(graph.colour[v] == graph.colour[found->second]);
      CHECK(counts[v] == counts[found->second]);
    }
  });
}

TEST_CASE("the partition is that of the plain algorithm") {
  for_each_seed(2000, [&](Random& random) {
    const ColouredGraph graph = random_graph(random);
    CHECK(refine(graph) == refine_naively(graph));
  });
}

// One vertex for each class of an equitable partition of the graph that is finer than it has to be.
TEST_CASE("a vertex may stand for many that are alike") {
  for_each_seed(2000, [&](Random& random) {
    ColouredGraph graph = random_graph(random);
    const auto n = static_cast<int>(graph.colour.size());
    for (int copies = static_cast<int>(random.between(1, 3)), copy = 1; copy < copies; ++copy) {
      const std::size_t edges = graph.edges.size();
      for (int v = 0; v < n; ++v) graph.colour.push_back(graph.colour[static_cast<std::size_t>(v)]);
      for (std::size_t e = 0; e < edges; ++e)
        if (auto edge = graph.edges[e]; edge.a < n && edge.b < n)
          graph.edges.push_back({copy * n + edge.a, copy * n + edge.b, edge.label});
    }
    ColouredGraph marked = graph;
    marked.colour[static_cast<std::size_t>(random.between(0, n - 1))] += 100;
    const Colours finer = refine_naively(marked), expected = refine_naively(graph);

    ColouredGraph quotient;
    std::vector<std::size_t> representative;
    for (std::size_t v = 0; v < finer.size(); ++v)
      if (finer[v] == static_cast<int>(representative.size())) {
        representative.push_back(v);
        quotient.colour.push_back(graph.colour[v]);
      }
    const auto counts = neighbours(graph, finer);
    for (std::size_t a = 0; a < representative.size(); ++a)
      for (const auto& [key, count] : counts[representative[a]])
        if (const auto& [label, b] = key; static_cast<int>(a) < b)
          quotient.edges.push_back(
              {static_cast<int>(a), b, label, count,
               counts[representative[static_cast<std::size_t>(b)]].at({label, static_cast<int>(a)})});
        else if (static_cast<int>(a) == b)  // an edge inside a class is seen from both its ends
          quotient.edges.push_back({b, b, label, count, 0});
    const Colours colours = refine(quotient);
    for (std::size_t v = 0; v < finer.size(); ++v)
      CHECK(colours[static_cast<std::size_t>(finer[v])] == expected[v]);
    CHECK(refine_naively(quotient) == colours);
  });
}

// Being the coarsest of its kind, the partition must not split what a symmetry exchanges.
TEST_CASE("copies of a graph side by side are coloured alike") {
  for_each_seed(300, [&](Random& random) {
    const ColouredGraph one = random_graph(random);
    const auto n = static_cast<int>(one.colour.size());
    ColouredGraph two = one;
    two.colour.insert(two.colour.end(), one.colour.begin(), one.colour.end());
    for (const auto& edge : one.edges) two.edges.push_back({n + edge.b, n + edge.a, edge.label});
    const Colours colours = refine(one);
    Colours expected = colours;
    expected.insert(expected.end(), colours.begin(), colours.end());
    CHECK(refine(two) == expected);
  });
}

TEST_CASE("renaming vertices renames colours and changes no class") {
  for_each_seed(500, [&](Random& random) {
    const ColouredGraph graph = random_graph(random);
    const auto n = static_cast<int>(graph.colour.size());
    Colours new_name(graph.colour.size());
    std::iota(new_name.begin(), new_name.end(), 0);
    for (int v = n - 1; v > 0; --v)
      std::swap(new_name[static_cast<std::size_t>(v)],
                new_name[static_cast<std::size_t>(random.between(0, v))]);
    const auto renamed_vertex = [&](int v) { return new_name[static_cast<std::size_t>(v)]; };
    ColouredGraph renamed = blank(n);
    for (int v = 0; v < n; ++v)
      renamed.colour[static_cast<std::size_t>(renamed_vertex(v))] = graph.colour[static_cast<std::size_t>(v)];
    for (auto edge = graph.edges.rbegin(); edge != graph.edges.rend(); ++edge)
      renamed.edges.push_back({renamed_vertex(edge->b), renamed_vertex(edge->a), edge->label});
    const Colours colours = refine(graph), renamed_colours = refine(renamed);
    Colours back(colours.size());
    for (int v = 0; v < n; ++v)
      back[static_cast<std::size_t>(v)] = renamed_colours[static_cast<std::size_t>(renamed_vertex(v))];
    CHECK(same_classes(colours, back));
  });
}

}  // namespace
}  // namespace shardsim
