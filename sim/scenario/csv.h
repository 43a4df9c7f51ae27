// Reading CSV tables (RFC 4180) with the place of every cell. Takes a byte-order mark, CRLF and empty lines.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "sim/base/error.h"

namespace shardsim {

struct CsvCell {
  std::string text;  // without quotes, and without blanks around it unless quoted
  int line = 0, column = 0;
};
using CsvRow = std::vector<CsvCell>;

struct CsvTable {
  std::string file;
  CsvRow header;
  std::vector<CsvRow> rows;  // of any length: who knows the columns complains

  Place place(const CsvCell& cell) const { return {file, cell.line, cell.column}; }
};

// Throws InputError for what is no such table: missing, a directory, larger than 1 GiB, empty, a quote inside
// an unquoted cell or never closed.
CsvTable read_csv_file(const std::string& path);
CsvTable read_csv_text(std::string_view text, const std::string& name);

}  // namespace shardsim
