#include "sim/scenario/csv.h"

#include <csv.h>

#include "sim/base/check.h"
#include "sim/scenario/text_file.h"

namespace shardsim {
namespace {

constexpr std::uintmax_t file_mib_max = 1024;

// libcsv says where neither cells nor errors are, so it is fed byte by byte.
class Reader {
 public:
  explicit Reader(CsvTable& table) : table_(table) {
    require(csv_init(&parser_, CSV_STRICT | CSV_STRICT_FINI) == 0, "libcsv starts");
  }
  ~Reader() { csv_free(&parser_); }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  void read(std::string_view text) {
    for (const char c : text) {
      if (!in_cell_) cell_line_ = line_, cell_column_ = column_;
      in_cell_ = in_cell_ || (c != '\r' && c != '\n');
      if (csv_parse(&parser_, &c, 1, end_of_cell, end_of_row, this) != 1) fail(line_, column_, c);
      if (c == '\n') {
        ++line_;
        column_ = 1;
      } else if ((static_cast<unsigned char>(c) & 0xC0) != 0x80) {  // not inside a UTF-8 sequence
        ++column_;
      }
    }
    if (csv_fini(&parser_, end_of_cell, end_of_row, this) != 0)
      throw InputError({table_.file, cell_line_, cell_column_}, "a quoted cell is never closed");
  }

 private:
  [[noreturn]] void fail(int line, int column, char c) const {
    throw InputError(
        {table_.file, line, column},
        c == '"' ? "a quote inside a cell; quote the whole cell and double the quote"
                 : "text after the closing quote of a cell; a comma or the end of the line is expected");
  }
  static void end_of_cell(void* text, std::size_t size, void* self) {
    Reader& r = *static_cast<Reader*>(self);
    r.row_.push_back({std::string(static_cast<const char*>(text), size), r.cell_line_, r.cell_column_});
    r.in_cell_ = false;
  }
  static void end_of_row(int, void* self) {
    Reader& r = *static_cast<Reader*>(self);
    if (r.table_.header.empty())
      r.table_.header = std::move(r.row_);
    else
      r.table_.rows.push_back(std::move(r.row_));
    r.row_.clear();
  }

  CsvTable& table_;
  csv_parser parser_{};
  CsvRow row_;
  int line_ = 1, column_ = 1, cell_line_ = 1, cell_column_ = 1;
  bool in_cell_ = false;
};

}  // namespace

CsvTable read_csv_text(std::string_view text, const std::string& name) {
  constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";
  if (text.starts_with(byte_order_mark)) text.remove_prefix(byte_order_mark.size());
  CsvTable table{.file = name, .header = {}, .rows = {}};
  Reader(table).read(text);
  if (table.header.empty())
    throw InputError({name, 1, 1}, "is empty; a header line with columns is expected");
  return table;
}

CsvTable read_csv_file(const std::string& path) {
  return read_csv_text(read_text_file(path, file_mib_max), path);
}

}  // namespace shardsim
