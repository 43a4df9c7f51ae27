// The table that NVIDIA/nccl-tests prints (src/common.cu), so that a measured one can be laid beside it.
// Lines of our own begin with "# shardsim"; there is no data to check, so #wrong is N/A, as with nccl-tests'
// -c 0.
#include <iterator>

#include <fmt/format.h>

#include "sim/report/csv.h"
#include "sim/report/text.h"

namespace shardsim {
namespace {

std::string time_text(Time time) {
  const double us = seconds(time) * 1e6;
  return us >= 10000.0 ? fmt::format("{:7.0f}", us)
         : us >= 100.0 ? fmt::format("{:7.1f}", us)
                       : fmt::format("{:7.2f}", us);
}

std::string redop(CollectiveKind kind) { return kind == CollectiveKind::all_gather ? "none" : "sum"; }

std::string table_text(const CollectiveResult& result, const CollectiveTable& table) {
  std::string out = fmt::format("# shardsim {} on {} GPUs of {} ({}), stack {}", name(result.kind),
                                table.gpus, result.topology, result.gpu, result.stack);
  if (table.groups > 1)
    out += fmt::format(": {} groups of axis {} at once, each of {} ranks on {} nodes", table.groups,
                       result.axis, table.ranks, table.nodes);
  out += fmt::format(
      "\n# nThread 1 nGpus 1 minBytes {} maxBytes {} step: {}({}) warmup iters: 0 iters: 1 agg iters: 1 "
      "validation: 0 graph: 0\n#\n",
      result.bytes_min.count, result.bytes_max.count, result.step, result.step_factor ? "factor" : "bytes");
  const auto print = [&](const char* format, const auto&... cells) {
    fmt::format_to(std::back_inserter(out), fmt::runtime(format), cells...);
  };
  const char* head =
      "# {:>10}  {:>12}  {:>8}  {:>6}  {:>6}  {:>7}  {:>6}  {:>6} {:>6}  {:>7}  {:>6}  {:>6} {:>6}\n";
  const char* units =
      "# {:>10}  {:>12}  {:>8}  {:>6}  {:>6}  {:>7}  {:>6}  {:>6}  {:>5}  {:>7}  {:>6}  {:>6}  {:>5}\n";
  print(
      "# {:>10}  {:>12}  {:>8}  {:>6}  {:>6}           out-of-place                       in-place          "
      "\n",
      "", "", "", "", "");
  print(head, "size", "count", "type", "redop", "root", "time", "algbw", "busbw", "#wrong", "time", "algbw",
        "busbw", "#wrong");
  print(units, "(B)", "(elements)", "", "", "", "(us)", "(GB/s)", "(GB/s)", "", "(us)", "(GB/s)", "(GB/s)",
        "");
  for (const CollectiveLine& line : table.lines) {
    print("{:>12}  {:>12}  {:>8}  {:>6}  {:>6}", line.bytes.count, line.count, result.datatype,
          redop(result.kind), -1);
    for (int place = 0; place < 2; ++place)
      print("  {}  {:6.2f}  {:6.2f}  {:>5}", time_text(line.time), line.algorithm_gb_per_s(),
            line.bus_gb_per_s(), "N/A");
    out += "\n";
  }
  print("# Out of bounds values : 0 OK\n# Avg bus bandwidth    : {:g} \n#\n", table.average_bus_gb_per_s());
  return out;
}

}  // namespace

std::string to_text(const CollectiveResult& result) {
  std::string out;
  for (const CollectiveTable& table : result.tables) out += table_text(result, table);
  return out;
}

std::string to_csv(const CollectiveResult& result) {
  std::string out =
      "topology,stack,kind,datatype,gpus,groups,ranks,nodes,bytes,count,time_us,algbw_gb_per_s,busbw_gb_per_"
      "s,"
      "algorithm,protocol,channels,latency_us,wire_bytes,rate_gb_per_s\n";
  for (const CollectiveTable& t : result.tables)
    for (const CollectiveLine& l : t.lines)
      out += fmt::format("{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}\n", result.topology,
                         result.stack, name(result.kind), result.datatype, t.gpus, t.groups, t.ranks, t.nodes,
                         l.bytes.count, l.count, seconds(l.time) * 1e6, l.algorithm_gb_per_s(),
                         l.bus_gb_per_s(), l.algorithm, l.protocol, l.channels, seconds(l.latency) * 1e6,
                         l.wire.count, gb_per_s(l.rate));
  return out;
}

}  // namespace shardsim
