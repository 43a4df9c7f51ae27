#include "sim/report/text.h"

#include <algorithm>
#include <optional>

#include <fmt/format.h>

#include "sim/report/numbers.h"
#include "sim/report/table.h"

namespace shardsim {
namespace {

std::string range(const std::vector<Time>& steps) {
  const auto [low, high] = std::minmax_element(steps.begin(), steps.end());
  return fmt::format("; they vary from {} to {}", seconds_text(*low), seconds_text(*high));
}

std::string seconds_of(double s) { return seconds_text(from_microseconds(s * 1e6)); }

void speed(std::string& out, const RunRecord& run) {
  const Result& r = run.result;
  const Throughput& t = r.throughput;
  out +=
      fmt::format("  status           ok ({} after {} steps)\n", r.steady ? "steady" : "not steady", r.steps);
  out += fmt::format("  step time        {}{}\n", seconds_text(r.step_time),
                     r.steady ? "" : " (the last one" + range(r.step_times) + ")");
  if (run.confidence) {
    const Confidence& c = *run.confidence;
    out += fmt::format("  {:.0f}% interval     {} to {}, by {}\n", 100 * c.level,
                       seconds_of(c.step_time_low_s), seconds_of(c.step_time_high_s), c.basis);
    out += "  nearest          " + c.nearest_validated + "\n";
    std::string list;
    for (const std::string& what : c.extrapolating) list += (list.empty() ? "" : "; ") + what;
    if (!list.empty()) out += "  extrapolating    " + list + "\n";
  }
  if (r.sampled_jitter)
    out += fmt::format(
        "  jitter           sampled: each of the {} ranks has a speed of its own, none is folded\n",
        with_commas(r.engine.ranks));
  out += fmt::format("  model TFLOPS     {} per GPU: MFU {} of {} {}{}\n", tflops(t.model),
                     percent(ratio(t.model, t.peak)), tflops(t.peak), t.peak_dtype,
                     run.parts.empty() ? "" : ", the mean peak of the GPUs");
  out += fmt::format("  hardware TFLOPS  {} per GPU: HFU {}\n", tflops(t.hardware),
                     percent(ratio(t.hardware, t.peak)));
  const std::string split =
      run.encoder_decoder ? fmt::format(" ({} encoder + {} decoder)", rounded(t.encoder_tokens_per_s_per_gpu),
                                        rounded(t.decoder_tokens_per_s_per_gpu))
                          : "";
  out += fmt::format("  tokens/s         {} per GPU{}\n", rounded(t.tokens_per_s_per_gpu), split);
  if (r.engine.messages > 0)
    out += fmt::format("  network          chunk by chunk: {} messages; not folded, {} ranks simulated\n",
                       with_commas(r.engine.messages), with_commas(r.engine.rank_classes));
}

void batch(std::string& out, const RunRecord& run) {
  out += fmt::format("  global batch     {} sequences, {} tokens\n", with_commas(run.global_batch),
                     with_commas(run.global_batch_tokens));
}

void breakdown(std::string& out, const Result& r) {
  Table table{{"where the step goes", "s", "%"}, {}};
  for (int k = 0; k < spent_kinds; ++k) {
    const Time t = r.breakdown[static_cast<std::size_t>(k)];
    if (t.count == 0) continue;
    table.rows.push_back({with_spaces(name(static_cast<Spent>(k))), fmt::format("{:.4f}", seconds(t)),
                          fmt::format("{:.1f}", 100 * ratio(t, r.step_time))});
  }
  out += "\n" + to_text(table);
  Table phases{{"phase", "s", "%"}, {}};
  for (const Phase& p : r.phases)
    phases.rows.push_back({p.name, fmt::format("{:.4f}", seconds(p.time)),
                           fmt::format("{:.1f}", 100 * ratio(p.time, r.step_time))});
  out += "\n" + to_text(phases);
}

// What the slowest rank of each part does, and how full the fullest is.
void parts(std::string& out, const RunRecord& run) {
  Table table{{"part", "GPUs", "compute\ns", "straggler\nwait s", "step\ns", "reserved\npeak GiB",
               "outside\nGiB", "capacity\nGiB"},
              {}};
  const std::size_t count = std::min(run.parts.size(), run.result.parts.size());
  for (std::size_t p = 0; p < count; ++p) {
    const PartResult& r = run.result.parts[p];
    const auto spent = [&](Spent on) {
      return run.result.out_of_memory()
                 ? "-"
                 : fmt::format("{:.4f}", seconds(r.breakdown[static_cast<std::size_t>(on)]));
    };
    const std::string step = run.result.out_of_memory() ? "-" : fmt::format("{:.4f}", seconds(r.step_time));
    table.rows.push_back({run.parts[p].topology, fmt::format("{} x {}", run.parts[p].gpus, run.parts[p].gpu),
                          spent(Spent::compute), spent(Spent::straggler_wait), step,
                          gib_text(r.memory.peak_reserved), gib_text(r.memory.outside_allocator),
                          gib_text(r.memory.capacity)});
  }
  if (count > 1) out += "\n" + to_text(table);
}

// "rank 8, on v100-sxm-16gb of dgx1-v100-16gb"
std::string rank_text(const RunRecord& run, Rank rank) {
  std::int64_t first = 0;
  for (const RecordedPart& part : run.parts) {
    first += part.gpus;
    if (rank.index < first) return fmt::format("rank {}, on {} of {}", rank.index, part.gpu, part.topology);
  }
  return fmt::format("rank {}", rank.index);
}

void communication(std::string& out, const Result& r) {
  Table table{{"communication", "calls", "GB", "busy s", "exposed s", "bus GB/s"}, {}};
  for (int k = 0; k < collective_kinds; ++k) {
    const Communication& c = r.communication[static_cast<std::size_t>(k)];
    if (c.count == 0) continue;
    table.rows.push_back({with_spaces(name(static_cast<CollectiveKind>(k))), with_commas(c.count),
                          fmt::format("{:.3f}", static_cast<double>(c.bytes.count) * 1e-9),
                          fmt::format("{:.4f}", seconds(c.busy)), fmt::format("{:.4f}", seconds(c.exposed)),
                          fmt::format("{:.1f}", static_cast<double>(c.wire.count) * 1e-9 / seconds(c.busy))});
  }
  if (!table.rows.empty()) out += "\n" + to_text(table);
}

void memory(std::string& out, const RunRecord& run) {
  const Memory& m = run.result.memory;
  Table table{{run.parts.empty() ? "memory of a GPU" : "memory of " + rank_text(run, m.rank), "GiB",
               "bytes per parameter"},
              {}};
  const auto row = [&](std::string what, Bytes bytes) {
    table.rows.push_back(
        {std::move(what), gib_text(bytes),
         fmt::format("{:.2f}", static_cast<double>(bytes.count) / static_cast<double>(run.parameters))});
  };
  for (int c = 0; c < categories; ++c)
    if (m.at_peak[static_cast<std::size_t>(c)].count > 0)
      row("  " + with_spaces(name(static_cast<Category>(c))), m.at_peak[static_cast<std::size_t>(c)]);
  row("peak allocated (sum of the above)", m.peak_allocated);
  row("peak active (and freed, but in use by a stream)", m.peak_active);
  row("peak reserved (by the allocator)", m.peak_reserved);
  row("outside the allocator (CUDA context, NCCL)", m.outside_allocator);
  row("capacity", m.capacity);
  if (m.peak_host.count > 0) row("on the host, for this GPU", m.peak_host);
  out += "\n" + to_text(table);
  if (m.alloc_retries > 0) out += fmt::format("allocator retries: {}\n", m.alloc_retries);
}

// Beside the real run that the scenario tells of.
void measured(std::string& out, const RunRecord& run) {
  Table table{{"against the measured run", "here", "measured", "error"}, {}};
  for (const Comparison& c : run.comparisons) {
    const bool verdict = c.metric == "fits";
    const auto figure = [&](double x) -> std::string {
      if (verdict) return x > 0 ? "yes" : "no";
      return x >= 100 ? fmt::format("{:.1f}", x) : fmt::format("{:.3f}", x);
    };
    table.rows.push_back({c.metric, figure(c.predicted), figure(c.measured),
                          verdict ? "" : fmt::format("{:+.1f}%", 100 * c.error())});
  }
  if (!table.rows.empty()) out += "\n" + to_text(table);
}

void out_of_memory(std::string& out, const RunRecord& run) {
  const OutOfMemory& oom = *run.result.oom;
  out += fmt::format("  status           OUT OF MEMORY{}\n", oom.on_host ? " ON THE HOST" : "");
  out += fmt::format("  where            {}, {} after the start on the host's clock\n", oom_place(oom),
                     seconds_text(oom.at));
  if (!run.parts.empty()) out += fmt::format("  GPU              {}\n", rank_text(run, oom.rank));
  if (oom.on_host) {
    out +=
        fmt::format("  allocating       {} ({}): {} GiB requested, {} GiB of this GPU's share free\n",
                    oom.tensor, with_spaces(name(oom.category)), gib_text(oom.requested), gib_text(oom.free));
  } else {
    out += fmt::format("  allocating       {} ({}): {} GiB requested, {} GiB from CUDA, {} GiB free\n",
                       oom.tensor, with_spaces(name(oom.category)), gib_text(oom.requested),
                       gib_text(oom.segment), gib_text(oom.free));
    out += fmt::format("  reserved         {} GiB of at most {} GiB, {} GiB allocated\n",
                       gib_text(oom.reserved), gib_text(oom.limit), gib_text(oom.allocated));
    out += fmt::format("  fragmented       {} GiB cached in segments that cannot be returned\n",
                       gib_text(oom.fragmented));
  }
  batch(out, run);
  Table live{{"allocated at that moment", "GiB"}, {}};
  for (int c = 0; c < categories; ++c)
    if (oom.live[static_cast<std::size_t>(c)].count > 0)
      live.rows.push_back(
          {with_spaces(name(static_cast<Category>(c))), gib_text(oom.live[static_cast<std::size_t>(c)])});
  out += "\n" + to_text(live);
  Table largest{{"largest tensors", "category", "GiB"}, {}};
  for (const OutOfMemory::Live& l : oom.largest_live)
    largest.rows.push_back({l.tensor, with_spaces(name(l.category)), gib_text(l.bytes)});
  out += "\n" + to_text(largest);
  memory(out, run);
  parts(out, run);
  measured(out, run);
  if (run.advice) out += "\n" + to_text(*run.advice);
}

// What all runs of a sweep have in common needs no column.
struct SweepColumns {
  std::optional<std::pair<std::int64_t, std::int64_t>> batch;  // sequences, tokens: the same in every run
  bool retries = false;                                        // some run had to retry an allocation
};

SweepColumns columns_of(const SweepResult& sweep) {
  SweepColumns columns;
  bool same = true;
  for (const SweepRow& row : sweep.rows) {
    if (!row.run) continue;
    const std::pair batch(row.run->global_batch, row.run->global_batch_tokens);
    if (!columns.batch) columns.batch = batch;
    same = same && *columns.batch == batch;
    columns.retries = columns.retries || row.run->result.memory.alloc_retries > 0;
  }
  if (!same) columns.batch.reset();
  return columns;
}

std::vector<std::string> axis_names(const SweepResult& sweep) {
  std::vector<std::string> names;
  for (const std::string& axis : sweep.axes) names.push_back(axis.substr(axis.rfind('.') + 1));
  return names;
}

std::string sweep_table(const SweepResult& sweep, const SweepColumns& columns) {
  Table table{axis_names(sweep), {}};
  for (const char* column : {"status", "step\ns", "model\nTFLOPS", "hardware\nTFLOPS", "tokens/s\nper GPU",
                             "allocated\npeak GiB", "active\npeak GiB", "reserved\npeak GiB"})
    table.header.emplace_back(column);
  if (columns.retries) table.header.emplace_back("allocator\nretries");
  if (!columns.batch) table.header.insert(table.header.end(), {"global\nbatch", "batch\ntokens"});
  for (const SweepRow& row : sweep.rows) {
    std::vector<std::string> cells = row.point;
    if (row.run) {
      const Result& r = row.run->result;
      const bool oom = r.out_of_memory();
      const auto unless_oom = [&](std::string text) { return oom ? "-" : std::move(text); };
      cells.insert(cells.end(),
                   {oom        ? "oom"
                    : r.steady ? "ok"
                               : "not steady",
                    unless_oom(fmt::format("{:.4f}", seconds(r.step_time))),
                    unless_oom(tflops(r.throughput.model)), unless_oom(tflops(r.throughput.hardware)),
                    unless_oom(rounded(r.throughput.tokens_per_s_per_gpu)), gib_text(r.memory.peak_allocated),
                    gib_text(r.memory.peak_active), gib_text(r.memory.peak_reserved)});
      if (columns.retries) cells.push_back(fmt::format("{}", r.memory.alloc_retries));
      if (!columns.batch)
        cells.insert(cells.end(),
                     {with_commas(row.run->global_batch), with_commas(row.run->global_batch_tokens)});
    } else {
      cells.emplace_back("illegal");
      cells.resize(table.header.size(), "-");
    }
    table.rows.push_back(std::move(cells));
  }
  return to_text(table);
}

// Why runs of a sweep have no result.
std::string sweep_failures(const SweepResult& sweep) {
  Table dead{axis_names(sweep), {}}, illegal{axis_names(sweep), {}};
  dead.header.insert(dead.header.end(), {"out of memory in", "allocating", "requested\nGiB", "free\nGiB"});
  illegal.header.emplace_back("cannot run because");
  for (const SweepRow& row : sweep.rows) {
    std::vector<std::string> cells = row.point;
    if (!row.run) {
      cells.push_back(row.error);
      illegal.rows.push_back(std::move(cells));
    } else if (const auto& oom = row.run->result.oom) {
      cells.insert(cells.end(),
                   {oom_place(*oom), oom->tensor, gib_text(oom->requested), gib_text(oom->free)});
      dead.rows.push_back(std::move(cells));
    }
  }
  std::string out;
  for (const Table& table : {dead, illegal})
    if (!table.rows.empty()) out += "\n" + to_text(table);
  return out;
}

}  // namespace

std::string to_text(const RunRecord& run) {
  std::string out = title(run) + "\n";
  if (run.result.out_of_memory()) {
    out_of_memory(out, run);
    return out;
  }
  speed(out, run);
  batch(out, run);
  breakdown(out, run.result);
  communication(out, run.result);
  memory(out, run);
  parts(out, run);
  measured(out, run);
  return out;
}

std::string to_text(const SweepResult& sweep) {
  const SweepColumns columns = columns_of(sweep);
  std::string out = sweep_table(sweep, columns);
  if (columns.batch)
    out += fmt::format("global batch: {} sequences, {} tokens\n", with_commas(columns.batch->first),
                       with_commas(columns.batch->second));
  if (sweep.scaling == "weak")
    out += "weak scaling: the work per GPU is fixed, the global batch grows with the GPUs\n";
  if (sweep.scaling == "strong") out += "strong scaling: the global batch is fixed\n";
  return out + sweep_failures(sweep);
}

std::string values_text(const std::vector<RecordedValue>& values) {
  Table table{{"key", "value", "origin"}, {}};
  for (const RecordedValue& v : values) table.rows.push_back({v.key, to_string(v.value), v.origin});
  return to_text(table);
}

}  // namespace shardsim
