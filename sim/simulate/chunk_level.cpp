#include "sim/simulate/chunk_level.h"

#include <algorithm>
#include <cmath>

#include "sim/base/check.h"
#include "sim/collective/schedule.h"

namespace shardsim {
namespace {

constexpr Bytes slot{std::int64_t{512} << 10};
constexpr std::int64_t slots_per_ring_chunk = 4;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

std::vector<LinkShare> shares(const std::vector<ChannelsOnLink>& links) {
  std::vector<LinkShare> result;
  for (const ChannelsOnLink& on : links) result.push_back({on.link.index, on.channels});
  return result;
}

Bytes ceil_div(Bytes bytes, std::int64_t by) { return {(bytes.count + by - 1) / by}; }

bool has_copies(const Program& program) {
  return std::any_of(program.bodies.begin(), program.bodies.end(), [](const Body& body) {
    return std::any_of(body.begin(), body.end(),
                       [](const Instruction& i) { return std::holds_alternative<Copy>(i); });
  });
}

}  // namespace

MessagePattern ring_pattern(const Topology& topology, std::span<const Rank> members) {
  const RingRoutes routes(topology, members);
  const Schedule schedule = ring_schedule(routes.positions(), 1);
  MessagePattern pattern{
      .channels = routes.channels(), .lag = schedule.lag, .cut_through = false, .streams = {}};
  for (const Leg& s : schedule.legs)
    pattern.streams.push_back({shares(routes.hop(s.from)), routes.leaves_node(s.from), s.sources});
  return pattern;
}

MessagePattern tree_pattern(const Topology& topology, std::span<const Rank> members) {
  const RingRoutes routes(topology, members);
  std::vector<int> positions, node_of;
  for (int v = 0; v < routes.nodes(); ++v) {
    const int end = v + 1 < routes.nodes() ? routes.head(v + 1) : routes.positions();
    positions.push_back(end - routes.head(v));
    node_of.insert(node_of.end(), at(positions.back()), v);
  }
  const Schedule schedule = tree_schedule(positions);
  MessagePattern pattern{
      .channels = routes.channels(), .lag = schedule.lag, .cut_through = true, .streams = {}};
  for (const Leg& s : schedule.legs) {
    const bool between = s.way == Leg::Way::parent || s.way == Leg::Way::child;
    const auto links = between ? routes.between_heads(node_of[at(s.from)], node_of[at(s.to)])
                       : s.way == Leg::Way::chain_up ? routes.hop_back(s.to)
                                                     : routes.hop(s.from);
    pattern.streams.push_back({shares(links), between, s.sources});
  }
  return pattern;
}

MessagePattern plain_pattern(const Topology& topology, const RingFabric& fabric, const Plan& plan) {
  MessageStream stream;
  for (const ChannelsOnLink& on : fabric.links) {
    const bool node = topology.link_class(on.link) == LinkClass::nvlink;
    const bool twice = plan.load == (node ? LinkLoad::node_twice : LinkLoad::network_twice);
    stream.links.push_back({on.link.index, on.channels * (twice ? 2 : 1)});
  }
  return {.channels = plan.channels, .lag = 0, .cut_through = false, .streams = {std::move(stream)}};
}

MessageLoad message_load(const Plan& plan, const RingFabric& fabric, CollectiveKind kind, Bytes bytes,
                         Bandwidth cap) {
  switch (plan.algorithm) {
    case Algorithm::ring:
      return {.messages = ring_messages(kind, fabric.ranks),
              .bytes = ceil_div(bytes, fabric.ranks),
              .chunk = slot * (slots_per_ring_chunk * fabric.channels),
              .pace = cap,
              .inside = plan.step_inside,
              .between = plan.step_between};
    case Algorithm::tree: {  // each tree has half the channels and half the data, a quarter of the wire bytes
      const Bytes half = ceil_div(bytes, 2);
      const Wide pace = Wide{cap.count} * half.count / plan.wire.count;
      return {.messages = 1,
              .bytes = half,
              .chunk = slot * std::max(1, fabric.channels / 2),
              .pace = Bandwidth{std::max<std::int64_t>(1, static_cast<std::int64_t>(pace))},
              .inside = plan.step_inside,
              .between = plan.step_between};
    }
    case Algorithm::nvls:
    case Algorithm::nvls_tree: break;
  }
  return {.messages = 1, .bytes = plan.wire, .chunk = slot * fabric.channels, .pace = cap, .inside = {}};
}

Time before_messages(const Plan& plan, const RingFabric& fabric, CollectiveKind kind) {
  switch (plan.algorithm) {
    case Algorithm::ring: {
      const bool spans = fabric.nodes > 1;
      const int passes = kind == CollectiveKind::all_reduce ? 2 : 1;
      const int between = spans ? fabric.nodes - 1 : 0;
      const int inside = spans ? fabric.ranks - fabric.nodes : fabric.ranks - 1;
      return plan.latency - (plan.step_inside * inside + plan.step_between * between) * passes;
    }
    case Algorithm::tree: {
      const int levels = static_cast<int>(std::floor(std::log2(fabric.nodes)));
      return plan.latency - (plan.step_inside * (fabric.ranks_per_node - 1) + plan.step_between * levels) * 2;
    }
    case Algorithm::nvls:
    case Algorithm::nvls_tree: break;
  }
  return plan.latency;
}

ChunkLevel::ChunkLevel(const Program& program, const Cluster& cluster, const Job& job,
                       const std::vector<std::vector<Plan>>& planned)
    : job_(job), streams_(static_cast<int>(program.streams.size())), patterns_(job.communicators.size()) {
  const Topology& topology = cluster.topology;
  for (int p = 0; p < static_cast<int>(topology.parts().size()); ++p) pcie_.push_back(cluster.gpu_of(p).pcie);
  std::vector<MessagePattern> patterns;
  const auto add = [&](MessagePattern pattern, TransferId transfer) {
    patterns.push_back(std::move(pattern));
    transfer_of_.push_back(transfer);
    return PatternId{static_cast<std::int32_t>(patterns.size()) - 1};
  };
  for (const CommunicatorId c : ids(job.communicators)) {
    const Communicator& of = job.communicators[c];
    require(of.count == 1, "the chunk level simulates every rank");
    std::vector<Rank> members;
    for (const RankClassId r : of.members) members.push_back(job.ranks[r].rank);
    for (const Plan& plan : planned[at(c.index)]) {
      if (pattern_of(c, plan)) continue;
      Patterns& known = patterns_[c];
      switch (plan.algorithm) {
        case Algorithm::ring: known.ring = add(ring_pattern(topology, members), {c.index}); break;
        case Algorithm::tree: known.tree = add(tree_pattern(topology, members), {c.index}); break;
        case Algorithm::nvls:
        case Algorithm::nvls_tree:
          known.plain.push_back(
              {plan.load, plan.channels, add(plain_pattern(topology, of.fabric, plan), {c.index})});
          break;
      }
    }
  }
  if (has_copies(program))
    for (const RankClassId r : ids(job.ranks))
      for (int s = 0; s < streams_; ++s)
        for (const bool to_device : {false, true}) {
          const NodeShape& node = topology.node(topology.node_of(job.ranks[r].rank));
          const auto gpu = at(topology.local_gpu(job.ranks[r].rank));
          const LinkId link = topology.link(topology.node_of(job.ranks[r].rank),
                                            to_device ? node.pcie_in[gpu] : node.pcie_out[gpu]);
          const PatternId pattern = add(
              {.channels = 1, .lag = 0, .cut_through = false, .streams = {{{{link.index, 1}}, false, {}}}},
              {static_cast<std::int32_t>(job.communicators.size()) + r.index * streams_ + s});
          if (!first_copy_) first_copy_ = pattern;
        }
  // Links that nothing crosses are left out.
  std::vector<int> position(at(topology.links()), -1);
  std::vector<Bandwidth> capacity;
  for (MessagePattern& pattern : patterns)
    for (MessageStream& stream : pattern.streams)
      for (LinkShare& share : stream.links) {
        int& p = position[at(share.link)];
        if (p < 0) {
          p = static_cast<int>(capacity.size());
          capacity.push_back(topology.capacity({share.link}));
        }
        share.link = p;
      }
  std::vector<Background> background;
  for (const BackgroundTraffic& b : cluster.background)
    if (const int p = position[at(b.link.index)]; p >= 0) background.push_back({p, b.flows, b.rate});
  network_.emplace(std::move(capacity), patterns, background);
}

std::optional<PatternId> ChunkLevel::pattern_of(CommunicatorId c, const Plan& plan) const {
  const Patterns& known = patterns_[c];
  switch (plan.algorithm) {
    case Algorithm::ring: return known.ring;
    case Algorithm::tree: return known.tree;
    case Algorithm::nvls:
    case Algorithm::nvls_tree: break;
  }
  for (const Patterns::Plain& plain : known.plain)
    if (plain.load == plan.load && plain.channels == plan.channels) return plain.pattern;
  return std::nullopt;
}

void ChunkLevel::start(CommunicatorId c, const Plan& plan, CollectiveKind kind, Bytes bytes, Bandwidth cap,
                       Time now) {
  network_->start(*pattern_of(c, plan), message_load(plan, job_.communicators[c].fabric, kind, bytes, cap),
                  now);
}

void ChunkLevel::set_cap(CommunicatorId c, const Plan& plan, CollectiveKind kind, Bytes bytes,
                         Bandwidth cap) {
  const MessageLoad load = message_load(plan, job_.communicators[c].fabric, kind, bytes, cap);
  network_->set_pace(*pattern_of(c, plan), load.pace);
}

void ChunkLevel::copy(RankClassId r, int stream, bool to_device, Bytes bytes, Time now) {
  const PatternId pattern{first_copy_->index + 2 * (r.index * streams_ + stream) + (to_device ? 1 : 0)};
  network_->start(pattern,
                  {.messages = 1,
                   .bytes = std::max(bytes, Bytes{1}),
                   .chunk = slot,
                   .pace = pcie_[at(job_.ranks[r].part)],
                   .inside = {}},
                  now);
}

std::span<const ChunkLevel::End> ChunkLevel::advance(std::optional<Time> until) {
  ends_.clear();
  for (const ChunkNetwork::Completion& end : network_->advance(until))
    ends_.push_back({transfer_of_[at(end.pattern.index)], end.at});
  return ends_;
}

}  // namespace shardsim
