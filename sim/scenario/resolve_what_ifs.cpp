#include "sim/scenario/resolver.h"
#include "sim/topology/device_links.h"

namespace shardsim {
namespace {

std::string one_of(const std::vector<std::string>& kinds) {
  std::string list;
  for (std::size_t i = 0; i < kinds.size(); ++i)
    list += fmt::format("{}{}0", i == 0 ? "" : i + 1 == kinds.size() ? " or " : ", ", kinds[i]);
  return list;
}

std::string up_to(const std::string& kind, int count) {
  if (count == 0) return fmt::format("it has no {}s", kind);
  return count == 1 ? fmt::format("there is {}0", kind)
                    : fmt::format("there are {0}0 to {0}{1}", kind, count - 1);
}

}  // namespace

// "nic2" as kind and number.
Resolver::Device Resolver::device(const std::string& key, const std::vector<std::string>& kinds) const {
  const std::string text = std::get<std::string>(settings_.find(key)->value);
  for (const std::string& kind : kinds) {
    if (!text.starts_with(kind)) continue;
    const std::string digits = text.substr(kind.size());
    if (!digits.empty() && digits.size() < 8 && digits.find_first_not_of("0123456789") == std::string::npos)
      return {kind, std::stoi(digits)};
  }
  fail(key, fmt::format("\"{}\" is no device; a name such as {} is expected", text, one_of(kinds)));
}

int Resolver::node_index(const std::string& key) const {
  std::int64_t nodes = 0;
  const Topology topology = make_topology(s_);
  for (const Part& part : topology.parts()) nodes += part.nodes;
  const std::int64_t node = std::get<std::int64_t>(settings_.find(key)->value);
  if (node >= nodes)
    fail(key, nodes == 1 ? fmt::format("node {} does not exist; the job has node 0 only", node)
                         : fmt::format("node {} does not exist; the job has nodes 0 to {}", node, nodes - 1));
  return static_cast<int>(node);
}

std::vector<LinkId> Resolver::links_to_degrade(const Topology& topology, const std::string& prefix) {
  const std::string key = prefix + "device";
  required<std::string>(key, "a degraded link");
  const Device d = device(key, {"gpu", "nic", "leaf"});
  const bool has_node = given(prefix + "node");
  if (d.kind == "leaf") {
    if (has_node) fail(prefix + "node", "a leaf switch is of no node; leave \"node\" out");
    if (topology.leaves() == 0)
      fail(key, "the fabric has no leaf switches: one switch joins all nodes, or there is one node");
    if (d.number >= topology.leaves())
      fail(key, fmt::format("leaf{} does not exist; {}", d.number, up_to("leaf", topology.leaves())));
    return uplinks_of_leaf(topology, d.number);
  }
  if (!has_node) fail(key, fmt::format("{}{} needs a \"node\"", d.kind, d.number));
  const int node = node_index(prefix + "node");
  const int count =
      d.kind == "gpu" ? topology.part_at_node(node).ranks_of_a_node() : topology.node(node).nics;
  if (d.number >= count)
    fail(key, fmt::format("node {} has no {}{}; {}", node, d.kind, d.number, up_to(d.kind, count)));
  if (d.kind == "nic") return links_of_nic(topology, node, d.number);
  const std::vector<LinkId> links = nvlinks_of_gpu(topology, node, d.number);
  if (links.empty())
    fail(key, fmt::format("gpu{} has no NVLink; GPUs of this node talk over PCIe", d.number));
  return links;
}

void Resolver::read_degraded_links() {
  const int count = settings_.list_size("degraded_link");
  if (count == 0) return;
  const Topology topology = make_topology(s_);
  for (int i = 0; i < count; ++i) {
    const std::string prefix = fmt::format("degraded_link[{}].", i);
    for (const LinkId link : links_to_degrade(topology, prefix)) {
      for (const DegradedLink& other : s_.degraded_links)
        if (other.link == link)
          fail(prefix + "device", fmt::format("{} is degraded twice", topology.link_name(link)));
      s_.degraded_links.push_back({link, required<double>(prefix + "scale", "a degraded link")});
    }
  }
}

std::vector<LinkId> Resolver::links_shared_with_others(const Topology& topology, const std::string& prefix) {
  if (given(prefix + "device")) {
    if (given(prefix + "leaf"))
      fail(prefix + "leaf", "a background job is on the uplinks of a \"leaf\" or on a \"device\", not both");
    const Device d = device(prefix + "device", {"nic"});
    if (!given(prefix + "node")) fail(prefix + "device", fmt::format("nic{} needs a \"node\"", d.number));
    const int node = node_index(prefix + "node"), nics = topology.node(node).nics;
    if (d.number >= nics)
      fail(prefix + "device", fmt::format("node {} has no nic{}; {}", node, d.number, up_to("nic", nics)));
    return links_of_nic(topology, node, d.number);
  }
  if (given(prefix + "node")) fail(prefix + "node", "a \"node\" without a \"device\" such as \"nic0\"");
  if (topology.leaves() == 0)
    fail(prefix + "gb_per_s",
         "the fabric has no leaf switches to share; name a \"node\" and a \"device\" such as \"nic0\"");
  if (!given(prefix + "leaf")) {
    std::vector<LinkId> all;
    for (int leaf = 0; leaf < topology.leaves(); ++leaf)
      for (const LinkId link : uplinks_of_leaf(topology, leaf)) all.push_back(link);
    return all;
  }
  const std::int64_t leaf = required_int(prefix + "leaf", "a background job");
  if (leaf >= topology.leaves())
    fail(prefix + "leaf", fmt::format("leaf {} does not exist; {}", leaf, up_to("leaf", topology.leaves())));
  return uplinks_of_leaf(topology, static_cast<int>(leaf));
}

void Resolver::read_background_jobs() {
  const int count = settings_.list_size("background_job");
  if (count == 0) return;
  const Topology topology = make_topology(s_);
  for (int i = 0; i < count; ++i) {
    const std::string prefix = fmt::format("background_job[{}].", i);
    const Bandwidth rate = from_gb_per_s(required<double>(prefix + "gb_per_s", "a background job"));
    // NCCL puts two channels on each NIC; under a leaf of a fat tree all NICs of a node share its uplinks.
    const bool many_nics = !given(prefix + "device") && s_.topology.fabric.kind == FabricKind::fat_tree;
    const std::int64_t flows = integer(prefix + "flows", many_nics ? 2 * topology.node().nics : 2,
                                       "as many as the channels of a job like this one");
    for (const LinkId link : links_shared_with_others(topology, prefix))
      s_.background.push_back({link, rate, flows});
  }
}

}  // namespace shardsim
