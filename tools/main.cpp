// The command line: words in, text out. Everything it does is a call into sim/.

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <unistd.h>

#include "sim/report/csv.h"
#include "sim/report/explain.h"
#include "sim/report/json.h"
#include "sim/report/text.h"
#include "sim/scenario/scenario.h"
#include "sim/study/advise_oom.h"
#include "sim/study/calibrate.h"
#include "sim/study/collective_table.h"
#include "sim/study/frontier.h"
#include "sim/study/limit.h"
#include "sim/study/parallel.h"
#include "sim/study/sweep.h"
#include "sim/study/validate.h"

#include "tools/show.h"
#include "version.h"

namespace shardsim {
namespace {

namespace fs = std::filesystem;

enum ExitCode { done = 0, internal_error = 1, bad_input = 2, out_of_memory = 3 };

constexpr int threads_max = 1024;

const Tool tool{version, commit};

// --- files ------------------------------------------------------------------------------------------------

// The user's folder first, then $SHARDSIM_DATA, then what came with the program.
Library make_library() {
  std::vector<std::string> roots{"."};
  if (const char* data = std::getenv("SHARDSIM_DATA")) roots.emplace_back(data);
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error).parent_path();
  roots.push_back((program / ".." / "share" / "shardsim").lexically_normal().string());
  return Library(roots);
}

// A path, or what the library has in scenarios/ under that name, such as "fsdp-paper/model-scale"; "" there =
// nothing.
std::string find_file(const std::string& given, const std::string& in_library, std::string_view what,
                      const std::vector<std::string>& names) {
  std::error_code error;
  if (fs::exists(given, error)) return given;
  if (!in_library.empty()) return in_library;
  throw InputError({given}, fmt::format("cannot be read: no such file, and no {} of that name{}", what,
                                        suggestion(given, names)));
}

// Whole or not at all: written beside the target, then renamed; through links, and straight into what is no
// regular file (a device, a pipe).
void write_file(const std::string& named, const std::string& text) {
  std::error_code error;
  const std::string path = fs::exists(named, error) ? fs::canonical(named, error).string() : named;
  if (fs::exists(path, error) && !fs::is_regular_file(path, error) && !fs::is_directory(path, error)) {
    std::ofstream file(path, std::ios::binary);
    if (!(file << text).flush()) throw InputError({named}, "cannot be written");
    return;
  }
  const std::string temporary = path + ".tmp" + std::to_string(getpid());
  {
    std::ofstream file(temporary, std::ios::binary);
    file << text;
    file.close();
    if (!file) {
      fs::remove(temporary, error);
      throw InputError({named}, "cannot be written");
    }
  }
  fs::rename(temporary, path, error);
  if (!error) return;
  const std::string why = error.message();
  fs::remove(temporary, error);
  throw InputError({named}, "cannot be written: " + why);
}

void print(const std::string& text, const std::string& output) {
  if (!output.empty() && output != "-") {
    write_file(output, text);
    return;
  }
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0)
    throw InputError({"standard output"}, "cannot be written");
}

// --- options ----------------------------------------------------------------------------------------------

// Options that stand for a key of the scenario.
struct Shorthand {
  const char *option, *key, *help;
};
constexpr Shorthand shorthands[] = {
    {"--model", "model", "a name in models/ or a path"},
    {"--topology", "topology", "a name in topologies/ or a path"},
    {"--gpus", "cluster.gpus", "GPUs of the job"},
    {"--strategy", "strategy.kind", "ddp, fsdp, fsdp2, zero1, zero2, zero3, mics or megatron-dp"},
    {"--sharding-factor", "strategy.sharding_factor", "ranks that share one copy of the model"},
    {"--micro-batch", "training.micro_batch", "sequences per GPU and micro-step"},
    {"--global-batch", "training.global_batch", "sequences per step over all GPUs"},
    {"--sequence-length", "training.sequence_length", "tokens"},
    {"--precision", "training.precision",
     "fp32, tf32, fp16-mixed, bf16-mixed, fp8-mixed, fp16-pure or bf16-pure"},
    {"--checkpointing", "training.activation_checkpointing",
     "none, full, selective, selective-op or every-k"},
    {"--stack", "training.stack", "a name in topologies/stacks or a path"},
    {"--overlay", "overlay", "a file of constants, such as `calibrate` writes"},
};

struct Options {
  std::string scenario, format, output;
  std::vector<std::string> sets;
  std::vector<std::string> short_values = std::vector<std::string>(std::size(shorthands));
  bool quiet = false, no_fold = false, fail_on_oom = false, no_advice = false;
  std::string memory_timeline, explain;
  std::string over, max, min;
  LimitOptions limit;
  std::string kind, name, graphviz;
  std::string table, by, overlay, free, group = "model";
  int folds = 5, threads = 0;
  bool residuals = false, list = false;
  std::vector<std::string> where;
  CollectiveQuery collective;
};

std::string not_empty(const std::string& text) { return text.empty() ? "a value is expected" : ""; }

void add_output_options(CLI::App& app, Options& o, bool csv) {
  std::vector<std::string> formats{"table", "json"};
  if (csv) formats.emplace_back("csv");
  app.add_option("--format", o.format,
                 "table (default on a terminal), json" + std::string(csv ? " or csv" : ""))
      ->check(CLI::IsMember(formats));
  app.add_option("-o,--output", o.output, "write to a file instead of standard output");
  app.add_flag("-q,--quiet", o.quiet, "no progress on standard error");
}

void add_scenario_options(CLI::App& app, Options& o) {
  app.add_option("scenario", o.scenario, "a scenario file, or a name in scenarios/");
  for (std::size_t i = 0; i < std::size(shorthands); ++i)
    app.add_option(shorthands[i].option, o.short_values[i],
                   std::string(shorthands[i].help) + " (" + shorthands[i].key + ")")
        ->check(not_empty);
  app.add_option("--set", o.sets, "key=value: any key of the scenario")->take_all()->allow_extra_args(false);
}

ScenarioFile read(const Options& o, const Library& library) {
  ScenarioFile scenario;
  if (!o.scenario.empty())
    scenario = read_scenario(
        find_file(o.scenario, library.find_scenario(o.scenario), "scenario", library.scenario_names()));
  else
    scenario.settings.scenario = {"the command line"};
  for (std::size_t i = 0; i < std::size(shorthands); ++i)
    if (!o.short_values[i].empty())
      assign(scenario, shorthands[i].key, o.short_values[i], shorthands[i].option);
  for (const std::string& set : o.sets) assign(scenario, set);
  return scenario;
}

std::string format_of(const Options& o) { return o.format.empty() ? "table" : o.format; }

// A line on standard error that shows what is being simulated.
class ProgressLine {
 public:
  explicit ProgressLine(const Options& o) : shown_(!o.quiet && isatty(STDERR_FILENO) != 0) {}
  ~ProgressLine() {
    if (shown_) std::fputs("\r\033[K", stderr);
  }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;
  void show(const std::string& text) const {
    if (shown_) std::fputs(("\r\033[K" + text.substr(0, 75)).c_str(), stderr);
  }

 private:
  bool shown_;
};

template <class ResultOfStudy>
void print_in_format(const ResultOfStudy& result, const Options& o) {
  const std::string format = format_of(o);
  print(format == "json"  ? to_json(result, tool)
        : format == "csv" ? to_csv(result)
                          : to_text(result),
        o.output);
}

// --- commands ---------------------------------------------------------------------------------------------

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
  if (!o.output.empty() && o.output == o.memory_timeline)
    throw InputError({"--memory-timeline " + o.memory_timeline}, "is the file of --output already");
  if (!o.explain.empty() && o.explain != "path" && o.explain != "mfu")
    throw InputError({"--explain " + o.explain}, "path or mfu is expected; a scenario goes before it");
  if (o.explain == "mfu" && format_of(o) != "table")
    throw InputError({"--explain mfu"},
                     "is a text; --format json has its numbers as flops_per_gpu and peak_tflops");
  MemoryTimeline memory;
  RunRecord record =
      run(resolve(sample.settings, library), {.fold = !o.no_fold,
                                              .critical_path = o.explain == "path",
                                              .memory = o.memory_timeline.empty() ? nullptr : &memory});
  if (record.result.out_of_memory() && !o.no_advice) record.advice = advise_oom(sample.settings, library);
  record.confidence = confidence(record, read_residuals(library));
  if (!o.memory_timeline.empty())
    write_file(o.memory_timeline, memory_csv ? to_csv(memory) : to_json(memory, record, tool));
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

// Options of a collective, which is no scenario.
void add_collective_options(CLI::App& app, CollectiveQuery& q) {
  app.add_option("--topology", q.topology, "a name in topologies/ or a path")->check(not_empty);
  app.add_option("--kind", q.kind, "all-reduce (default), all-gather or reduce-scatter")->check(not_empty);
  app.add_option("--sizes", q.sizes,
                 "1M..8G (by x2), \"1M..8G x4\", \"1M..16M +1M\" or 1M,64M; K, M and G are powers of 1024")
      ->check(not_empty);
  app.add_option("--gpus", q.gpus, "8,64,512 or \"8..512 x2\": a table for each (one node)")
      ->check(not_empty);
  app.add_option("--datatype", q.datatype, "float (default), bfloat16, half, int8, ... of nccl-tests")
      ->check(not_empty);
  app.add_option("--stack", q.stack, "a name in topologies/stacks or a path")->check(not_empty);
  app.add_option("--algorithm", q.algorithm, "force ring, tree, nvls or nvls_tree, as NCCL_ALGO does")
      ->check(not_empty);
  app.add_option("--protocol", q.protocol, "force LL, LL128 or Simple, as NCCL_PROTO does")->check(not_empty);
  app.add_option("--axis", q.axis,
                 "world (default); of hybrid sharding: shard or replica, all groups at once")
      ->check(not_empty);
  app.add_option("--sharding-factor", q.sharding_factor, "ranks of a shard group (a node)");
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

constexpr const char* examples =
    R"(shardsim simulates distributed training: TFLOPS per GPU, tokens/s, memory, out-of-memory.

  shardsim run --model t5-11b --topology a100-80gb-roce-2000 --gpus 512 --strategy fsdp --micro-batch 8 --checkpointing full
  shardsim sweep fsdp-paper/model-scale
  shardsim show topology dgx-a100-80gb

`shardsim --help` lists the commands.
)";

int dispatch(int argc, char** argv) {
  CLI::App app{"Discrete-event simulator of distributed deep-learning training"};
  app.set_version_flag("--version", fmt::format("shardsim {} ({})", version, commit));
  app.require_subcommand(0, 1);
  Options o;
  CLI::App* run = app.add_subcommand("run", "simulate one scenario");
  CLI::App* sweep = app.add_subcommand("sweep", "simulate the product of a scenario's [sweep] axes");
  CLI::App* frontier =
      app.add_subcommand("frontier", "the boundary between fits and out of memory over two keys");
  CLI::App* limit = app.add_subcommand(
      "limit", "the largest value of a key that fits, or the fewest GPUs on which the model trains");
  CLI::App* validate =
      app.add_subcommand("validate", "simulate a table of measured runs and show how far off each is");
  CLI::App* collective =
      app.add_subcommand("collective", "what nccl-tests would measure: bus bandwidth by size and GPUs");
  CLI::App* calibrate = app.add_subcommand("calibrate", "fit physical constants to a table of measured runs");
  CLI::App* check =
      app.add_subcommand("check", "resolve a scenario, print every value with its origin, run nothing");
  CLI::App* show = app.add_subcommand(
      "show", "models, topologies, gpus, stacks, transports, scenarios; topology NAME; model NAME");
  CLI::App* schema = app.add_subcommand("schema", "print the JSON Schema of a command's output");
  for (CLI::App* command : {run, sweep}) {
    add_scenario_options(*command, o);
    add_output_options(*command, o, true);
    command->add_flag("--no-fold", o.no_fold, "simulate every rank: the same result, slower");
    command->add_flag("--fail-on-oom", o.fail_on_oom, "exit with 3 when memory runs out");
  }
  run->add_option("--memory-timeline", o.memory_timeline,
                  "write the memory of the fullest GPU over time to a file, .csv or .json")
      ->check(not_empty);
  run->add_option(
         "--explain", o.explain,
         "path: where the step goes, and why (the default); mfu: the definitions, with this run's numbers")
      ->expected(0, 1)
      ->default_str("path");
  run->add_flag("--no-advice", o.no_advice, "when memory runs out, do not search for what would fit");
  for (CLI::App* command : {frontier, limit}) {
    add_scenario_options(*command, o);
    add_output_options(*command, o, true);
  }
  frontier->add_option(
      "--over", o.over,
      "KEY,KEY: a row for each value of the first, the boundary along the second; values as "
      "KEY=1..64, \"KEY=8..512 x2\" or KEY=[1,2,4], else of the scenario's [sweep], else the "
      "key's usual ones");
  limit->add_option("--max", o.max, "KEY: the largest value that fits, of any integer key");
  limit->add_option("--min", o.min, "cluster.gpus: the fewest GPUs, for every strategy");
  limit->add_option("--step", o.limit.step, "--max tries multiples of it (1; 128 tokens)");
  limit->add_option("--up-to", o.limit.up_to, "the largest value tried (--min: 512 GPUs)");
  validate->add_option("table", o.table, "a CSV file of measured runs, or a name in scenarios/");
  validate->add_flag("--residuals", o.residuals,
                     "write the error of every run's step time, as scenarios/validation/residuals.csv holds "
                     "them; without a table, of all in scenarios/validation");
  validate->add_option("--overlay", o.overlay, "a file of constants, such as `calibrate` writes")
      ->check(not_empty);
  validate->add_option("--by", o.by, "COLUMN: summaries for each of its values, too");
  validate->add_option("--where", o.where, "COLUMN=TEXT: only rows that have it")
      ->take_all()
      ->allow_extra_args(false);
  add_output_options(*validate, o, true);
  add_collective_options(*collective, o.collective);
  add_output_options(*collective, o, true);
  calibrate->add_option("table", o.table, "a CSV file of measured runs, or a name in scenarios/");
  calibrate->add_option("--free", o.free,
                        "KEY,KEY: the constants to fit, such as gpu.a100-sxm-40gb.training_context");
  calibrate->add_flag("--list", o.list, "print the constants that can be fitted");
  calibrate->add_option("--group", o.group, "COLUMN: leave out each of its values in turn (model)")
      ->check(not_empty);
  calibrate->add_option("--folds", o.folds, "parts of the rows, each left out in turn (5; 0 = none)");
  calibrate->add_option("--format", o.format, "table (default) or json")
      ->check(CLI::IsMember({"table", "json"}));
  calibrate->add_option("-o,--output", o.output, "write the fitted constants to an overlay file");
  calibrate->add_flag("-q,--quiet", o.quiet, "no progress on standard error");
  add_scenario_options(*check, o);
  add_output_options(*check, o, false);
  show->add_option("kind", o.kind, "what to show")
      ->required()
      ->check(CLI::IsMember(
          {"models", "topologies", "gpus", "stacks", "transports", "scenarios", "topology", "model"}));
  show->add_option("name", o.name, "of the topology or model");
  show->add_option("--graphviz", o.graphviz,
                   "write the topology's graph in Graphviz' language to a file (- for standard output)");
  show->add_option("-o,--output", o.output, "write to a file instead of standard output");
  schema->add_option("command", o.name, "whose output")->required()->check(CLI::IsMember(schema_commands()));
  schema->add_option("-o,--output", o.output, "write to a file instead of standard output");
  for (CLI::App* command : {run, sweep, frontier, limit, validate, calibrate})
    command->add_option("-j,--threads", o.threads, "simulate so many runs at once (one per core)")
        ->check(CLI::Range(1, threads_max));

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    std::fprintf(stderr, "shardsim: %s\n", error.what());
    return bad_input;
  }
  const Library library = make_library();
  const auto in_threads = [&](int (&command)(const Options&, const Library&)) {
    int exit_code = done;
    with_threads(o.threads, [&] { exit_code = command(o, library); });
    return exit_code;
  };
  if (run->parsed()) return in_threads(run_command);
  if (sweep->parsed()) return in_threads(sweep_command);
  if (frontier->parsed()) return in_threads(frontier_command);
  if (limit->parsed()) return in_threads(limit_command);
  if (validate->parsed()) return in_threads(validate_command);
  if (calibrate->parsed()) return in_threads(calibrate_command);
  if (collective->parsed()) return collective_command(o, library);
  if (check->parsed()) return check_command(o, library);
  if (show->parsed()) return show_command(o, library);
  if (schema->parsed()) return schema_command(o);
  print(examples, "");
  return done;
}

}  // namespace
}  // namespace shardsim

int main(int argc, char** argv) {
  try {
    return shardsim::dispatch(argc, argv);
  } catch (const shardsim::InputError& error) {
    std::fprintf(stderr, "shardsim: %s\n", error.what());
    return shardsim::bad_input;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "shardsim: internal error: %s\n", error.what());
    return shardsim::internal_error;
  }
}
