// The commands, one function each: a call into sim/, and its answer as text.
#include "tools/commands.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>

#include <fmt/format.h>

#include "sim/report/csv.h"
#include "sim/report/explain.h"
#include "sim/report/json.h"
#include "sim/report/memory_snapshot.h"
#include "sim/report/text.h"
#include "sim/scenario/scenario.h"
#include "sim/study/advise_oom.h"
#include "sim/study/calibrate.h"
#include "sim/study/collective_table.h"
#include "sim/study/frontier.h"
#include "sim/study/limit.h"
#include "sim/study/sweep.h"
#include "sim/study/validate.h"

#include "tools/io.h"
#include "tools/show.h"

namespace shardsim {

namespace fs = std::filesystem;

namespace {

// A table of measured runs: a path, or a name under scenarios/ such as "validation/mosaicml-a100-40gb".
MeasuredRuns read_measured(const std::string& command, const std::string& given, const Library& library) {
  if (given.ends_with(".toml"))
    throw InputError({given},
                     fmt::format("is a scenario; `{}` reads a CSV table of measured runs. Was `shardsim "
                                 "check {}` meant?",
                                 command, given));
  return MeasuredRuns(
      read_csv_file(find_file(given, library.find_table(given), "table", library.table_names())));
}

// A residual per measured run that has a time: of one table, or of all that came with the program.
int write_residuals(const Options& o, const Library& library) {
  if (!o.by.empty() || !o.where.empty() || !o.overlay.empty())
    throw InputError({"--residuals"},
                     "are those of whole tables with the constants that came along: no --by, --where "
                     "or --overlay");
  std::vector<Residual> all;
  for (const std::string& name :
       o.table.empty() ? validation_tables(library) : std::vector<std::string>{o.table}) {
    const ProgressLine line(o);
    const ValidateResult result = validate(
        read_measured("validate", name, library), {}, library,
        [&](std::size_t n, std::size_t total) { line.show(fmt::format("{} [{}/{}]", name, n, total)); });
    for (Residual& r : residuals(result, fs::path(name).stem().string())) all.push_back(std::move(r));
  }
  print(to_csv(all), o.output);
  if (!o.quiet)
    std::fprintf(
        stderr,
        "%zu runs; the interval holds %.0f%% of them when each is left out, %.0f%% when its model is, "
        "%.0f%% when its table is\n",
        all.size(), 100 * coverage(all, LeaveOut::row), 100 * coverage(all, LeaveOut::model),
        100 * coverage(all, LeaveOut::table));
  return done;
}

}  // namespace

int run_command(const Options& o, const Library& library) {
  const ScenarioFile scenario = read(o, library);
  const SweepSample sample = first_of(scenario);
  if (sample.runs > 1)
    throw InputError(
        scenario.axes.front().place,
        fmt::format("this scenario is a sweep of {} runs, the first with {}; use `shardsim sweep "
                    "{}`, or pin every axis with --set",
                    sample.runs, sample.label, o.scenario));
  const bool memory_csv = o.memory_timeline.ends_with(".csv");
  if (!o.memory_timeline.empty() && !memory_csv && !o.memory_timeline.ends_with(".json"))
    throw InputError({"--memory-timeline " + o.memory_timeline},
                     "a file that ends in .csv or .json is expected");
  if (!o.memory_snapshot.empty()) {
    if (!o.memory_snapshot.ends_with(".pickle"))
      throw InputError({"--memory-snapshot " + o.memory_snapshot}, "a file that ends in .pickle is expected");
    refuse_existing("--memory-snapshot", o.memory_snapshot, o.force);
  }
  for (const auto& [option, file] : {std::pair("--memory-timeline ", &o.memory_timeline),
                                     std::pair("--memory-snapshot ", &o.memory_snapshot)})
    if (!file->empty() && *file == o.output)
      throw InputError({option + *file}, "is the file of --output already");
  if (!o.explain.empty() && o.explain != "path" && o.explain != "mfu")
    throw InputError({"--explain " + o.explain}, "path or mfu is expected; a scenario goes before it");
  if (o.explain == "mfu" && format_of(o) != "table")
    throw InputError({"--explain mfu"},
                     "is a text; --format json has its numbers as flops_per_gpu and peak_tflops");
  MemoryTimeline memory;
  MemorySnapshot snapshot;
  RunRecord record =
      run(resolve(sample.settings, library), {.fold = !o.no_fold,
                                              .critical_path = o.explain == "path",
                                              .memory = o.memory_timeline.empty() ? nullptr : &memory,
                                              .snapshot = o.memory_snapshot.empty() ? nullptr : &snapshot});
  if (record.result.out_of_memory() && !o.no_advice) record.advice = advise_oom(sample.settings, library);
  record.confidence = confidence(record, read_residuals(library));
  if (!o.memory_timeline.empty())
    write_file(o.memory_timeline, memory_csv ? to_csv(memory) : to_json(memory, record, tool));
  if (!o.memory_snapshot.empty()) write_file(o.memory_snapshot, to_pickle(snapshot, record));
  if (!o.explain.empty() && format_of(o) == "table" && !record.result.out_of_memory())
    print(o.explain == "mfu" ? explain_mfu(record) : explain_step(record), o.output);
  else
    print_in_format(record, o);
  return o.fail_on_oom && record.result.out_of_memory() ? out_of_memory : done;
}

int frontier_command(const Options& o, const Library& library) {
  if (o.over.empty())
    throw InputError({"frontier"}, "needs two keys: --over training.micro_batch,training.sequence_length");
  const FrontierResult result = [&] {
    const ProgressLine line(o);
    return frontier(read(o, library), o.over, library, [&](const std::string& text) { line.show(text); });
  }();
  print_in_format(result, o);
  return done;
}

int limit_command(const Options& o, const Library& library) {
  if (o.max.empty() == o.min.empty())
    throw InputError({"limit"}, "needs either --max KEY or --min cluster.gpus");
  if (!o.min.empty() && o.min != "cluster.gpus")
    throw InputError({"--min " + o.min}, "only the fewest GPUs are searched: --min cluster.gpus");
  const LimitResult result = [&] {
    const ProgressLine line(o);
    const auto progress = [&](const std::string& text) { line.show(text); };
    return o.min.empty() ? largest_value(read(o, library), o.max, o.limit, library, progress)
                         : fewest_gpus(read(o, library), o.limit, library, progress);
  }();
  print_in_format(result, o);
  return done;
}

int validate_command(const Options& o, const Library& library) {
  if (o.residuals) return write_residuals(o, library);
  if (o.table.empty()) throw InputError({"validate"}, "needs a CSV table of measured runs");
  const MeasuredRuns table = read_measured("validate", o.table, library);
  ValidateOptions options{.by = o.by, .where = {}, .overlay = {}};
  if (!o.overlay.empty()) options.overlay = read_overlay(o.overlay, library);
  for (const std::string& condition : o.where) {
    const std::size_t equals = condition.find('=');
    if (equals == std::string::npos || equals == 0)
      throw InputError({"--where " + condition}, "COLUMN=TEXT is expected");
    options.where.emplace_back(condition.substr(0, equals), condition.substr(equals + 1));
  }
  const ValidateResult result = [&] {
    const ProgressLine line(o);
    return validate(table, options, library, [&](std::size_t done, std::size_t total) {
      line.show(fmt::format("[{}/{}]", done, total));
    });
  }();
  print_in_format(result, o);
  return done;
}

int collective_command(const Options& o, const Library& library) {
  print_in_format(collective_table(o.collective, library), o);
  return done;
}

int calibrate_command(const Options& o, const Library& library) {
  if (o.list) {
    print(constants_text(free_constants(library)), o.output);
    return done;
  }
  if (o.table.empty()) throw InputError({"calibrate"}, "needs a CSV table of measured runs");
  if (o.free.empty())
    throw InputError({"calibrate"},
                     "needs --free KEY,KEY...; `shardsim calibrate --list` prints the constants");
  const MeasuredRuns table = read_measured("calibrate", o.table, library);
  const CalibrateResult result = [&] {
    const ProgressLine line(o);
    return calibrate(table, {.free = o.free, .group = o.group, .folds = o.folds}, library,
                     [&](const std::string& text) { line.show(text); });
  }();
  print(format_of(o) == "json" ? to_json(result, tool) : to_text(result), "");
  if (!o.output.empty()) print(to_overlay(result), o.output);
  return done;
}

int sweep_command(const Options& o, const Library& library) {
  const ScenarioFile scenario = read(o, library);
  const SweepResult result = [&] {
    const ProgressLine line(o);
    return sweep(scenario, library, {.fold = !o.no_fold},
                 [&](std::size_t done, std::size_t total, const std::string& label) {
                   line.show(fmt::format("[{}/{}] {}", done, total, label));
                 });
  }();
  print_in_format(result, o);
  const bool oom = std::any_of(result.rows.begin(), result.rows.end(),
                               [](const SweepRow& r) { return r.run && r.run->result.out_of_memory(); });
  return o.fail_on_oom && oom ? out_of_memory : done;
}

int check_command(const Options& o, const Library& library) {
  const ScenarioFile scenario = read(o, library);
  const SweepSample sample = first_of(scenario);
  const Scenario resolved = resolve(sample.settings, library);
  if (format_of(o) == "json") {
    print(to_json(resolved.values, tool), o.output);
    return done;
  }
  std::string text = values_text(resolved.values);
  if (sample.runs > 1) text += fmt::format("first of {} runs of the sweep: {}\n", sample.runs, sample.label);
  print(text, o.output);
  return done;
}

int show_command(const Options& o, const Library& library) {
  const std::vector<std::pair<std::string, std::string>> lists = {{"models", "models"},
                                                                  {"topologies", "topologies"},
                                                                  {"gpus", "topologies/gpus"},
                                                                  {"stacks", "topologies/stacks"},
                                                                  {"transports", "topologies/transports"}};
  for (const auto& [word, kind] : lists)
    if (o.kind == word) {
      print(show_list(library, kind), o.output);
      return done;
    }
  if (o.kind == "scenarios") {
    std::string text;
    for (const std::string& name : library.scenario_names()) text += name + "\n";
    print(text, o.output);
    return done;
  }
  if (o.name.empty())
    throw InputError({"show " + o.kind},
                     "needs a name; `shardsim show models` and `shardsim show topologies` list them");
  if (o.kind == "model") {
    print(show_model(library, o.name), o.output);
    return done;
  }
  if (!o.graphviz.empty()) {
    print(show_topology_graphviz(library, o.name), o.graphviz);
    if (o.graphviz == "-") return done;
  }
  print(show_topology(library, o.name), o.output);
  return done;
}

int schema_command(const Options& o) {
  print(schema(o.name), o.output);
  return done;
}

}  // namespace shardsim
