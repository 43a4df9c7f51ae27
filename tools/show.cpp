#include "tools/show.h"

#include <fmt/format.h>

#include "sim/collective/plan.h"
#include "sim/model/family.h"
#include "sim/report/table.h"
#include "sim/scenario/scenario.h"
#include "sim/topology/graph.h"

namespace shardsim {
namespace {

// A scenario on the topology, only to resolve it: the smallest model on two nodes (one, without a network).
Scenario on_topology(const Library& library, const std::string& name) {
  Settings settings;
  settings.scenario = {name};
  const Origin origin{Origin::Kind::flag, {name}, {}};
  settings.set("topology", name, origin);
  settings.set("model", std::string("gpt2"), origin);
  settings.set("cluster.gpus", std::int64_t{1}, origin);
  Scenario scenario = resolve(settings, library);
  const NodeSpec& node = scenario.topology.node;
  scenario.gpus = node.nics > 0 ? 2 * node.gpus : node.gpus;
  return scenario;
}

std::string gb(Bandwidth w) { return fmt::format("{:.1f}", gb_per_s(w)); }

std::vector<Rank> first_ranks(int count) {
  std::vector<Rank> ranks;
  for (int i = 0; i < count; ++i) ranks.push_back({i});
  return ranks;
}

std::string collectives(const Scenario& s, const Topology& topology) {
  const CollectiveModel model{s.stack.nccl, s.gpu.architecture, s.topology.node.transport,
                              s.topology.node.network_overhead};
  Table table{{"group", "ranks", "channels", "collective", "1 MiB us", "64 MiB us", "1 GiB us",
               "1 GiB algorithm", "1 GiB bus GB/s"},
              {}};
  const int node = s.topology.node.gpus;
  for (const int ranks : {node, 2 * node}) {
    if (ranks < 2 || ranks > topology.gpus()) continue;
    const RingFabric fabric = ring_fabric(topology, first_ranks(ranks));
    for (const CollectiveKind kind : {CollectiveKind::all_gather, CollectiveKind::all_reduce}) {
      std::vector<std::string> row{ranks == node ? "one node" : "two nodes", fmt::format("{}", ranks),
                                   fmt::format("{}", fabric.channels), std::string(name(kind))};
      for (const std::int64_t mib : {1, 64, 1024})
        row.push_back(
            fmt::format("{:.1f}", seconds(plan(model, fabric, kind, Bytes{mib << 20}).alone()) * 1e6));
      const Plan large = plan(model, fabric, kind, Bytes{1 << 30});
      row.push_back(fmt::format("{} {}", name(large.algorithm), name(large.protocol)));
      row.push_back(
          fmt::format("{:.1f}", static_cast<double>(large.wire.count) / seconds(large.alone()) * 1e-9));
      table.rows.push_back(std::move(row));
    }
  }
  return table.rows.empty()
             ? ""
             : "\nCollectives alone on the fabric, stack " + s.stack.name + "\n" + to_text(table);
}

}  // namespace

std::string show_list(const Library& library, const std::string& kind) {
  std::string out;
  for (const std::string& name : library.names(kind)) out += name + "\n";
  return out;
}

std::string show_topology(const Library& library, const std::string& name) {
  const Scenario s = on_topology(library, name);
  const Topology topology(s.topology, s.gpu, static_cast<int>(s.gpus), s.degraded_links);
  const NodeSpec& node = s.topology.node;
  std::string out = fmt::format("{}\n  source  {}\n", s.topology.name, s.topology.source);
  out += fmt::format("  node    {} x {}, {}\n", node.gpus, s.gpu.name, shardsim::name(node.intra));
  if (node.nics > 0)
    out += fmt::format("  NICs    {} x {:.0f} Gbit/s, transport {} ({:.0f}% of line rate)\n", node.nics,
                       gb_per_s(node.nic) * 8, node.transport.name, 100 * node.transport.efficiency);
  if (node.nics > 0)
    out +=
        fmt::format("  fabric  {}{}\n", shardsim::name(s.topology.fabric.kind),
                    s.topology.fabric.kind == FabricKind::single_switch
                        ? ""
                        : fmt::format(", {} nodes per leaf, oversubscription {}",
                                      s.topology.fabric.nodes_per_leaf, s.topology.fabric.oversubscription));
  Table links{{"link (each direction)", "class", "payload GB/s"}, {}};
  const NodeShape& shape = topology.node();
  for (std::size_t l = 0; l < shape.links.size(); l += 2) {  // the way back follows each link
    const LocalLink& link = shape.links[l];
    const std::string to =
        link.to == NodeShape::network ? "fabric" : shape.devices[static_cast<std::size_t>(link.to)];
    links.rows.push_back({shape.devices[static_cast<std::size_t>(link.from)] + " - " + to,
                          std::string(shardsim::name(link.kind)), gb(link.capacity)});
  }
  return out + "\n" + to_text(links) + collectives(s, topology);
}

std::string show_topology_graphviz(const Library& library, const std::string& name) {
  const Scenario s = on_topology(library, name);
  return graphviz(Topology(s.topology, s.gpu, static_cast<int>(s.gpus), s.degraded_links));
}

std::string show_model(const Library& library, const std::string& name) {
  Settings settings;
  settings.scenario = {name};
  const Origin origin{Origin::Kind::flag, {name}, {}};
  settings.set("topology", std::string("single-gpu"), origin);
  settings.set("model", name, origin);
  const Scenario s = resolve(settings, library);
  const OpGraph graph = build(s.model, s.workload);
  const double tokens = static_cast<double>(s.workload.sequence + s.workload.decoder_sequence);
  std::string out = fmt::format("{}\n  family          {}\n", s.model.name, shardsim::name(s.model.family));
  for (const RecordedValue& v : s.values)
    if (v.key.starts_with("model.") && v.key != "model.name" && v.key != "model.family")
      out += fmt::format("  {:<15} {}\n", v.key.substr(6), to_string(v.value));
  const std::int64_t parameters = parameter_count(graph);
  out += fmt::format("  parameters      {}\n", parameters);
  for (const auto& [format, bytes] : {std::pair("fp32", 4), std::pair("16-bit", 2), std::pair("8-bit", 1)}) {
    const Bytes weights{parameters * bytes};
    out += fmt::format("  {:<6} weights  {:.2f} GB = {:.2f} GiB\n", format,
                       static_cast<double>(weights.count) * 1e-9, gib(weights));
  }
  out += fmt::format(
      "  FLOP per token  {:.4g} forward and backward, without causal discount, {:.0f} tokens per sequence\n",
      forward_flop(graph).count * 3 / tokens, tokens);
  return out;
}

}  // namespace shardsim
