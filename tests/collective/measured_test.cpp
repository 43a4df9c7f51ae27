// Do collectives take the time that nccl-tests measured? tests/collective/measured/ holds the
// published bus bandwidths with their sources, and for each which topology, GPUs and algorithm (forced or
// NCCL's choice) stand for it, or why none does. Figures published without a size are peaks; 8 GiB stand for
// it, and four nodes for "multi".
//
// In-sample (constants of stacks and transports were set from them, or a form chosen): both 8 x A100 series
// (NVLink knots, LL128), 2 x p4de (EFA v1, floor of trees), 2 x p5 (EFA v2, floor of NVLS trees), Azure NDv5
// (the form of NVLS' filling; its constants are NCCL's). Nothing is set per row.
#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <optional>

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "sim/collective/plan.h"
#include "sim/scenario/csv.h"
#include "sim/scenario/scenario.h"

#include "tests/support/hardware.h"

namespace shardsim {
namespace {

struct Point {
  std::string series, excluded;
  bool in_sample = false;
  Bytes bytes;
  double measured = 0, predicted = 0;  // GB/s of bus bandwidth
  std::string how;
  double error() const { return predicted / measured - 1; }
};

CollectiveKind kind_named(const std::string& text) {
  for (int k = 0; k < collective_kinds; ++k)
    if (name(static_cast<CollectiveKind>(k)) == text) return static_cast<CollectiveKind>(k);
  FAIL("unknown collective " << text);
  return {};
}

void predict(Point& point, const std::string& topology, int gpus, CollectiveKind kind,
             const std::string& algorithm) {
  const Scenario s = scenario_on(topology);
  // A part of a node, or whole nodes: the first GPUs of each.
  const Topology fabric(s.topology, s.gpu, gpus);
  std::vector<Rank> ranks(static_cast<std::size_t>(gpus));
  for (int r = 0; r < gpus; ++r) ranks[static_cast<std::size_t>(r)] = {r};
  const CollectiveModel model{s.stack.nccl, s.gpu.architecture, s.topology.node.transport,
                              s.topology.node.network_overhead};
  std::optional<Plan> best;
  for (const Plan& plan : candidates(model, ring_fabric(fabric, ranks), kind, point.bytes))
    if ((algorithm == "auto" || name(plan.algorithm) == algorithm) && (!best || plan.alone() < best->alone()))
      best = plan;
  REQUIRE_MESSAGE(best.has_value(), point.series << " has no " << algorithm);
  point.predicted = static_cast<double>(best->bus.count) * 1e-9 / seconds(best->alone());
  point.how = fmt::format("{} {}", name(best->algorithm), name(best->protocol));
}

std::vector<Point> points() {
  const CsvTable table =
      read_csv_file(std::string(SHARDSIM_SOURCE_DIR) + "/tests/collective/measured/nccl-busbw.csv");
  std::vector<Point> all;
  for (const CsvRow& row : table.rows) {
    REQUIRE(row.size() == table.header.size());
    const auto cell = [&](const char* column) {
      const auto found = std::find_if(table.header.begin(), table.header.end(),
                                      [&](const CsvCell& c) { return c.text == column; });
      REQUIRE(found != table.header.end());
      return row[static_cast<std::size_t>(found - table.header.begin())].text;
    };
    Point point;
    point.excluded = cell("excluded");
    point.measured = std::stod(cell("busbw_gb_per_s"));
    point.series = fmt::format("{}, {} {}", cell("system"), cell("collective"), cell("measured_algorithm"));
    if (point.excluded.empty()) {
      point.series = fmt::format("{}, {} GPUs, {} {}, {}", cell("system"), cell("gpus"), cell("collective"),
                                 cell("algorithm"), cell("source"));
      point.in_sample = cell("in_sample") == "yes";
      point.bytes = {std::stoll(cell("bytes"))};
      predict(point, cell("topology"), std::stoi(cell("gpus")), kind_named(cell("collective")),
              cell("algorithm"));
    }
    all.push_back(std::move(point));
  }
  return all;
}

double median(std::vector<double> values) {
  REQUIRE_FALSE(values.empty());
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

std::vector<double> absolute_errors(const std::vector<Point>& points) {
  std::vector<double> errors;
  for (const Point& p : points) errors.push_back(std::abs(p.error()));
  return errors;
}

TEST_CASE(
    "from 1 MiB on bus bandwidths agree with nccl-tests within 10%, plateaus within 5%, in the median") {
  std::vector<std::string> order;
  std::map<std::string, std::vector<Point>> series;
  std::map<std::string, int> excluded;
  std::vector<Point> large, seen, unseen;
  for (const Point& p : points()) {
    if (!p.excluded.empty()) {
      ++excluded[p.excluded];
      continue;
    }
    if (p.bytes < Bytes{1 << 20}) continue;
    large.push_back(p);
    (p.in_sample ? seen : unseen).push_back(p);
    if (series[p.series].empty()) order.push_back(p.series);
    series[p.series].push_back(p);
  }
  std::vector<Point> plateaus, plateaus_unseen;
  std::string report;
  const bool every = std::getenv("SHARDSIM_VERBOSE") != nullptr;
  for (const std::string& s : order) {
    const std::vector<Point>& of = series[s];
    const Point& largest = *std::max_element(
        of.begin(), of.end(), [](const Point& a, const Point& b) { return a.bytes < b.bytes; });
    plateaus.push_back(largest);
    if (!largest.in_sample) plateaus_unseen.push_back(largest);
    report += fmt::format(
        "{:3} rows, median |error| {:5.1f}%, plateau {:6.1f} against {:6.1f} GB/s {:+6.1f}%{}: {}\n",
        of.size(), 100 * median(absolute_errors(of)), largest.predicted, largest.measured,
        100 * largest.error(), of.front().in_sample ? " (in-sample)" : "", s);
    for (const Point& p : of)
      if (every)
        report += fmt::format("    {:12} B {:8.2f} against {:8.2f} {:+6.1f}% {}\n", p.bytes.count,
                              p.predicted, p.measured, 100 * p.error(), p.how);
  }
  int left_out = 0;
  for (const auto& [why, rows] : excluded) {
    report += fmt::format("{:3} rows left out: {}\n", rows, why);
    left_out += rows;
  }
  report += fmt::format(
      "{} rows of 1 MiB and more: median |error| {:.1f}%; {} unseen {:.1f}%; {} plateaus {:.1f}%, {} unseen "
      "{:.1f}%; {} "
      "rows left out\n",
      large.size(), 100 * median(absolute_errors(large)), unseen.size(),
      100 * median(absolute_errors(unseen)), plateaus.size(), 100 * median(absolute_errors(plateaus)),
      plateaus_unseen.size(), 100 * median(absolute_errors(plateaus_unseen)), left_out);
  MESSAGE(report);
  CHECK(median(absolute_errors(large)) <= 0.10);
  CHECK(median(absolute_errors(unseen)) <= 0.10);
  CHECK(median(absolute_errors(plateaus)) <= 0.05);
  CHECK(large.size() >= 130);
  CHECK(left_out <= 50);
}

}  // namespace
}  // namespace shardsim
