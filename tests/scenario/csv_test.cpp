// Are tables read as spreadsheets and pandas write them, and does every mistake in one have its place?
#include "sim/scenario/csv.h"

#include <doctest/doctest.h>

namespace shardsim {
namespace {

std::string complaint(const std::string& text) {
  try {
    read_csv_text(text, "a.csv");
    return "";
  } catch (const InputError& error) {
    return error.what();
  }
}

std::vector<std::string> texts(const CsvRow& row) {
  std::vector<std::string> all;
  for (const CsvCell& cell : row) all.push_back(cell.text);
  return all;
}
using Texts = std::vector<std::string>;

TEST_CASE("cells have their line and column, in characters") {
  const CsvTable table = read_csv_text("a,b,c\n1,,\"x, y\"\nö,2,3\n", "a.csv");
  CHECK(texts(table.header) == Texts{"a", "b", "c"});
  REQUIRE(table.rows.size() == 2);
  CHECK(texts(table.rows[0]) == Texts{"1", "", "x, y"});
  CHECK(table.rows[0][2].line == 2);
  CHECK(table.rows[0][2].column == 4);
  CHECK(table.rows[1][1].column == 3);
}

TEST_CASE("a byte-order mark, CRLF, empty lines and a missing last newline change nothing") {
  const CsvTable plain = read_csv_text("a,b\n1,2\n3,4\n", "a.csv");
  for (const char* text : {"\xEF\xBB\xBF"
                           "a,b\n1,2\n3,4\n",
                           "a,b\r\n1,2\r\n3,4\r\n", "a,b\n\n1,2\n\n\n3,4", "\na,b\n1,2\n3,4\n"}) {
    const CsvTable table = read_csv_text(text, "a.csv");
    CHECK(texts(table.header) == texts(plain.header));
    REQUIRE(table.rows.size() == 2);
    CHECK(texts(table.rows[0]) == texts(plain.rows[0]));
    CHECK(texts(table.rows[1]) == texts(plain.rows[1]));
  }
  CHECK(read_csv_text("a,b\r\n\r\n1,2\r\n", "a.csv").rows[0][1].line == 3);
  CHECK(read_csv_text("\xEF\xBB\xBF"
                      "a,b\n1,2\n",
                      "a.csv")
            .header[1]
            .column == 3);
}

TEST_CASE("quoted cells hold commas, doubled quotes and newlines") {
  const CsvTable table = read_csv_text("a,b\n\"x\"\"y\",\"two\nlines\"\n5,6\n", "a.csv");
  CHECK(texts(table.rows[0]) == Texts{"x\"y", "two\nlines"});
  CHECK(table.rows[1][0].line == 4);
}

TEST_CASE("mistakes of quoting have their place") {
  CHECK(complaint("a,b\n1,\"x\n2,3\n") == "a.csv:2:3: a quoted cell is never closed");
  CHECK(complaint("a,b\n1,x\"y\n") ==
        "a.csv:2:4: a quote inside a cell; quote the whole cell and double the quote");
  CHECK(complaint("a,b\n1,\"x\"y\n") ==
        "a.csv:2:6: text after the closing quote of a cell; a comma or the end of the line is expected");
}

TEST_CASE("an empty table is none") {
  CHECK(complaint("") == "a.csv:1:1: is empty; a header line with columns is expected");
  CHECK(complaint("\n\r\n") == "a.csv:1:1: is empty; a header line with columns is expected");
}

TEST_CASE("100,000 rows are read") {
  std::string text = "a,b,c\n";
  for (int i = 0; i < 100'000; ++i) text += "1,22,333\n";
  const CsvTable table = read_csv_text(text, "a.csv");
  REQUIRE(table.rows.size() == 100'000);
  CHECK(table.rows.back()[2].line == 100'001);
}

}  // namespace
}  // namespace shardsim
