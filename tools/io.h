// Files in, text out, and the line that shows what is being done.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "sim/report/json.h"
#include "sim/scenario/scenario.h"

#include "tools/commands.h"

namespace shardsim {

extern const Tool tool;

// A path, or what the library has in scenarios/ under that name, such as "fsdp-paper/model-scale"; "" there =
// nothing. Throws InputError if there is neither.
std::string find_file(const std::string& given, const std::string& in_library, std::string_view what,
                      const std::vector<std::string>& names);

// The scenario that the options name or spell out.
ScenarioFile read(const Options& o, const Library& library);

// Whole or not at all: written beside the target, then renamed; through links, and straight into what is no
// regular file (a device, a pipe).
void write_file(const std::string& named, const std::string& text);

// Throws InputError if there is such a file already, unless it may be overwritten.
void refuse_existing(const std::string& option, const std::string& path, bool overwrite);

// To the file, or to standard output if it is "" or "-".
void print(const std::string& text, const std::string& output);

// A line on standard error that shows what is being simulated.
class ProgressLine {
 public:
  explicit ProgressLine(const Options& o);
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;
  void show(const std::string& text) const;

 private:
  bool shown_;
};

inline std::string format_of(const Options& o) { return o.format.empty() ? "table" : o.format; }

template <class ResultOfStudy>
void print_in_format(const ResultOfStudy& result, const Options& o) {
  const std::string format = format_of(o);
  print(format == "json"  ? to_json(result, tool)
        : format == "csv" ? to_csv(result)
                          : to_text(result),
        o.output);
}

}  // namespace shardsim
