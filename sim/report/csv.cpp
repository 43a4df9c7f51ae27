#include "sim/report/csv.h"

#include <algorithm>
#include <iterator>
#include <map>

#include <fmt/format.h>

#include "sim/base/scalar.h"

namespace shardsim {
namespace {

using Cells = std::vector<std::pair<std::string, std::string>>;  // column, value

Cells figures(const RunRecord& run) {
  const Result& r = run.result;
  const Throughput& t = r.throughput;
  const bool oom = r.out_of_memory();
  const auto number = [&](double x) { return oom ? "" : fmt::format("{}", x); };
  const auto gibs = [](Bytes b) { return fmt::format("{}", gib(b)); };
  return {{"simulated.status", oom ? "oom" : "ok"},
          {"simulated.fits", oom ? "0" : "1"},
          {"simulated.step_time_s", number(seconds(r.step_time))},
          {"simulated.tokens_per_s_per_gpu", number(t.tokens_per_s_per_gpu)},
          {"simulated.tflops_per_gpu.model", number(t.model.count * 1e-12)},
          {"simulated.tflops_per_gpu.hardware", number(t.hardware.count * 1e-12)},
          {"simulated.peak_allocated_gib", gibs(r.memory.peak_allocated)},
          {"simulated.peak_active_gib", gibs(r.memory.peak_active)},
          {"simulated.peak_reserved_gib", gibs(r.memory.peak_reserved)},
          {"simulated.alloc_retries", fmt::format("{}", r.memory.alloc_retries)},
          {"simulated.oom", oom ? r.oom->phase + ": " + r.oom->tensor : ""}};
}

// Columns are the union over the rows, scenario keys in order of first appearance.
std::string write(const std::vector<Cells>& rows) {
  std::vector<std::string> columns;
  for (const bool figures_last : {false, true})
    for (const Cells& row : rows)
      for (const auto& [column, value] : row)
        if (column.starts_with("simulated.") == figures_last &&
            std::find(columns.begin(), columns.end(), column) == columns.end())
          columns.push_back(column);
  std::string out;
  for (std::size_t c = 0; c < columns.size(); ++c) out += (c == 0 ? "" : ",") + csv_cell(columns[c]);
  out += "\n";
  for (const Cells& row : rows) {
    const std::map<std::string, std::string> values(row.begin(), row.end());
    for (std::size_t c = 0; c < columns.size(); ++c) {
      const auto found = values.find(columns[c]);
      out += (c == 0 ? "" : ",") + (found == values.end() ? "" : csv_cell(found->second));
    }
    out += "\n";
  }
  return out;
}

Cells cells(const RunRecord& run) {
  Cells row;
  for (const RecordedValue& v : run.values)
    if (!v.key.starts_with("overlay.")) row.emplace_back(v.key, to_string(v.value));  // of the overlay's file
  const Cells more = figures(run);
  row.insert(row.end(), more.begin(), more.end());
  return row;
}

void add_sides(std::vector<Cells>& rows, const Boundary& boundary) {
  for (const auto& side : {boundary.last_fit, boundary.first_oom})
    if (side && side->trial.run) rows.push_back(cells(*side->trial.run));
}

}  // namespace

std::string to_csv(const RunRecord& run) { return write({cells(run)}); }

std::string to_csv(const SweepResult& sweep) {
  std::vector<Cells> rows;
  for (const SweepRow& row : sweep.rows) {
    if (row.run) {
      rows.push_back(cells(*row.run));
      continue;
    }
    Cells failed;
    for (std::size_t a = 0; a < sweep.axes.size(); ++a) failed.emplace_back(sweep.axes[a], row.point[a]);
    failed.emplace_back("simulated.status", "illegal: " + row.error);
    rows.push_back(std::move(failed));
  }
  return write(rows);
}

std::string to_csv(const ValidateResult& result) {
  std::vector<Cells> rows;
  for (const ValidatedRow& row : result.rows) {
    const auto add = [&](const std::string& metric, const Cells& figures_of) {
      Cells cells_of = {{"id", row.id}, {"metric", metric}};
      cells_of.insert(cells_of.end(), figures_of.begin(), figures_of.end());
      cells_of.insert(cells_of.end(), {{"status", std::string(status(row))},
                                       {"why", row.why},
                                       {"quality", row.quality},
                                       {"source", row.source}});
      cells_of.insert(cells_of.end(), row.carried.begin(), row.carried.end());
      if (!result.by.empty()) cells_of.emplace_back("group", row.group);
      rows.push_back(std::move(cells_of));
    };
    for (const Comparison& c : row.comparisons)
      add(c.metric, {{"predicted", fmt::format("{}", c.predicted)},
                     {"measured", fmt::format("{}", c.measured)},
                     {"error", fmt::format("{}", c.error())}});
    for (const std::string& metric : row.unanswered)
      add(metric, {{"predicted", ""}, {"measured", ""}, {"error", ""}});
    if (row.simulated && row.fitted)
      add("fits", {{"predicted", row.out_of_memory ? "0" : "1"},
                   {"measured", *row.fitted ? "1" : "0"},
                   {"error", ""}});
    if (!row.simulated && row.unanswered.empty())
      add("", {{"predicted", ""}, {"measured", ""}, {"error", ""}});
  }
  return write(rows);
}

std::string to_csv(const MemoryTimeline& memory) {
  std::string out = "step,time_ps,allocated_bytes,active_bytes,reserved_bytes";
  for (int c = 0; c < categories; ++c) out += fmt::format(",{}_bytes", name(static_cast<Category>(c)));
  out += "\n";
  for (const MemoryRow& row : memory.rows) {
    fmt::format_to(std::back_inserter(out), "{},{},{},{},{}", row.step, row.at.count, row.allocated.count,
                   row.active.count, row.reserved.count);
    for (const Bytes b : row.live) fmt::format_to(std::back_inserter(out), ",{}", b.count);
    out += "\n";
  }
  return out;
}

std::string to_csv(const FrontierResult& frontier) {
  std::vector<Cells> rows;
  for (const FrontierRow& row : frontier.rows) add_sides(rows, row.boundary);
  return write(rows);
}

std::string to_csv(const LimitResult& limit) {
  std::vector<Cells> rows;
  for (const LimitRow& row : limit.rows) add_sides(rows, row.boundary);
  return write(rows);
}

}  // namespace shardsim
