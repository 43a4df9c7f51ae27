#include <algorithm>
#include <chrono>

#include "sim/model/family.h"
#include "sim/scenario/scenario.h"
#include "sim/simulate/simulate.h"

namespace shardsim {
namespace {

// Over all GPUs.
FlopRate mean_peak(const Scenario& scenario, DType format) {
  FlopRate mean = scenario.gpu.profile(format)->peak;
  std::int64_t gpus = 0;
  for (const ClusterPart& part : scenario.parts) {
    gpus += part.gpus;
    const double share = static_cast<double>(part.gpus) / static_cast<double>(gpus);
    mean.count += (part.gpu.profile(format)->peak.count - mean.count) * share;
  }
  return mean;
}

Throughput throughput(const Scenario& scenario, const Program& program, const Result& result) {
  const double step = seconds(result.step_time);
  const double samples_per_gpu = static_cast<double>(scenario.workload.micro_batch) *
                                 static_cast<double>(scenario.training.micro_batches);
  Throughput t;
  const DType format = scenario.workload.numerics.multiply;
  t.peak = mean_peak(scenario, format);
  t.peak_dtype = name(format);
  if (step == 0) return t;
  t.encoder_tokens_per_s_per_gpu = samples_per_gpu * static_cast<double>(scenario.workload.sequence) / step;
  t.decoder_tokens_per_s_per_gpu =
      samples_per_gpu * static_cast<double>(scenario.workload.decoder_sequence) / step;
  t.tokens_per_s_per_gpu = t.encoder_tokens_per_s_per_gpu + t.decoder_tokens_per_s_per_gpu;
  t.samples_per_s = static_cast<double>(scenario.global_batch) / step;
  t.model = {program.flop.model.count / step};
  t.hardware = {program.flop.hardware.count / step};
  t.executed = {result.executed.count / step};
  return t;
}

FlopAccount flops(const Scenario& scenario, const OpGraph& graph, const Program& program, Flop executed) {
  FlopAccount f{.tokens = scenario.global_batch_tokens / scenario.gpus,
                .forward_linear = {},
                .forward_attention = {},
                .model = program.flop.model,
                .hardware = program.flop.hardware,
                .executed = executed};
  for (const Op& op : graph.ops)
    (op.attention_core > 0 ? f.forward_attention : f.forward_linear) += op.model_flop;
  return f;
}

// An out-of-memory has no figures to compare, only that it does not fit.
std::vector<Comparison> comparisons(const Scenario& scenario, const Result& r) {
  const Throughput& t = r.throughput;
  const std::pair<std::string_view, double> predicted[] = {
      {"step_time_s", seconds(r.step_time)},
      {"tokens_per_s_per_gpu", t.tokens_per_s_per_gpu},
      {"tflops_per_gpu.model", t.model.count * 1e-12},
      {"tflops_per_gpu.hardware", t.hardware.count * 1e-12},
      {"peak_allocated_gib", gib(r.memory.peak_allocated)},
      {"peak_active_gib", gib(r.memory.peak_active)},
      {"peak_reserved_gib", gib(r.memory.peak_reserved)},
      {"peak_device_gib", gib(r.memory.peak_reserved + r.memory.outside_allocator)}};
  std::vector<Comparison> result;
  for (const RecordedValue& v : scenario.values) {
    if (v.key == "measured.fits")
      result.push_back({"fits", r.out_of_memory() ? 0.0 : 1.0, std::get<bool>(v.value) ? 1.0 : 0.0});
    for (const auto& [metric, figure] : predicted)
      if (!r.out_of_memory() && v.key == "measured." + std::string(metric))
        result.push_back({std::string(metric), figure, std::get<double>(v.value)});
  }
  return result;
}

std::int64_t sharding_factor(const Strategy& strategy) {
  return std::visit(
      [](const auto& options) -> std::int64_t {
        if constexpr (requires { options.sharding_factor; }) return options.sharding_factor;
        return 0;
      },
      strategy);
}

OpGraph graph_of(const Scenario& scenario) {
  OpGraph eager = build(scenario.model, scenario.workload);
  if (scenario.compiled) return fuse(eager, *scenario.compiled);
  return eager;
}

Program compile(const Scenario& scenario, const OpGraph& graph) {
  Framework framework{.collectives_record_streams = scenario.stack.collectives_record_streams,
                      .cublas_workspace = {}};
  for (const Gpu* gpu : gpu_types(scenario))
    framework.cublas_workspace =
        std::max(framework.cublas_workspace,
                 scenario.stack.cublas_workspace[static_cast<std::size_t>(gpu->architecture)]);
  return compile(graph, scenario.training, framework, scenario.gpus, scenario.strategy);
}

}  // namespace

std::vector<const Gpu*> gpu_types(const Scenario& scenario) {
  std::vector<const Gpu*> types;
  for (const ClusterPart& part : scenario.parts) types.push_back(&part.gpu);
  if (types.empty()) types.push_back(&scenario.gpu);
  return types;
}

Topology make_topology(const Scenario& scenario) {
  if (scenario.parts.empty())
    return {scenario.topology, scenario.gpu, static_cast<int>(scenario.gpus), scenario.degraded_links};
  std::vector<PartSpec> parts;
  for (const ClusterPart& part : scenario.parts)
    parts.push_back({part.topology.node, part.gpu, static_cast<int>(part.gpus)});
  return {scenario.topology, parts, scenario.degraded_links};
}

Cluster make_cluster(const Scenario& scenario, const Topology& topology) {
  return {topology,        scenario.gpu,        scenario.stack,  scenario.stragglers, scenario.allocator,
          scenario.jitter, scenario.background, scenario.detail, gpu_types(scenario)};
}

Program compile(const Scenario& scenario) { return compile(scenario, graph_of(scenario)); }

RunRecord run(const Scenario& scenario, const RunOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  const OpGraph graph = graph_of(scenario);
  const Program program = compile(scenario, graph);
  const Topology topology = make_topology(scenario);
  const Cluster cluster = make_cluster(scenario, topology);
  RunRecord record{.model = scenario.model.name,
                   .topology = scenario.topology.name,
                   .gpu = scenario.gpu.name,
                   .generation = std::string(name(scenario.gpu.architecture)),
                   .stack = scenario.stack.name,
                   .stack_versions = scenario.stack.versions,
                   .strategy = scenario.strategy_name,
                   .precision = scenario.precision,
                   .parameters = parameter_count(graph),
                   .sharding_factor = sharding_factor(scenario.strategy),
                   .gpus = scenario.gpus,
                   .micro_batch = scenario.workload.micro_batch,
                   .grad_accum = scenario.training.micro_batches,
                   .parts = {},
                   .global_batch = scenario.global_batch,
                   .global_batch_tokens = scenario.global_batch_tokens,
                   .encoder_decoder = entry(scenario.model.family).encoder_decoder,
                   .values = scenario.values,
                   .scenario_hash = scenario.hash,
                   .flops = {},
                   .result = simulate(program, cluster,
                                      {.fold = options.fold,
                                       .timeline = options.timeline,
                                       .critical_path = options.critical_path,
                                       .memory = options.memory,
                                       .snapshot = options.snapshot}),
                   .comparisons = {},
                   .advice = {},
                   .confidence = {}};
  for (const ClusterPart& part : scenario.parts)
    record.parts.push_back({part.topology.name, part.gpu.name, part.gpus,
                            part.gpu.profile(scenario.workload.numerics.multiply)->peak});
  if (!record.result.out_of_memory()) record.result.throughput = throughput(scenario, program, record.result);
  record.flops = flops(scenario, graph, program, record.result.executed);
  record.comparisons = comparisons(scenario, record.result);
  record.wall_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return record;
}

}  // namespace shardsim
