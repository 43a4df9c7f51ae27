#include "sim/scenario/measured_runs.h"

#include <algorithm>
#include <cctype>

#include <fmt/format.h>

namespace shardsim {
namespace {

constexpr const char* about_the_row[] = {"id", "source", "quality", "notes"};

bool carried(const std::string& column) {
  return column.starts_with("x.") || column.starts_with("simulated.");
}
bool known_without_key(const std::string& column) {
  return carried(column) ||
         std::find(std::begin(about_the_row), std::end(about_the_row), column) != std::end(about_the_row);
}

void check_column(const std::string& column, const Place& place) {
  if (column.empty()) throw InputError(place, "a column has no name");
  if (known_without_key(column)) return;
  if (column.find('.') != std::string::npos || column == "model" || column == "topology" ||
      column == "overlay") {
    key_spec(column, place);
    return;
  }
  std::vector<std::string> known(std::begin(about_the_row), std::end(about_the_row));
  for (const KeySpec& spec : keys()) {
    known.emplace_back(spec.key);
    known.emplace_back(spec.key.substr(spec.key.rfind('.') + 1));  // "gpus" is near to cluster.gpus
  }
  const std::string leaf = nearest(column, known);
  std::string near = leaf;
  for (const KeySpec& spec : keys())  // of several tables that have it, the one with the shortest name
    if (!leaf.empty() && spec.key.ends_with("." + leaf) && (near == leaf || spec.key.size() < near.size()))
      near = spec.key;
  throw InputError(
      place, fmt::format("unknown column \"{}\"; columns are dotted keys of a scenario, id, source, quality, "
                         "notes, x.*{}",
                         column, near.empty() ? "" : "; did you mean \"" + near + "\"?"));
}

// What stands before a unit: "200" of "200 tok/s"; "" if it is no number with a unit.
std::string number_before_unit(const std::string& text) {
  const std::size_t end = text.find_first_not_of("+-.0123456789");
  if (end == 0 || end == std::string::npos || text.find_first_of("0123456789") >= end) return "";
  const bool unit =
      text[end] == ' ' || text[end] == '%' || std::isalpha(static_cast<unsigned char>(text[end]));
  return unit ? text.substr(0, end) : "";
}

// Says which column, for a reader who sees a table and not a scenario.
void check_number(const KeySpec& spec, const Scalar& value, const std::string& column, const Place& place) {
  const bool number = spec.type == KeySpec::Type::number, integer = spec.type == KeySpec::Type::integer;
  const std::string* text = std::get_if<std::string>(&value);
  if ((!number && !integer) || text == nullptr) return;
  const std::string amount = number_before_unit(*text);
  throw InputError(place, fmt::format("column \"{}\" holds \"{}\"; {} is expected{}", column, *text,
                                      number ? "a number" : "an integer",
                                      amount.empty() ? ""
                                                     : ", without a unit, which belongs in the column's "
                                                       "name: " +
                                                           amount));
}

}  // namespace

bool trusted(std::string_view quality) {
  return !quality.starts_with("outlier") && quality != "lengths-unknown";
}

MeasuredRuns::MeasuredRuns(CsvTable table) : table_(std::move(table)) {
  bool model = false, topology = false, measured = false;
  for (std::size_t c = 0; c < table_.header.size(); ++c) {
    const std::string& column = table_.header[c].text;
    const Place place = table_.place(table_.header[c]);
    check_column(column, place);
    for (std::size_t other = 0; other < c; ++other)
      if (table_.header[other].text == column)
        throw InputError(
            place, fmt::format("column \"{}\" stands here twice; its first is column {} of the line", column,
                               table_.header[other].column));
    model |= column == "model" || column.starts_with("model.");
    topology |= column == "topology" || column.starts_with("topology.");
    measured |=
        column.starts_with("measured.") && column != "measured.source" && column != "measured.quality";
  }
  const Place header{table_.file, table_.header.front().line, 1};
  if (!model) throw InputError(header, "no column \"model\" or \"model.*\": which model ran?");
  if (!topology) throw InputError(header, "no column \"topology\" or \"topology.*\": on which cluster?");
  if (!measured)
    throw InputError(header,
                     "no column \"measured.*\", such as measured.step_time_s, "
                     "measured.tokens_per_s_per_gpu, measured.peak_reserved_gib or measured.fits");
  if (table_.rows.empty()) throw InputError(header, "has columns but no rows");
}

int MeasuredRuns::find(const std::string& column) const {
  for (std::size_t c = 0; c < table_.header.size(); ++c)
    if (table_.header[c].text == column) return static_cast<int>(c);
  return -1;
}

std::vector<std::string> MeasuredRuns::columns() const {
  std::vector<std::string> names;
  for (const CsvCell& cell : table_.header) names.push_back(cell.text);
  return names;
}

std::vector<std::string> MeasuredRuns::carried_columns() const {
  std::vector<std::string> names = columns();
  std::erase_if(names, [](const std::string& name) { return !name.starts_with("x."); });
  return names;
}

std::string MeasuredRuns::cell(std::size_t row, const std::string& column) const {
  const int c = find(column);
  const CsvRow& cells = table_.rows[row];
  return c < 0 || static_cast<std::size_t>(c) >= cells.size() ? "" : cells[static_cast<std::size_t>(c)].text;
}

std::string MeasuredRuns::id(std::size_t row) const {
  const std::string id = cell(row, "id");
  return id.empty() ? fmt::format("line {}", table_.rows[row].front().line) : id;
}

MeasuredRun MeasuredRuns::run(std::size_t row) const {
  const CsvRow& cells = table_.rows[row];
  const Place line{table_.file, cells.front().line, 1};
  if (cells.size() != table_.header.size())
    throw InputError(
        line, fmt::format("has {} cells; the header has {} columns", cells.size(), table_.header.size()));
  MeasuredRun run{.id = id(row), .settings = {}};
  run.settings.scenario = line;
  for (std::size_t c = 0; c < cells.size(); ++c) {
    const std::string& column = table_.header[c].text;
    if (known_without_key(column) || cells[c].text.empty()) continue;
    const Place place = table_.place(cells[c]);
    const KeySpec& spec = key_spec(column, place);
    const Scalar value = typed(spec, cells[c].text);
    check_number(spec, value, column, place);
    run.settings.set(column, value, {Origin::Kind::file, place, {}});
  }
  return run;
}

}  // namespace shardsim
