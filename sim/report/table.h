// Aligned columns of text.
#pragma once

#include <string>
#include <vector>

namespace shardsim {

struct Table {
  std::vector<std::string> header;             // of one line each, or two
  std::vector<std::vector<std::string>> rows;  // each as long as the header
};

// Cells that look like numbers are aligned right, with their header; the rest left. No trailing spaces.
std::string to_text(const Table& table);

}  // namespace shardsim
