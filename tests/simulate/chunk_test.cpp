// Chunk by chunk and as rates that share links: the same bytes over every link, and nearly the same times
// wherever both levels of the network are valid?
#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <tuple>

#include <doctest/doctest.h>

#include "sim/collective/schedule.h"
#include "sim/scenario/scenario.h"
#include "sim/simulate/chunk_level.h"
#include "sim/topology/device_links.h"

#include "tests/support/hardware.h"
#include "tests/support/ideal_world.h"
#include "tests/support/print.h"

namespace shardsim {
namespace {
using namespace literals;

// A cluster of real parts, and programs that only communicate.
struct World {
  Gpu gpu = gpu_named("a100-sxm-80gb");
  Stack stack = stack_named("eager-2023");
  TopologySpec spec;
  int gpus;
  std::vector<DegradedLink> degraded;
  std::vector<BackgroundTraffic> background;

  explicit World(int nodes, Intra intra = Intra::nvswitch, int nics = 8) : gpus(8 * nodes) {
    spec.node.gpus = 8;
    spec.node.intra = intra;
    spec.node.nics = nics;
    spec.node.nic = 25_GBps;
    spec.node.network_overhead = 2_us;
    spec.node.transport = {.name = "ib",
                           .efficiency = 0.96,
                           .efficiency_many_leaves = 1,
                           .half_rate_mib = 0.016,
                           .hop_latency = {},
                           .ll128 = true};
    spec.node.host_memory = Bytes{std::int64_t{1} << 44};
    spec.node.host_bandwidth = 100_GBps;
  }
  Topology topology() const { return {spec, gpu, gpus, degraded}; }
  CollectiveModel model() const {
    return {stack.nccl, gpu.architecture, spec.node.transport, spec.node.network_overhead};
  }
  Result run(const Program& program, NetworkDetail detail) const {
    const Topology t = topology();
    return simulate(program, Cluster{t, gpu, stack, {}, {}, {}, background, detail});
  }
  // Of a step that does nothing but these collectives, one after the other in each group.
  Time step(Mesh mesh, const std::vector<std::tuple<Axis, CollectiveKind, Bytes>>& all,
            NetworkDetail detail) const {
    const Program p = program_of(mesh, [&](ProgramBuilder& b) {
      std::map<Axis, GroupId> groups;
      std::map<Axis, EventId> done;
      for (const auto& [axis, kind, bytes] : all) {
        if (!groups.count(axis)) groups[axis] = b.group(axis);
        b.collective(groups[axis], kind, DType::bf16, bytes, "collective");
      }
      for (const auto& [axis, group] : groups) {
        done[axis] = b.event();
        b.record(done[axis], b.stream_of(group));
      }
      for (const auto& [axis, event] : done) b.wait(default_stream, event);
    });
    return run(p, detail).step_time;
  }
};

constexpr Mesh world_of(int gpus) { return {gpus, gpus}; }

double off(Time chunk, Time fluid) { return ratio(chunk, fluid) - 1; }

struct Shape {
  const char* name;
  World world;
  std::vector<Rank> members;
};
std::vector<Shape> shapes() {
  std::vector<Shape> all;
  const auto add = [&](const char* name, World world, int first, int count, int stride) {
    std::vector<Rank> members;
    for (int i = 0; i < count; ++i) members.push_back({first + i * stride});
    all.push_back({name, std::move(world), std::move(members)});
  };
  World leaves(5);
  leaves.spec.fabric = {FabricKind::rail_fat_tree, 2, 1.0};
  World tree(4, Intra::nvswitch, 4);
  tree.spec.fabric = {FabricKind::fat_tree, 1, 2.0};
  add("one node", World(1), 0, 8, 1);
  add("a pair", World(1), 2, 2, 3);
  add("a mesh", World(1, Intra::hybrid_cube_mesh, 4), 0, 8, 1);
  add("half a mesh", World(1, Intra::hybrid_cube_mesh, 4), 0, 4, 1);
  add("over PCIe", World(1, Intra::pcie, 4), 0, 8, 1);
  add("two nodes", World(2), 0, 16, 1);
  add("two meshes", World(2, Intra::hybrid_cube_mesh, 4), 0, 16, 1);
  add("three nodes", World(3), 0, 24, 1);
  add("five nodes under leaves", leaves, 0, 40, 1);
  add("four NICs", tree, 0, 32, 1);
  add("a GPU of each node", World(4), 3, 4, 8);
  add("halves of nodes", World(3), 4, 10, 2);
  return all;
}

// Channels times messages of a round, by link.
std::map<int, std::int64_t> crossings(const MessagePattern& pattern) {
  std::map<int, std::int64_t> sum;
  for (const MessageStream& s : pattern.streams)
    for (const LinkShare& l : s.links) sum[l.link] += l.weight;
  return sum;
}

TEST_CASE("rings put on every link, chunk by chunk, what the fluid level does") {
  for (const Shape& shape : shapes()) {
    CAPTURE(std::string(shape.name));
    const Topology t = shape.world.topology();
    const RingFabric fabric = ring_fabric(t, shape.members);
    const MessagePattern pattern = ring_pattern(t, shape.members);
    std::map<int, std::int64_t> fluid;
    for (const ChannelsOnLink& on : fabric.links) fluid[on.link.index] = on.channels;
    CHECK(crossings(pattern) == fluid);
    CHECK(pattern.channels == fabric.channels);
    for (const CollectiveKind kind :
         {CollectiveKind::all_gather, CollectiveKind::reduce_scatter, CollectiveKind::all_reduce})
      for (const Bytes bytes : {1000_B, 64_MiB, 3_GiB})
        for (const Plan& plan : candidates(shape.world.model(), fabric, kind, bytes)) {
          if (plan.algorithm != Algorithm::ring) continue;
          const MessageLoad load = message_load(plan, fabric, kind, bytes, plan.cap);
          const Bytes sent = load.bytes * load.messages;  // by each rank; parts are rounded up to bytes
          CHECK(sent >= plan.wire);
          CHECK(sent < plan.wire + Bytes{2 * load.messages});
        }
  }
}

TEST_CASE("double trees send every byte up and down each edge once, on no link more than the fluid level") {
  for (const Shape& shape : shapes()) {
    CAPTURE(std::string(shape.name));
    const Topology t = shape.world.topology();
    const RingFabric fabric = ring_fabric(t, shape.members);
    if (fabric.nodes < 2) continue;
    const bool two = fabric.nodes == 2;
    const MessagePattern pattern = tree_pattern(t, shape.members);
    // In halves of the bytes of a rank, times channels: the fluid level moves 2 S (over two nodes S) per
    // rank.
    std::int64_t out = 0;
    for (const auto& [link, halves] : crossings(pattern)) {
      const auto on = std::find_if(fabric.links.begin(), fabric.links.end(),
                                   [&](const ChannelsOnLink& c) { return c.link.index == link; });
      const bool network = t.link_class({link}) != LinkClass::nvlink;
      if (on != fabric.links.end() && t.link_class({link}) == LinkClass::nic)
        CHECK(halves <= on->channels * (network && two ? 2 : 4));
      if (t.link_name({link}).find("-> network") != std::string::npos) out += halves;
    }
    CHECK(out == std::int64_t{fabric.channels} * 2 * 2 * (fabric.nodes - 1));
  }
}

// Alone at the fluid level: a direct link between GPUs may be narrower than the rate that NCCL plans with.
Time fluid_alone(const Plan& plan, const RingFabric& fabric, const Topology& t) {
  Bandwidth rate = plan.cap;
  for (const ChannelsOnLink& on : fabric.links) {
    const bool node = t.link_class(on.link) == LinkClass::nvlink;
    const bool twice = plan.load == (node ? LinkLoad::node_twice : LinkLoad::network_twice);
    const Wide most = Wide{t.capacity(on.link).count} * plan.channels / (on.channels * (twice ? 2 : 1));
    rate = std::min(rate, Bandwidth{static_cast<std::int64_t>(most)});
  }
  return plan.latency + plan.wire / rate;
}

// Alone at the chunk level: what each message carries, and when the last of them is through.
std::pair<MessageLoad, Time> chunks_alone(const Plan& plan, const RingFabric& fabric,
                                          const MessagePattern& pattern, const Topology& t,
                                          CollectiveKind kind, Bytes bytes) {
  std::vector<Bandwidth> capacity;
  for (int l = 0; l < t.links(); ++l) capacity.push_back(t.capacity({l}));
  ChunkNetwork network(capacity, {pattern});
  const MessageLoad load = message_load(plan, fabric, kind, bytes, plan.cap);
  network.start({0}, load, before_messages(plan, fabric, kind));
  return {load, network.advance(std::nullopt).front().at};
}

// Within one step: its message and its latency. A chunk may cross one network hop more than the fluid level
// counts, in each pass.
TEST_CASE("a ring alone takes as long as at the fluid level, to within a step") {
  double worst = 0;
  for (const Shape& shape : shapes()) {
    const Topology t = shape.world.topology();
    const RingFabric fabric = ring_fabric(t, shape.members);
    const MessagePattern pattern = ring_pattern(t, shape.members);
    for (const CollectiveKind kind :
         {CollectiveKind::all_gather, CollectiveKind::reduce_scatter, CollectiveKind::all_reduce})
      for (const Bytes bytes : {1_KiB, 1_MiB, 30_MiB, 470_MiB, 2_GiB})
        for (const Plan& plan : candidates(shape.world.model(), fabric, kind, bytes)) {
          if (plan.algorithm != Algorithm::ring) continue;
          CAPTURE(std::string(shape.name));
          CAPTURE(bytes.count);
          CAPTURE(std::string(name(plan.protocol)));
          const auto [load, end] = chunks_alone(plan, fabric, pattern, t, kind, bytes);
          const int passes = kind == CollectiveKind::all_reduce ? 2 : 1;
          const Time step =
              std::min(load.bytes, load.chunk) / plan.cap + std::max(plan.step_inside, plan.step_between);
          CHECK(end >= fluid_alone(plan, fabric, t) - step * passes);
          CHECK(end <= fluid_alone(plan, fabric, t) + step * passes);
          worst = std::max(worst, std::abs(off(end, fluid_alone(plan, fabric, t))));
        }
  }
  MESSAGE("largest difference " << 100 * worst << "%");
  CHECK(worst < 0.2);  // of collectives that are nothing but a few steps
}

// A real tree may be a level deeper or shallower than NCCL's formula, and its pipeline has to fill.
TEST_CASE("a double tree alone takes as long as at the fluid level, to within two levels and two chunks") {
  for (const Shape& shape : shapes()) {
    const Topology t = shape.world.topology();
    const RingFabric fabric = ring_fabric(t, shape.members);
    if (fabric.nodes < 2) continue;
    const MessagePattern pattern = tree_pattern(t, shape.members);
    for (const Bytes bytes : {1_KiB, 1_MiB, 30_MiB, 470_MiB})
      for (const Plan& plan : candidates(shape.world.model(), fabric, CollectiveKind::all_reduce, bytes)) {
        if (plan.algorithm != Algorithm::tree) continue;
        CAPTURE(std::string(shape.name));
        CAPTURE(bytes.count);
        CAPTURE(std::string(name(plan.protocol)));
        const auto [load, end] = chunks_alone(plan, fabric, pattern, t, CollectiveKind::all_reduce, bytes);
        const Time slack = plan.step_between * 4 + (std::min(load.bytes, load.chunk) / load.pace) * 2;
        CHECK(end >= fluid_alone(plan, fabric, t) - slack);
        CHECK(end <= fluid_alone(plan, fabric, t) + slack);
      }
  }
}

// --- whole programs at both levels ------------------------------------------------------------------------

using Collectives = std::vector<std::tuple<Axis, CollectiveKind, Bytes>>;

double difference(const std::string& what, const World& world, Mesh mesh, const Collectives& all) {
  const Time fluid = world.step(mesh, all, NetworkDetail::fluid),
             chunk = world.step(mesh, all, NetworkDetail::chunk);
  const double difference = off(chunk, fluid);
  MESSAGE(what << ": fluid " << seconds(fluid) * 1e3 << " ms, chunk " << seconds(chunk) * 1e3 << " ms, "
               << 100 * difference << "%");
  return difference;
}

constexpr Collectives::value_type gather(Axis axis, Bytes bytes) {
  return {axis, CollectiveKind::all_gather, bytes};
}

TEST_CASE("an idle symmetric fabric: under 1%, a step of a ring of 16 to 32") {
  for (const int nodes : {1, 2, 4}) {
    const World world(nodes);
    const Mesh mesh = world_of(world.gpus);
    CHECK(std::abs(difference("gathers", world, mesh,
                              {gather(Axis::shard, 470_MiB), gather(Axis::shard, 60_MiB)})) < 0.01);
    CHECK(std::abs(difference("all-reduce", world, {world.gpus, 1},
                              {{Axis::world, CollectiveKind::all_reduce, 100_MiB}})) < 0.03);
  }
}

TEST_CASE("a degraded NIC slows a ring by what theory says, at both levels") {
  World world(4);
  const Mesh mesh = world_of(world.gpus);
  const Collectives all{gather(Axis::shard, 470_MiB)};
  const Time whole = world.step(mesh, all, NetworkDetail::fluid);
  for (const double scale : {0.8, 0.5, 0.1}) {
    world.degraded.clear();
    for (const LinkId l : links_of_nic(world.topology(), 2, 5)) world.degraded.push_back({l, scale});
    CHECK(std::abs(difference("degraded NIC", world, mesh, all)) < 0.01);
    // One ring of eight is as slow as its NIC; all wait for it. Latency stays.
    const RingFabric fabric = ring_fabric(World(4).topology(), [&] {
      std::vector<Rank> ranks;
      for (int r = 0; r < world.gpus; ++r) ranks.push_back({r});
      return ranks;
    }());
    const Plan plan = shardsim::plan(world.model(), fabric, CollectiveKind::all_gather, 470_MiB);
    const double expected = seconds(whole) + seconds(plan.wire / plan.cap) * (1 / scale - 1);
    for (const NetworkDetail detail : {NetworkDetail::fluid, NetworkDetail::chunk})
      CHECK(std::abs(seconds(world.step(mesh, all, detail)) / expected - 1) < 0.01);
  }
}

TEST_CASE("a degraded GPU slows the ring of its node, and rings of other nodes not at all") {
  World world(2);
  const Collectives all{gather(Axis::shard, 470_MiB)};
  const Time whole = world.step({16, 8}, all, NetworkDetail::fluid);
  for (const LinkId l : nvlinks_of_gpu(world.topology(), 1, 3)) world.degraded.push_back({l, 0.25});
  const Time slow = world.step({16, 8}, all, NetworkDetail::fluid);
  CHECK(ratio(slow, whole) > 3.8);
  CHECK(ratio(slow, whole) < 4.0);
  CHECK(std::abs(difference("degraded GPU", world, {16, 8}, all)) < 0.01);
}

// Eight replica groups, a GPU of each node, share the uplinks of leaves that are four times too narrow, while
// the shard groups gather inside the nodes. Turns at a full link come in whole messages: one per ring and
// step.
TEST_CASE("concurrent groups over oversubscribed leaves: under 5%, messages of eight rings taking turns") {
  World world(4);
  world.spec.fabric = {FabricKind::fat_tree, 1, 4.0};
  const Mesh mesh{32, 8};
  CHECK(std::abs(difference("replicas", world, mesh,
                            {{Axis::replica, CollectiveKind::all_reduce, 400_MiB}})) < 0.05);
  CHECK(std::abs(difference("replicas and shards", world, mesh,
                            {{Axis::replica, CollectiveKind::all_reduce, 400_MiB},
                             gather(Axis::shard, 470_MiB),
                             gather(Axis::shard, 470_MiB)})) < 0.05);
}

// While a ring waits for its turn at a full link its steps' latency passes too; at the fluid level it comes
// on top. Here it is 4% of the time.
TEST_CASE("background traffic: under 6%, the latency that hides behind the wait at the full link") {
  World world(4);
  world.spec.fabric = {FabricKind::rail_fat_tree, 2, 1.0};
  const Mesh mesh = world_of(world.gpus);
  const Collectives all{gather(Axis::shard, 470_MiB)};
  const Time alone = world.step(mesh, all, NetworkDetail::fluid);
  const auto share = [&](double gb_per_s, std::int64_t flows) {
    world.background.clear();
    for (int leaf = 0; leaf < world.topology().leaves(); ++leaf)
      for (const LinkId l : uplinks_of_leaf(world.topology(), leaf))
        world.background.push_back({l, from_gb_per_s(gb_per_s), flows});
  };
  share(10, 2);  // half of the uplink of two nodes is left, more than a ring needs
  CHECK(world.step(mesh, all, NetworkDetail::fluid) == alone);
  CHECK(std::abs(difference("light", world, mesh, all)) < 0.02);
  world.spec.fabric.oversubscription = 2;  // 24 GB/s: just what the ring needs
  share(12, 2);
  CHECK(world.step(mesh, all, NetworkDetail::fluid) > alone);
  CHECK(std::abs(difference("half", world, mesh, all)) < 0.06);
  share(100, 6);
  CHECK(std::abs(difference("three quarters", world, mesh, all)) < 0.06);
}

TEST_CASE("copies that share a PCIe link take turns") {
  const World world(1);
  const Program p = program_of(world_of(8), [](ProgramBuilder& b) {
    for (const char* name : {"one", "two"}) {
      const StreamId s = b.stream(name);
      b.copy(s, CopyDirection::host_to_device, 100_MiB, name);
    }
    for (std::int32_t s = 1; s <= 2; ++s) b.wait_stream(default_stream, StreamId{s});
  });
  const Time fluid = world.run(p, NetworkDetail::fluid).step_time,
             chunk = world.run(p, NetworkDetail::chunk).step_time;
  CHECK(fluid >= 200_MiB / world.gpu.pcie);
  CHECK(std::abs(off(chunk, fluid)) < 0.01);
}

TEST_CASE("whole training steps at both levels: under 3%") {
  for (const std::string strategy : {"fsdp", "ddp", "zero2"}) {
    ScenarioFile file = read_scenario_text(
        "model = \"gpt2-xl\"\ntopology = \"dgx-a100-80gb\"\n[cluster]\ngpus = 16\n", "test");
    assign(file, "strategy.kind=" + strategy);
    const Result fluid = run(resolve(file.settings, test_library())).result;
    assign(file, "network.detail=chunk");
    const Result chunk = run(resolve(file.settings, test_library())).result;
    MESSAGE(strategy << ": fluid " << seconds(fluid.step_time) << " s, chunk " << seconds(chunk.step_time)
                     << " s, " << chunk.engine.messages << " messages");
    CHECK(std::abs(off(chunk.step_time, fluid.step_time)) < 0.03);
    CHECK(chunk.engine.rank_classes == 16);
    CHECK(chunk.engine.messages > 0);
    CHECK(fluid.engine.messages == 0);
  }
}

}  // namespace
}  // namespace shardsim
