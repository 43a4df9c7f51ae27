// Is a cluster described by few of its nodes the cluster with all of them?
#include "sim/simulate/symmetry.h"

#include <algorithm>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <tuple>

#include <doctest/doctest.h>

#include "sim/base/random.h"
#include "sim/engine/colour_refinement.h"
#include "sim/simulate/job.h"

#include "tests/support/ideal_world.h"
#include "tests/support/seed.h"

namespace shardsim {
namespace {

// The job with all ranks, folded by refining its whole graph.
Job folded_by_graph(const Job& all, std::size_t groups) {
  ColouredGraph g;
  std::map<std::string, int> colours;
  const auto colour = [&](const std::string& look) {
    g.colour.push_back(colours.try_emplace(look, static_cast<int>(colours.size())).first->second);
  };
  const auto number = [](auto n) { return std::to_string(n) + " "; };
  std::vector<std::string> traffic(all.capacity.size());
  std::vector<std::vector<std::string>> rates(all.capacity.size());
  for (const SharedLink& b : all.background)
    rates[static_cast<std::size_t>(b.link[0].link)].push_back(number(b.rate.count) +
                                                              number(b.link[0].weight));
  for (std::size_t l = 0; l < rates.size(); ++l) {
    std::sort(rates[l].begin(), rates[l].end());
    for (const std::string& r : rates[l]) traffic[l] += r;
  }
  for (const RankClass& r : all.ranks) colour("rank " + number(r.part) + number(r.compute_scale));
  for (const Communicator& c : all.communicators) {
    std::string look = "group ";
    const RingFabric& f = c.fabric;
    for (const int n : {c.group.index, f.ranks, f.nodes, f.ranks_per_node, f.many_leaves ? 1 : 0, f.channels})
      look += number(n);
    for (const auto& rate : {f.node_rate, f.network_rate}) look += number(rate.value_or(Bandwidth{}).count);
    for (const int part : c.parts) look += number(part);
    colour(look);
  }
  for (std::size_t l = 0; l < all.capacity.size(); ++l)
    colour("link " + number(all.capacity[l].count) + traffic[l]);
  const auto rank = [](RankClassId r) { return r.index; };
  const auto group = [&](CommunicatorId c) { return static_cast<int>(all.ranks.size()) + c.index; };
  const auto link = [&](int l) { return static_cast<int>(all.ranks.size() + all.communicators.size()) + l; };
  for (const RankClassId r : ids(all.ranks)) {
    g.edges.push_back({rank(r), link(all.ranks[r].to_device[0].link), -1});
    g.edges.push_back({rank(r), link(all.ranks[r].from_device[0].link), -2});
    for (const CommunicatorId c : all.ranks[r].communicator)
      g.edges.push_back({rank(r), group(c), all.communicators[c].group.index});
  }
  for (const CommunicatorId c : ids(all.communicators)) {
    const auto& links = all.communicators[c].links;
    for (std::size_t l = 0; l < links[0].size(); ++l)
      g.edges.push_back(
          {group(c), link(links[0][l].link), 1000 * (100 + links[0][l].weight) + links[1][l].weight});
  }
  const std::vector<int> colour_of = refine(g);

  Job job;
  std::map<int, int> class_of;
  const auto enter = [&](int vertex, std::size_t next) {
    return class_of.try_emplace(colour_of[static_cast<std::size_t>(vertex)], static_cast<int>(next)).second;
  };
  const auto entered = [&](int vertex) { return class_of.at(colour_of[static_cast<std::size_t>(vertex)]); };
  std::vector<int> first_link;
  for (int l = 0; l < static_cast<int>(all.capacity.size()); ++l)
    if (enter(link(l), job.capacity.size())) {
      job.capacity.push_back(all.capacity[static_cast<std::size_t>(l)]);
      first_link.push_back(l);
    }
  for (const SharedLink& b : all.background)
    if (const int c = entered(link(b.link[0].link));
        first_link[static_cast<std::size_t>(c)] == b.link[0].link)
      job.background.push_back({{{c, b.link[0].weight}}, b.rate});
  for (const RankClassId r : ids(all.ranks)) {
    if (enter(rank(r), job.ranks.size())) {
      RankClass fresh = all.ranks[r];
      fresh.count = 0;
      fresh.to_device[0].link = entered(link(fresh.to_device[0].link));
      fresh.from_device[0].link = entered(link(fresh.from_device[0].link));
      job.ranks.push_back(fresh);
    }
    ++job.ranks[RankClassId{entered(rank(r))}].count;
    job.placed.push_back({all.ranks[r].rank, {entered(rank(r))}});
  }
  std::map<std::tuple<int, int, std::int64_t>, std::int64_t> shares[link_loads];
  for (const CommunicatorId c : ids(all.communicators)) {
    if (enter(group(c), job.communicators.size())) {
      Communicator fresh = all.communicators[c];
      fresh.count = 0;
      for (RankClassId& m : fresh.members) m = {entered(rank(m))};
      std::sort(fresh.members.begin(), fresh.members.end());
      fresh.members.erase(std::unique(fresh.members.begin(), fresh.members.end()), fresh.members.end());
      for (auto& links : fresh.links) links.clear();
      job.communicators.push_back(fresh);
    }
    ++job.communicators[CommunicatorId{entered(group(c))}].count;
    for (std::size_t load = 0; load < link_loads; ++load)
      for (const LinkShare& share : all.communicators[c].links[load])
        if (const int l = entered(link(share.link)); first_link[static_cast<std::size_t>(l)] == share.link)
          ++shares[load][{entered(group(c)), l, share.weight}];
  }
  for (std::size_t load = 0; load < link_loads; ++load)
    for (const auto& [key, count] : shares[load])
      job.communicators[CommunicatorId{std::get<0>(key)}].links[load].push_back(
          {std::get<1>(key), std::get<2>(key), count});
  for (RankClass& r : job.ranks)
    for (std::size_t i = 0; i < groups; ++i)
      r.communicator[GroupId{static_cast<int>(i)}] = {
          entered(group(r.communicator[GroupId{static_cast<int>(i)}]))};
  return job;
}

// All that is simulated of a job.
std::string text_of(const Job& job) {
  std::ostringstream s;
  const auto shares = [&](const char* what, const std::vector<LinkShare>& links) {
    s << what;
    for (const LinkShare& l : links) s << ' ' << l.link << ':' << l.weight << 'x' << l.count;
  };
  for (const RankClass& r : job.ranks) {
    s << "rank " << r.rank.index << " x " << r.count << " part " << r.part << " scale " << r.compute_scale;
    for (const CommunicatorId c : r.communicator) s << " in " << c.index;
    shares(" to", r.to_device);
    shares(" from", r.from_device);
    s << '\n';
  }
  for (const Communicator& c : job.communicators) {
    const RingFabric& f = c.fabric;
    s << "group " << c.group.index << " x " << c.count << ": " << f.ranks << " on " << f.nodes << ", "
      << f.ranks_per_node << f.many_leaves << f.nvlink << f.nvswitch << ' ' << f.channels << ' '
      << f.node_rate.value_or(Bandwidth{}).count << ' ' << f.network_rate.value_or(Bandwidth{}).count
      << " of";
    for (const int p : c.parts) s << ' ' << p;
    s << " with";
    for (const RankClassId m : c.members) s << ' ' << m.index;
    for (const auto& links : c.links) shares(" over", links);
    s << '\n';
  }
  for (const Bandwidth b : job.capacity) s << b.count << ' ';
  for (const SharedLink& b : job.background) shares(" shared", b.link), s << " at " << b.rate.count;
  return s.str();
}

// A cluster with borders, leaves, groups and what-ifs where they fall.
struct RandomJob {
  IdealWorld world;
  std::optional<Topology> topology;
  Program program;
  std::vector<BackgroundTraffic> background;

  explicit RandomJob(Random& random) : world(1) {
    const auto up_to = [&](std::int64_t n) { return random.between(1, n); };
    const auto number = [&](std::int64_t n) { return static_cast<int>(random.between(0, n - 1)); };
    const auto one_of = [&](const std::vector<std::int64_t>& all) {
      return all[static_cast<std::size_t>(number(static_cast<std::int64_t>(all.size())))];
    };
    FabricSpec& fabric = world.spec.fabric;
    fabric.kind = static_cast<FabricKind>(random.between(0, 2));
    fabric.nodes_per_leaf = static_cast<int>(one_of({1, 2, 3, 4, 6, 8, 50}));
    fabric.oversubscription = static_cast<double>(one_of({1, 2, 7}));
    std::vector<PartSpec> parts;
    const auto kinds = random.chance(3) ? up_to(3) : 1;
    const auto per_node = one_of({1, 2, 2, 3, 4, 4, 6, 8});
    for (std::int64_t p = 0; p < kinds; ++p) {
      NodeSpec node = world.spec.node;
      node.gpus = static_cast<int>(p > 0 && random.chance(4) ? up_to(4) : per_node);
      node.nics = static_cast<int>(random.chance(2) ? node.gpus : up_to(node.gpus));
      node.intra = random.chance(3) ? Intra::pcie : Intra::nvswitch;
      if (node.gpus == 8 && random.chance(2)) node.intra = Intra::hybrid_cube_mesh;
      node.gpus_per_pcie_switch = static_cast<int>(up_to(2));
      if (random.chance(3)) node.nic = node.nic * 2;
      const std::int64_t nodes = kinds > 1 ? up_to(10) : up_to(30);
      const bool part_of_a_node = nodes == 1 && random.chance(2);
      parts.push_back(
          {node, world.gpu, static_cast<int>(part_of_a_node ? up_to(node.gpus) : nodes * node.gpus)});
    }
    topology.emplace(world.spec, parts);
    const int gpus = topology->gpus();
    std::vector<DegradedLink> degraded;
    for (std::int64_t i = random.chance(2) ? up_to(3) : 0; i > 0; --i) {
      const LinkId link{number(topology->links())};
      if (std::none_of(degraded.begin(), degraded.end(), [&](const auto& d) { return d.link == link; }))
        degraded.push_back({link, 0.5});
    }
    if (topology->leaves() > 0 && random.chance(5)) {
      const LinkId leaf{topology->links() - 1 - number(2 * topology->leaves())};
      if (std::none_of(degraded.begin(), degraded.end(), [&](const auto& d) { return d.link == leaf; }))
        degraded.push_back({leaf, 0.25});
    }
    topology.emplace(world.spec, parts, degraded);
    for (std::int64_t i = random.chance(2) ? up_to(3) : 0; i > 0; --i)
      world.stragglers.push_back({Rank{number(gpus)}, 0.5 + 0.125 * number(3)});
    for (std::int64_t i = random.chance(3) ? up_to(2) : 0; i > 0; --i)
      background.push_back({LinkId{number(topology->links())}, Bandwidth{1'000'000 * up_to(2)}, 2});
    if (topology->leaves() > 0 && random.chance(4))
      for (int l = topology->links() - 2 * topology->leaves(); l < topology->links(); ++l)
        background.push_back({LinkId{l}, Bandwidth{5'000'000}, 2});

    const auto divisors = [](std::int64_t n) {
      std::vector<std::int64_t> all;
      for (std::int64_t d = 1; d <= n; ++d)
        if (n % d == 0) all.push_back(d);
      return all;
    };
    const std::int64_t shard = one_of(divisors(gpus)), reshard = one_of(divisors(shard));
    program = program_of({gpus, shard, reshard}, [&](ProgramBuilder& b) {
      for (const Axis axis : {Axis::world, Axis::shard, Axis::replica, Axis::reshard})
        if (!random.chance(3)) b.group(axis);
    });
  }

  Job job(bool fold) const {
    return place(program,
                 Cluster{.topology = *topology,
                         .gpu = world.gpu,
                         .stack = world.stack,
                         .stragglers = world.stragglers,
                         .background = background},
                 fold);
  }
};

TEST_CASE("what symmetry leaves out and refinement merges is what refining the graph of all ranks merges") {
  int smaller = 0, merged = 0;
  for_each_seed(1500, [&](Random& random) {
    const RandomJob given(random);
    const Job folded = given.job(true), all = given.job(false);
    const Job expected = folded_by_graph(all, given.program.groups.size());
    REQUIRE(text_of(folded) == text_of(expected));
    for (const PlacedRank& p : folded.placed) REQUIRE(class_of(expected, p.rank) == p.of);
    // The lowest rank of each class in a group of a placed rank is placed.
    for (const Group& group : given.program.groups)
      for (const PlacedRank& p : folded.placed) {
        const std::int64_t instance = instance_of(given.program.mesh, group.axis, p.rank);
        std::map<RankClassId, Rank> lowest;
        for (const PlacedRank& e : expected.placed)
          if (instance_of(given.program.mesh, group.axis, e.rank) == instance) lowest.emplace(e.of, e.rank);
        for (const auto& [of, rank] : lowest) REQUIRE(class_of(folded, rank) == of);
      }
    if (folded.placed.size() < all.placed.size()) ++smaller;
    if (folded.ranks.size() < folded.placed.size()) ++merged;
  });
  CHECK(smaller > 300);
  CHECK(merged > 300);
}

// The cluster of the FSDP paper at another size.
struct LargeJob {
  IdealWorld world{1, 8};
  Topology topology;
  Program program;

  LargeJob(int ranks, std::int64_t factor, const std::vector<DegradedLink>& degraded = {})
      : topology(
            [&] {
              world.spec.fabric = {FabricKind::rail_fat_tree, 32, 2.0, 0};
              return world.spec;
            }(),
            world.gpu, ranks, degraded),
        program(program_of({ranks, factor}, [&](ProgramBuilder& b) {
          if (factor > 1) b.group(Axis::shard);
          if (factor < ranks) b.group(factor == 1 ? Axis::world : Axis::replica);
        })) {}
  Job job(std::vector<Straggler> stragglers = {}) const {
    return place(program, Cluster{topology, world.gpu, world.stack, std::move(stragglers)}, true);
  }
};
std::int64_t ranks_in(const Job& job) {
  std::int64_t ranks = 0;
  for (const RankClass& r : job.ranks) ranks += r.count;
  return ranks;
}

TEST_CASE("a large regular cluster is placed by a few of its ranks, of any size") {
  for (const std::int64_t factor : {1, 8, 64, 512, 0}) {
    CAPTURE(factor);
    std::size_t placed = 0;
    for (const int ranks : {8192, 16'384, 1'048'576, 4'194'304}) {
      const Job job = LargeJob(ranks, factor == 0 ? ranks : factor).job();
      CHECK(job.ranks.size() == 1);
      CHECK(ranks_in(job) == ranks);
      if (placed == 0) placed = job.placed.size();
      CHECK(job.placed.size() == placed);
    }
  }
}

TEST_CASE("one straggler or one degraded NIC among 16,384 GPUs makes few classes, wherever it is") {
  constexpr int ranks = 16'384;
  for (const std::int64_t factor : {1, 8, 64, 512, ranks}) {
    const LargeJob regular(ranks, factor);
    for (const int gpu : {0, 1, 17, 255, 256, 4095, 8192, 10'007, ranks - 1}) {
      CAPTURE(factor);
      CAPTURE(gpu);
      const Job slow = regular.job({{Rank{gpu}, 0.9}});
      CHECK(slow.ranks.size() <= 64);
      CHECK(slow.placed.size() <= 128);
      CHECK(ranks_in(slow) == ranks);
      const int node = gpu / 8;
      const NodeShape& shape = regular.topology.node(node);
      const auto nic = static_cast<std::size_t>(gpu % 8);
      const Job degraded = LargeJob(ranks, factor,
                                    {{regular.topology.link(node, shape.nic_out[nic]), 0.25},
                                     {regular.topology.link(node, shape.nic_in[nic]), 0.25}})
                               .job();
      CHECK(degraded.ranks.size() <= 64);
      CHECK(degraded.placed.size() <= 128);
      CHECK(ranks_in(degraded) == ranks);
    }
  }
}

}  // namespace
}  // namespace shardsim
