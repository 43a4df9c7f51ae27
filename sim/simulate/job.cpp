#include "sim/simulate/job.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <optional>
#include <tuple>
#include <utility>

#include "sim/base/check.h"
#include "sim/engine/colour_refinement.h"
#include "sim/simulate/symmetry.h"

namespace shardsim {
namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

struct Crossing {
  int link;  // position in links_
  std::int64_t channels;
  std::int64_t groups_of_link, links_of_group;  // like this one
};

// Of a group: one that stands for `count` which a symmetry exchanges.
struct Instance {
  GroupId group;
  std::int64_t index;
  int node;  // the lowest of the placed ones that it is on
  Symmetry::Digits digits;
  std::int64_t count;
  RingFabric fabric;
  std::vector<int> parts;
  std::vector<Crossing> crossings;
};

// Numbers distinct keys 0, 1, ... by first appearance.
template <class Key>
class Numbering {
 public:
  int operator()(const Key& key) {
    return numbers_.try_emplace(key, static_cast<int>(numbers_.size())).first->second;
  }

 private:
  std::map<Key, int> numbers_;
};

class Placement {
 public:
  Placement(const Program& program, const Cluster& cluster, const Symmetry& symmetry)
      : program_(program),
        topology_(cluster.topology),
        symmetry_(symmetry),
        instance_(program.groups.size()) {
    for (const Straggler& s : cluster.stragglers) scale_[s.rank] = s.compute_scale;
    nodes_ = symmetry.nodes();
    for (const int node : nodes_)
      for (int gpu = 0; gpu < topology_.part_at_node(node).ranks_of_a_node(); ++gpu)
        ranks_.push_back(topology_.rank_at(node, gpu));
    const std::vector<int> nodes_for_rings = symmetry.nodes_for_rings();
    for (const GroupId g : ids(program.groups)) place_group(g, nodes_for_rings);
    find_links();
    for (Instance& i : instances_) find_crossings(i);
    for (const BackgroundTraffic& b : cluster.background)
      if (const auto l = find_link(b.link)) background_[*l].emplace_back(b.rate.count, b.flows);
    for (auto& [link, traffic] : background_) std::sort(traffic.begin(), traffic.end());
  }

  Job job(bool fold) const { return quotient(fold ? refine(graph()) : identity()); }

 private:
  using Traffic = std::vector<std::pair<std::int64_t, std::int64_t>>;  // rate and flows of other jobs, sorted
  using Colours = std::vector<int>;

  int rank_vertex(std::size_t r) const { return static_cast<int>(r); }
  int instance_vertex(std::size_t i) const { return static_cast<int>(ranks_.size() + i); }
  int link_vertex(std::size_t l) const { return static_cast<int>(ranks_.size() + instances_.size() + l); }
  int vertices() const { return link_vertex(links_.size()); }

  // The instances of a group that the placed ranks are in.
  void place_group(GroupId g, const std::vector<int>& nodes_for_rings) {
    const Axis axis = program_.groups[g].axis;
    std::vector<std::pair<std::int64_t, std::size_t>> seen;  // instance, rank
    for (std::size_t r = 0; r < ranks_.size(); ++r)
      seen.emplace_back(instance_of(program_.mesh, axis, ranks_[r]), r);
    std::sort(seen.begin(), seen.end());
    const Symmetry::Digits digits = symmetry_.of_instance(topology_, program_.mesh, axis);
    std::vector<std::size_t>& instance_of_rank = instance_[g];
    instance_of_rank.resize(ranks_.size());
    std::int64_t last = -1;
    for (const auto& [index, r] : seen) {
      if (index != last) {
        const int node = topology_.node_of(ranks_[r]);
        instances_.push_back({g, index, node, digits, symmetry_.ways(node, digits), {}, {}, {}});
        lay_rings(instances_.back(), ranks_of(program_.mesh, axis, index), nodes_for_rings);
        last = index;
      }
      instance_of_rank[r] = instances_.size() - 1;
    }
  }

  void lay_rings(Instance& instance, const GroupRanks& group, const std::vector<int>& nodes) const {
    const std::vector<Rank> members = ranks_on(nodes, group);
    instance.fabric = ring_fabric(topology_, members);
    instance.parts = parts_of(members);
    if (static_cast<std::int64_t>(members.size()) == group.count) return;
    const auto node = [&](std::int64_t i) { return topology_.node_of(member(group, i)); };
    const bool on_each_node = group.stride <= topology_.parts().front().ranks_of_a_node();
    instance.fabric.ranks = static_cast<int>(group.count);
    instance.fabric.nodes =
        on_each_node ? node(group.count - 1) - node(0) + 1 : static_cast<int>(group.count);
  }

  static Rank member(const GroupRanks& group, std::int64_t i) {
    return {static_cast<std::int32_t>(group.first + i * group.stride)};
  }

  // The members of a group that are on these nodes: goes by the shorter list.
  std::vector<Rank> ranks_on(const std::vector<int>& nodes, const GroupRanks& group) const {
    std::vector<Rank> ranks;
    auto next = nodes.begin();
    for (std::int64_t i = 0; i < group.count;) {
      const Rank rank = member(group, i);
      const int node = topology_.node_of(rank);
      if (*next < node) next = std::lower_bound(next, nodes.end(), node);
      if (next == nodes.end()) break;
      if (*next == node) {
        ranks.push_back(rank);
        ++i;
      } else {
        i = (topology_.rank_at(*next, 0).index - group.first + group.stride - 1) / group.stride;
      }
    }
    return ranks;
  }

  // Ascending, as the members are.
  std::vector<int> parts_of(const std::vector<Rank>& group) const {
    std::vector<int> parts;
    for (int p = topology_.part_of(group.front()); p <= topology_.part_of(group.back()); ++p) {
      const Part& part = topology_.parts()[at(p)];
      const auto member = std::lower_bound(group.begin(), group.end(), Rank{part.first_rank});
      if (member != group.end() && member->index < part.first_rank + part.gpus) parts.push_back(p);
    }
    return parts;
  }

  LinkId copy_link(Rank rank, bool to_device) const {
    const int node = topology_.node_of(rank);
    const NodeShape& shape = topology_.node(node);
    const auto gpu = at(topology_.local_gpu(rank));
    return topology_.link(node, to_device ? shape.pcie_in[gpu] : shape.pcie_out[gpu]);
  }

  // The lowest placed node that a link is in or joins to the spine.
  std::optional<int> placed_node(LinkId link) const {
    const NodeRange of = topology_.nodes_at(link);
    const auto node = std::lower_bound(nodes_.begin(), nodes_.end(), of.first);
    return node != nodes_.end() && *node < of.end ? std::optional(*node) : std::nullopt;
  }

  // The links of placed nodes and of their leaves that anything crosses, ascending.
  void find_links() {
    for (const Instance& i : instances_)
      for (const ChannelsOnLink& c : i.fabric.links)
        if (placed_node(c.link)) links_.push_back(c.link);
    for (const Rank r : ranks_)
      for (const bool to_device : {true, false}) links_.push_back(copy_link(r, to_device));
    std::sort(links_.begin(), links_.end());
    links_.erase(std::unique(links_.begin(), links_.end()), links_.end());
  }

  std::optional<std::size_t> find_link(LinkId link) const {
    const auto found = std::lower_bound(links_.begin(), links_.end(), link);
    if (found == links_.end() || *found != link) return {};
    return at(found - links_.begin());
  }
  std::size_t link_at(LinkId link) const { return *find_link(link); }

  void find_crossings(Instance& i) const {
    for (const ChannelsOnLink& c : i.fabric.links) {
      const auto node = placed_node(c.link);
      if (!node) continue;
      const Symmetry::Digits digits =
          topology_.link_class(c.link) == LinkClass::leaf ? symmetry_.of_leaf(topology_) : Symmetry::all;
      i.crossings.push_back({static_cast<int>(link_at(c.link)), c.channels,
                             symmetry_.ways(i.node, i.digits & ~digits),
                             symmetry_.ways(*node, digits & ~i.digits)});
    }
  }

  double scale(Rank rank) const {
    const auto known = scale_.find(rank);
    return known == scale_.end() ? 1.0 : known->second;
  }
  const Traffic& background(std::size_t link) const {
    static const Traffic nothing;
    const auto known = background_.find(link);
    return known == background_.end() ? nothing : known->second;
  }

  ColouredGraph graph() const {
    enum : std::int64_t {
      to_device = -1,
      from_device = -2,
      first_weight = 1 << 16
    };  // labels beside group ids
    ColouredGraph g;
    Numbering<std::tuple<int, double>> rank_colour;
    Numbering<std::tuple<int, std::vector<int>, int, int, int, bool, int, std::int64_t, std::int64_t>>
        instance_colour;
    Numbering<std::pair<std::int64_t, Traffic>> link_colour;
    // Colours of the three kinds are kept apart by their remainder.
    for (const Rank r : ranks_) g.colour.push_back(3 * rank_colour({topology_.part_of(r), scale(r)}));
    for (const Instance& i : instances_) {
      const RingFabric& f = i.fabric;
      g.colour.push_back(
          1 + 3 * instance_colour({i.group.index, i.parts, f.ranks, f.nodes, f.ranks_per_node, f.many_leaves,
                                   f.channels, f.node_rate.value_or(Bandwidth{}).count,
                                   f.network_rate.value_or(Bandwidth{}).count}));
    }
    for (std::size_t l = 0; l < links_.size(); ++l)
      g.colour.push_back(2 + 3 * link_colour({topology_.capacity(links_[l]).count, background(l)}));

    for (std::size_t r = 0; r < ranks_.size(); ++r) {
      const int node = topology_.node_of(ranks_[r]);
      for (const GroupId group : ids(program_.groups)) {
        const Instance& i = instances_[instance_[group][r]];
        g.edges.push_back({rank_vertex(r), instance_vertex(instance_[group][r]), group.index, 1,
                           symmetry_.ways(node, ~i.digits)});
      }
      for (const bool in : {true, false})
        g.edges.push_back(
            {rank_vertex(r), link_vertex(link_at(copy_link(ranks_[r], in))), in ? to_device : from_device});
    }
    for (std::size_t i = 0; i < instances_.size(); ++i)
      for (const Crossing& c : instances_[i].crossings) {
        const bool nvlink = topology_.link_class(links_[at(c.link)]) == LinkClass::nvlink;
        g.edges.push_back({instance_vertex(i), link_vertex(at(c.link)),
                           first_weight + 2 * c.channels + (nvlink ? 1 : 0), c.links_of_group,
                           c.groups_of_link});
      }
    return g;
  }

  Colours identity() const {
    Colours colour(at(vertices()));
    std::iota(colour.begin(), colour.end(), 0);
    return colour;
  }

  Job quotient(const Colours& colour) const {
    Job job;
    // Classes in the order of their lowest vertex; that vertex represents them.
    std::vector<int> class_of(at(*std::max_element(colour.begin(), colour.end())) + 1, -1);
    const auto number = [&](int vertex) -> int& { return class_of[at(colour[at(vertex)])]; };
    const auto enter = [&](int vertex, std::size_t next) {
      const bool fresh = number(vertex) < 0;
      if (fresh) number(vertex) = static_cast<int>(next);
      return fresh;
    };
    std::vector<std::size_t> link_of_class;
    for (std::size_t l = 0; l < links_.size(); ++l)
      if (enter(link_vertex(l), job.capacity.size())) {
        for (const auto& [rate, flows] : background(l))
          job.background.push_back({{{static_cast<int>(job.capacity.size()), flows}}, Bandwidth{rate}});
        job.capacity.push_back(topology_.capacity(links_[l]));
        link_of_class.push_back(l);
      }
    for (std::size_t i = 0; i < instances_.size(); ++i) {
      const Instance& instance = instances_[i];
      if (enter(instance_vertex(i), job.communicators.size()))
        job.communicators.push_back({.group = instance.group,
                                     .fabric = instance.fabric,
                                     .parts = instance.parts,
                                     .members = {},
                                     .links = {}});
      job.communicators[CommunicatorId{number(instance_vertex(i))}].count += instance.count;
    }
    for (std::size_t r = 0; r < ranks_.size(); ++r) {
      const Rank rank = ranks_[r];
      if (enter(rank_vertex(r), job.ranks.size())) {
        const auto link = [&](bool to_device) {
          return std::vector<LinkShare>{{number(link_vertex(link_at(copy_link(rank, to_device)))), 1}};
        };
        RankClass fresh{.rank = rank,
                        .part = topology_.part_of(rank),
                        .compute_scale = scale(rank),
                        .communicator = {},
                        .to_device = link(true),
                        .from_device = link(false)};
        for (const GroupId g : ids(program_.groups))
          fresh.communicator.push_back(CommunicatorId{number(instance_vertex(instance_[g][r]))});
        job.ranks.push_back(std::move(fresh));
      }
      const RankClassId of{number(rank_vertex(r))};
      job.ranks[of].count += symmetry_.ways(topology_.node_of(rank), Symmetry::all);
      job.placed.push_back({rank, of});
      for (const GroupId g : ids(program_.groups))
        job.communicators[job.ranks[of].communicator[g]].members.push_back(of);
    }
    for (Communicator& c : job.communicators) {
      std::sort(c.members.begin(), c.members.end());
      c.members.erase(std::unique(c.members.begin(), c.members.end()), c.members.end());
    }
    add_link_shares(job, class_of, colour, link_of_class);
    return job;
  }

  // On the representative of each link class: how many groups of each class cross it, with how many channels.
  void add_link_shares(Job& job, const std::vector<int>& class_of, const Colours& colour,
                       const std::vector<std::size_t>& link_of_class) const {
    std::vector<int> class_if_representative(links_.size(), -1);
    for (std::size_t c = 0; c < link_of_class.size(); ++c)
      class_if_representative[link_of_class[c]] = static_cast<int>(c);
    std::map<std::tuple<CommunicatorId, int, std::int64_t>, std::int64_t> groups;
    for (std::size_t i = 0; i < instances_.size(); ++i)
      for (const Crossing& c : instances_[i].crossings) {
        const int link = class_if_representative[at(c.link)];
        const CommunicatorId id{class_of[at(colour[at(instance_vertex(i))])]};
        if (link >= 0) groups[{id, link, c.channels}] += c.groups_of_link;
      }
    for (const auto& [key, count] : groups) {
      const auto& [id, link, channels] = key;
      const LinkClass kind = topology_.link_class(links_[link_of_class[at(link)]]);
      Communicator& c = job.communicators[id];
      const bool node = kind == LinkClass::nvlink;
      const auto load = [&](LinkLoad l) -> std::vector<LinkShare>& {
        return c.links[at(static_cast<int>(l))];
      };
      load(LinkLoad::even).push_back({link, channels, count});
      load(LinkLoad::node_twice).push_back({link, node ? 2 * channels : channels, count});
      load(LinkLoad::network_twice).push_back({link, node ? channels : 2 * channels, count});
    }
  }

  const Program& program_;
  const Topology& topology_;
  const Symmetry& symmetry_;
  std::map<Rank, double> scale_;
  std::vector<int> nodes_;  // those that are placed; all else is theirs
  std::vector<Rank> ranks_;
  std::vector<Instance> instances_;
  IdVector<GroupId, std::vector<std::size_t>> instance_;  // by position in ranks_
  std::vector<LinkId> links_;
  std::map<std::size_t, Traffic> background_;  // by position in links_
};

}  // namespace

RankClassId class_of(const Job& job, Rank rank) {
  const auto found = std::lower_bound(job.placed.begin(), job.placed.end(), rank,
                                      [](const PlacedRank& p, Rank r) { return p.rank < r; });
  require(found != job.placed.end() && found->rank == rank, "a rank that was placed");
  return found->of;
}

std::int64_t instance_of(const Mesh& mesh, Axis axis, Rank rank) {
  switch (axis) {
    case Axis::world: return 0;
    case Axis::shard: return rank.index / mesh.shard;
    case Axis::replica: return rank.index % mesh.shard;
    case Axis::reshard: return rank.index / mesh.reshard;
  }
  return 0;
}

GroupRanks ranks_of(const Mesh& mesh, Axis axis, std::int64_t instance) {
  switch (axis) {
    case Axis::world: break;
    case Axis::shard: return {instance * mesh.shard, 1, mesh.shard};
    case Axis::replica: return {instance, mesh.shard, mesh.world / mesh.shard};
    case Axis::reshard: return {instance * mesh.reshard, 1, mesh.reshard};
  }
  return {0, 1, mesh.world};
}

std::vector<std::vector<Rank>> members(const Mesh& mesh, Axis axis) {
  std::vector<std::vector<Rank>> groups;
  for (std::int64_t r = 0, i; r < mesh.world; ++r) {
    const Rank rank{static_cast<std::int32_t>(r)};
    i = instance_of(mesh, axis, rank);
    if (i == static_cast<std::int64_t>(groups.size())) groups.emplace_back();
    groups[at(i)].push_back(rank);
  }
  return groups;
}

Job place(const Program& program, const Cluster& cluster, bool fold) {
  const Topology& topology = cluster.topology;
  require(program.mesh.world == topology.gpus(), "a program runs on as many GPUs as it was written for");
  const Symmetry symmetry = fold ? Symmetry(program, cluster) : Symmetry(topology.nodes());
  return Placement(program, cluster, symmetry).job(fold);
}

}  // namespace shardsim
