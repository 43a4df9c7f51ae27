// Tables of measured runs, one per row: the scenario of each and what was measured. Columns are the dotted
// keys of scenarios, id, source, quality, notes, and x.* and simulated.*, which are carried through. Empty =
// default.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "sim/scenario/csv.h"
#include "sim/scenario/settings.h"

namespace shardsim {

// Whether a row of that quality may set a constant or an interval: no outlier, and its settings are known.
bool trusted(std::string_view quality);

struct MeasuredRun {
  std::string id;     // "line 12" in a table without ids
  Settings settings;  // with measured.*
};

class MeasuredRuns {
 public:
  // Throws InputError for what concerns the whole table: a column that is unknown (with the nearest name),
  // doubled or missing, or no rows.
  explicit MeasuredRuns(CsvTable table);

  std::size_t size() const { return table_.rows.size(); }
  const std::string& file() const { return table_.file; }
  std::string id(std::size_t row) const;
  // The text of a row's cell under a column; "" if the table has no such column or the row no such cell.
  std::string cell(std::size_t row, const std::string& column) const;
  bool has_column(const std::string& column) const { return find(column) >= 0; }
  std::vector<std::string> columns() const;
  std::vector<std::string> carried_columns() const;  // x.*, which the results of a row repeat
  // Throws InputError with the place of the cell that is wrong.
  MeasuredRun run(std::size_t row) const;

 private:
  int find(const std::string& column) const;  // -1 = none

  CsvTable table_;
};

}  // namespace shardsim
