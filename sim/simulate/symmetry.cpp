#include "sim/simulate/symmetry.h"

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>
#include <set>
#include <tuple>
#include <utility>

#include "sim/base/check.h"

namespace shardsim {
namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

constexpr std::int64_t everything = std::numeric_limits<std::int64_t>::max();

std::int64_t lcm(std::int64_t a, std::int64_t b) {
  const Wide least = Wide{a / std::gcd(a, b)} * b;
  return least < everything ? static_cast<std::int64_t>(least) : everything;
}

// Of a node of every part; 0 if they differ.
int ranks_of_a_node(const Topology& topology) {
  const int ranks = topology.parts().front().ranks_of_a_node();
  for (const Part& part : topology.parts())
    if (part.ranks_of_a_node() != ranks) return 0;
  return ranks;
}

std::int64_t leaf_period(const Topology& topology) {
  return topology.leaves() > 0 ? topology.spec().fabric.nodes_per_leaf : 1;
}

struct Period {
  std::int64_t nodes;
  // Each instance of a group has the same of the GPUs of every node that it is on. If not, nodes inside a
  // period are not exchanged.
  bool even;
};

// Of groups of so many consecutive ranks, and of those that take one rank of each such group.
Period period_of(const Topology& topology, std::int64_t ranks) {
  const std::int64_t per_node = ranks_of_a_node(topology);
  if (ranks == topology.gpus()) return {everything, true};
  if (per_node == 0) return {everything, false};
  if (per_node % ranks == 0) return {1, true};
  if (ranks % per_node == 0) return {ranks / per_node, true};
  // Their rings change rails from node to node, as often as there are nodes on the leaf.
  return {lcm(lcm(ranks, per_node) / per_node, leaf_period(topology)), false};
}

std::int64_t consecutive_ranks(const Mesh& mesh, Axis axis) {
  switch (axis) {
    case Axis::world: return mesh.world;
    case Axis::shard:
    case Axis::replica: return mesh.shard;
    case Axis::reshard: return mesh.reshard;
  }
  return mesh.world;
}

// 1 and numbers of which each divides the next: for every prime, the periods sorted by its power. Periods
// that divide one another are among them.
std::vector<std::int64_t> strides_of(const std::vector<Period>& periods, std::int64_t nodes) {
  std::vector<std::int64_t> strides{1};
  for (const Period& p : periods)
    if (p.nodes < nodes) strides.push_back(p.nodes);
  const auto drop_doubles = [&] {
    std::sort(strides.begin(), strides.end());
    strides.erase(std::unique(strides.begin(), strides.end()), strides.end());
  };
  drop_doubles();  // at most three are left beside 1, so that no cut-off lcm is taken apart again
  for (std::size_t i = 0; i < strides.size(); ++i)
    for (std::size_t j = i + 1; j < strides.size(); ++j) {
      const std::int64_t a = strides[i], b = strides[j];
      strides[i] = std::gcd(a, b);
      strides[j] = lcm(a, b);
    }
  drop_doubles();
  while (strides.back() >= nodes && strides.size() > 1) strides.pop_back();
  return strides;
}

// Leaves that other jobs load in another way than most.
std::vector<NodeRange> unusual_leaves(const Cluster& cluster) {
  const Topology& topology = cluster.topology;
  using Traffic = std::vector<std::tuple<int, std::int64_t, std::int64_t>>;  // link of the leaf, rate, flows
  std::map<int, Traffic>
      loaded;  // by the first node on the leaf; leaves of several rails are told of together
  const int nodes = topology.nodes(), on_leaf = std::min(topology.spec().fabric.nodes_per_leaf, nodes);
  const int first_link = topology.links() - 2 * topology.leaves();
  const int links = 2 * topology.leaves() / ((nodes - 1) / on_leaf + 1);
  for (const BackgroundTraffic& b : cluster.background)
    if (topology.link_class(b.link) == LinkClass::leaf)
      loaded[topology.nodes_at(b.link).first].emplace_back((b.link.index - first_link) % links, b.rate.count,
                                                           b.flows);
  if (loaded.empty()) return {};
  for (auto& [first, traffic] : loaded) std::sort(traffic.begin(), traffic.end());

  std::map<Traffic, std::vector<NodeRange>> alike;
  for (int first = 0; first < nodes; first += std::min(on_leaf, nodes - first))
    alike[loaded[first]].push_back({first, first + std::min(on_leaf, nodes - first)});
  const auto most = std::max_element(alike.begin(), alike.end(), [](const auto& a, const auto& b) {
    return a.second.size() < b.second.size();
  });
  std::vector<NodeRange> unusual;
  for (auto a = alike.begin(); a != alike.end(); ++a)
    if (a != most) unusual.insert(unusual.end(), a->second.begin(), a->second.end());
  return unusual;
}

}  // namespace

Symmetry::Symmetry(int nodes) : nodes_(nodes) { digits_.push_back({1, nodes, true, {}}); }

Symmetry::Symmetry(const Program& program, const Cluster& cluster) : nodes_(cluster.topology.nodes()) {
  const Topology& topology = cluster.topology;
  std::vector<Period> periods{{leaf_period(topology), true}};
  for (const Group& group : program.groups)
    periods.push_back(period_of(topology, consecutive_ranks(program.mesh, group.axis)));

  std::int64_t below = 0;
  const std::vector<std::int64_t> strides = strides_of(periods, nodes_);
  for (auto stride = strides.rbegin(); stride != strides.rend(); ++stride) {
    if (below == 0) below = (nodes_ + *stride - 1) / *stride * *stride;
    const bool fits = std::all_of(periods.begin(), periods.end(), [&](const Period& p) {
      return *stride % p.nodes == 0 || (p.even && (p.nodes >= nodes_ || p.nodes % below == 0));
    });
    digits_.push_back({*stride, below, !fits, {}});
    below = *stride;
  }
  set_values(cluster);
}

void Symmetry::set_values(const Cluster& cluster) {
  const Topology& topology = cluster.topology;
  std::vector<std::set<std::int64_t>> single(digits_.size()), starts(digits_.size());  // of each digit
  const auto touch = [&](const NodeRange& nodes) {  // something about them is special
    for (std::size_t i = 0; i < digits_.size(); ++i)
      if (const Digit& d = digits_[i]; nodes.first / d.stride == (nodes.end - 1) / d.stride)
        single[i].insert(d.value(nodes.first));
  };
  for (const Straggler& s : cluster.stragglers) {
    const int node = topology.node_of(s.rank);
    touch({node, node + 1});
  }
  for (const auto& [link, capacity] : topology.degraded_links()) touch(topology.nodes_at(link));
  for (const BackgroundTraffic& b : cluster.background)
    if (topology.link_class(b.link) != LinkClass::leaf) touch(topology.nodes_at(b.link));
  for (const NodeRange& leaf : unusual_leaves(cluster)) touch(leaf);
  // A border falls between two values of a digit, or into one, and then between values of the next.
  for (const Part& part : topology.parts()) {
    const int border = part.first_node + part.nodes;
    for (std::size_t i = 0; i < digits_.size() && border % digits_[i].below != 0; ++i) {
      const Digit& d = digits_[i];
      starts[i].insert(d.value(border));
      if (border % d.stride != 0) single[i].insert(d.value(border));
    }
  }
  for (std::size_t i = 0; i < digits_.size(); ++i)
    if (!digits_[i].rigid) digits_[i].exchange(single[i], starts[i]);
}

// All values are exchanged but single ones, and those on different sides of a start.
void Symmetry::Digit::exchange(const std::set<std::int64_t>& single, std::set<std::int64_t> starts) {
  std::int64_t begin = 0;
  starts.insert(below / stride);
  for (const std::int64_t end : starts) {
    Values alike{-1, -1, end - begin};
    for (auto s = single.lower_bound(begin); s != single.end() && *s < end; ++s) {
      values.push_back({*s, -1, 1});
      --alike.count;
    }
    for (std::int64_t v = begin; v < end && alike.next < 0; ++v)
      if (!single.contains(v)) (alike.lowest < 0 ? alike.lowest : alike.next) = v;
    if (alike.count > 0) values.push_back(alike);
    begin = end;
  }
  std::sort(values.begin(), values.end(),
            [](const Values& a, const Values& b) { return a.lowest < b.lowest; });
}

std::vector<int> Symmetry::sample(bool two) const {
  std::vector<std::int64_t> nodes{0};
  for (const Digit& d : digits_) {
    std::vector<std::int64_t> values, higher = std::move(nodes);
    if (d.rigid) {
      values.resize(at(d.below / d.stride));
      std::iota(values.begin(), values.end(), 0);
    }
    for (const Values& v : d.values) {
      values.push_back(v.lowest);
      if (two && v.next >= 0) values.push_back(v.next);
    }
    std::sort(values.begin(), values.end());
    nodes.clear();
    for (const std::int64_t node : higher)
      for (const std::int64_t v : values)
        if (node + v * d.stride < nodes_) nodes.push_back(node + v * d.stride);
  }
  return {nodes.begin(), nodes.end()};
}

Symmetry::Digits Symmetry::that_move(std::int64_t period) const {
  Digits digits = none;
  for (std::size_t i = 0; i < digits_.size(); ++i)
    if (digits_[i].stride % period == 0) digits |= Digits{1} << i;
  return digits;
}

Symmetry::Digits Symmetry::of_leaf(const Topology& topology) const {
  return that_move(leaf_period(topology));
}

Symmetry::Digits Symmetry::of_instance(const Topology& topology, const Mesh& mesh, Axis axis) const {
  if (axis == Axis::world) return none;
  const Digits moved = that_move(period_of(topology, consecutive_ranks(mesh, axis)).nodes);
  return axis == Axis::replica ? ~moved : moved;
}

std::int64_t Symmetry::ways(int node, Digits digits) const {
  std::int64_t ways = 1;
  for (std::size_t i = 0; i < digits_.size(); ++i) {
    const Digit& d = digits_[i];
    if (d.rigid || (digits >> i & 1) == 0) continue;
    const auto found = std::lower_bound(d.values.begin(), d.values.end(), d.value(node),
                                        [](const Values& v, std::int64_t value) { return v.lowest < value; });
    require(found != d.values.end() && found->lowest == d.value(node), "a node that represents others");
    ways *= found->count;
  }
  return ways;
}

}  // namespace shardsim
