// Is the table of collectives what the plans say, for the sizes and groups that were asked for?
#include "sim/study/collective_table.h"

#include <doctest/doctest.h>

#include "sim/collective/plan.h"
#include "sim/scenario/scenario.h"

#include "tests/support/hardware.h"
#include "tests/support/print.h"

namespace shardsim {
namespace {
using namespace literals;

CollectiveResult table_of(const CollectiveQuery& query) { return collective_table(query, test_library()); }
std::string complaint(const CollectiveQuery& query) {
  try {
    table_of(query);
  } catch (const InputError& error) {
    return error.text();
  }
  return "";
}
CollectiveQuery on(const std::string& topology, const std::string& gpus, const std::string& sizes) {
  CollectiveQuery query;
  query.topology = topology;
  query.gpus = gpus;
  query.sizes = sizes;
  return query;
}
std::vector<std::int64_t> sizes_of(const std::string& sizes) {
  std::vector<std::int64_t> bytes;
  const CollectiveResult result = table_of(on("dgx-a100-80gb", "8", sizes));
  for (const CollectiveLine& line : result.tables.front().lines) bytes.push_back(line.bytes.count);
  return bytes;
}

TEST_CASE("a line is NCCL's plan for the group, alone on its links") {
  const Stack stack = stack_named("eager-2023");
  for (const char* topology : {"dgx1-v100-32gb", "dgx-a100-80gb", "dgx-h100", "aws-p4d"})
    for (const char* kind : {"all-gather", "reduce_scatter", "AllReduce"}) {
      CollectiveQuery query = on(topology, "8,32", "64K..1G x8");
      query.kind = kind;
      query.stack = "eager-2023";
      const CollectiveResult result = table_of(query);
      REQUIRE(result.tables.size() == 2);
      for (const CollectiveTable& t : result.tables) {
        Settings settings;
        settings.set("topology", std::string(topology), {});
        settings.set("model", std::string("gpt2"), {});
        settings.set("cluster.gpus", t.gpus, {});
        const Scenario s = resolve(settings, test_library());
        std::vector<Rank> ranks;
        for (int r = 0; r < t.gpus; ++r) ranks.push_back({r});
        const RingFabric fabric = ring_fabric(Topology(s.topology, s.gpu, static_cast<int>(t.gpus)), ranks);
        CHECK(t.groups == 1);
        CHECK(t.nodes == fabric.nodes);
        for (const CollectiveLine& line : t.lines) {
          const Plan expected = plan(
              {stack.nccl, s.gpu.architecture, s.topology.node.transport, s.topology.node.network_overhead},
              fabric, result.kind, line.bytes);
          CHECK(line.time == expected.alone());
          CHECK(line.rate == expected.cap);
          CHECK(line.algorithm == name(expected.algorithm));
          CHECK(line.protocol == name(expected.protocol));
          CHECK(line.channels == expected.sms);
        }
      }
    }
}

TEST_CASE("sizes are nccl-tests': binary units, ranges by factors or increments, lists") {
  CHECK(sizes_of("1M..8M") == std::vector<std::int64_t>{1 << 20, 2 << 20, 4 << 20, 8 << 20});
  CHECK(sizes_of("1M..32M x4") == std::vector<std::int64_t>{1 << 20, 4 << 20, 16 << 20});
  CHECK(sizes_of("1K..3KiB +1k") == std::vector<std::int64_t>{1024, 2048, 3072});
  CHECK(sizes_of("4096, 1M") == std::vector<std::int64_t>{4096, 1 << 20});
  CHECK(sizes_of("[512]") == std::vector<std::int64_t>{512});
}

TEST_CASE("parts of gathers and scatters are whole multiples of 16 bytes, all-reduces whole elements") {
  CollectiveQuery query = on("dgx-a100-80gb", "24", "1000");
  CHECK(table_of(query).tables[0].lines[0].bytes == 1000_B);
  query.datatype = "double";
  query.sizes = "1001";
  CHECK(table_of(query).tables[0].lines[0].count == 125);
  query.kind = "all_gather";
  query.datatype = "bf16";
  CHECK(table_of(query).tables[0].lines[0].count == 16);  // 1001 / 2 / 24 = 20 elements, by eights
  CHECK(table_of(query).tables[0].lines[0].bytes == Bytes{16 * 2 * 24});
}

TEST_CASE("forcing an algorithm or a protocol leaves the fastest of what is left") {
  CollectiveQuery query = on("dgx-h100", "16", "1G");
  const Time free = table_of(query).tables[0].lines[0].time;
  query.algorithm = "Ring";
  const CollectiveLine ring = table_of(query).tables[0].lines[0];
  CHECK(ring.algorithm == "ring");
  CHECK(ring.time >= free);
  query.algorithm = "NVLSTree";
  CHECK(table_of(query).tables[0].lines[0].algorithm == "nvls_tree");
  query.algorithm = "tree", query.protocol = "ll128";
  CHECK(table_of(query).tables[0].lines[0].protocol == "LL128");
}

TEST_CASE("groups of replicas at once each get their share of the NICs, groups inside nodes all of NVLink") {
  CollectiveQuery query = on("aws-p4d", "32", "1G");
  query.axis = "replica";
  const CollectiveTable replicas = table_of(query).tables[0];
  CHECK(replicas.groups == 8);
  CHECK(replicas.ranks == 4);
  CHECK(replicas.nodes == 4);
  CHECK(gb_per_s(replicas.lines[0].rate) == doctest::Approx(42.5 / 8));
  query.axis = "shard";
  const CollectiveTable shards = table_of(query).tables[0];
  CHECK(shards.groups == 4);
  CHECK(shards.ranks == 8);
  CHECK(shards.nodes == 1);
  query.axis = "world";
  query.gpus = "8";
  CHECK(shards.lines[0].time == table_of(query).tables[0].lines[0].time);
  query = on("dgx-a100-80gb", "64", "256M");
  query.axis = "shard", query.sharding_factor = 16;
  CHECK(table_of(query).tables[0].nodes == 2);
}

TEST_CASE("what cannot be is refused with what can") {
  const CollectiveQuery good = on("dgx-a100-80gb", "16", "1M");
  const auto with = [&](auto change) {
    CollectiveQuery query = good;
    change(query);
    return complaint(query);
  };
  CHECK(complaint(good) == "");
  CHECK(with([](auto& q) { q.topology = ""; }).find("needs a --topology") != std::string::npos);
  CHECK(with([](auto& q) { q.topology = "dgx-a100-80g"; }).find("did you mean \"dgx-a100-80gb\"?") !=
        std::string::npos);
  CHECK(with([](auto& q) { q.kind = "all_gathr"; }) ==
        "--kind all_gathr: unknown; did you mean \"all_gather\"? all_gather, reduce_scatter, all_reduce are "
        "known");
  CHECK(with([](auto& q) { q.sizes = "1X"; }).find("\"1X\" is not a size") != std::string::npos);
  CHECK(with([](auto& q) { q.sizes = "0"; }) == "--sizes 0: \"0\" is not between 1 byte and 1024 TiB");
  CHECK(with([](auto& q) { q.sizes = "8G..1M"; }) == "--sizes 8G..1M: starts above its end");
  CHECK(with([](auto& q) { q.sizes = "1M..8G x1"; }).find("\"x2\" or \"+1M\" is expected") !=
        std::string::npos);
  CHECK(with([](auto& q) { q.sizes = "1..8G +1"; }).find("more than 10000 sizes") != std::string::npos);
  CHECK(with([](auto& q) { q.sizes = "9999999999G"; }).find("is not between") != std::string::npos);
  CHECK(with([](auto& q) { q.sizes = ","; }).find("is not a size") != std::string::npos);
  CHECK(with([](auto& q) { q.gpus = "12"; }).find("12 GPUs do not fill nodes of 8; 8 or 16 do") !=
        std::string::npos);
  CHECK(with([](auto& q) { q.gpus = "1"; }) == "--gpus 1: a collective needs two GPUs");
  CHECK(with([](auto& q) {
          q.algorithm = "nvls";
        }).find("NCCL has no such all_reduce in a group of 16 GPUs on 2") != std::string::npos);
  CHECK(with([](auto& q) { q.protocol = "LL256"; }).find("LL, LL128, Simple are known") != std::string::npos);
  CHECK(with([](auto& q) { q.datatype = "flaot"; }).find("did you mean \"float\"?") != std::string::npos);
  CHECK(with([](auto& q) { q.axis = "tensor"; }) ==
        "--axis tensor: unknown; world, shard and replica are known");
  CHECK(with([](auto& q) { q.sharding_factor = 8; }).find("goes with --axis") != std::string::npos);
  CHECK(with([](auto& q) {
          q.axis = "shard";
          q.sharding_factor = 5;
        }) == "--sharding-factor 5: does not divide 16 GPUs");
  CHECK(with([](auto& q) {
          q.axis = "replica";
          q.sharding_factor = 16;
        }).find("have one GPU each") != std::string::npos);
  CHECK(with([](auto& q) {
          q.kind = "all-gather";
          q.sizes = "64";
        }) == "--sizes: 64 bytes are too few for an all_gather of float over 16 ranks");
}

}  // namespace
}  // namespace shardsim
