#include "sim/report/numbers.h"
#include "sim/report/table.h"
#include "sim/report/text.h"

namespace shardsim {
namespace {

// Why nothing fits, from the value that needs least.
std::string reason(const FitPoint& point, const std::string& what) {
  const MemoryFloor& floor = point.trial.floor;
  const std::string place = oom_place(*point.trial.run->result.oom);
  if (floor.exceeds())
    return fmt::format(
        "even with {} {} each GPU holds {} GiB of tensors at once, of {} GiB; out of memory in {}",
        to_string(point.value), what, gib_text(floor.live), gib_text(floor.capacity - floor.outside), place);
  return fmt::format("even with {} {} it is out of memory in {}", to_string(point.value), what, place);
}

std::string holes(const LimitResult& limit, const LimitRow& row) {
  std::string out;
  for (const Scalar& hole : row.boundary.holes)
    out += fmt::format("{}{} = {} fits, but {} is out of memory\n", row.label.empty() ? "" : row.label + ": ",
                       limit.key, to_string(row.boundary.last_fit->value), to_string(hole));
  return out;
}

std::string heading(const RunRecord& run) {
  return fmt::format("{} on {}, {}: {} GiB per GPU\n", run.model, run.topology, run.precision,
                     gib_text(run.result.memory.capacity));
}

std::string largest_text(const LimitResult& limit) {
  const LimitRow& row = limit.rows.front();
  const Boundary& b = row.boundary;
  std::string out = fmt::format("largest {} that fits: {}\n", limit.key,
                                b.last_fit ? to_string(b.last_fit->value) : "none");
  Table table{{limit.key.substr(limit.key.rfind('.') + 1), "status", "step\ns", "model\nTFLOPS",
               "tokens/s\nper GPU", "allocated\npeak GiB", "reserved\npeak GiB", "live\nGiB", "global\nbatch",
               "batch\ntokens", "out of memory in"},
              {}};
  const RunRecord* shown = nullptr;
  for (const auto* side : {&b.last_fit, &b.first_oom}) {
    if (!*side) continue;
    const Trial& trial = (*side)->trial;
    const Result& r = trial.run->result;
    const bool oom = r.out_of_memory();
    const auto unless_oom = [&](std::string text) { return oom ? "-" : std::move(text); };
    if (shown == nullptr) shown = &*trial.run;
    table.rows.push_back(
        {to_string((*side)->value), oom ? "oom" : "fits",
         unless_oom(fmt::format("{:.4f}", seconds(r.step_time))), unless_oom(tflops(r.throughput.model)),
         unless_oom(rounded(r.throughput.tokens_per_s_per_gpu)), gib_text(r.memory.peak_allocated),
         gib_text(r.memory.peak_reserved), gib_text(trial.floor.live), with_commas(trial.run->global_batch),
         with_commas(trial.run->global_batch_tokens), oom ? oom_place(*r.oom) : ""});
  }
  out += fmt::format("{} x {}, {}; ", shown->gpus, shown->gpu, shown->strategy) + heading(*shown);
  out += "\n" + to_text(table);
  if (!b.last_fit) out += "nothing fits: " + reason(*b.first_oom, "as " + limit.key) + "\n";
  if (b.last_fit && !b.first_oom)
    out += fmt::format("every value tried fits{}\n", b.refused_after.empty() ? "" : "; " + b.refused_after);
  return out + holes(limit, row);
}

std::string smallest_text(const LimitResult& limit) {
  Table table{
      {"strategy", "fewest\nGPUs", "step\ns", "model\nTFLOPS", "tokens/s\nper GPU", "reserved\npeak GiB",
       "live\nGiB", "global\nbatch", "batch\ntokens", "too few\nGPUs", "out of memory in"},
      {}};
  std::string notes;
  const RunRecord* shown = nullptr;
  for (const LimitRow& row : limit.rows) {
    const Boundary& b = row.boundary;
    std::vector<std::string> cells{row.label};
    if (b.last_fit) {
      const RunRecord& run = *b.last_fit->trial.run;
      const Result& r = run.result;
      if (shown == nullptr) shown = &run;
      cells.insert(cells.end(), {to_string(b.last_fit->value), fmt::format("{:.4f}", seconds(r.step_time)),
                                 tflops(r.throughput.model), rounded(r.throughput.tokens_per_s_per_gpu),
                                 gib_text(r.memory.peak_reserved), gib_text(b.last_fit->trial.floor.live),
                                 with_commas(run.global_batch), with_commas(run.global_batch_tokens)});
    } else {
      cells.insert(cells.end(), {b.refusal.empty() ? "none" : "illegal", "-", "-", "-", "-",
                                 b.first_oom ? gib_text(b.first_oom->trial.floor.live) : "-", "-", "-"});
      notes += b.first_oom ? fmt::format("{}: no number of GPUs up to {} fits: {}\n", row.label,
                                         to_string(limit.values.front()), reason(*b.first_oom, "GPUs"))
                           : fmt::format("{}: {}\n", row.label, b.refusal);
    }
    if (b.first_oom && shown == nullptr) shown = &*b.first_oom->trial.run;
    if (b.first_oom)
      cells.insert(cells.end(),
                   {to_string(b.first_oom->value), oom_place(*b.first_oom->trial.run->result.oom)});
    else
      cells.insert(cells.end(), {"-", "-"});
    table.rows.push_back(std::move(cells));
    notes += holes(limit, row);
  }
  return fmt::format("fewest {} on which it fits, of up to {}\n", limit.key,
                     to_string(limit.values.front())) +
         (shown == nullptr ? "" : heading(*shown)) + "\n" + to_text(table) + notes;
}

}  // namespace

std::string to_text(const LimitResult& limit) {
  return limit.largest ? largest_text(limit) : smallest_text(limit);
}

}  // namespace shardsim
