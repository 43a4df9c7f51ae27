// The command line: words in, text out. Which words there are; what they do is in commands.h.

#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "sim/engine/parallel.h"
#include "sim/report/json.h"

#include "tools/commands.h"
#include "tools/io.h"
#include "version.h"

namespace shardsim {
namespace {

namespace fs = std::filesystem;

constexpr int threads_max = 1024;

// The user's folder first, then $SHARDSIM_DATA, then what came with the program.
Library make_library() {
  std::vector<std::string> roots{"."};
  if (const char* data = std::getenv("SHARDSIM_DATA")) roots.emplace_back(data);
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error).parent_path();
  roots.push_back((program / ".." / "share" / "shardsim").lexically_normal().string());
  return Library(roots);
}

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
  run->add_option("--memory-snapshot", o.memory_snapshot,
                  "write every event of the fullest GPU's allocator to a file, .pickle, for "
                  "pytorch.org/memory_viz")
      ->check(not_empty);
  run->add_flag("--force", o.force, "overwrite the file of --memory-snapshot");
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
    command->add_option("-j,--threads", o.threads, "use so many threads (one per core)")
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
