#include "sim/collective/rings.h"

#include <algorithm>
#include <map>

#include "sim/base/check.h"

namespace shardsim {
namespace {

// NCCL duplicates every ring it finds (connect.cc), and uses at most 24 channels where a switch joins the
// GPUs (DGX A100 and H100 logs: 24 thread blocks).
constexpr int channels_per_ring = 2;
constexpr int channels_max = 24;

std::size_t at(int i) { return static_cast<std::size_t>(i); }

using NodeRing = RingRoutes::NodeRing;
using Lanes = std::vector<std::vector<int>>;

// Takes one lane off each hop of the path, or gives it back (by = +1).
void take(Lanes& lanes, const std::vector<int>& order, bool closed, int by) {
  for (std::size_t i = 0; i + 1 < order.size(); ++i) lanes[at(order[i])][at(order[i + 1])] += by;
  if (closed) lanes[at(order.back())][at(order.front())] += by;
}

// Bounds the search on large explicit link lists, where the best set of cycles may take too long to prove.
constexpr int search_steps_max = 200'000;

// All Hamiltonian paths that extend `order` over the free lanes; `done` gets each complete one and returns
// true to stop the search, which also ends when no `steps` are left.
template <class Done>
bool extend(const Lanes& lanes, std::span<const int> members, std::vector<int>& order, int& steps,
            const Done& done) {
  if (--steps < 0) return true;
  if (order.size() == members.size()) return done(order);
  for (const int next : members) {
    if (lanes[at(order.back())][at(next)] <= 0) continue;
    if (std::find(order.begin(), order.end(), next) != order.end()) continue;
    order.push_back(next);
    if (extend(lanes, members, order, steps, done)) return true;
    order.pop_back();
  }
  return false;
}

// The largest set of cycles that never share a lane. Both directions of a link are lanes of their own, so
// each undirected cycle gives two rings; two GPUs give one ring per lane.
struct CycleSearch {
  std::span<const int> members;
  Lanes lanes;
  std::vector<std::vector<int>> cycles, best;
  std::size_t bound;  // no more cycles than lanes at the poorest GPU
  int steps = search_steps_max;

  CycleSearch(const Lanes& direct, std::span<const int> group) : members(group), lanes(direct) {
    int fewest = 1 << 20;
    for (const int a : members) {
      int out = 0;
      for (const int b : members) out += lanes[at(a)][at(b)];
      fewest = std::min(fewest, out);
    }
    bound = static_cast<std::size_t>(fewest);
    search();
  }

  bool search() {
    if (cycles.size() > best.size()) best = cycles;
    if (best.size() >= bound) return true;
    std::vector<int> order{members.front()};
    return extend(lanes, members, order, steps, [&](const std::vector<int>& found) {
      if (lanes[at(found.back())][at(found.front())] <= 0) return false;
      std::vector<int> forth = found, back(found.rbegin(), found.rend());
      const bool both = members.size() > 2;
      if (both && forth[1] > forth.back()) return false;  // the mirror image of a cycle tried before
      add(forth, -1);
      if (both) add(back, -1);
      const bool stop = search();
      if (both) add(back, +1);
      add(forth, +1);
      return stop;
    });
  }
  void add(const std::vector<int>& cycle, int by) {
    take(lanes, cycle, true, by);
    if (by < 0)
      cycles.push_back(cycle);
    else
      cycles.pop_back();
  }
};

// From `entry` to `exit` through all members; over free lanes where the node has direct links.
std::vector<int> node_path(const NodeShape& node, std::span<const int> members, int entry, int exit,
                           Lanes& free) {
  std::vector<int> order{entry}, found;
  const auto ends_right = [&](const std::vector<int>& path) {
    if (path.back() == exit) found = path;
    return !found.empty();
  };
  for (const Lanes* lanes :
       {static_cast<const Lanes*>(&free), &node.lanes}) {  // over lanes nobody uses, else over any
    int steps = search_steps_max;
    if (!node.switched && found.empty()) extend(*lanes, members, order = {entry}, steps, ends_right);
  }
  if (!found.empty()) {
    take(free, found, false, -1);
    return found;
  }
  order = {entry};
  const auto start =
      static_cast<std::size_t>(std::find(members.begin(), members.end(), entry) - members.begin());
  for (std::size_t i = 1; i < members.size(); ++i) {
    const int next = members[(start + i) % members.size()];
    if (next != exit) order.push_back(next);
  }
  if (exit != entry) order.push_back(exit);
  return order;
}

// Channels per link, as the rings are laid.
class Tally {
 public:
  explicit Tally(const Topology& topology) : topology_(topology) {}

  void add(LinkId link, std::int64_t channels) { channels_[link] += channels; }
  void add(const std::vector<ChannelsOnLink>& crossed) {
    for (const ChannelsOnLink& on : crossed) add(on.link, on.channels);
  }

  std::vector<ChannelsOnLink> links() const {
    std::vector<ChannelsOnLink> result;
    for (const auto& [link, channels] : channels_) result.push_back({link, channels});
    return result;
  }
  // Of a flow with so many channels in all, alone on the links; `counts` picks the classes that bind.
  template <class Counts>
  std::optional<Bandwidth> rate(int channels, const Counts& counts) const {
    std::optional<Bandwidth> least;
    for (const auto& [link, on_link] : channels_) {
      if (!counts(topology_.link_class(link))) continue;
      const Wide rate = Wide{topology_.capacity(link).count} * channels / on_link;
      if (!least || rate < least->count) least = Bandwidth{static_cast<std::int64_t>(rate)};
    }
    return least;
  }

 private:
  const Topology& topology_;
  std::map<LinkId, std::int64_t> channels_;
};

int node_channels(const NodeShape& node, std::size_t cycles) {
  if (node.switched)
    return std::max(channels_per_ring, std::min(channels_max, channels_per_ring * node.nvlinks));
  return channels_per_ring * static_cast<int>(cycles);
}

// Rings inside one node.
std::vector<NodeRing> lay_node_rings(const NodeShape& node, std::span<const int> members) {
  auto cycles = node_cycles(node, members);
  const int per_cycle = node_channels(node, cycles.size()) / static_cast<int>(cycles.size());
  std::vector<NodeRing> rings;
  for (auto& cycle : cycles) rings.push_back({.order = std::move(cycle), .channels = per_cycle});
  return rings;
}

struct OnNode {
  int node;
  std::vector<int> gpus, nics;  // nics: on a PCIe switch with one of the GPUs, else the nearest to the first
};

std::vector<OnNode> by_node(const Topology& topology, std::span<const Rank> members) {
  std::vector<OnNode> nodes;
  for (const Rank rank : members) {
    if (nodes.empty() || nodes.back().node != topology.node_of(rank))
      nodes.push_back({topology.node_of(rank), {}, {}});
    nodes.back().gpus.push_back(topology.local_gpu(rank));
  }
  for (OnNode& on : nodes) {
    const NodeShape& shape = topology.node(on.node);
    for (int nic = 0; nic < shape.nics; ++nic) {
      const auto& local = shape.nic_gpus[at(nic)];
      if (std::any_of(on.gpus.begin(), on.gpus.end(),
                      [&](int g) { return std::find(local.begin(), local.end(), g) != local.end(); }))
        on.nics.push_back(nic);
    }
    if (on.nics.empty() &&
        shape.nics > 0)  // fewer NICs than PCIe switches: they are spread over them in order
      on.nics.push_back(on.gpus.front() * shape.nics / shape.gpus);
  }
  return nodes;
}

const Part& part_of(const Topology& topology, const OnNode& on) { return topology.part_at_node(on.node); }

// NCCL duplicates the rings of Hopper nodes once more where they are few and fast (search.cc: above 45 GB/s
// each, fewer than 16 channels); of several kinds of nodes, only if it does so on all. (init.cc: every rank
// takes the least of all)
int channels_per_network_ring(const Topology& topology, const std::vector<OnNode>& nodes, std::size_t rings) {
  constexpr int hopper_nvlinks = 18, channels_few = 16;
  const bool fast = std::all_of(nodes.begin(), nodes.end(), [&](const OnNode& on) {
    const Part& part = part_of(topology, on);
    return part.shape.nvlinks >= hopper_nvlinks && part.spec.nic > Bandwidth{45'000'000'000};
  });
  const bool again = fast && channels_per_ring * static_cast<int>(rings) < channels_few;
  return again ? 2 * channels_per_ring : channels_per_ring;
}

// One ring per NIC: in by the NIC, through all GPUs of the group on the node, out by the NIC of the same
// rail.
std::vector<NodeRing> lay_network_rings(const NodeShape& shape, const OnNode& on, std::size_t rings,
                                        int channels) {
  std::vector<NodeRing> result;
  Lanes free = shape.lanes;
  for (std::size_t r = 0; r < rings; ++r) {
    const int nic = on.nics[r];
    std::vector<int> local;  // GPUs of the group beside the NIC: the way in and, with two, the way out
    for (const int g : on.gpus) {
      const auto& beside = shape.nic_gpus[at(nic)];
      if (std::find(beside.begin(), beside.end(), g) != beside.end()) local.push_back(g);
    }
    if (local.empty()) local.push_back(on.gpus.front());  // the NIC is across the host
    const int entry = local[r % local.size()];            // NICs of one switch take its GPUs in turn
    const auto entry_at = std::find(on.gpus.begin(), on.gpus.end(), entry);
    const int before = entry_at == on.gpus.begin() ? on.gpus.back() : *(entry_at - 1);
    const int exit = local.size() > 1 ? local[(r + 1) % local.size()] : before;
    result.push_back({.order = node_path(shape, on.gpus, entry, exit, free),
                      .channels = channels,
                      .nic = nic,
                      .out = local.size() > 1 ? exit : entry});
  }
  return result;
}

std::size_t rings_of(const std::vector<OnNode>& nodes) {
  std::size_t rings = nodes.front().nics.size();
  for (const OnNode& on : nodes) rings = std::min(rings, on.nics.size());
  require(rings > 0, "a group spans nodes that have no NIC");
  return rings;
}

// Of each part that the group is on, the first of the nodes with most of its GPUs.
std::vector<const OnNode*> fullest_of_parts(const Topology& topology, const std::vector<OnNode>& nodes) {
  std::vector<const OnNode*> fullest;
  for (const OnNode& on : nodes) {
    if (fullest.empty() || &part_of(topology, *fullest.back()) != &part_of(topology, on))
      fullest.push_back(&on);
    else if (on.gpus.size() > fullest.back()->gpus.size())
      fullest.back() = &on;
  }
  return fullest;
}

bool many_leaves(const Topology& topology, const std::vector<OnNode>& nodes) {
  return std::any_of(nodes.begin(), nodes.end(), [&](const OnNode& on) {
    return topology.leaf_of(on.node, 0) != topology.leaf_of(nodes.front().node, 0);
  });
}

}  // namespace

std::vector<std::vector<int>> node_cycles(const NodeShape& node, std::span<const int> members) {
  const std::vector<int> ascending(members.begin(), members.end());
  if (node.switched || members.size() < 2) return {ascending};
  auto found = CycleSearch(node.lanes, members).best;
  if (found.empty()) found.push_back(ascending);
  return found;
}

RingRoutes::RingRoutes(const Topology& topology, std::span<const Rank> members) : topology_(topology) {
  require(!members.empty(), "a group without ranks");
  const std::vector<OnNode> nodes = by_node(topology, members);
  const std::size_t rings = nodes.size() > 1 ? rings_of(nodes) : 0;
  const int channels = channels_per_network_ring(topology, nodes, rings);
  for (const OnNode& on : nodes) {
    nodes_.push_back({.node = on.node,
                      .head = positions_,
                      .rings = nodes.size() > 1
                                   ? lay_network_rings(topology.node(on.node), on, rings, channels)
                                   : lay_node_rings(topology.node(on.node), on.gpus)});
    node_of_.insert(node_of_.end(), on.gpus.size(), static_cast<int>(nodes_.size()) - 1);
    positions_ += static_cast<int>(on.gpus.size());
  }
  for (const NodeRing& ring : nodes_.front().rings) channels_ += ring.channels;
}

bool RingRoutes::leaves_node(int position) const {
  return nodes() > 1 && (position + 1 == positions_ || node_of_[at(position)] != node_of_[at(position + 1)]);
}

void RingRoutes::cross(Links& links, LinkId link, int channels) {
  const auto known =
      std::find_if(links.begin(), links.end(), [&](const ChannelsOnLink& on) { return on.link == link; });
  if (known != links.end())
    known->channels += channels;
  else
    links.push_back({link, channels});
}

void RingRoutes::cross_node(Links& links, int node, int from, int to, int channels, bool backward) const {
  for (const int local :
       topology_.node(node).route[at(from)][at(to)])  // the way back is the other of the pair
    cross(links, topology_.link(node, backward ? local ^ 1 : local), channels);
}

RingRoutes::Links RingRoutes::hop(int position) const {
  const int n = node_of_[at(position)];
  if (leaves_node(position)) return between(n, (n + 1) % nodes(), true);
  return inside(position, false);
}

RingRoutes::Links RingRoutes::hop_back(int position) const {
  require(!leaves_node(position), "only inside a node is there a way back along the ring");
  return inside(position, true);
}

RingRoutes::Links RingRoutes::inside(int position, bool backward) const {
  const Node& node = nodes_[at(node_of_[at(position)])];
  const std::size_t i = at(position - node.head);
  Links links;
  for (const NodeRing& ring : node.rings)
    cross_node(links, node.node, ring.order[i], ring.order[(i + 1) % ring.order.size()], ring.channels,
               backward);
  return links;
}

RingRoutes::Links RingRoutes::between_heads(int from, int to) const { return between(from, to, false); }

// Between a GPU and a NIC on another PCIe switch: over the host.
void RingRoutes::cross_host(Links& links, int node, int nic, int gpu, int channels, bool in) const {
  const NodeShape& shape = topology_.node(node);
  const auto& beside = shape.nic_gpus[at(nic)];
  if (std::find(beside.begin(), beside.end(), gpu) != beside.end()) return;
  const int of_nic = shape.host_up[at(nic * static_cast<int>(shape.host_up.size()) / shape.nics)];
  const int of_gpu = shape.host_up[at(gpu / topology_.part_at_node(node).spec.gpus_per_pcie_switch)];
  cross(links, topology_.link(node, in ? of_nic : of_gpu), channels);
  cross(links, topology_.link(node, (in ? of_gpu : of_nic) + 1), channels);
}

// Out by the last GPU of each ring or by its head, in by the head.
RingRoutes::Links RingRoutes::between(int from, int to, bool by_last) const {
  const Node &a = nodes_[at(from)], &b = nodes_[at(to)];
  const NodeShape &left = topology_.node(a.node), &entered = topology_.node(b.node);
  Links links;
  std::vector<LinkId> route;
  for (std::size_t r = 0; r < a.rings.size(); ++r) {
    const NodeRing &leaving = a.rings[r], &entering = b.rings[r];
    const int out = by_last ? leaving.out : leaving.order.front();
    // With one GPU at the NIC the last hands over to it (PXN).
    if (by_last && out != leaving.order.back())
      cross_node(links, a.node, leaving.order.back(), out, leaving.channels, false);
    cross_host(links, a.node, leaving.nic, out, leaving.channels, false);
    for (const int link : {left.pcie_out[at(out)], left.nic_down[at(leaving.nic)]})
      cross(links, topology_.link(a.node, link), leaving.channels);
    route.clear();
    topology_.route_between(a.node, leaving.nic, b.node, entering.nic, route);
    for (const LinkId link : route) cross(links, link, leaving.channels);
    cross_host(links, b.node, entering.nic, entering.order.front(), leaving.channels, true);
    for (const int link : {entered.nic_up[at(entering.nic)], entered.pcie_in[at(entering.order.front())]})
      cross(links, topology_.link(b.node, link), leaving.channels);
  }
  return links;
}

RingFabric ring_fabric(const Topology& topology, std::span<const Rank> members) {
  require(!members.empty(), "a group without ranks");
  const std::vector<OnNode> nodes = by_node(topology, members);
  RingFabric fabric;
  fabric.ranks = static_cast<int>(members.size());
  fabric.nodes = static_cast<int>(nodes.size());
  const std::vector<const OnNode*> fullest = fullest_of_parts(topology, nodes);
  fabric.nvlink = fabric.nvswitch = true;
  for (const OnNode* on : fullest) {
    fabric.ranks_per_node = std::max(fabric.ranks_per_node, static_cast<int>(on->gpus.size()));
    fabric.nvlink = fabric.nvlink && part_of(topology, *on).spec.intra != Intra::pcie;
    fabric.nvswitch = fabric.nvswitch && topology.node(on->node).switched;
  }
  fabric.many_leaves = many_leaves(topology, nodes);
  if (fabric.ranks == 1) return fabric;

  const auto lay_inside = [&](const OnNode& on) {
    std::vector<Rank> here;
    for (const int g : on.gpus) here.push_back(topology.rank_at(on.node, g));
    const RingRoutes routes(topology, here);
    fabric.channels = routes.channels();
    Tally tally(topology);
    for (int p = 0; p < routes.positions(); ++p) tally.add(routes.hop(p));
    return tally;
  };
  const auto slowest = [&](const Tally& here) {
    const auto rate = here.rate(fabric.channels, [](LinkClass) { return true; });
    if (!fabric.node_rate || rate < fabric.node_rate) fabric.node_rate = rate;
  };
  // Nodes of a part are alike but for degraded links; the slowest one holds up the others.
  for (const OnNode& on : nodes)
    if (on.gpus.size() > 1 && topology.has_degraded_links(on.node)) slowest(lay_inside(on));
  for (const OnNode* on : fullest) {
    if (on->gpus.size() < 2) continue;
    const Tally inside = lay_inside(*on);
    slowest(inside);
    fabric.links = inside.links();
  }
  if (fabric.nodes > 1) {
    const RingRoutes routes(topology, members);
    fabric.channels = routes.channels();
    Tally all(topology);
    for (int p = 0; p < routes.positions(); ++p) all.add(routes.hop(p));
    fabric.network_rate = all.rate(fabric.channels, [](LinkClass c) { return c != LinkClass::nvlink; });
    fabric.links = all.links();
  }
  return fabric;
}

}  // namespace shardsim
