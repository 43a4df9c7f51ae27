#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "sim/report/json.h"

namespace shardsim {
namespace {

using Json = nlohmann::ordered_json;

Json type(const char* name, const char* description) {
  return {{"type", name}, {"description", description}};
}
Json nullable(const char* name, const char* description) {
  return {{"type", Json::array({name, "null"})}, {"description", description}};
}

// An object with exactly these properties at least: every one is required, more may be added later.
Json object(Json properties, const char* description = "") {
  Json required = Json::array();
  for (const auto& [key, value] : properties.items()) required.push_back(key);
  Json j = {{"type", "object"}, {"properties", std::move(properties)}, {"required", std::move(required)}};
  if (*description != '\0') j["description"] = description;
  return j;
}
Json or_null(Json schema) {
  schema["type"] = Json::array({schema["type"], "null"});
  return schema;
}

template <class Enum>
Json named_numbers(int count, const char* kind, const char* description) {
  Json properties = Json::object();
  for (int i = 0; i < count; ++i) properties[std::string(name(static_cast<Enum>(i)))] = {{"type", kind}};
  return object(std::move(properties), description);
}

Json scenario_values() {
  return {
      {"type", "object"},
      {"description", "every resolved value, by dotted key"},
      {"additionalProperties",
       object({{"value", {{"type", Json::array({"boolean", "integer", "number", "string"})}}},
               {"origin", type("string", "file:line:column, the command line, or the default's reason")}})}};
}

Json changes_schema() {
  return {{"type", "object"},
          {"description", "values by dotted key"},
          {"additionalProperties", {{"type", Json::array({"boolean", "integer", "number", "string"})}}}};
}

Json would_fit_schema() {
  return {{"type", "array"},
          {"description", "smallest changes that make the scenario fit, simulated, the cheapest first"},
          {"items", object({{"change", changes_schema()},
                            {"step_time_s", type("number", "")},
                            {"tokens_per_s_per_gpu", type("number", "")},
                            {"cost", type("number",
                                          "share of the throughput lost against the unchanged "
                                          "scenario on GPUs of unlimited memory")},
                            {"peak_reserved_bytes", type("integer", "")}})}};
}

Json tried_schema() {
  return {{"type", "array"},
          {"description", "the largest changes of their kinds that do not help"},
          {"items", object({{"change", changes_schema()},
                            {"dies_in", type("string", "step and phase")},
                            {"live_bytes", type("integer", "tensors that would be live at once")}})}};
}

Json critical_path_schema() {
  Json kinds = Json::array();
  for (int k = 0; k < path_kinds; ++k) kinds.push_back(name(static_cast<PathKind>(k)));
  return {{"type", "array"},
          {"description",
           "of --explain: what had to happen one after the other, consecutive segments of "
           "alike phases grouped by kind; sums to step_time_s"},
          {"items", object({{"kind", {{"enum", std::move(kinds)}}},
                            {"label", type("string", "phase")},
                            {"rank", type("integer", "on which they run; the path follows who arrives last")},
                            {"reason", type("string", "why they began no earlier, for most of the time")},
                            {"segments", type("integer", "")},
                            {"time_s", type("number", "")},
                            {"latency_s", type("number", "of collectives, before data moves")},
                            {"slowed_s", type("number", "of kernels and transfers, by what ran beside")}})}};
}

Json memory_schema() {
  return object({{"capacity", type("integer", "as CUDA reports it")},
                 {"outside_allocator", type("integer", "CUDA context, NCCL")},
                 {"peak_allocated", type("integer", "owned by live tensors")},
                 {"peak_active", type("integer", "and freed, but in use by a stream")},
                 {"peak_reserved", type("integer", "obtained from CUDA")},
                 {"rank", type("integer", "with the highest reserved peak, as a share of its capacity")},
                 {"alloc_retries", type("integer", "over all simulated steps")},
                 {"peak_host", type("integer", "of the node's memory, for this GPU")}});
}

Json breakdown_schema() {
  return named_numbers<Spent>(spent_kinds, "number", "exhaustive: sums to the step");
}

Json parts_schema() {
  return {{"type", "array"},
          {"description", "of a mixed cluster only: its parts in the order of their ranks"},
          {"items", object({{"topology", type("string", "")},
                            {"gpu", type("string", "")},
                            {"gpus", type("integer", "")},
                            {"peak_tflops", type("number", "dense, data sheet, of the matrix products")},
                            {"slowest_rank", nullable("integer", "of the part, whose step this is")},
                            {"step_time_s", nullable("number", "")},
                            {"breakdown_s", or_null(breakdown_schema())},
                            {"memory_bytes", memory_schema()}})}};
}

Json run_schema() {
  Json tflops = object(
      {{"model", type("number", "forward and backward, nothing twice, without the causal discount")},
       {"hardware", type("number", "with recomputation, without the causal discount")},
       {"executed", type("number", "what the kernels do: causal attention computes half its scores")}});
  Json communication = Json::object();
  for (int k = 0; k < collective_kinds; ++k)
    communication[std::string(name(static_cast<CollectiveKind>(k)))] =
        object({{"calls", type("integer", "per step and rank")},
                {"bytes", type("integer", "per step, as nccl-tests counts them")},
                {"busy_s", type("number", "from the arrival of the last rank to the end")},
                {"exposed_s", type("number", "of that, what the default stream waited for")},
                {"busbw_gb_per_s", nullable("number", "10^9 bytes per second while busy")}});
  Json oom = object(
      {{"step", type("integer", "0 = set-up, 1 = first step")},
       {"phase", type("string", "marks of the host thread")},
       {"rank", type("integer", "")},
       {"at_s", type("number", "host clock since the start of the job")},
       {"tensor", type("string", "that did not fit")},
       {"category", type("string", "")},
       {"on_host", type("boolean", "the node's memory ran out; the bytes are a GPU's share")},
       {"requested_bytes", type("integer", "by the tensor")},
       {"segment_bytes", type("integer", "from CUDA: a segment, or pages to map")},
       {"free_bytes", type("integer", "left on the device")},
       {"limit_bytes", type("integer",
                            "of what can be reserved: capacity less what is outside, or "
                            "allocator.memory_fraction")},
       {"allocated_bytes", type("integer", "sums live_bytes")},
       {"reserved_bytes", type("integer", "after everything that could be returned was")},
       {"fragmented_bytes", type("integer", "of that, cached in segments or pages that cannot be returned")},
       {"live_bytes", named_numbers<Category>(categories, "integer", "allocated at that moment")},
       {"largest_live",
        {{"type", "array"},
         {"items", object({{"tensor", type("string", "")},
                           {"category", type("string", "")},
                           {"bytes", type("integer", "")}})}}},
       {"would_fit", or_null(would_fit_schema())},
       {"tried", or_null(tried_schema())},
       {"unlimited_tokens_per_s_per_gpu", nullable("number", "of the scenario, were memory unlimited")}});
  Json run = object(
      {{"schema", {{"const", "shardsim.run/1"}}},
       {"tool_version", type("string", "")},
       {"git", type("string", "commit of the build")},
       {"scenario_hash", type("string", "of every resolved value")},
       {"stack", type("string", "software stack")},
       {"title", type("string", "one line for people")},
       {"status", {{"enum", {"ok", "oom"}}}},
       {"steady", type("boolean", "the last two steps were equal in time and allocator state")},
       {"parameters", type("integer", "of the model")},
       {"gpus", type("integer", "")},
       {"global_batch", type("integer", "sequences per step")},
       {"global_batch_tokens", type("integer", "encoder and decoder tokens per step")},
       {"step_time_s", nullable("number", "of the slowest rank")},
       {"step_times_s",
        {{"type", "array"},
         {"items", {{"type", "number"}}},
         {"description", "every simulated step; the last is described"}}},
       {"tokens_per_s_per_gpu", nullable("number", "encoder + decoder")},
       {"encoder_tokens_per_s_per_gpu", nullable("number", "")},
       {"decoder_tokens_per_s_per_gpu", nullable("number", "")},
       {"samples_per_s", nullable("number", "sequences, over all GPUs")},
       {"tflops_per_gpu", or_null(std::move(tflops))},
       {"mfu", nullable("number", "model FLOP/s over peak")},
       {"hfu", nullable("number", "hardware FLOP/s over peak")},
       {"flops_per_gpu",
        or_null(object({{"tokens", type("integer", "of a step, encoder + decoder")},
                        {"forward_linear", type("number", "of a micro-batch, linear layers")},
                        {"forward_attention", type("number", "of a micro-batch, all pairs of tokens")},
                        {"model", type("number", "of a step: three times forward")},
                        {"hardware", type("number", "of a step, with recomputation")},
                        {"executed", type("number", "of a step, by the kernels")}}))},
       {"peak_tflops", or_null(object({{"value", type("number", "dense, data sheet; mean over the GPUs")},
                                       {"dtype", type("string", "of the matrix products")}}))},
       {"slowest_rank", nullable("integer", "whose breakdown and communication are shown")},
       {"breakdown_s", or_null(breakdown_schema())},
       {"phases_s", nullable("object", "forward, backward, optimizer on the default stream")},
       {"communication", or_null(object(std::move(communication)))},
       {"memory_bytes", memory_schema()},
       {"memory_at_peak", named_numbers<Category>(categories, "integer", "sums to peak_allocated")},
       {"oom", or_null(std::move(oom))},
       {"confidence",
        or_null(object({{"step_time_low_s", type("number", "")},
                        {"step_time_high_s", type("number", "")},
                        {"level", type("number", "share of measured times such an interval aims to hold")},
                        {"basis", type("string", "which validated runs it comes from")},
                        {"nearest_validated", type("string", "")},
                        {"extrapolating",
                         {{"type", "array"},
                          {"items", {{"type", "string"}}},
                          {"description", "what of the run no validated one has"}}}},
                       "from the errors of similar validated runs; null without any, or out of memory"))},
       {"measured",
        {{"type", "object"},
         {"description", "figures of a real run that the scenario tells of, by metric"},
         {"additionalProperties",
          object({{"predicted", type("number", "")},
                  {"measured", type("number", "")},
                  {"error", nullable("number", "(predicted - measured) / measured")}})}}},
       {"scenario", scenario_values()},
       {"engine", object({{"events", type("integer", "wake-ups, and kernels that ended between two of them")},
                          {"allocator_calls", type("integer", "")},
                          {"wall_s", type("number", "real time of the simulation")},
                          {"ranks", type("integer", "of the job")},
                          {"rank_classes", type("integer", "ranks simulated")},
                          {"folded", type("boolean", "ranks that are alike were simulated once")},
                          {"messages", type("integer", "chunks of network.detail = chunk")}})}},
      "One training step of one scenario.");
  run["properties"]["critical_path"] = critical_path_schema();  // not required
  run["properties"]["parts"] = parts_schema();
  return run;
}

Json sweep_schema() {
  return object({{"schema", {{"const", "shardsim.sweep/1"}}},
                 {"tool_version", type("string", "")},
                 {"git", type("string", "")},
                 {"axes", {{"type", "array"}, {"items", {{"type", "string"}}}}},
                 {"scaling", nullable("string", "weak or strong, when cluster.gpus is an axis")},
                 {"rows",
                  {{"type", "array"},
                   {"items", object({{"point", {{"type", "array"}, {"items", {{"type", "string"}}}}},
                                     {"run", or_null(run_schema())},
                                     {"error", nullable("string", "why the combination is illegal")}})}}}},
                "The product of a scenario's axes, in the order of the file.");
}

Json check_schema() {
  return object({{"schema", {{"const", "shardsim.check/1"}}},
                 {"tool_version", type("string", "")},
                 {"git", type("string", "")},
                 {"scenario", scenario_values()}},
                "A resolved scenario.");
}

Json memory_timeline_schema() {
  const auto column = [](const char* description) {
    return Json{{"type", "array"}, {"items", {{"type", "integer"}}}, {"description", description}};
  };
  Json live = Json::object();
  for (int c = 0; c < categories; ++c)
    live[std::string(name(static_cast<Category>(c)))] = column("allocated to the category");
  return object(
      {{"schema", {{"const", "shardsim.memory-timeline/1"}}},
       {"tool_version", type("string", "")},
       {"git", type("string", "")},
       {"scenario_hash", type("string", "as in the run")},
       {"title", type("string", "one line for people")},
       {"rank", type("integer", "with the highest reserved peak; the memory is its own")},
       {"encoding",
        {{"const", "delta"},
         {"description", "a column is its first value, then differences to the row before"}}},
       {"rows", type("integer", "length of every column")},
       {"columns",
        object({{"step", column("0 = set-up, 1 = first step")},
                {"time_ps", column("host clock since the start of the job, when the change was issued")},
                {"allocated_bytes", column("owned by live tensors")},
                {"active_bytes", column("and freed, but in use by a stream")},
                {"reserved_bytes", column("obtained from CUDA")},
                {"live_bytes", object(std::move(live), "sum to allocated_bytes in every row")}})}},
      "Memory of one GPU from the set-up to the end of the simulation, a row after each change.");
}

// One side of a boundary between what fits and what does not.
Json point_schema(const char* description) {
  Json schema = object({{"value", {{"type", Json::array({"boolean", "integer", "number", "string"})}}},
                        {"status", {{"enum", {"ok", "oom"}}}},
                        {"strategy", type("string", "")},
                        {"gpus", type("integer", "")},
                        {"global_batch", type("integer", "sequences per step")},
                        {"global_batch_tokens", type("integer", "encoder and decoder tokens per step")},
                        {"step_time_s", nullable("number", "of the slowest rank")},
                        {"tokens_per_s_per_gpu", nullable("number", "encoder + decoder")},
                        {"tflops_per_gpu_model", nullable("number", "without recomputation")},
                        {"peak_allocated_bytes", type("integer", "until it ended")},
                        {"peak_reserved_bytes", type("integer", "until it ended")},
                        {"live_bytes", type("integer", "tensors that are live at once if it does not end")},
                        {"outside_allocator_bytes", type("integer", "CUDA context, NCCL")},
                        {"capacity_bytes", type("integer", "as CUDA reports it")},
                        {"oom", or_null(object({{"step", type("integer", "0 = set-up, 1 = first step")},
                                                {"phase", type("string", "")},
                                                {"tensor", type("string", "")},
                                                {"requested_bytes", type("integer", "")},
                                                {"free_bytes", type("integer", "")}}))}},
                       description);
  return or_null(std::move(schema));
}

Json array_of(const char* kind, const char* description) {
  return {{"type", "array"}, {"items", {{"type", kind}}}, {"description", description}};
}

// A row of `frontier` or `limit`: what it is, and where its boundary lies.
Json rows_schema(Json properties) {
  properties.update(
      Json{{"refused", nullable("string", "why no value is legal")},
           {"last_fit", point_schema("the furthest value that fits; null if none does")},
           {"first_oom", point_schema("the legal value after it, or the first of all; null if all fit")},
           {"refused_after", nullable("string", "all legal values fit: why the next one is not legal")},
           {"holes", array_of("integer", "out of memory before last_fit, among the two values before it")},
           {"simulated", type("integer", "values; all others are ruled out by their live tensors")}});
  return {{"type", "array"}, {"items", object(std::move(properties))}};
}

Json frontier_schema() {
  return object({{"schema", {{"const", "shardsim.frontier/1"}}},
                 {"tool_version", type("string", "")},
                 {"git", type("string", "")},
                 {"over", type("string", "a row for each value of this key")},
                 {"along", type("string", "the key along which the boundary is searched")},
                 {"boundary", {{"enum", {"largest", "smallest"}}}},
                 {"values", array_of("integer", "of that key, as memory is expected to grow")},
                 {"everything_fits", type("boolean", "")},
                 {"nothing_fits", type("boolean", "")},
                 {"rows", rows_schema({{"value", type("string", "of the first key")}})}},
                "The boundary between what fits and what runs out of memory, over two keys.");
}

Json limit_schema() {
  return object(
      {{"schema", {{"const", "shardsim.limit/1"}}},
       {"tool_version", type("string", "")},
       {"git", type("string", "")},
       {"key", type("string", "")},
       {"limit", {{"enum", {"largest", "smallest"}}}},
       {"values", array_of("integer", "searched, as memory is expected to grow")},
       {"rows", rows_schema({{"label", type("string", "the strategy")}, {"change", changes_schema()}})}},
      "How far one key goes: the largest value that fits, or the fewest GPUs.");
}

Json validate_schema() {
  const Json figures = object({{"rows", type("integer", "with a measurement")},
                               {"simulated", type("integer", "of those, with a prediction")},
                               {"mean_abs_error", type("number", "of (predicted - measured) / measured")},
                               {"median_abs_error", type("number", "")},
                               {"bias", type("number", "mean of the errors with their signs")},
                               {"p90_abs_error", type("number", "")},
                               {"p95_abs_error", type("number", "")},
                               {"spearman", type("number", "rank correlation of predicted and measured")}});
  Json summary =
      object({{"mean_abs_error", type("number", "of the first metric")},
              {"fits", object({{"rows", type("integer", "")},
                               {"right", type("integer", "")},
                               {"predicted_out_of_memory", type("integer", "though it ran")},
                               {"missed_out_of_memory", type("integer", "though it did not run")}})},
              {"failed", type("integer", "rows that could not be simulated")}},
             "the figures of each metric by its name, and of all rows");
  summary["additionalProperties"] = figures;
  Json group = figures;
  group["properties"]["group"] = type("string", "value of the column named by `by`");
  group["properties"]["metric"] = type("string", "");
  const Json either = {{"type", Json::array({"number", "boolean", "null"})}};
  return object({{"schema", {{"const", "shardsim.validate/1"}}},
                 {"tool_version", type("string", "")},
                 {"git", type("string", "")},
                 {"file", type("string", "")},
                 {"summary", std::move(summary)},
                 {"by", nullable("string", "column of the groups")},
                 {"groups", {{"type", "array"}, {"items", std::move(group)}}},
                 {"rows",
                  {{"type", "array"},
                   {"items", object({{"id", type("string", "of the row, or its line")},
                                     {"metric", nullable("string", "`fits` is true or false")},
                                     {"predicted", either},
                                     {"measured", either},
                                     {"error", nullable("number", "(predicted - measured) / measured")},
                                     {"status", {{"enum", {"ok", "oom", "failed"}}}},
                                     {"why", nullable("string", "where memory ran out, or why it failed")},
                                     {"quality", type("string", "as in the table")},
                                     {"source", type("string", "as in the table")}})}}}},
                "Measured runs beside simulated ones.");
}

Json collective_schema() {
  Json row = object({{"topology", type("string", "")},
                     {"gpus", type("integer", "of the job")},
                     {"groups", type("integer", "that run the collective at once")},
                     {"ranks", type("integer", "of a group")},
                     {"nodes", type("integer", "of a group")},
                     {"kind", type("string", "")},
                     {"bytes", type("integer", "as nccl-tests counts them")},
                     {"count", type("integer", "elements; of one rank's part in gather and scatter")},
                     {"time_us", type("number", "of the slowest group")},
                     {"algbw_gb_per_s", type("number", "bytes over time, 10^9 bytes per second")},
                     {"busbw_gb_per_s", type("number", "as nccl-tests defines it")},
                     {"algorithm", {{"enum", {"ring", "tree", "nvls", "nvls_tree"}}}},
                     {"protocol", {{"enum", {"LL", "LL128", "Simple"}}}},
                     {"channels", type("integer", "SMs held on every GPU")},
                     {"latency_us", type("number", "before bytes move at their rate")},
                     {"wire_bytes", type("integer", "that a rank sends")},
                     {"rate_gb_per_s", type("number", "of those bytes, among all groups")}});
  return object({{"schema", {{"const", "shardsim.collective/1"}}},
                 {"tool_version", type("string", "")},
                 {"git", type("string", "")},
                 {"stack", type("string", "software stack")},
                 {"topology", type("string", "")},
                 {"gpu", type("string", "")},
                 {"kind", type("string", "")},
                 {"datatype", type("string", "as nccl-tests names it")},
                 {"axis", {{"enum", {"world", "shard", "replica"}}}},
                 {"averages",
                  {{"type", "array"},
                   {"items", object({{"gpus", type("integer", "")},
                                     {"busbw_gb_per_s", type("number", "mean over the sizes")}})}}},
                 {"rows", {{"type", "array"}, {"items", std::move(row)}}}},
                "What nccl-tests would measure, for each number of GPUs and size.");
}

Json calibrate_schema() {
  const auto list = [](Json item) { return Json{{"type", "array"}, {"items", std::move(item)}}; };
  const Json errors = object({{"before", type("number", "")}, {"after", type("number", "")}});
  const Json held_out = object({{"name", type("string", "")},
                                {"rows", type("integer", "")},
                                {"before", type("number", "mean |error| with the constants of the files")},
                                {"after", type("number", "with constants fitted without these rows")}});
  return object(
      {{"schema", {{"const", "shardsim.calibrate/1"}}},
       {"tool_version", type("string", "")},
       {"git", type("string", "")},
       {"file", type("string", "")},
       {"rows", type("integer", "of the fit")},
       {"excluded", list(object({{"reason", type("string", "")}, {"rows", type("integer", "")}}))},
       {"constants", list(object({{"key", type("string", "as in an overlay")},
                                  {"unit", type("string", "")},
                                  {"before", type("number", "in the file")},
                                  {"after", type("number", "")},
                                  {"standard_error", type("number", "")},
                                  {"low_95", type("number", "")},
                                  {"high_95", type("number", "")},
                                  {"bounds", {{"type", "array"}, {"items", {{"type", "number"}}}}},
                                  {"at_bound", nullable("string", "low or high")}}))},
       {"refused", list(object({{"key", type("string", "")},
                                {"value", type("number", "it keeps")},
                                {"why", type("string", "the rows cannot tell it")}}))},
       {"confounded", list(object({{"keys", {{"type", "array"}, {"items", {{"type", "string"}}}}},
                                   {"correlation", type("number", "of the two estimates")}}))},
       {"mean_abs_error", errors},
       {"median_abs_error", errors},
       {"scale", type("number", "robust standard deviation of ln(simulated / measured) after the fit")},
       {"condition_index", type("number", "of the Jacobian at the fit")},
       {"downweighted", type("integer", "rows that count less than half")},
       {"folds", or_null(held_out)},
       {"group", type("string", "model, or a column")},
       {"groups", list(held_out)},
       {"groups_left_out", or_null(held_out)},
       {"one_node_predicts_many", or_null(held_out)},
       {"simulations", type("integer", "")},
       {"rounds", type("integer", "of reweighting")},
       {"converged", type("boolean", "")}},
      "Physical constants fitted to measured runs; errors are of the step time.");
}

struct Entry {
  std::string_view command;
  Json (*make)();
};
constexpr Entry table[] = {{"calibrate", calibrate_schema},
                           {"check", check_schema},
                           {"collective", collective_schema},
                           {"frontier", frontier_schema},
                           {"limit", limit_schema},
                           {"memory-timeline", memory_timeline_schema},
                           {"run", run_schema},
                           {"sweep", sweep_schema},
                           {"validate", validate_schema}};

}  // namespace

std::string schema(std::string_view command) {
  for (const Entry& entry : table)
    if (entry.command == command) {
      Json j = {{"$schema", "http://json-schema.org/draft-07/schema#"},
                {"title", fmt::format("shardsim {}", command)}};
      j.update(entry.make());
      return j.dump(2) + "\n";
    }
  return "";
}

std::vector<std::string> schema_commands() {
  std::vector<std::string> commands;
  for (const Entry& entry : table) commands.emplace_back(entry.command);
  return commands;
}

}  // namespace shardsim
