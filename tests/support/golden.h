// Comparing long texts with files that people read.
#pragma once

#include <fstream>
#include <sstream>
#include <string>

#include <doctest/doctest.h>

namespace shardsim {

// Equal to tests/<path>, or the first line that differs. SHARDSIM_UPDATE_GOLDEN=1 rewrites the file instead:
// read the difference before you commit it.
inline void check_golden(const std::string& text, const std::string& path) {
  const std::string file = std::string(SHARDSIM_SOURCE_DIR) + "/tests/" + path;
  if (std::getenv("SHARDSIM_UPDATE_GOLDEN") != nullptr) {
    std::ofstream(file) << text;
    return;
  }
  std::ifstream in(file);
  REQUIRE_MESSAGE(in.good(), "cannot read " << file);
  std::istringstream got(text);
  std::string expected_line, got_line;
  for (int line = 1;; ++line) {
    const bool more_expected = static_cast<bool>(std::getline(in, expected_line));
    const bool more_got = static_cast<bool>(std::getline(got, got_line));
    if (!more_expected && !more_got) return;
    INFO(path << ":" << line);
    REQUIRE(more_expected == more_got);
    REQUIRE(got_line == expected_line);
  }
}

}  // namespace shardsim
