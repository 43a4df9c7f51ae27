#include "sim/topology/node_shape.h"

#include <algorithm>
#include <cmath>

#include "sim/base/check.h"
#include "sim/topology/graph.h"

namespace shardsim {
namespace {

Bandwidth scaled(Bandwidth w, double factor) { return {std::llround(static_cast<double>(w.count) * factor)}; }

std::string numbered(const char* what, int i) { return what + std::to_string(i); }

int device(NodeShape& shape, const std::string& name) {
  const auto found = std::find(shape.devices.begin(), shape.devices.end(), name);
  if (found != shape.devices.end()) return static_cast<int>(found - shape.devices.begin());
  shape.devices.push_back(name);
  return static_cast<int>(shape.devices.size()) - 1;
}

// Both directions; returns the local link from a to b, the other follows it.
int connect(NodeShape& shape, int a, int b, LinkClass kind, Bandwidth capacity) {
  shape.links.push_back({a, b, kind, capacity});
  shape.links.push_back({b, a, kind, capacity});
  return static_cast<int>(shape.links.size()) - 2;
}

struct MeshLink {
  int a, b, lanes;
};
// DGX-1V: each GPU has 6 NVLinks, 4 of them inside its half. `nvidia-smi topo -m` of a DGX-1V / p3.16xlarge.
constexpr MeshLink hybrid_cube_mesh[] = {{0, 1, 1}, {0, 2, 1}, {0, 3, 2}, {0, 4, 2}, {1, 2, 2}, {1, 3, 1},
                                         {1, 5, 2}, {2, 3, 2}, {2, 6, 1}, {3, 7, 1}, {4, 5, 1}, {4, 6, 1},
                                         {4, 7, 2}, {5, 6, 2}, {5, 7, 1}, {6, 7, 2}};

void add_nvlinks(NodeShape& shape, const NodeSpec& spec, const Gpu& gpu) {
  const Bandwidth lane = scaled(gpu.nvlink, gpu.nvlink_efficiency);
  switch (spec.intra) {
    case Intra::nvswitch: {
      const int nvswitch = device(shape, "nvswitch");
      for (int g = 0; g < spec.gpus; ++g)
        connect(shape, g, nvswitch, LinkClass::nvlink,
                scaled(gpu.nvlink * gpu.nvlinks, gpu.nvlink_efficiency));
      shape.switched = true;
      break;
    }
    case Intra::hybrid_cube_mesh:
      for (const MeshLink& link : hybrid_cube_mesh)
        connect(shape, link.a, link.b, LinkClass::nvlink, lane * link.lanes);
      break;
    case Intra::links:
      for (const ExplicitLink& link : spec.links) {
        if (link.a == link.b)
          throw InputError(link.place, "\"" + link.a + "\" is linked to itself; a link joins two devices");
        connect(shape, device(shape, link.a), device(shape, link.b), LinkClass::nvlink, link.bandwidth);
      }
      break;
    case Intra::pcie: break;
  }
}

void add_pcie_and_nics(NodeShape& shape, const NodeSpec& spec, const Gpu& gpu) {
  const int switches = (spec.gpus + spec.gpus_per_pcie_switch - 1) / spec.gpus_per_pcie_switch;
  for (int g = 0; g < spec.gpus; ++g) {
    const int s = device(shape, numbered("pcie", g / spec.gpus_per_pcie_switch));
    shape.pcie_out.push_back(connect(shape, g, s, LinkClass::pcie, gpu.pcie));
    shape.pcie_in.push_back(shape.pcie_out.back() + 1);
  }
  if (switches > 1) {  // the root complex joins the switches
    const int host = device(shape, "host");
    for (int s = 0; s < switches; ++s)
      shape.host_up.push_back(
          connect(shape, device(shape, numbered("pcie", s)), host, LinkClass::pcie, gpu.pcie));
  }
  for (int n = 0; n < spec.nics; ++n) {
    const int s = n * switches / spec.nics;
    const int nic = device(shape, numbered("nic", n));
    shape.nic_up.push_back(
        connect(shape, nic, device(shape, numbered("pcie", s)), LinkClass::pcie, gpu.pcie));
    shape.nic_down.push_back(shape.nic_up.back() + 1);
    const Bandwidth rate = scaled(spec.nic, spec.transport.efficiency);
    shape.nic_out.push_back(connect(shape, nic, NodeShape::network, LinkClass::nic, rate));
    shape.nic_in.push_back(shape.nic_out.back() + 1);
    std::vector<int> local;
    for (int g = 0; g < spec.gpus; ++g)
      if (g / spec.gpus_per_pcie_switch == s) local.push_back(g);
    shape.nic_gpus.push_back(std::move(local));
  }
}

// Direct links between GPUs in units of the thinnest one.
std::vector<std::vector<int>> direct_lanes(const NodeShape& shape) {
  const auto n = static_cast<std::size_t>(shape.gpus);
  std::vector<std::vector<int>> lanes(n, std::vector<int>(n, 0));
  std::int64_t thinnest = 0;
  const auto direct = [&](const LocalLink& l) {
    return l.kind == LinkClass::nvlink && l.from < shape.gpus && l.to < shape.gpus;
  };
  for (const LocalLink& l : shape.links)
    if (direct(l) && (thinnest == 0 || l.capacity.count < thinnest)) thinnest = l.capacity.count;
  for (const LocalLink& l : shape.links)
    if (direct(l))
      lanes[static_cast<std::size_t>(l.from)][static_cast<std::size_t>(l.to)] +=
          static_cast<int>(l.capacity.count / thinnest);
  return lanes;
}

}  // namespace

NodeShape make_node_shape(const NodeSpec& spec, const Gpu& gpu) {
  NodeShape shape;
  shape.gpus = spec.gpus;
  shape.nics = spec.nics;
  shape.nvlinks = gpu.nvlinks;
  for (int g = 0; g < spec.gpus; ++g) shape.devices.push_back(numbered("gpu", g));
  add_nvlinks(shape, spec, gpu);
  const std::size_t direct_links = shape.links.size();
  add_pcie_and_nics(shape, spec, gpu);

  // GPUs talk over NVLink where there is any, else over PCIe.
  const auto usable = spec.intra == Intra::pcie
                          ? std::span<const LocalLink>(shape.links)
                          : std::span<const LocalLink>(shape.links.data(), direct_links);
  shape.route = shortest_routes(static_cast<int>(shape.devices.size()), spec.gpus, usable);
  for (int g = 1; g < spec.gpus; ++g)
    if (shape.route[0][static_cast<std::size_t>(g)].empty())
      throw InputError(spec.gpus_place,
                       numbered("gpu", g) + " cannot be reached from gpu0 over the links of the node");
  shape.lanes = direct_lanes(shape);
  return shape;
}

}  // namespace shardsim
