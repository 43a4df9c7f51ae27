#include "sim/simulate/job.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "sim/base/check.h"
#include "sim/engine/colour_refinement.h"

namespace shardsim {
namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

struct Instance {
  GroupId group;
  std::vector<Rank> members;
  RingFabric fabric;
  std::vector<int> parts;
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
  Placement(const Program& program, const Cluster& cluster)
      : program_(program), topology_(cluster.topology), scale_(at(program.mesh.world), 1.0) {
    require(program.mesh.world == topology_.gpus(), "a program runs on as many GPUs as it was written for");
    for (const Straggler& s : cluster.stragglers) scale_[at(s.rank.index)] = s.compute_scale;
    for (const GroupId g : ids(program.groups))
      for (auto& group : members(program.mesh, program.groups[g].axis)) {
        RingFabric fabric = ring_fabric(topology_, group);
        std::vector<int> parts = parts_of(group);
        instances_.push_back({g, std::move(group), std::move(fabric), std::move(parts)});
      }
    find_links();
    background_.resize(links_.size());
    for (const BackgroundTraffic& b : cluster.background)
      if (const int l = position_[at(b.link.index)]; l >= 0)
        background_[at(l)].emplace_back(b.rate.count, b.flows);
    for (auto& on_link : background_) std::sort(on_link.begin(), on_link.end());
  }

  Job job(bool fold) {
    const std::vector<int> colour = fold ? refine(graph()) : identity();
    return quotient(colour);
  }

 private:
  int ranks() const { return topology_.gpus(); }
  int instance_vertex(std::size_t i) const { return ranks() + static_cast<int>(i); }
  int link_vertex(std::size_t l) const { return ranks() + static_cast<int>(instances_.size() + l); }
  int vertices() const { return link_vertex(links_.size()); }

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

  LinkId copy_link(int rank, bool to_device) const {
    const NodeShape& node = topology_.node(topology_.node_of({rank}));
    const auto gpu = at(topology_.local_gpu({rank}));
    return topology_.link(topology_.node_of({rank}), to_device ? node.pcie_in[gpu] : node.pcie_out[gpu]);
  }

  // The links anything crosses, ascending.
  void find_links() {
    position_.assign(at(topology_.links()), -1);
    const auto use = [&](LinkId link) { position_[at(link.index)] = 0; };
    for (const Instance& i : instances_)
      for (const ChannelsOnLink& c : i.fabric.links) use(c.link);
    for (int r = 0; r < ranks(); ++r) use(copy_link(r, true)), use(copy_link(r, false));
    for (int l = 0; l < topology_.links(); ++l)
      if (position_[at(l)] == 0) {
        position_[at(l)] = static_cast<int>(links_.size());
        links_.push_back({l});
      }
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
    for (int r = 0; r < ranks(); ++r)
      g.colour.push_back(3 * rank_colour({topology_.part_of({r}), scale_[at(r)]}));
    for (const Instance& i : instances_) {
      const RingFabric& f = i.fabric;
      g.colour.push_back(
          1 + 3 * instance_colour({i.group.index, i.parts, f.ranks, f.nodes, f.ranks_per_node, f.many_leaves,
                                   f.channels, f.node_rate.value_or(Bandwidth{}).count,
                                   f.network_rate.value_or(Bandwidth{}).count}));
    }
    for (std::size_t l = 0; l < links_.size(); ++l)
      g.colour.push_back(2 + 3 * link_colour({topology_.capacity(links_[l]).count, background_[l]}));

    for (std::size_t i = 0; i < instances_.size(); ++i) {
      for (const Rank r : instances_[i].members)
        g.edges.push_back({r.index, instance_vertex(i), instances_[i].group.index});
      for (const ChannelsOnLink& c : instances_[i].fabric.links)
        g.edges.push_back(
            {instance_vertex(i), link_vertex(at(position_[at(c.link.index)])), first_weight + c.channels});
    }
    for (int r = 0; r < ranks(); ++r) {
      g.edges.push_back({r, link_vertex(at(position_[at(copy_link(r, true).index)])), to_device});
      g.edges.push_back({r, link_vertex(at(position_[at(copy_link(r, false).index)])), from_device});
    }
    return g;
  }

  std::vector<int> identity() const {
    std::vector<int> colour(at(vertices()));
    for (std::size_t v = 0; v < colour.size(); ++v) colour[v] = static_cast<int>(v);
    return colour;
  }

  Job quotient(const std::vector<int>& colour) const {
    Job job;
    // Classes in the order of their lowest vertex; that vertex represents them.
    const std::size_t colours = at(*std::max_element(colour.begin(), colour.end())) + 1;
    std::vector<int> class_of(colours, -1);
    const auto enter = [&](int vertex, std::size_t next) {
      int& c = class_of[at(colour[at(vertex)])];
      const bool fresh = c < 0;
      if (fresh) c = static_cast<int>(next);
      return fresh;
    };
    std::vector<std::size_t> link_of_class;
    for (std::size_t l = 0; l < links_.size(); ++l)
      if (enter(link_vertex(l), job.capacity.size())) {
        for (const auto& [rate, flows] : background_[l])
          job.background.push_back({{{static_cast<int>(job.capacity.size()), flows}}, Bandwidth{rate}});
        job.capacity.push_back(topology_.capacity(links_[l]));
        link_of_class.push_back(l);
      }
    for (int r = 0; r < ranks(); ++r) {
      if (enter(r, job.ranks.size())) {
        RankClass rank{.rank = {r},
                       .part = topology_.part_of({r}),
                       .compute_scale = scale_[at(r)],
                       .communicator = {},
                       .to_device = {},
                       .from_device = {}};
        rank.communicator.assign(program_.groups.size(), CommunicatorId{-1});
        rank.to_device = {{link_class(class_of, colour, copy_link(r, true)), 1}};
        rank.from_device = {{link_class(class_of, colour, copy_link(r, false)), 1}};
        job.ranks.push_back(std::move(rank));
      }
      job.class_of.push_back({class_of[at(colour[at(r)])]});
      ++job.ranks[job.class_of.back()].count;
    }
    for (std::size_t i = 0; i < instances_.size(); ++i) {
      const Instance& instance = instances_[i];
      if (enter(instance_vertex(i), job.communicators.size())) {
        Communicator c{.group = instance.group,
                       .fabric = instance.fabric,
                       .parts = instance.parts,
                       .members = {},
                       .links = {}};
        for (const Rank r : instance.members) c.members.push_back({class_of[at(colour[at(r.index)])]});
        std::sort(c.members.begin(), c.members.end());
        c.members.erase(std::unique(c.members.begin(), c.members.end()), c.members.end());
        job.communicators.push_back(std::move(c));
      }
      const CommunicatorId id{class_of[at(colour[at(instance_vertex(i))])]};
      ++job.communicators[id].count;
      for (const Rank r : instance.members) {
        RankClass& rank = job.ranks[RankClassId{class_of[at(colour[at(r.index)])]}];
        if (rank.rank == r) rank.communicator[instance.group] = id;
      }
    }
    add_link_shares(job, class_of, colour, link_of_class);
    return job;
  }

  int link_class(const std::vector<int>& class_of, const std::vector<int>& colour, LinkId link) const {
    return class_of[at(colour[at(link_vertex(at(position_[at(link.index)])))])];
  }

  // On the representative of each link class: how many groups of each class cross it, with how many channels.
  void add_link_shares(Job& job, const std::vector<int>& class_of, const std::vector<int>& colour,
                       const std::vector<std::size_t>& link_of_class) const {
    std::vector<int> class_if_representative(links_.size(), -1);
    for (std::size_t c = 0; c < link_of_class.size(); ++c)
      class_if_representative[link_of_class[c]] = static_cast<int>(c);
    std::map<std::tuple<CommunicatorId, int, std::int64_t>, std::int64_t> crossings;
    for (std::size_t i = 0; i < instances_.size(); ++i)
      for (const ChannelsOnLink& c : instances_[i].fabric.links) {
        const int link = class_if_representative[at(position_[at(c.link.index)])];
        if (link >= 0)
          ++crossings[{CommunicatorId{class_of[at(colour[at(instance_vertex(i))])]}, link, c.channels}];
      }
    for (const auto& [key, count] : crossings) {
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
  std::vector<double> scale_;
  std::vector<Instance> instances_;
  std::vector<LinkId> links_;
  using Traffic = std::vector<std::pair<std::int64_t, std::int64_t>>;  // rate and flows of other jobs, sorted
  std::vector<Traffic> background_;                                    // by position in links_
  std::vector<int> position_;  // of each link of the topology in links_, -1 = not used
};

}  // namespace

std::vector<std::vector<Rank>> members(const Mesh& mesh, Axis axis) {
  const auto rank = [](std::int64_t i) { return Rank{static_cast<std::int32_t>(i)}; };
  std::vector<std::vector<Rank>> groups;
  switch (axis) {
    case Axis::world:
      groups.resize(1);
      for (std::int64_t i = 0; i < mesh.world; ++i) groups[0].push_back(rank(i));
      break;
    case Axis::shard:
      groups.resize(at(mesh.world / mesh.shard));
      for (std::int64_t i = 0; i < mesh.world; ++i) groups[at(i / mesh.shard)].push_back(rank(i));
      break;
    case Axis::replica:
      groups.resize(at(mesh.shard));
      for (std::int64_t i = 0; i < mesh.world; ++i) groups[at(i % mesh.shard)].push_back(rank(i));
      break;
    case Axis::reshard:
      groups.resize(at(mesh.world / mesh.reshard));
      for (std::int64_t i = 0; i < mesh.world; ++i) groups[at(i / mesh.reshard)].push_back(rank(i));
      break;
  }
  return groups;
}

Job place(const Program& program, const Cluster& cluster, bool fold) {
  return Placement(program, cluster).job(fold);
}

}  // namespace shardsim
