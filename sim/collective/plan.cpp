#include "sim/collective/plan.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "sim/base/check.h"

namespace shardsim {
namespace {

struct Request {
  const CollectiveModel& model;
  const RingFabric& group;
  CollectiveKind kind;
  Bytes bytes;

  // Passes over the data: an all-reduce is a reduce-scatter and an all-gather.
  int passes() const { return kind == CollectiveKind::all_reduce ? 2 : 1; }
  Bytes bus() const {
    const Wide numerator = Wide{bytes.count} * passes() * (group.ranks - 1);
    return {static_cast<std::int64_t>((numerator + group.ranks - 1) / group.ranks)};
  }
  const NcclArchitecture& arch() const {
    return model.nccl.architecture[static_cast<std::size_t>(model.architecture)];
  }
};

std::size_t index(Protocol p) { return static_cast<std::size_t>(p); }

Bandwidth scaled(Bandwidth w, double factor) { return {std::llround(static_cast<double>(w.count) * factor)}; }

// The slower of the two parts of the route, each times the factor of its kind.
Bandwidth bottleneck(const RingFabric& group, double node_factor, double network_factor) {
  Bandwidth least{std::numeric_limits<std::int64_t>::max()};
  if (group.node_rate) least = std::min(least, scaled(*group.node_rate, node_factor));
  if (group.network_rate) least = std::min(least, scaled(*group.network_rate, network_factor));
  return std::max(least, Bandwidth{1});
}

double leaf_factor(const Request& r) {
  return r.group.many_leaves ? r.model.transport.efficiency_many_leaves : 1.0;
}

// Bytes per channel and ring step decide how full the pipeline of chunks gets.
double mib_per_step(const Request& r) {
  return static_cast<double>(r.bytes.count) / r.group.channels / r.group.ranks / 1048576.0;
}

double nvlink_efficiency(const Nccl& nccl, double mib) {
  const auto& knots = nccl.nvlink_efficiency;
  if (mib <= knots.front()[0]) return knots.front()[1];
  for (std::size_t i = 1; i < knots.size(); ++i) {
    const auto [x0, y0] = knots[i - 1];
    const auto [x1, y1] = knots[i];
    if (mib <= x1) return y0 + (y1 - y0) * std::log(mib / x0) / std::log(x1 / x0);
  }
  return knots.back()[1];
}

double network_efficiency(const Transport& transport, double mib) {
  return mib / (mib + transport.half_rate_mib);
}

// A thread block per channel; small messages use fewer. (NCCL enqueue.cc: threads times bytes that make one
// worth it; a ring in LL wants them per rank)
int sms(const Request& r, Algorithm algorithm, Protocol p) {
  std::int64_t bytes_per_channel = 0;
  switch (p) {
    case Protocol::simple: bytes_per_channel = 512 * 64; break;
    case Protocol::ll128: bytes_per_channel = 640 * 8; break;
    case Protocol::ll:
      bytes_per_channel = std::int64_t{512} * 8 * (algorithm == Algorithm::ring ? r.group.ranks : 1);
      break;
  }
  const std::int64_t worth = (r.bytes.count + bytes_per_channel - 1) / bytes_per_channel;
  return static_cast<int>(std::clamp<std::int64_t>(worth, 1, r.group.channels));
}

Time hop(const Request& r, const PerProtocol& network, Protocol p) {
  const int times = p == Protocol::simple ? 2 : 1;  // data and flag travel apart
  return network[index(p)] + r.model.transport.hop_latency * times;
}

// Steps of a ring that stay inside nodes wait for the host's proxy too once the ring spans nodes.
void add_ring_latency(Plan& plan, const Request& r, Protocol p) {
  const Nccl& nccl = r.model.nccl;
  const RingFabric& g = r.group;
  const bool spans = g.nodes > 1;
  const Time overhead = spans ? r.model.network_overhead * (p == Protocol::simple ? 3 : 1) : Time{};
  plan.step_inside = std::max(nccl.ring_nvlink[index(p)], overhead);
  plan.step_between = hop(r, g.ranks_per_node == 1 ? nccl.tree_network : nccl.ring_network, p);
  const int network_steps = spans ? g.nodes - 1 : 0;
  const int node_steps = spans ? g.ranks - g.nodes : g.ranks - 1;
  plan.latency = nccl.ring_base[index(p)] +
                 (plan.step_inside * node_steps + plan.step_between * network_steps) * r.passes();
}

Plan ring(const Request& r, Protocol p) {
  const Nccl& nccl = r.model.nccl;
  const bool spans = r.group.nodes > 1;
  Plan plan{.algorithm = Algorithm::ring,
            .protocol = p,
            .bus = r.bus(),
            .wire = r.bus(),
            .channels = r.group.channels};
  add_ring_latency(plan, r, p);
  switch (p) {
    case Protocol::simple: {
      const double mib = mib_per_step(r);
      plan.cap = bottleneck(r.group, nvlink_efficiency(nccl, mib),
                            network_efficiency(r.model.transport, mib) * leaf_factor(r));
      if (spans && r.kind == CollectiveKind::all_reduce)
        for (Time* t : {&plan.latency, &plan.step_inside, &plan.step_between})
          *t = from_seconds(seconds(*t) * r.arch().ring_plateau);
      break;
    }
    case Protocol::ll128:
      plan.cap = scaled(bottleneck(r.group, 1.0, leaf_factor(r)), nccl.ll128_efficiency);
      break;
    case Protocol::ll:
      plan.cap = std::min(spans ? r.arch().ll_max_nodes : r.arch().ll_max_one_node,
                          scaled(bottleneck(r.group, 1.0, leaf_factor(r)), 0.5));
      break;
  }
  plan.latency += nccl.launch;
  plan.sms = sms(r, Algorithm::ring, p);
  return plan;
}

double tree_correction(const Request& r, Protocol p) {
  const auto& by_size = r.model.nccl.tree_correction[index(p)];
  const double size = std::floor(std::log2(static_cast<double>(r.bytes.count) / 64.0));
  return by_size[static_cast<std::size_t>(std::clamp(size, 0.0, static_cast<double>(by_size.size() - 1)))];
}

// Double binary trees between nodes, a chain inside each. Every byte goes up and down once; over two nodes it
// crosses the network once per direction. Constants: NCCL tuning.cc.
Plan tree(const Request& r, Protocol p) {
  const Nccl& nccl = r.model.nccl;
  const RingFabric& g = r.group;
  const int levels = static_cast<int>(std::floor(std::log2(g.nodes)));
  const bool two = g.nodes == 2;
  Plan plan{.algorithm = Algorithm::tree,
            .protocol = p,
            .bus = r.bus(),
            .wire = r.bytes * 2,
            .channels = two ? 2 * g.channels : g.channels,
            .load = two ? LinkLoad::node_twice : LinkLoad::even};
  plan.step_inside = nccl.tree_nvlink[index(p)];
  plan.step_between = hop(r, nccl.tree_network, p);
  plan.latency = nccl.launch + nccl.tree_base[index(p)] +
                 (plan.step_inside * (g.ranks_per_node - 1) + plan.step_between * levels) * 2;
  constexpr double tree_efficiency = 0.92;
  const int searched = g.channels / 2;  // channels before NCCL duplicates them
  const Bandwidth channels = (two ? r.arch().tree_channel_two_nodes : r.arch().tree_channel_nodes) * searched;
  const Bandwidth rate =
      two ? std::min(bottleneck(g, tree_efficiency, 2.0 * leaf_factor(r)), channels)
          : scaled(std::min(bottleneck(g, 1.0, leaf_factor(r)), channels), tree_efficiency);
  switch (p) {
    case Protocol::simple: plan.cap = rate; break;
    case Protocol::ll128:
      plan.cap = std::min(scaled(rate, 120.0 / 128.0), r.arch().tree_channel_ll128 * searched);
      break;
    case Protocol::ll: plan.cap = std::min(scaled(rate, 1 / 3.8), r.arch().ll_max_nodes); break;
  }
  const double network = network_efficiency(r.model.transport, mib_per_step(r) + nccl.tree_step_floor_mib);
  const double size_factor = p != Protocol::simple ? tree_correction(r, p)
                             : two                 ? network
                                                   : std::min(network, tree_correction(r, p));
  plan.cap = std::max(scaled(plan.cap, size_factor), Bandwidth{1});
  plan.sms = sms(r, Algorithm::tree, p);
  return plan;
}

// In the first round of chunks the two halves of an NVLS all-reduce follow each other, later they overlap.
double nvls_filling(const Request& r, const Nvls& n, int ranks) {
  const double window = static_cast<double>(n.chunk.count) * n.channels * ranks;
  const double bytes = static_cast<double>(r.bytes.count);
  return (bytes + window) / (bytes + 2 * window);
}

// The switches add up and multicast: a GPU sends and receives each byte once, and its share of the result
// once more.
Plan nvls(const Request& r, const Nvls& n) {
  const RingFabric& g = r.group;
  const double bus_per_link_byte = 2.0 * (g.ranks - 1) / (g.ranks + 1);
  return {.algorithm = Algorithm::nvls,
          .protocol = Protocol::simple,
          .latency = r.model.nccl.launch + n.latency,
          .bus = r.bus(),
          .wire = r.bus(),
          .cap = scaled(*g.node_rate, n.efficiency * bus_per_link_byte * nvls_filling(r, n, g.ranks)),
          .sms = n.channels,
          .channels = static_cast<int>(std::lround(g.channels * bus_per_link_byte)),
          .load = LinkLoad::even};
}

// NVLS inside nodes, double binary trees between them.
Plan nvls_tree(const Request& r, const Nvls& n) {
  const RingFabric& g = r.group;
  const int levels = static_cast<int>(std::floor(std::log2(g.nodes)));
  const bool two = g.nodes == 2;
  const double wire_per_link_byte = 2.0 * g.ranks_per_node / (g.ranks_per_node + 1);
  const double network = network_efficiency(r.model.transport, mib_per_step(r) + n.tree_step_floor_mib);
  const Bandwidth rate = bottleneck(g, n.efficiency * wire_per_link_byte, (two ? 2.0 : 1.0) * leaf_factor(r));
  return {.algorithm = Algorithm::nvls_tree,
          .protocol = Protocol::simple,
          .latency = r.model.nccl.launch + n.latency +
                     (n.network_latency + r.model.transport.hop_latency * 2) * (2 * levels),
          .bus = r.bus(),
          .wire = r.bytes * 2,
          .cap = std::max(scaled(rate, network * nvls_filling(r, n, g.ranks_per_node)), Bandwidth{1}),
          .sms = n.channels,
          .channels = 2 * g.channels,
          .load = two ? LinkLoad::even : LinkLoad::network_twice};
}

// NCCL prefers rings below five GPUs of a node (measured: stas00/ml-engineering).
constexpr int nvls_ranks_min = 5;

}  // namespace

std::vector<Plan> candidates(const CollectiveModel& model, const RingFabric& group, CollectiveKind kind,
                             Bytes bytes) {
  require(group.ranks > 1 && bytes.count > 0, "a collective needs two ranks and something to say");
  const Request request{model, group, kind, bytes};
  const bool ll128 = group.nvlink && (group.nodes == 1 || model.transport.ll128);
  const bool trees = kind == CollectiveKind::all_reduce && group.nodes > 1;
  std::vector<Plan> plans;
  for (const Protocol p : {Protocol::simple, Protocol::ll128, Protocol::ll}) {
    if (p == Protocol::ll128 && !ll128) continue;
    plans.push_back(ring(request, p));
    if (trees) plans.push_back(tree(request, p));
  }
  const std::optional<Nvls>& in_switch = request.arch().nvls;
  if (in_switch && kind == CollectiveKind::all_reduce && group.nvswitch &&
      group.ranks_per_node >= nvls_ranks_min)
    plans.push_back(group.nodes == 1 ? nvls(request, *in_switch) : nvls_tree(request, *in_switch));
  return plans;
}

Plan plan(const CollectiveModel& model, const RingFabric& group, CollectiveKind kind, Bytes bytes) {
  const std::vector<Plan> all = candidates(model, group, kind, bytes);
  const auto chosen = std::min_element(all.begin(), all.end(),
                                       [](const Plan& a, const Plan& b) { return a.alone() < b.alone(); });
  if (model.transport.fabric_half_rate_mib == 0) return *chosen;
  Transport transport = model.transport;
  transport.half_rate_mib += std::exchange(transport.fabric_half_rate_mib, 0.0);
  const CollectiveModel loaded{model.nccl, model.architecture, transport, model.network_overhead};
  return candidates(loaded, group, kind, bytes)[static_cast<std::size_t>(chosen - all.begin())];
}

}  // namespace shardsim
