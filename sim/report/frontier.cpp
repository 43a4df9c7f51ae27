#include <algorithm>

#include "sim/report/numbers.h"
#include "sim/report/table.h"
#include "sim/report/text.h"

namespace shardsim {
namespace {

std::string leaf(const std::string& key) { return key.substr(key.rfind('.') + 1); }

// What all runs have in common.
std::string heading(const FrontierResult& frontier) {
  std::vector<const RunRecord*> runs;
  for (const FrontierRow& row : frontier.rows)
    for (const auto* side : {&row.boundary.last_fit, &row.boundary.first_oom})
      if (*side && (*side)->trial.run) runs.push_back(&*(*side)->trial.run);
  if (runs.empty()) return "";
  const RunRecord& first = *runs.front();
  const auto common = [&](const std::string& text, auto member) {
    const bool same = std::all_of(runs.begin(), runs.end(),
                                  [&](const RunRecord* run) { return run->*member == first.*member; });
    return same ? text : "";
  };
  return first.model + " on " + common(gpus_text(first) + ", ", &RunRecord::gpus) + first.topology +
         common(", " + first.strategy, &RunRecord::strategy) +
         common(", " + first.precision, &RunRecord::precision) +
         fmt::format(": {} GiB per GPU\n", gib_text(first.result.memory.capacity));
}

std::vector<std::string> cells(const FrontierRow& row) {
  const Boundary& b = row.boundary;
  std::vector<std::string> cells{row.label};
  if (b.last_fit) {
    const RunRecord& run = *b.last_fit->trial.run;
    cells.insert(cells.end(), {to_string(b.last_fit->value), gib_text(run.result.memory.peak_reserved),
                               rounded(run.result.throughput.tokens_per_s_per_gpu),
                               with_commas(run.global_batch), with_commas(run.global_batch_tokens)});
  } else {
    cells.insert(cells.end(), {b.refusal.empty() ? "none" : "illegal", "-", "-", "-", "-"});
  }
  if (b.first_oom)
    cells.insert(cells.end(), {to_string(b.first_oom->value), gib_text(b.first_oom->trial.floor.live),
                               oom_place(*b.first_oom->trial.run->result.oom)});
  else
    cells.insert(cells.end(), {"-", "-", b.refusal.empty() ? "all legal values fit" : b.refusal});
  return cells;
}

}  // namespace

std::string to_text(const FrontierResult& frontier) {
  std::string out = fmt::format("{} {} that fits, for each {}\n", frontier.smallest ? "smallest" : "largest",
                                frontier.along, frontier.over);
  out += heading(frontier);
  Table table{
      {leaf(frontier.over), leaf(frontier.along) + (frontier.smallest ? "\nfits from" : "\nfits up to"),
       "reserved\npeak GiB", "tokens/s\nper GPU", "global\nbatch", "batch\ntokens", "no longer\nat",
       "live\nGiB", "out of memory in"},
      {}};
  for (const FrontierRow& row : frontier.rows) table.rows.push_back(cells(row));
  out += "\n" + to_text(table);
  if (frontier.everything_fits()) out += "everything fits: no boundary among these values\n";
  if (frontier.nothing_fits()) out += "nothing fits: no boundary among these values\n";
  for (const FrontierRow& row : frontier.rows)
    for (const Scalar& hole : row.boundary.holes)
      out += fmt::format("{} = {}: {} fits, but {} is out of memory\n", frontier.over, row.label,
                         to_string(row.boundary.last_fit->value), to_string(hole));
  return out;
}

}  // namespace shardsim
