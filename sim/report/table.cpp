#include "sim/report/table.h"

#include <algorithm>

namespace shardsim {
namespace {

bool numeric(const std::string& cell) {
  return cell.empty() || cell == "-" || cell.find_first_not_of("0123456789.,+-%") == std::string::npos;
}

}  // namespace

std::string to_text(const Table& table) {
  const std::size_t columns = table.header.size();
  std::vector<std::string> above(columns), header(columns);
  for (std::size_t c = 0; c < columns; ++c) {
    const std::string& text = table.header[c];
    const std::size_t second = text.find('\n') + 1;  // 0 if there is one line
    if (second > 0) above[c] = text.substr(0, second - 1);
    header[c] = text.substr(second);
  }
  std::vector<std::size_t> width(columns);
  std::vector<bool> right(columns, true);
  for (std::size_t c = 0; c < columns; ++c) {
    width[c] = std::max(above[c].size(), header[c].size());
    for (const auto& row : table.rows) {
      width[c] = std::max(width[c], row[c].size());
      right[c] = right[c] && numeric(row[c]);
    }
  }
  std::string out;
  const auto line = [&](const std::vector<std::string>& cells) {
    std::string text;
    for (std::size_t c = 0; c < columns; ++c) {
      const std::string gap(width[c] - cells[c].size(), ' ');
      text += (c == 0 ? "" : "  ") + (right[c] ? gap + cells[c] : cells[c] + gap);
    }
    text.erase(text.find_last_not_of(' ') + 1);
    out += text + "\n";
  };
  if (std::any_of(above.begin(), above.end(), [](const std::string& s) { return !s.empty(); })) line(above);
  line(header);
  std::vector<std::string> rule;
  for (const std::size_t w : width) rule.emplace_back(w, '-');
  line(rule);
  for (const auto& row : table.rows) line(row);
  return out;
}

}  // namespace shardsim
