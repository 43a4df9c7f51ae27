#include "sim/study/confidence.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <map>
#include <set>

#include <fmt/format.h>

#include "sim/base/scalar.h"
#include "sim/scenario/measured_runs.h"

namespace shardsim {
namespace {

constexpr std::size_t neighbours = 24;
constexpr double level = 0.90;
constexpr double half_width_min =
    0.02;  // of log time: published throughputs are rounded and vary from run to run

const Scalar* value_of(const RunRecord& run, std::string_view key) {
  for (const RecordedValue& v : run.values)
    if (v.key == key) return &v.value;
  return nullptr;
}
std::string text_of(const RunRecord& run, std::string_view key) {
  const Scalar* value = value_of(run, key);
  return value == nullptr ? "" : to_string(*value);
}
std::int64_t integer_of(const RunRecord& run, std::string_view key, std::int64_t otherwise) {
  const Scalar* value = value_of(run, key);
  const auto* i = value == nullptr ? nullptr : std::get_if<std::int64_t>(value);
  return i == nullptr ? otherwise : *i;
}

bool sharded(const std::string& strategy) {
  return strategy.starts_with("fsdp") || strategy == "zero3" || strategy == "mics";
}
bool sixteen_bits(const std::string& precision) {
  return precision.starts_with("fp16") || precision.starts_with("bf16");
}

std::string sharding_of(const RunRecord& run, const std::string& kind) {
  if (kind == "zero3") return "full";
  if (kind == "mics") return "hybrid";
  if (kind == "zero1" || kind == "zero2" || kind == "megatron-dp") return "optimizer";
  if (run.sharding_factor <= 1) return "none";
  return run.sharding_factor == run.gpus ? "full" : "hybrid";
}

double doublings(double a, double b) { return std::abs(std::log2(std::max(a, 1.0) / std::max(b, 1.0))); }

struct Neighbour {
  double distance;
  const Residual* row;
};
std::vector<Neighbour> nearest_rows(const RunFeatures& run, const std::vector<const Residual*>& rows) {
  std::vector<Neighbour> near;
  for (const Residual* row : rows) near.push_back({distance(run, row->features), row});
  std::stable_sort(near.begin(), near.end(),
                   [](const Neighbour& a, const Neighbour& b) { return a.distance < b.distance; });
  if (near.size() > neighbours) near.resize(neighbours);
  return near;
}

// Linear between the middles of the weights.
double weighted_quantile(std::vector<std::pair<double, double>> values, double share) {
  std::sort(values.begin(), values.end());
  double total = 0, before = 0;
  for (const auto& [value, weight] : values) total += weight;
  double last_at = 0, last = values.front().first;
  for (const auto& [value, weight] : values) {
    const double at = (before + weight / 2) / total;
    if (share <= at)
      return at == last_at || last == value ? value
                                            : last + (value - last) * (share - last_at) / (at - last_at);
    before += weight;
    last_at = at, last = value;
  }
  return last;
}

std::vector<const Residual*> those_that_count(const std::vector<Residual>& residuals) {
  std::vector<const Residual*> rows;
  for (const Residual& row : residuals)
    if (trusted(row.quality)) rows.push_back(&row);
  return rows;
}

std::string basis(const std::vector<Neighbour>& near, std::size_t all) {
  std::map<std::string, int> tables;
  for (const Neighbour& n : near) ++tables[n.row->table];
  std::string list;
  for (const auto& [table, rows] : tables)
    list += fmt::format("{}{} of {}", list.empty() ? "" : ", ", rows, table);
  return fmt::format("errors of the {} most similar of {} validated runs: {}", near.size(), all, list);
}

std::string describe(const Neighbour& n) {
  const RunFeatures& f = n.row->features;
  return fmt::format("{} ({}): {}, {:.3g}B parameters, {} on {} x {}, distance {:.2f}", n.row->id,
                     n.row->table, f.family, f.parameters * 1e-9, f.strategy, f.gpus, f.gpu, n.distance);
}

// What the run has and no row has, or more of it than any row.
std::vector<std::string> extrapolations(const RunFeatures& run, const std::vector<const Residual*>& rows) {
  std::vector<std::string> list;
  const auto never = [&](std::string RunFeatures::*what) {
    return std::none_of(rows.begin(), rows.end(),
                        [&](const Residual* row) { return row->features.*what == run.*what; });
  };
  if (never(&RunFeatures::strategy))
    list.push_back(fmt::format("{} time: not validated", run.strategy));
  else if (never(&RunFeatures::sharding))
    list.push_back(fmt::format("{} sharding: not validated", run.sharding));
  if (never(&RunFeatures::generation))
    list.push_back(fmt::format("{}: no GPU of its generation validated", run.gpu));
  else if (never(&RunFeatures::gpu))
    list.push_back(fmt::format("{}: validated on other GPUs of its generation", run.gpu));
  if (never(&RunFeatures::family)) list.push_back(fmt::format("{} models: not validated", run.family));
  if (never(&RunFeatures::stack)) list.push_back(fmt::format("stack {}: not validated", run.stack));
  if (never(&RunFeatures::precision)) list.push_back(fmt::format("{}: not validated", run.precision));
  if (never(&RunFeatures::attention))
    list.push_back(fmt::format("{} attention: not validated", run.attention));
  if (never(&RunFeatures::checkpointing))
    list.push_back(fmt::format("checkpointing {}: not validated", run.checkpointing));
  if (run.compile &&
      std::none_of(rows.begin(), rows.end(), [](const Residual* r) { return r->features.compile; }))
    list.emplace_back("compile: not validated");
  if (run.mixed) list.emplace_back("mixed clusters: not validated");
  if (run.what_if) list.emplace_back("what-ifs: not validated");
  if (run.overlaid) list.emplace_back("constants of an overlay: the errors are those of the shipped ones");

  std::int64_t gpus = 0, sequence = 0;
  double parameters = 0;
  for (const Residual* row : rows) {
    sequence = std::max(sequence, row->features.sequence);
    parameters = std::max(parameters, row->features.parameters);
    if (sharded(row->features.strategy) == sharded(run.strategy)) gpus = std::max(gpus, row->features.gpus);
  }
  if (run.gpus > gpus)
    list.push_back(fmt::format("{} GPUs: validated up to {} with {} parameters", run.gpus, gpus,
                               sharded(run.strategy) ? "sharded" : "replicated"));
  if (run.sequence > sequence)
    list.push_back(fmt::format("sequences of {}: validated up to {}", run.sequence, sequence));
  if (run.parameters > 1.1 * parameters)
    list.push_back(
        fmt::format("{:.3g}B parameters: validated up to {:.3g}B", run.parameters * 1e-9, parameters * 1e-9));
  return list;
}

// --- the file ---

// Every column with the field it holds, for reading and writing.
template <class Row, class Visit>
void fields(Row& r, const Visit& visit) {
  visit("id", r.id);
  visit("table", r.table);
  visit("quality", r.quality);
  auto& f = r.features;
  visit("family", f.family);
  visit("model", f.model);
  visit("gpu", f.gpu);
  visit("generation", f.generation);
  visit("stack", f.stack);
  visit("strategy", f.strategy);
  visit("sharding", f.sharding);
  visit("precision", f.precision);
  visit("attention", f.attention);
  visit("checkpointing", f.checkpointing);
  visit("compile", f.compile);
  visit("parameters", f.parameters);
  visit("gpus", f.gpus);
  visit("nodes", f.nodes);
  visit("tokens_per_gpu", f.tokens);
  visit("sequence", f.sequence);
  visit("log_error", r.log_error);
}

std::vector<std::string> column_names() {
  std::vector<std::string> names;
  Residual row;
  fields(row, [&](const char* name, const auto&) { names.emplace_back(name); });
  return names;
}

std::string written(const std::string& text) { return text; }
std::string written(bool flag) { return flag ? "1" : "0"; }
std::string written(std::int64_t count) { return fmt::format("{}", count); }
std::string written(double number) { return fmt::format("{:.6g}", number); }

// Whether the text is such a value.
bool parse(const std::string& text, std::string& value) {
  value = text;
  return true;
}
bool parse(const std::string& text, double& value) {
  char* end = nullptr;
  value = std::strtod(text.c_str(), &end);  // nobody here leaves the C locale
  return !text.empty() && end == text.c_str() + text.size() && std::isfinite(value);
}
bool parse(const std::string& text, std::int64_t& value) {
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  return error == std::errc{} && rest == end;
}
bool parse(const std::string& text, bool& value) {
  value = text == "1";
  return value || text == "0";
}

}  // namespace

RunFeatures features(const RunRecord& run) {
  RunFeatures f;
  f.family = text_of(run, "model.family");
  f.model = fmt::format("{} {:.3g}B", run.model == "inline" ? f.family : run.model,
                        static_cast<double>(run.parameters) * 1e-9);
  f.gpu = run.gpu;
  f.generation = run.generation;
  f.stack = run.stack;
  f.strategy = text_of(run, "strategy.kind");
  f.sharding = sharding_of(run, f.strategy);
  f.precision = run.precision;
  f.attention = text_of(run, "training.attention");
  f.checkpointing = text_of(run, "training.activation_checkpointing");
  f.compile = text_of(run, "training.compile") == "true";
  f.overlaid = std::any_of(run.values.begin(), run.values.end(),
                           [](const RecordedValue& v) { return v.key.starts_with("overlay"); });
  f.mixed = run.parts.size() > 1;
  for (const RecordedValue& v : run.values) {
    for (const char* what : {"straggler[", "degraded_link[", "background_job["})
      f.what_if = f.what_if || v.key.starts_with(what);
    const bool asked = !v.origin.starts_with("default");
    f.what_if = f.what_if || (v.key == "jitter.step_sigma" && asked) || to_string(v.value) == "chunk";
  }
  f.parameters = static_cast<double>(run.parameters);
  f.tokens = static_cast<double>(run.global_batch_tokens) / static_cast<double>(run.gpus * run.grad_accum);
  f.gpus = run.gpus;
  const std::int64_t node =
      integer_of(run, run.parts.empty() ? "topology.node.gpus" : "cluster.part[0].topology.node.gpus", 1);
  f.nodes = (run.gpus + node - 1) / node;
  f.sequence = integer_of(run, "training.sequence_length", 0);
  return f;
}

double distance(const RunFeatures& a, const RunFeatures& b) {
  double d = 0.1 * (doublings(a.parameters, b.parameters) + doublings(a.tokens, b.tokens) +
                    doublings(static_cast<double>(a.gpus), static_cast<double>(b.gpus)) +
                    doublings(static_cast<double>(a.sequence), static_cast<double>(b.sequence)));
  if ((a.nodes > 1) != (b.nodes > 1)) d += 0.4;
  d += a.generation != b.generation ? 0.8 : a.gpu != b.gpu ? 0.15 : 0;
  d += sharded(a.strategy) != sharded(b.strategy) ? 0.8 : a.strategy != b.strategy ? 0.3 : 0;
  if (a.sharding != b.sharding) d += 0.3;
  if (a.stack != b.stack) d += 0.3;
  if (a.attention != b.attention) d += 0.3;
  if (a.family != b.family) d += 0.3;
  d += sixteen_bits(a.precision) != sixteen_bits(b.precision) ? 0.5 : a.precision != b.precision ? 0.1 : 0;
  if (a.checkpointing != b.checkpointing) d += 0.2;
  if (a.compile != b.compile) d += 0.6;
  return d;
}

Interval interval(const RunFeatures& run, const std::vector<const Residual*>& rows) {
  const std::vector<Neighbour> near = nearest_rows(run, rows);
  std::vector<std::pair<double, double>> errors;
  for (const Neighbour& n : near)
    errors.emplace_back(n.row->log_error, std::exp(-2 * (n.distance - near.front().distance)));
  const double middle = weighted_quantile(errors, 0.5), widen = 1 + near.front().distance;
  const auto side = [&](double share) {
    return widen * std::max(half_width_min, std::abs(weighted_quantile(errors, share) - middle));
  };
  // A positive error is a prediction that is too slow: the real time is shorter.
  return {std::exp(-(middle + side((1 + level) / 2))), std::exp(-(middle - side((1 - level) / 2)))};
}

std::optional<Confidence> confidence(const RunRecord& run, const std::vector<Residual>& residuals) {
  const std::vector<const Residual*> rows = those_that_count(residuals);
  if (rows.empty() || run.result.out_of_memory()) return std::nullopt;
  const RunFeatures f = features(run);
  const std::vector<Neighbour> near = nearest_rows(f, rows);
  const Interval times = interval(f, rows);
  const double step = seconds(run.result.step_time);
  return Confidence{
      step * std::min(1.0, times.low), step * std::max(1.0, times.high), level,
      basis(near, rows.size()),        describe(near.front()),           extrapolations(f, rows)};
}

double coverage(const std::vector<Residual>& residuals, LeaveOut what) {
  const std::vector<const Residual*> all = those_that_count(residuals);
  double inside = 0, asked = 0;
  for (const Residual* row : all) {
    std::vector<const Residual*> others;
    for (const Residual* other : all)
      if (what == LeaveOut::row     ? other != row
          : what == LeaveOut::model ? other->features.model != row->features.model
                                    : other->table != row->table)
        others.push_back(other);
    if (others.empty()) continue;
    const Interval times = interval(row->features, others);
    const double measured = std::exp(-row->log_error);  // of a prediction of 1 s
    asked += 1;
    if (times.low <= measured && measured <= times.high) inside += 1;
  }
  return asked == 0 ? 0 : inside / asked;
}

std::vector<Residual> read_residuals(const Library& library) {
  const std::string path = library.find_table(residuals_table);
  return path.empty() ? std::vector<Residual>{} : read_residuals(read_csv_file(path));
}

std::vector<Residual> read_residuals(const CsvTable& table) {
  const std::vector<std::string> names = column_names();
  bool same = table.header.size() == names.size();
  for (std::size_t c = 0; same && c < names.size(); ++c) same = table.header[c].text == names[c];
  if (!same)
    throw InputError({table.file, table.header.front().line, 1},
                     "has not the columns of residuals; `shardsim validate --residuals` writes them");
  std::vector<Residual> residuals;
  for (const CsvRow& cells : table.rows) {
    if (cells.size() != names.size())
      throw InputError({table.file, cells.front().line, 1},
                       fmt::format("has {} cells; the header has {} columns", cells.size(), names.size()));
    auto cell = cells.begin();
    fields(residuals.emplace_back(), [&](const char* name, auto& value) {
      if (!parse(cell->text, value))
        throw InputError(table.place(*cell),
                         fmt::format("column \"{}\" holds \"{}\"; a number is expected", name, cell->text));
      ++cell;
    });
  }
  return residuals;
}

std::vector<std::string> validation_tables(const Library& library) {
  std::vector<std::string> tables;
  for (const std::string& name : library.table_names())
    if (name.starts_with("validation/") && name != residuals_table) tables.push_back(name);
  return tables;
}

std::string to_csv(const std::vector<Residual>& residuals) {
  std::string out;
  for (const std::string& name : column_names()) out += (out.empty() ? "" : ",") + name;
  out += "\n";
  for (const Residual& row : residuals) {
    std::string line;
    fields(row, [&](const char* name, const auto& value) {
      line += (std::string_view(name) == "id" ? "" : ",") + csv_cell(written(value));
    });
    out += line + "\n";
  }
  return out;
}

}  // namespace shardsim
