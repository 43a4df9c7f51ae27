#include "sim/report/json.h"

#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace shardsim {
namespace {

using Json = nlohmann::ordered_json;

Json to_value(const Scalar& value) {
  return std::visit([](const auto& v) { return Json(v); }, value);
}

double tflops(FlopRate rate) { return rate.count * 1e-12; }

Json header(std::string_view schema, const Tool& tool) {
  return {{"schema", schema}, {"tool_version", tool.version}, {"git", tool.git}};
}

Json by_category(const ByCategory& bytes) {
  Json object = Json::object();
  for (int c = 0; c < categories; ++c)
    object[std::string(name(static_cast<Category>(c)))] = bytes[static_cast<std::size_t>(c)].count;
  return object;
}

Json breakdown(const Breakdown& b) {
  Json object = Json::object();
  for (int k = 0; k < spent_kinds; ++k)
    object[std::string(name(static_cast<Spent>(k)))] = seconds(b[static_cast<std::size_t>(k)]);
  return object;
}

Json communication(const Result& r) {
  Json object = Json::object();
  for (int k = 0; k < collective_kinds; ++k) {
    const Communication& c = r.communication[static_cast<std::size_t>(k)];
    const double busy = seconds(c.busy);
    object[std::string(name(static_cast<CollectiveKind>(k)))] = {
        {"calls", c.count},
        {"bytes", c.bytes.count},
        {"busy_s", busy},
        {"exposed_s", seconds(c.exposed)},
        {"busbw_gb_per_s", busy > 0 ? Json(static_cast<double>(c.wire.count) * 1e-9 / busy) : Json(nullptr)}};
  }
  return object;
}

Json changes(const std::vector<Change>& all) {
  Json object = Json::object();
  for (const Change& c : all) object[c.key] = to_value(c.value);
  return object;
}

Json would_fit(const OomAdvice& advice) {
  Json list = Json::array();
  for (const WouldFit& w : advice.would_fit)
    list.push_back({{"change", changes(w.change)},
                    {"step_time_s", seconds(w.step_time)},
                    {"tokens_per_s_per_gpu", w.tokens_per_s_per_gpu},
                    {"cost", w.cost},
                    {"peak_reserved_bytes", w.peak_reserved.count}});
  return list;
}

Json tried(const OomAdvice& advice) {
  Json list = Json::array();
  for (const DoesNotHelp& d : advice.tried)
    list.push_back({{"change", changes(d.change)}, {"dies_in", d.dies_in}, {"live_bytes", d.live.count}});
  return list;
}

Json out_of_memory(const OutOfMemory& oom, const std::optional<OomAdvice>& advice) {
  Json largest = Json::array();
  for (const OutOfMemory::Live& l : oom.largest_live)
    largest.push_back({{"tensor", l.tensor}, {"category", name(l.category)}, {"bytes", l.bytes.count}});
  return {{"step", oom.step},
          {"phase", oom.phase},
          {"rank", oom.rank.index},
          {"at_s", seconds(oom.at)},
          {"tensor", oom.tensor},
          {"category", name(oom.category)},
          {"on_host", oom.on_host},
          {"requested_bytes", oom.requested.count},
          {"segment_bytes", oom.segment.count},
          {"free_bytes", oom.free.count},
          {"limit_bytes", oom.limit.count},
          {"allocated_bytes", oom.allocated.count},
          {"reserved_bytes", oom.reserved.count},
          {"fragmented_bytes", oom.fragmented.count},
          {"live_bytes", by_category(oom.live)},
          {"largest_live", std::move(largest)},
          {"would_fit", advice ? would_fit(*advice) : Json(nullptr)},
          {"tried", advice ? tried(*advice) : Json(nullptr)},
          {"unlimited_tokens_per_s_per_gpu",
           advice ? Json(advice->unlimited_tokens_per_s_per_gpu) : Json(nullptr)}};
}

Json flops(const FlopAccount& f) {
  return {{"tokens", f.tokens},
          {"forward_linear", f.forward_linear.count},
          {"forward_attention", f.forward_attention.count},
          {"model", f.model.count},
          {"hardware", f.hardware.count},
          {"executed", f.executed.count}};
}

Json critical_path(const CriticalPath& path) {
  Json list = Json::array();
  for (const PathStretch& stretch : stretches(path))
    for (const PathPart& p : stretch.parts)
      list.push_back({{"kind", name(p.kind)},
                      {"label", stretch.label},
                      {"rank", stretch.rank.index},
                      {"reason", p.reason},
                      {"segments", p.segments},
                      {"time_s", seconds(p.time)},
                      {"latency_s", seconds(p.latency)},
                      {"slowed_s", seconds(p.slowed)}});
  return list;
}

Json phases(const Result& r) {
  Json object = Json::object();
  for (const Phase& p : r.phases) object[p.name] = seconds(p.time);
  return object;
}

Json values(const std::vector<RecordedValue>& all) {
  Json object = Json::object();
  for (const RecordedValue& v : all) object[v.key] = {{"value", to_value(v.value)}, {"origin", v.origin}};
  return object;
}

Json comparisons(const RunRecord& run) {
  Json object = Json::object();
  for (const Comparison& c : run.comparisons)
    object[c.metric] = {{"predicted", c.predicted},
                        {"measured", c.measured},
                        {"error", c.metric == "fits" ? Json(nullptr) : Json(c.error())}};
  return object;
}

Json confidence(const Confidence& c) {
  return {{"step_time_low_s", c.step_time_low_s},
          {"step_time_high_s", c.step_time_high_s},
          {"level", c.level},
          {"basis", c.basis},
          {"nearest_validated", c.nearest_validated},
          {"extrapolating", c.extrapolating}};
}

Json memory(const Memory& m) {
  return {{"capacity", m.capacity.count},
          {"outside_allocator", m.outside_allocator.count},
          {"peak_allocated", m.peak_allocated.count},
          {"peak_active", m.peak_active.count},
          {"peak_reserved", m.peak_reserved.count},
          {"rank", m.rank.index},
          {"alloc_retries", m.alloc_retries},
          {"peak_host", m.peak_host.count}};
}

Json parts(const RunRecord& run) {
  Json list = Json::array();
  for (std::size_t p = 0; p < run.parts.size() && p < run.result.parts.size(); ++p) {
    const RecordedPart& what = run.parts[p];
    const PartResult& r = run.result.parts[p];
    const bool oom = run.result.out_of_memory();
    list.push_back({{"topology", what.topology},
                    {"gpu", what.gpu},
                    {"gpus", what.gpus},
                    {"peak_tflops", tflops(what.peak)},
                    {"slowest_rank", oom ? Json(nullptr) : Json(r.slowest.index)},
                    {"step_time_s", oom ? Json(nullptr) : Json(seconds(r.step_time))},
                    {"breakdown_s", oom ? Json(nullptr) : breakdown(r.breakdown)},
                    {"memory_bytes", memory(r.memory)}});
  }
  return list;
}

Json run_object(const RunRecord& run, const Tool& tool) {
  const Result& r = run.result;
  const Throughput& t = r.throughput;
  const bool oom = r.out_of_memory();
  const auto unless_oom = [&](const Json& value) { return oom ? Json(nullptr) : value; };
  const auto share = [&](FlopRate rate) {
    return t.peak.count > 0 ? Json(ratio(rate, t.peak)) : Json(nullptr);
  };
  Json j = header("shardsim.run/1", tool);
  j["scenario_hash"] = fmt::format("{:016x}", run.scenario_hash);
  j["stack"] = run.stack;
  j["title"] = title(run);
  j["status"] = oom ? "oom" : "ok";
  j["steady"] = r.steady;
  j["parameters"] = run.parameters;
  j["gpus"] = run.gpus;
  j["global_batch"] = run.global_batch;
  j["global_batch_tokens"] = run.global_batch_tokens;
  j["step_time_s"] = unless_oom(seconds(r.step_time));
  Json steps = Json::array();
  for (const Time step : r.step_times) steps.push_back(seconds(step));
  j["step_times_s"] = std::move(steps);
  j["tokens_per_s_per_gpu"] = unless_oom(t.tokens_per_s_per_gpu);
  j["encoder_tokens_per_s_per_gpu"] = unless_oom(t.encoder_tokens_per_s_per_gpu);
  j["decoder_tokens_per_s_per_gpu"] = unless_oom(t.decoder_tokens_per_s_per_gpu);
  j["samples_per_s"] = unless_oom(t.samples_per_s);
  j["tflops_per_gpu"] = unless_oom(
      {{"model", tflops(t.model)}, {"hardware", tflops(t.hardware)}, {"executed", tflops(t.executed)}});
  j["mfu"] = unless_oom(share(t.model));
  j["hfu"] = unless_oom(share(t.hardware));
  j["flops_per_gpu"] = unless_oom(flops(run.flops));
  j["peak_tflops"] = unless_oom({{"value", tflops(t.peak)}, {"dtype", t.peak_dtype}});
  j["slowest_rank"] = unless_oom(r.slowest.index);
  j["breakdown_s"] = unless_oom(breakdown(r.breakdown));
  if (r.critical_path) j["critical_path"] = critical_path(*r.critical_path);
  j["phases_s"] = unless_oom(phases(r));
  j["communication"] = unless_oom(communication(r));
  j["memory_bytes"] = memory(r.memory);
  j["memory_at_peak"] = by_category(r.memory.at_peak);
  if (!r.parts.empty()) j["parts"] = parts(run);
  j["oom"] = oom ? out_of_memory(*r.oom, run.advice) : Json(nullptr);
  j["confidence"] = run.confidence ? confidence(*run.confidence) : Json(nullptr);
  j["measured"] = comparisons(run);
  j["scenario"] = values(run.values);
  j["engine"] = {{"events", r.engine.events},
                 {"allocator_calls", r.engine.allocator_calls},
                 {"wall_s", run.wall_s},
                 {"ranks", r.engine.ranks},
                 {"rank_classes", r.engine.rank_classes},
                 {"folded", r.engine.folded},
                 {"messages", r.engine.messages}};
  return j;
}

// One side of a boundary.
Json point(const std::optional<FitPoint>& p) {
  if (!p || !p->trial.run) return nullptr;
  const RunRecord& run = *p->trial.run;
  const Result& r = run.result;
  const bool oom = r.out_of_memory();
  const auto unless_oom = [&](double value) { return oom ? Json(nullptr) : Json(value); };
  Json death = nullptr;
  if (oom)
    death = {{"step", r.oom->step},
             {"phase", r.oom->phase},
             {"tensor", r.oom->tensor},
             {"requested_bytes", r.oom->requested.count},
             {"free_bytes", r.oom->free.count}};
  return {{"value", to_value(p->value)},
          {"status", oom ? "oom" : "ok"},
          {"strategy", run.strategy},
          {"gpus", run.gpus},
          {"global_batch", run.global_batch},
          {"global_batch_tokens", run.global_batch_tokens},
          {"step_time_s", unless_oom(seconds(r.step_time))},
          {"tokens_per_s_per_gpu", unless_oom(r.throughput.tokens_per_s_per_gpu)},
          {"tflops_per_gpu_model", unless_oom(tflops(r.throughput.model))},
          {"peak_allocated_bytes", r.memory.peak_allocated.count},
          {"peak_reserved_bytes", r.memory.peak_reserved.count},
          {"live_bytes", p->trial.floor.live.count},
          {"outside_allocator_bytes", r.memory.outside_allocator.count},
          {"capacity_bytes", r.memory.capacity.count},
          {"oom", std::move(death)}};
}

Json list(const std::vector<Scalar>& values) {
  Json array = Json::array();
  for (const Scalar& v : values) array.push_back(to_value(v));
  return array;
}

Json boundary(const Boundary& b) {
  const auto text = [](const std::string& s) { return s.empty() ? Json(nullptr) : Json(s); };
  return {{"refused", text(b.refusal)},      {"last_fit", point(b.last_fit)},
          {"first_oom", point(b.first_oom)}, {"refused_after", text(b.refused_after)},
          {"holes", list(b.holes)},          {"simulated", b.simulated}};
}

}  // namespace

std::string to_json(const RunRecord& run, const Tool& tool) { return run_object(run, tool).dump(2) + "\n"; }

std::string to_json(const SweepResult& sweep, const Tool& tool) {
  Json j = header("shardsim.sweep/1", tool);
  j["axes"] = sweep.axes;
  j["scaling"] = sweep.scaling.empty() ? Json(nullptr) : Json(sweep.scaling);
  j["rows"] = Json::array();
  for (const SweepRow& row : sweep.rows)
    j["rows"].push_back({{"point", row.point},
                         {"run", row.run ? run_object(*row.run, tool) : Json(nullptr)},
                         {"error", row.run ? Json(nullptr) : Json(row.error)}});
  return j.dump(2) + "\n";
}

std::string to_json(const MemoryTimeline& memory, const RunRecord& run, const Tool& tool) {
  const auto column = [&](const auto& value) {
    Json deltas = Json::array();
    std::int64_t last = 0;
    for (const MemoryRow& row : memory.rows) deltas.push_back(value(row) - std::exchange(last, value(row)));
    return deltas;
  };
  Json live = Json::object();
  for (int c = 0; c < categories; ++c)
    live[std::string(name(static_cast<Category>(c)))] =
        column([&](const MemoryRow& row) { return row.live[static_cast<std::size_t>(c)].count; });
  Json j = header("shardsim.memory-timeline/1", tool);
  j["scenario_hash"] = fmt::format("{:016x}", run.scenario_hash);
  j["title"] = title(run);
  j["rank"] = memory.rank.index;
  j["encoding"] = "delta";
  j["rows"] = memory.rows.size();
  j["columns"] = {{"step", column([](const MemoryRow& r) { return std::int64_t{r.step}; })},
                  {"time_ps", column([](const MemoryRow& r) { return r.at.count; })},
                  {"allocated_bytes", column([](const MemoryRow& r) { return r.allocated.count; })},
                  {"active_bytes", column([](const MemoryRow& r) { return r.active.count; })},
                  {"reserved_bytes", column([](const MemoryRow& r) { return r.reserved.count; })},
                  {"live_bytes", std::move(live)}};
  return j.dump() + "\n";
}

std::string to_json(const FrontierResult& frontier, const Tool& tool) {
  Json j = header("shardsim.frontier/1", tool);
  j["over"] = frontier.over;
  j["along"] = frontier.along;
  j["boundary"] = frontier.smallest ? "smallest" : "largest";
  j["values"] = list(frontier.values);
  j["everything_fits"] = frontier.everything_fits();
  j["nothing_fits"] = frontier.nothing_fits();
  j["rows"] = Json::array();
  for (const FrontierRow& row : frontier.rows) {
    Json one = {{"value", row.label}};
    one.update(boundary(row.boundary));
    j["rows"].push_back(std::move(one));
  }
  return j.dump(2) + "\n";
}

std::string to_json(const LimitResult& limit, const Tool& tool) {
  Json j = header("shardsim.limit/1", tool);
  j["key"] = limit.key;
  j["limit"] = limit.largest ? "largest" : "smallest";
  j["values"] = list(limit.values);
  j["rows"] = Json::array();
  for (const LimitRow& row : limit.rows) {
    Json one = {{"label", row.label}, {"change", changes(row.change)}};
    one.update(boundary(row.boundary));
    j["rows"].push_back(std::move(one));
  }
  return j.dump(2) + "\n";
}

std::string to_json(const ValidateResult& result, const Tool& tool) {
  Json j = header("shardsim.validate/1", tool);
  j["file"] = result.file;
  const auto figures = [](const MetricSummary& s) {
    return Json{{"rows", s.rows},
                {"simulated", s.simulated},
                {"mean_abs_error", s.mean_abs_error},
                {"median_abs_error", s.median_abs_error},
                {"bias", s.bias},
                {"p90_abs_error", s.p90_abs_error},
                {"p95_abs_error", s.p95_abs_error},
                {"spearman", s.spearman}};
  };
  Json summary = Json::object(), groups = Json::array();
  for (const MetricSummary& s : result.summary) {
    if (s.group.empty()) {
      summary[s.metric] = figures(s);
      continue;
    }
    Json group = {{"group", s.group}, {"metric", s.metric}};
    group.update(figures(s));
    groups.push_back(std::move(group));
  }
  summary["mean_abs_error"] = result.summary.empty() ? 0.0 : result.summary.front().mean_abs_error;
  const FitsSummary& f = result.fits;
  summary["fits"] = {{"rows", f.rows},
                     {"right", f.right},
                     {"predicted_out_of_memory", f.predicted_out_of_memory},
                     {"missed_out_of_memory", f.missed_out_of_memory}};
  summary["failed"] = result.failed;
  j["summary"] = std::move(summary);
  j["by"] = result.by.empty() ? Json(nullptr) : Json(result.by);
  j["groups"] = std::move(groups);
  j["rows"] = Json::array();
  for (const ValidatedRow& row : result.rows) {
    const auto add = [&](const Json& metric, const Json& predicted, const Json& measured, const Json& error) {
      j["rows"].push_back({{"id", row.id},
                           {"metric", metric},
                           {"predicted", predicted},
                           {"measured", measured},
                           {"error", error},
                           {"status", status(row)},
                           {"why", row.why.empty() ? Json(nullptr) : Json(row.why)},
                           {"quality", row.quality},
                           {"source", row.source}});
    };
    for (const Comparison& c : row.comparisons) add(c.metric, c.predicted, c.measured, c.error());
    for (const std::string& metric : row.unanswered) add(metric, nullptr, nullptr, nullptr);
    if (row.simulated && row.fitted) add("fits", !row.out_of_memory, *row.fitted, nullptr);
    if (!row.simulated && row.unanswered.empty()) add(nullptr, nullptr, nullptr, nullptr);
  }
  return j.dump(2) + "\n";
}

std::string to_json(const CollectiveResult& result, const Tool& tool) {
  Json j = header("shardsim.collective/1", tool);
  j["stack"] = result.stack;
  j["topology"] = result.topology;
  j["gpu"] = result.gpu;
  j["kind"] = name(result.kind);
  j["datatype"] = result.datatype;
  j["axis"] = result.axis;
  j["averages"] = Json::array();
  j["rows"] = Json::array();
  for (const CollectiveTable& t : result.tables) {
    j["averages"].push_back({{"gpus", t.gpus}, {"busbw_gb_per_s", t.average_bus_gb_per_s()}});
    for (const CollectiveLine& l : t.lines)
      j["rows"].push_back({{"topology", result.topology},
                           {"gpus", t.gpus},
                           {"groups", t.groups},
                           {"ranks", t.ranks},
                           {"nodes", t.nodes},
                           {"kind", name(result.kind)},
                           {"bytes", l.bytes.count},
                           {"count", l.count},
                           {"time_us", seconds(l.time) * 1e6},
                           {"algbw_gb_per_s", l.algorithm_gb_per_s()},
                           {"busbw_gb_per_s", l.bus_gb_per_s()},
                           {"algorithm", l.algorithm},
                           {"protocol", l.protocol},
                           {"channels", l.channels},
                           {"latency_us", seconds(l.latency) * 1e6},
                           {"wire_bytes", l.wire.count},
                           {"rate_gb_per_s", gb_per_s(l.rate)}});
  }
  return j.dump(2) + "\n";
}

std::string to_json(const CalibrateResult& result, const Tool& tool) {
  const auto held_out = [](const HeldOut& h) {
    return Json{{"name", h.name}, {"rows", h.rows}, {"before", h.before}, {"after", h.after}};
  };
  const auto or_null = [&](const std::optional<HeldOut>& h) { return h ? held_out(*h) : Json(nullptr); };
  Json j = header("shardsim.calibrate/1", tool);
  j["file"] = result.file;
  j["rows"] = result.rows;
  j["excluded"] = Json::array();
  for (const auto& [reason, rows] : result.excluded)
    j["excluded"].push_back({{"reason", reason}, {"rows", rows}});
  j["constants"] = Json::array();
  for (const FittedConstant& c : result.constants)
    j["constants"].push_back({{"key", c.constant.key},
                              {"unit", c.constant.unit},
                              {"before", c.constant.value},
                              {"after", c.after},
                              {"standard_error", c.standard_error},
                              {"low_95", c.low95},
                              {"high_95", c.high95},
                              {"bounds", {c.constant.low, c.constant.high}},
                              {"at_bound", c.at_low    ? Json("low")
                                           : c.at_high ? Json("high")
                                                       : Json(nullptr)}});
  j["refused"] = Json::array();
  for (const RefusedConstant& r : result.refused)
    j["refused"].push_back({{"key", r.constant.key}, {"value", r.constant.value}, {"why", r.why}});
  j["confounded"] = Json::array();
  for (const ConfoundedPair& p : result.confounded)
    j["confounded"].push_back({{"keys", {p.a, p.b}}, {"correlation", p.correlation}});
  j["mean_abs_error"] = {{"before", result.before}, {"after", result.after}};
  j["median_abs_error"] = {{"before", result.median_before}, {"after", result.median_after}};
  j["scale"] = result.scale;
  j["condition_index"] = result.condition;
  j["downweighted"] = result.downweighted;
  j["folds"] = or_null(result.folds);
  j["group"] = result.group;
  j["groups"] = Json::array();
  for (const HeldOut& g : result.groups) j["groups"].push_back(held_out(g));
  j["groups_left_out"] = or_null(result.all_groups);
  j["one_node_predicts_many"] = or_null(result.many_nodes);
  j["simulations"] = result.simulations;
  j["rounds"] = result.rounds;
  j["converged"] = result.converged;
  return j.dump(2) + "\n";
}

std::string to_json(const std::vector<RecordedValue>& all, const Tool& tool) {
  Json j = header("shardsim.check/1", tool);
  j["scenario"] = values(all);
  return j.dump(2) + "\n";
}

}  // namespace shardsim
