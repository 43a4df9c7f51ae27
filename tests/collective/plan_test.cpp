// Does a collective take the time of NCCL's own cost model, run by the algorithm and protocol with the least?
#include "sim/collective/plan.h"

#include <algorithm>
#include <cmath>

#include <doctest/doctest.h>

#include "sim/base/random.h"

#include "tests/support/hardware.h"
#include "tests/support/print.h"
#include "tests/support/seed.h"

namespace shardsim {
namespace {
using namespace literals;

constexpr CollectiveKind kinds[] = {CollectiveKind::all_gather, CollectiveKind::reduce_scatter,
                                    CollectiveKind::all_reduce};

// The stack of 2023 over InfiniBand.
struct World {
  Nccl nccl = stack_named("eager-2023").nccl;
  Transport transport{.name = "ib",
                      .efficiency = 1,  // in the network rates below
                      .efficiency_many_leaves = 0.95,
                      .half_rate_mib = 0.016,
                      .hop_latency = {},
                      .ll128 = true};
  Architecture architecture = Architecture::ampere;
  Time network_overhead = 2_us;

  std::vector<Plan> candidates(const RingFabric& group, CollectiveKind kind, Bytes bytes) const {
    return shardsim::candidates({nccl, architecture, transport, network_overhead}, group, kind, bytes);
  }
  Plan plan(const RingFabric& group, CollectiveKind kind, Bytes bytes) const {
    return shardsim::plan({nccl, architecture, transport, network_overhead}, group, kind, bytes);
  }
  // Of the candidates; both require that there is one.
  Plan best(Algorithm algorithm, const RingFabric& group, CollectiveKind kind, Bytes bytes) const {
    std::vector<Plan> plans = candidates(group, kind, bytes);
    std::erase_if(plans, [&](const Plan& p) { return p.algorithm != algorithm; });
    REQUIRE_FALSE(plans.empty());
    return *std::min_element(plans.begin(), plans.end(),
                             [](const Plan& a, const Plan& b) { return a.alone() < b.alone(); });
  }
  Plan candidate(Algorithm algorithm, Protocol protocol, const RingFabric& group, CollectiveKind kind,
                 Bytes bytes) const {
    std::vector<Plan> plans = candidates(group, kind, bytes);
    std::erase_if(plans, [&](const Plan& p) { return p.algorithm != algorithm || p.protocol != protocol; });
    REQUIRE(plans.size() == 1);
    return plans.front();
  }
  Plan ring(Protocol protocol, const RingFabric& group, CollectiveKind kind, Bytes bytes) const {
    return candidate(Algorithm::ring, protocol, group, kind, bytes);
  }
  Plan tree(Protocol protocol, const RingFabric& group, Bytes bytes) const {
    return candidate(Algorithm::tree, protocol, group, CollectiveKind::all_reduce, bytes);
  }
};

RingFabric one_node(int ranks, int channels, Bandwidth rate) {
  return {.ranks = ranks,
          .nodes = 1,
          .ranks_per_node = ranks,
          .nvlink = true,
          .channels = channels,
          .links = {},
          .node_rate = rate,
          .network_rate = {}};
}
RingFabric nodes_of_eight(int nodes, int channels, Bandwidth node, Bandwidth network) {
  return {.ranks = 8 * nodes,
          .nodes = nodes,
          .ranks_per_node = 8,
          .nvlink = true,
          .channels = channels,
          .links = {},
          .node_rate = node,
          .network_rate = network};
}
const RingFabric dgx_a100 = one_node(8, 24, 231_GBps);
RingFabric dgx_a100s(int nodes) { return nodes_of_eight(nodes, 16, 231_GBps, 192_GBps); }  // 8 x HDR
RingFabric switched(RingFabric group) {
  group.nvswitch = true;
  return group;
}
const RingFabric dgx_h100 = switched(one_node(8, 24, 360_GBps));
RingFabric dgx_h100s(int nodes) {
  return switched(nodes_of_eight(nodes, 16, 360_GBps, 384_GBps));
}  // 8 x NDR
RingFabric few_nics(int nodes) { return nodes_of_eight(nodes, 8, 231_GBps, 48_GBps); }  // 4 x EDR

const RingFabric some_groups[] = {one_node(2, 2, 20_GBps),
                                  one_node(8, 12, 120_GBps),
                                  dgx_a100,
                                  dgx_a100s(2),
                                  few_nics(2),
                                  dgx_a100s(16),
                                  few_nics(64)};

// --- against the reference implementation -----------------------------------------------------------------

// Output of an independent implementation of the model with NCCL 2.18's constants, rounded to 0.1 us. It took
// LL's ceiling as 87.7 GB/s on one node and 20 GB/s over several, on every GPU.
bool takes(const Plan& plan, double reference_us) {
  return std::abs(seconds(plan.alone()) * 1e6 - reference_us) <= 0.05 + 1e-6;
}
World reference() {
  World world;
  for (NcclArchitecture& a : world.nccl.architecture)
    a.ll_max_one_node = Bandwidth{87'700'000'000}, a.ll_max_nodes = 20_GBps;
  return world;
}

TEST_CASE("an all-gather of 400 MB over 8 A100s takes 1711.7 us") {
  const Plan plan = reference().plan(dgx_a100, CollectiveKind::all_gather, Bytes{400'000'000});
  CHECK(takes(plan, 1711.7));
  CHECK(plan.protocol == Protocol::simple);
}

TEST_CASE("an all-gather of 400 MB over 128 A100s takes 3303.7 us in LL128 and 3470.6 us without it") {
  World world = reference();
  const Plan with = world.plan(dgx_a100s(16), CollectiveKind::all_gather, Bytes{400'000'000});
  CHECK(takes(with, 3303.7));
  CHECK(with.protocol == Protocol::ll128);
  world.transport.ll128 = false;
  CHECK(takes(world.plan(dgx_a100s(16), CollectiveKind::all_gather, Bytes{400'000'000}), 3470.6));
}

TEST_CASE("a ring all-reduce of 25 MiB over 32 V100s takes 1687.9 us") {
  World world = reference();
  world.architecture = Architecture::volta;
  world.network_overhead = 1_us;
  const RingFabric group = nodes_of_eight(4, 8, 120_GBps, 48_GBps);
  CHECK(takes(world.best(Algorithm::ring, group, CollectiveKind::all_reduce, 25_MiB), 1687.9));
}

TEST_CASE("an all-gather of 1 MB over 64 A100s takes 171.4 us") {
  CHECK(takes(reference().plan(dgx_a100s(8), CollectiveKind::all_gather, Bytes{1'000'000}), 171.4));
}

TEST_CASE("a ring fills with the MiB per channel and step as all-reduces over 8 A100s do") {
  // Between the knots fitted to stas00/ml-engineering and Azure/AI-benchmarking-guide; the same reference.
  constexpr struct {
    double mib, share;
  } points[] = {{.01, .6000}, {.1, .6376}, {.5, .7900}, {1, .8230},
                {2, .9086},   {4, .9688},  {8, .9854},  {20, .9946}};
  for (const auto& [mib, share] : points) {
    const Bytes bytes{std::llround(mib * 1048576 * 24 * 8)};
    const Plan plan = World().ring(Protocol::simple, dgx_a100, CollectiveKind::all_gather, bytes);
    CHECK(std::abs(ratio(plan.cap, 231_GBps) - share) <= 0.00005 + 1e-8);  // four digits are given
  }
}

TEST_CASE("beyond the last knot a ring runs at its full rate") {
  CHECK(World().ring(Protocol::simple, dgx_a100, CollectiveKind::all_gather, 100_GiB).cap == 231_GBps);
}

// --- NCCL's constants, one by one -------------------------------------------------------------------------

// NVIDIA/nccl src/graph/tuning.cc, 2.18: base and hardware latencies in the order LL, LL128, Simple; 10 us
// of launch are ours. LL's flags and data travel together, in Simple the flag follows the data.

TEST_CASE("a ring waits for every hop once per pass") {
  World world;
  const auto latency = [&](Protocol p, const RingFabric& group) {
    return world.ring(p, group, CollectiveKind::all_gather, 1_MiB).latency;
  };
  CHECK(latency(Protocol::ll, dgx_a100) == 10_us + 6600_ns + 600_ns * 7);
  CHECK(latency(Protocol::ll128, dgx_a100) == 10_us + 14_us + 1900_ns * 7);
  CHECK(latency(Protocol::simple, dgx_a100) == 10_us + 8400_ns + 3400_ns * 7);
  // Over nodes a step inside one waits for the host's proxy, in Simple three times.
  CHECK(latency(Protocol::ll, dgx_a100s(2)) == 10_us + 6600_ns + 2_us * 14 + 2700_ns);
  CHECK(latency(Protocol::ll128, dgx_a100s(2)) == 10_us + 14_us + 2_us * 14 + 4_us);
  CHECK(latency(Protocol::simple, dgx_a100s(2)) == 10_us + 8400_ns + 6_us * 14 + 14_us);
  world.transport.hop_latency = 2_us;
  CHECK(latency(Protocol::ll, dgx_a100s(2)) == 10_us + 6600_ns + 2_us * 14 + 4700_ns);
  CHECK(latency(Protocol::simple, dgx_a100s(2)) == 10_us + 8400_ns + 6_us * 14 + 18_us);
}

TEST_CASE("with one rank per node a ring's hops cost what a tree's do") {
  const RingFabric group{.ranks = 4,
                         .nodes = 4,
                         .ranks_per_node = 1,
                         .nvlink = true,
                         .channels = 4,
                         .links = {},
                         .node_rate = {},
                         .network_rate = 24_GBps};
  const Plan plan = World().ring(Protocol::ll, group, CollectiveKind::all_gather, 1_MiB);
  CHECK(plan.latency == 10_us + 6600_ns + 5_us * 3);
  CHECK(plan.cap == 12_GBps);
}

TEST_CASE("LL carries a flag with every word: half the rate, up to a ceiling") {
  const World world;
  const auto rate = [&](const RingFabric& group) {
    return world.ring(Protocol::ll, group, CollectiveKind::all_gather, 1_MiB).cap;
  };
  CHECK(rate(one_node(2, 2, 20_GBps)) == 10_GBps);
  CHECK(rate(dgx_a100) == Bandwidth{87'700'000'000});
  CHECK(rate(dgx_a100s(2)) == 20_GBps);
  CHECK(rate(nodes_of_eight(2, 16, 231_GBps, 30_GBps)) == 15_GBps);
}

TEST_CASE("a tree waits for the chain in its node and for a hop per level, up and down") {
  const World world;
  const auto latency = [&](Protocol p, int nodes) { return world.tree(p, dgx_a100s(nodes), 1_MiB).latency; };
  CHECK(latency(Protocol::ll, 2) == 10_us + 6800_ns + (600_ns * 7 + 5_us) * 2);
  CHECK(latency(Protocol::ll128, 4) == 10_us + 14_us + (1250_ns * 7 + 8500_ns * 2) * 2);
  CHECK(latency(Protocol::simple, 7) == 10_us + (4_us * 7 + 14_us * 2) * 2);
  CHECK(latency(Protocol::simple, 8) == 10_us + (4_us * 7 + 14_us * 3) * 2);
}

TEST_CASE("a tree's rate is that of its links or its channels, less what its protocol takes") {
  const World world;
  const auto gb = [&](Protocol p, const RingFabric& group) {
    return gb_per_s(world.tree(p, group, 1_GiB).cap);
  };
  // At 1 GiB only Simple's correction is not 1: 0.9 over many nodes, MiB / (MiB + 0.016) over two, MiB
  // counted with the 0.06 that a tree is ahead of a ring's steps.
  CHECK(gb(Protocol::simple, few_nics(2)) == doctest::Approx(23.6 * 4 * 8.06 / 8.076));  // 4 channels found
  CHECK(gb(Protocol::simple, nodes_of_eight(2, 8, 100_GBps, 96_GBps)) ==
        doctest::Approx(0.92 * 100 * 8.06 / 8.076));
  CHECK(gb(Protocol::simple, nodes_of_eight(2, 8, 231_GBps, 12_GBps)) ==
        doctest::Approx(2.0 * 12 * 8.06 / 8.076));
  CHECK(gb(Protocol::simple, dgx_a100s(4)) == doctest::Approx(0.92 * 17.8 * 8 * 0.9));
  CHECK(gb(Protocol::simple, few_nics(4)) == doctest::Approx(0.92 * 48 * 0.9));
  CHECK(gb(Protocol::ll128, dgx_a100s(4)) == doctest::Approx(0.92 * 17.8 * 8 * 120 / 128));
  CHECK(gb(Protocol::ll128, dgx_a100s(2)) == doctest::Approx(20.0 * 8));
  CHECK(gb(Protocol::ll, few_nics(4)) == doctest::Approx(0.92 * 48 / 3.8));
  CHECK(gb(Protocol::ll, dgx_a100s(4)) == doctest::Approx(20));
}

TEST_CASE("a tree reaches less with middle-sized messages") {
  const World world;
  const auto share = [&](Protocol p, Bytes bytes) {
    return ratio(world.tree(p, dgx_a100s(4), bytes).cap, world.tree(p, dgx_a100s(4), 64_B).cap);
  };
  CHECK(share(Protocol::ll, 512_B) == 1);
  CHECK(share(Protocol::ll, 256_KiB - 1_B) == doctest::Approx(0.5));
  CHECK(share(Protocol::ll, 256_KiB) == doctest::Approx(0.4));
  CHECK(share(Protocol::ll128, 4_MiB) == doctest::Approx(0.8));
  // In Simple 64 B are below what NICs need for their rate, too.
  CHECK(share(Protocol::simple, 128_KiB) / share(Protocol::simple, 1_GiB * 64) == doctest::Approx(0.5 / 0.9));
  CHECK(share(Protocol::simple, 1_GiB * 64) == doctest::Approx(0.9 / (0.06 / 0.076)).epsilon(1e-5));
}

// --- bytes ------------------------------------------------------------------------------------------------

TEST_CASE("a ring sends (R-1)/R of the bytes once, for an all-reduce twice, rounded up") {
  // busbw of NVIDIA/nccl-tests, doc/PERFORMANCE.md.
  const World world;
  for (const std::int64_t bytes : {1, 7, 8, 9, 1'000'003, 1 << 30})
    for (const int ranks : {2, 3, 8, 1000})
      for (const CollectiveKind kind : kinds) {
        const std::int64_t numerator = (kind == CollectiveKind::all_reduce ? 2 : 1) * bytes * (ranks - 1);
        for (const Plan& plan : world.candidates(one_node(ranks, 24, 231_GBps), kind, Bytes{bytes}))
          CHECK(plan.wire == Bytes{(numerator + ranks - 1) / ranks});
      }
}

TEST_CASE("a tree sends every byte up and down") {
  for (const Plan& plan : World().candidates(dgx_a100s(4), CollectiveKind::all_reduce, 3_MiB))
    CHECK(plan.wire == (plan.algorithm == Algorithm::tree ? 6_MiB : 6_MiB - Bytes{6 * 1048576 / 32}));
}

TEST_CASE("bus bytes are nccl-tests', whatever the algorithm sends") {
  World world;
  world.architecture = Architecture::hopper;
  for (const RingFabric& group : {dgx_h100, dgx_h100s(2), dgx_h100s(4)})
    for (const Plan& plan : world.candidates(group, CollectiveKind::all_reduce, 3_MiB))
      CHECK(plan.bus == 6_MiB - Bytes{6 * 1048576 / group.ranks});
}

TEST_CASE("an all-reduce of many gigabytes does not overflow") {
  const Plan plan = World().plan(dgx_a100s(512), CollectiveKind::all_reduce, 1024_GiB);
  CHECK(plan.wire.count == (2048_GiB).count / 4096 * 4095);
  CHECK(plan.alone() > 1_us);
}

// --- the choice -------------------------------------------------------------------------------------------

TEST_CASE("the plan is the candidate that is fastest alone") {
  const World world;
  for (const RingFabric& group : some_groups)
    for (const CollectiveKind kind : kinds)
      for (Bytes bytes = 1_B; bytes < 4_GiB; bytes = bytes * 3) {
        const Time time = world.plan(group, kind, bytes).alone();
        bool found = false;
        for (const Plan& candidate : world.candidates(group, kind, bytes)) {
          CHECK(time <= candidate.alone());
          found = found || time == candidate.alone();
        }
        CHECK(found);
      }
}

TEST_CASE("millions of ranks take longer than fewer, and all plans stay in range") {
  const World world;
  for (const CollectiveKind kind : kinds)
    for (const Bytes bytes : {1_B, 1_MiB, 4_GiB}) {
      Time before{};
      for (int nodes = 65'536; nodes <= 524'288; nodes *= 2) {
        const RingFabric group = dgx_a100s(nodes);
        for (const Plan& p : world.candidates(group, kind, bytes)) {
          CHECK(p.latency > Time{});
          CHECK(p.cap > Bandwidth{});
          CHECK(p.sms >= 1);
          CHECK(p.sms <= group.channels);
        }
        if (kind == CollectiveKind::all_gather) {
          CHECK(world.plan(group, kind, bytes).alone() > before);
          before = world.plan(group, kind, bytes).alone();
        }
      }
    }
}

TEST_CASE("alone a collective takes its latency and its bytes over its rate, and at least the launch") {
  const World world;
  for (const RingFabric& group : some_groups)
    for (const CollectiveKind kind : kinds)
      for (const Plan& plan : world.candidates(group, kind, 5_MiB)) {
        CHECK(plan.alone() == plan.latency + plan.wire / plan.cap);
        CHECK(plan.latency > world.nccl.launch);
        CHECK(plan.cap <= *group.node_rate);
      }
}

TEST_CASE("small messages go by LL, large ones by Simple, LL128 in between") {
  const World world;
  const auto protocol = [&](Bytes bytes) {
    return world.plan(dgx_a100, CollectiveKind::all_gather, bytes).protocol;
  };
  CHECK(protocol(1_KiB) == Protocol::ll);
  CHECK(protocol(16_MiB) == Protocol::ll128);
  CHECK(protocol(1_GiB) == Protocol::simple);
}

TEST_CASE("LL128 needs NVLink inside nodes and NICs close to the GPUs between them") {
  const auto has_ll128 = [](const World& world, const RingFabric& group) {
    const auto plans = world.candidates(group, CollectiveKind::all_reduce, 1_MiB);
    return std::any_of(plans.begin(), plans.end(),
                       [](const Plan& p) { return p.protocol == Protocol::ll128; });
  };
  World near, far;
  far.transport.ll128 = false;
  RingFabric over_pcie = dgx_a100, nodes_over_pcie = dgx_a100s(2);
  over_pcie.nvlink = nodes_over_pcie.nvlink = false;
  CHECK(has_ll128(near, dgx_a100));
  CHECK(has_ll128(far, dgx_a100));
  CHECK(has_ll128(near, dgx_a100s(2)));
  CHECK_FALSE(has_ll128(far, dgx_a100s(2)));
  CHECK_FALSE(has_ll128(near, over_pcie));
  CHECK_FALSE(has_ll128(near, nodes_over_pcie));
}

TEST_CASE("trees are for all-reduces between nodes") {
  const auto has_tree = [](const RingFabric& group, CollectiveKind kind) {
    const auto plans = World().candidates(group, kind, 1_MiB);
    return std::any_of(plans.begin(), plans.end(),
                       [](const Plan& p) { return p.algorithm == Algorithm::tree; });
  };
  CHECK(has_tree(dgx_a100s(2), CollectiveKind::all_reduce));
  CHECK(has_tree(few_nics(64), CollectiveKind::all_reduce));
  CHECK_FALSE(has_tree(dgx_a100, CollectiveKind::all_reduce));
  CHECK_FALSE(has_tree(dgx_a100s(2), CollectiveKind::all_gather));
  CHECK_FALSE(has_tree(dgx_a100s(2), CollectiveKind::reduce_scatter));
}

TEST_CASE("over two nodes with few NICs trees beat rings: they cross the network once per direction") {
  // Two p4de nodes of 4 x 100 Gbit/s reach 77 to 78 GB/s of bus bandwidth over 42 GB/s of NICs
  // (aws-samples/awsome-distributed-training); with 8 x HDR rings win.
  const World world;
  const Plan few = world.plan(few_nics(2), CollectiveKind::all_reduce, 1_GiB),
             many = world.plan(dgx_a100s(2), CollectiveKind::all_reduce, 1_GiB);
  CHECK(few.algorithm == Algorithm::tree);
  CHECK(few.load == LinkLoad::node_twice);
  CHECK(few.cap > *few_nics(2).network_rate);
  CHECK(few.cap <= *few_nics(2).network_rate * 2);
  CHECK(many.algorithm == Algorithm::ring);
  CHECK(many.load == LinkLoad::even);
}

TEST_CASE("over more than two nodes a tree crosses the network as often as a ring") {
  const Plan plan = World().best(Algorithm::tree, few_nics(3), CollectiveKind::all_reduce, 1_GiB);
  CHECK(plan.load == LinkLoad::even);
  CHECK(plan.cap <= *few_nics(3).network_rate);
}

TEST_CASE(
    "over many nodes small all-reduces go by trees, whose latency grows with the logarithm of the nodes") {
  const World world;
  CHECK(world.plan(dgx_a100s(64), CollectiveKind::all_reduce, 64_KiB).algorithm == Algorithm::tree);
  const auto latency = [&](Algorithm algorithm, int nodes) {
    return world.best(algorithm, dgx_a100s(nodes), CollectiveKind::all_reduce, 1_B).latency;
  };
  CHECK(latency(Algorithm::tree, 128) - latency(Algorithm::tree, 64) ==
        latency(Algorithm::tree, 64) - latency(Algorithm::tree, 32));
  CHECK(latency(Algorithm::ring, 128) - latency(Algorithm::ring, 64) ==
        (latency(Algorithm::ring, 64) - latency(Algorithm::ring, 32)) * 2);
}

// --- laws -------------------------------------------------------------------------------------------------

TEST_CASE("rings never take less time for more bytes") {
  // Trees may: NCCL's correction by size jumps between powers of two.
  const std::uint64_t seed = seed_of_run(1);
  CAPTURE(seed);
  Random random(seed);
  const World world;
  for (int i = 0; i < 2000; ++i) {
    const RingFabric& group = some_groups[random.between(0, 6)];
    const CollectiveKind kind = kinds[random.between(0, 2)];
    // Whole shards: what is left of a shard is rounded up on the wire.
    const Bytes some = Bytes{group.ranks} * random.between(1, std::int64_t{1} << random.between(0, 24)),
                more =
                    some + Bytes{group.ranks} * random.between(1, std::int64_t{1} << random.between(0, 24));
    CAPTURE(some.count);
    CAPTURE(more.count);
    for (const Protocol p : {Protocol::ll, Protocol::ll128, Protocol::simple})
      CHECK(world.ring(p, group, kind, some).alone() <= world.ring(p, group, kind, more).alone());
    if (kind == CollectiveKind::all_reduce && group.nodes > 1) continue;
    CHECK(world.plan(group, kind, some).alone() <= world.plan(group, kind, more).alone());
  }
}

TEST_CASE("faster links, shorter hops and a lower overhead never make a collective slower") {
  const std::uint64_t seed = seed_of_run(2);
  CAPTURE(seed);
  Random random(seed);
  const World original;
  for (int i = 0; i < 2000; ++i) {
    World world = original, better = original;
    RingFabric group = some_groups[random.between(0, 6)], faster = group;
    if (random.chance(2)) faster.node_rate = *group.node_rate + 10_GBps;
    if (random.chance(2) && group.network_rate) faster.network_rate = *group.network_rate + 10_GBps;
    world.transport.hop_latency = 5_us;
    better.transport.hop_latency = random.chance(2) ? 0_us : 5_us;
    if (random.chance(2)) better.transport.half_rate_mib = 0.008;
    if (random.chance(2)) better.network_overhead = 1_us;
    const CollectiveKind kind = kinds[random.between(0, 2)];
    const Bytes bytes{random.between(1, std::int64_t{1} << random.between(0, 32))};
    CHECK(better.plan(faster, kind, bytes).alone() <= world.plan(group, kind, bytes).alone());
  }
}

TEST_CASE("an all-gather and a reduce-scatter cost the same; a ring all-reduce is both, launched once") {
  const World world;
  for (const RingFabric& group : some_groups)
    for (const Bytes bytes : {1_KiB, 1_MiB, 1_GiB}) {
      const Time gather = world.plan(group, CollectiveKind::all_gather, bytes).alone();
      CHECK(gather == world.plan(group, CollectiveKind::reduce_scatter, bytes).alone());
      if (group.nodes > 1) continue;  // between nodes the latency of all-reduces has a factor of its own
      for (const Protocol p : {Protocol::ll, Protocol::ll128, Protocol::simple}) {
        const Plan once = world.ring(p, group, CollectiveKind::all_gather, bytes),
                   twice = world.ring(p, group, CollectiveKind::all_reduce, bytes);
        const Time base = world.nccl.ring_base[static_cast<std::size_t>(p)] + world.nccl.launch;
        CHECK(twice.latency - base == (once.latency - base) * 2);
        CHECK(twice.cap == once.cap);
      }
    }
}

TEST_CASE("between nodes the latency of a ring all-reduce in Simple has NCCL's plateau") {
  World world;
  const auto latency = [&] {
    return world.ring(Protocol::simple, dgx_a100s(2), CollectiveKind::all_reduce, 1_GiB).latency -
           world.nccl.launch;
  };
  const Time ampere = latency();
  world.architecture = Architecture::volta;
  // 1.4 and 1.9: NVIDIA/nccl src/graph/tuning.cc, for compute capabilities from 8.0 on and before.
  CHECK(ratio(latency(), ampere) == doctest::Approx(1.9 / 1.4));
}

TEST_CASE("a group over several leaves loses the transport's share of the network rate") {
  RingFabric far = few_nics(4);
  far.many_leaves = true;
  for (const Protocol p : {Protocol::ll128, Protocol::simple}) {
    const World world;
    const Bandwidth here = world.ring(p, few_nics(4), CollectiveKind::all_gather, 1_GiB).cap,
                    there = world.ring(p, far, CollectiveKind::all_gather, 1_GiB).cap;
    CHECK(ratio(there, here) == doctest::Approx(0.95));
  }
}

// --- NVLS -------------------------------------------------------------------------------------------------

World hopper() {
  World world;
  world.architecture = Architecture::hopper;
  return world;
}

TEST_CASE("on one Hopper node all-reduces of five GPUs and more go through the switches from 2 MiB on") {
  // 8 x H200: NCCL's log shows NVLS from 2 MiB; with four GPUs and for all-gathers it stays with rings.
  // (stas00/ml-engineering, network/README.md)
  const World world = hopper();
  const auto chosen = [&](int ranks, CollectiveKind kind, Bytes bytes) {
    return world.plan(switched(one_node(ranks, 24, 360_GBps)), kind, bytes).algorithm;
  };
  for (Bytes bytes = 2_MiB; bytes <= 16_GiB; bytes = bytes * 2)
    CHECK(chosen(8, CollectiveKind::all_reduce, bytes) == Algorithm::nvls);
  for (Bytes bytes = 1_B; bytes <= 1_MiB; bytes = bytes * 2)
    CHECK(chosen(8, CollectiveKind::all_reduce, bytes) == Algorithm::ring);
  for (int ranks = 2; ranks <= 8; ++ranks)
    CHECK(chosen(ranks, CollectiveKind::all_reduce, 8_GiB) ==
          (ranks < 5 ? Algorithm::ring : Algorithm::nvls));
  CHECK(chosen(8, CollectiveKind::all_gather, 8_GiB) == Algorithm::ring);
  CHECK(chosen(8, CollectiveKind::reduce_scatter, 8_GiB) == Algorithm::ring);
}

TEST_CASE("NVLS needs Hopper, a switch, and an NCCL that has it") {
  const auto has_nvls = [](const World& world, const RingFabric& group) {
    const auto plans = world.candidates(group, CollectiveKind::all_reduce, 1_GiB);
    return std::any_of(plans.begin(), plans.end(), [](const Plan& p) {
      return p.algorithm == Algorithm::nvls || p.algorithm == Algorithm::nvls_tree;
    });
  };
  CHECK(has_nvls(hopper(), dgx_h100));
  CHECK(has_nvls(hopper(), dgx_h100s(2)));
  CHECK_FALSE(has_nvls(World(), dgx_h100));
  RingFabric linked = dgx_h100;
  linked.nvswitch = false;
  CHECK_FALSE(has_nvls(hopper(), linked));
  World old = hopper();
  old.nccl = stack_named("eager-2022").nccl;  // NCCL 2.14
  CHECK_FALSE(has_nvls(old, dgx_h100));
}

TEST_CASE("NVLS: every GPU's links carry each byte once and its share of the result once more") {
  // 0.85 of what rings reach: NCCL tuning.cc. 480 GB/s for 8 GPUs: NVIDIA GTC24 S62129.
  const World world = hopper();
  for (int ranks = 5; ranks <= 8; ++ranks) {
    const Plan plan = world.best(Algorithm::nvls, switched(one_node(ranks, 24, 360_GBps)),
                                 CollectiveKind::all_reduce, 1024_GiB);
    const double link_bytes = ratio(1024_GiB, plan.bus) * (1 + 1.0 / ranks);
    CHECK(gb_per_s(plan.cap) * link_bytes == doctest::Approx(0.85 * 360).epsilon(1e-4));
    // What the network room charges the links with: rounded to whole channels.
    const double charged = 24.0 / plan.channels;
    CHECK(charged == doctest::Approx(link_bytes).epsilon(0.02));
    CHECK(plan.sms == 16);
  }
}

TEST_CASE("NVLS starts at half its rate and reaches it after its first round of chunks") {
  const World world = hopper();
  const auto share = [&](Bytes bytes) {
    return ratio(world.best(Algorithm::nvls, dgx_h100, CollectiveKind::all_reduce, bytes).cap,
                 world.best(Algorithm::nvls, dgx_h100, CollectiveKind::all_reduce, 4096_GiB).cap);
  };
  CHECK(share(1_B) == doctest::Approx(0.5).epsilon(1e-4));
  CHECK(share(16_MiB) == doctest::Approx(2.0 / 3));  // 16 channels x 8 ranks x 128 KiB
  CHECK(share(4_GiB) > 0.99);
}

TEST_CASE("over two nodes NVLS trees cross the network once per direction, over more as often as rings") {
  const World world = hopper();
  const auto best = [&](int nodes) {
    return world.plan(dgx_h100s(nodes), CollectiveKind::all_reduce, 8_GiB);
  };
  CHECK(best(2).algorithm == Algorithm::nvls_tree);
  CHECK(best(2).load == LinkLoad::even);
  CHECK(best(2).channels == 2 * 16);
  CHECK(best(2).cap > *dgx_h100s(2).network_rate);
  CHECK(best(4).load == LinkLoad::network_twice);
  CHECK(best(4).cap <= *dgx_h100s(4).network_rate);
  const auto latency = [&](int nodes) {
    return world.best(Algorithm::nvls_tree, dgx_h100s(nodes), CollectiveKind::all_reduce, 1_B).latency;
  };
  CHECK(latency(2) == 10_us + 25_us + 20900_ns * 2);  // NCCL tuning.cc, 2.18
  CHECK(latency(16) - latency(8) == 20900_ns * 2);
}

// --- SMs --------------------------------------------------------------------------------------------------

TEST_CASE("a channel is worth it from so many bytes on as its protocol's threads take") {
  // NVIDIA/nccl src/enqueue.cc: 512 threads of 64 bytes in Simple, 640 of 8 in LL128, 512 of 8 per rank in
  // LL.
  const World world;
  const auto sms = [&](Protocol p, Bytes bytes) {
    return world.ring(p, dgx_a100, CollectiveKind::all_gather, bytes).sms;
  };
  CHECK(sms(Protocol::simple, 32_KiB * 5) == 5);
  CHECK(sms(Protocol::ll128, 5_KiB * 5) == 5);
  CHECK(sms(Protocol::ll, 4_KiB * 8 * 5) == 5);
  CHECK(sms(Protocol::ll128, 32_KiB * 5) == 24);
}

TEST_CASE("so it is in a ring of millions of ranks") {
  const World world;
  for (const int ranks : {1 << 19, 1 << 20, 1 << 24}) {
    RingFabric group = dgx_a100;
    group.ranks = ranks;
    group.nodes = ranks / group.ranks_per_node;
    group.network_rate = 200_GBps;
    const Bytes bytes = 4_KiB * (std::int64_t{ranks} * 5);
    CHECK(world.ring(Protocol::ll, group, CollectiveKind::all_gather, bytes).sms == 5);
  }
}

TEST_CASE("a large message keeps an SM busy per channel, a small one only those it can feed") {
  // 512 threads of 64 bytes make a channel worth it: NVIDIA/nccl src/enqueue.cc, protocol Simple.
  const World world;
  const auto sms = [&](Bytes bytes) { return world.plan(dgx_a100, CollectiveKind::all_gather, bytes).sms; };
  CHECK(sms(1_B) == 1);
  for (int channels = 1; channels <= 24; ++channels) CHECK(sms(32_KiB * channels) == channels);
  CHECK(sms(1_GiB) == 24);
  int before = 0;
  for (Bytes bytes = 1_B; bytes < 2_MiB; bytes += 1000_B) {
    CHECK(sms(bytes) >= before);
    before = sms(bytes);
  }
}

}  // namespace
}  // namespace shardsim
