#include <cmath>

#include "sim/scenario/resolver.h"
#include "sim/topology/node_shape.h"

namespace shardsim {
namespace {

bool is_gpu(const std::string& device, int gpus) {
  for (int g = 0; g < gpus; ++g)
    if (device == fmt::format("gpu{}", g)) return true;
  return false;
}

}  // namespace

void Resolver::read_topology() {
  if (parts() == 0) {
    read_nodes("topology", s_.topology, s_.gpu);
    if (s_.topology.node.nics > 0) read_fabric();
    return;
  }
  std::string names;
  bool network = false;
  for (int p = 0, count = parts(); p < count; ++p) {
    ClusterPart& part = s_.parts.emplace_back();
    read_nodes(part_key(p) + ".topology", part.topology, part.gpu);
    names += (p == 0 ? "" : " + ") + part.topology.name;
    network = network || part.topology.node.nics > 0;
  }
  s_.topology = s_.parts.front().topology;
  s_.topology.name = text("topology.name", names, "the names of the parts");
  s_.gpu = s_.parts.front().gpu;
  if (network) read_fabric();
}

void Resolver::read_nodes(const std::string& prefix, TopologySpec& t, Gpu& gpu) {
  constexpr std::string_view what = "the topology";
  const auto key = [&](const char* leaf) { return prefix + "." + leaf; };
  t.name = text(key("name"), "inline", "a topology without a name");
  t.source = text(key("source"), "", "none given");
  t.gpu = required<std::string>(key("node.gpu"), what);
  gpu = read_gpu(library_.find("topologies/gpus", t.gpu, settings_.place(key("node.gpu"))), &overlays_);

  NodeSpec& node = t.node;
  node.gpus = static_cast<int>(required_int(key("node.gpus"), what));
  node.gpus_place = settings_.place(key("node.gpus"));
  if (node.gpus == 1) text(key("node.intra"), "nvswitch", "a single GPU has no links");
  node.intra = parse(required<std::string>(key("node.intra"), what),
                     {Intra::nvswitch, Intra::hybrid_cube_mesh, Intra::pcie, Intra::links});
  if (node.intra == Intra::hybrid_cube_mesh && node.gpus != 8)
    fail(key("node.gpus"), fmt::format("a hybrid cube mesh has 8 GPUs, not {}", node.gpus));
  read_links(prefix, node);
  node.gpus_per_pcie_switch =
      static_cast<int>(integer(key("node.gpus_per_pcie_switch"), 2, "as in DGX nodes"));
  node.nics = static_cast<int>(integer(key("node.nics"), 0, "no network"));
  if (node.nics > 0) read_network(prefix, node);
  node.host_memory = {std::llround(
      number(key("node.host_memory_gib"), 128.0 * node.gpus, "an estimate: 128 GiB per GPU") * 1073741824.0)};
  node.host_bandwidth = from_gb_per_s(
      number(key("node.host_memory_gb_per_s"), 100, "an estimate: half of what two sockets' DDR4 can do"));
  make_node_shape(node, gpu);  // complains about links that do not connect
}

void Resolver::read_links(const std::string& topology, NodeSpec& node) {
  const int links = settings_.list_size(topology + ".node.link");
  if (node.intra != Intra::links) {
    if (links > 0) fail(topology + ".node.intra", "[[node.link]] needs intra = \"links\"");
    return;
  }
  if (links == 0) fail(topology + ".node.intra", "intra = \"links\" needs [[node.link]] entries");
  for (int i = 0; i < links; ++i) {
    const std::string prefix = fmt::format("{}.node.link[{}].", topology, i);
    ExplicitLink link{.a = required<std::string>(prefix + "a", "a link"),
                      .b = required<std::string>(prefix + "b", "a link"),
                      .bandwidth = from_gb_per_s(required<double>(prefix + "gb_per_s", "a link")),
                      .place = settings_.place(prefix + "a")};
    for (const std::string& end : {link.a, link.b})
      if (end.starts_with("gpu") && !is_gpu(end, node.gpus))
        throw InputError(link.place, fmt::format("\"{}\" is not a GPU of the node; gpu0 to gpu{} are", end,
                                                 node.gpus - 1));
    node.links.push_back(std::move(link));
  }
}

void Resolver::read_network(const std::string& topology, NodeSpec& node) {
  node.nic = from_gb_per_s(required<double>(topology + ".node.nic_gbps", "a node with NICs") / 8);
  node.network_overhead =
      from_microseconds(number(topology + ".node.network_overhead_us", 1.0, "an Intel host"));
  node.transport = resolved_transport(topology + ".node.transport");
}

void Resolver::read_fabric() {
  FabricSpec& fabric = s_.topology.fabric;
  fabric.kind = parse(text("topology.fabric.kind", "single-switch", "one switch joins all nodes"),
                      {FabricKind::single_switch, FabricKind::fat_tree, FabricKind::rail_fat_tree});
  if (fabric.kind == FabricKind::single_switch) return;
  fabric.nodes_per_leaf =
      static_cast<int>(required_int("topology.fabric.nodes_per_leaf", "a fabric with leaves"));
  fabric.oversubscription = number("topology.fabric.oversubscription", 1.0, "full bisection");
}

// The constants of a named transport, those of a table, or those of a name (or of what a table is based on)
// with some replaced.
Transport Resolver::resolved_transport(const std::string& prefix) {
  constexpr std::string_view what = "a transport";
  const Setting* named = settings_.find(prefix);
  if (const Setting* base = settings_.find(prefix + ".based_on");
      base != nullptr && (named == nullptr || named->origin.kind <= base->origin.kind))
    named = base;
  if (named == nullptr && !settings_.has_table(prefix))
    fail(prefix, "a node with NICs needs a \"transport\"");
  Transport t;
  if (named) {
    t = read_transport(
        library_.find("topologies/transports", std::get<std::string>(named->value), named->origin.place),
        &overlays_);
  } else {
    t.efficiency = required<double>(prefix + ".efficiency", what);
    t.half_rate_mib = required<double>(prefix + ".half_rate_mib", what);
  }
  if (settings_.has_table(prefix))
    t.name = text(prefix + ".name", named ? t.name : "inline", "a transport without a name");
  const std::string origin =
      named ? fmt::format("transport \"{}\"", std::get<std::string>(named->value)) : "";
  const auto or_reason = [&](const char* reason) { return named ? origin : std::string(reason); };
  t.efficiency = number(prefix + ".efficiency", t.efficiency, origin);
  t.efficiency_many_leaves =
      number(prefix + ".efficiency_many_leaves", t.efficiency_many_leaves, or_reason("no loss"));
  t.half_rate_mib = number(prefix + ".half_rate_mib", t.half_rate_mib, origin);
  t.hop_latency =
      from_microseconds(number(prefix + ".hop_latency_us", seconds(t.hop_latency) * 1e6, or_reason("none")));
  t.fabric_half_rate_mib =
      number(prefix + ".fabric_half_rate_mib", t.fabric_half_rate_mib, or_reason("nothing"));
  t.ll128 = flag(prefix + ".ll128", t.ll128, or_reason("NICs close to their GPUs"));
  return t;
}

}  // namespace shardsim
