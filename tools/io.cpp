#include "tools/io.h"

#include <cstdio>
#include <filesystem>
#include <fstream>

#include <fmt/format.h>
#include <unistd.h>

#include "version.h"

namespace shardsim {

namespace fs = std::filesystem;

const Tool tool{version, commit};

std::string find_file(const std::string& given, const std::string& in_library, std::string_view what,
                      const std::vector<std::string>& names) {
  std::error_code error;
  if (fs::exists(given, error)) return given;
  if (!in_library.empty()) return in_library;
  throw InputError({given}, fmt::format("cannot be read: no such file, and no {} of that name{}", what,
                                        suggestion(given, names)));
}

void write_file(const std::string& named, const std::string& text) {
  std::error_code error;
  const std::string path = fs::exists(named, error) ? fs::canonical(named, error).string() : named;
  if (fs::exists(path, error) && !fs::is_regular_file(path, error) && !fs::is_directory(path, error)) {
    std::ofstream file(path, std::ios::binary);
    if (!(file << text).flush()) throw InputError({named}, "cannot be written");
    return;
  }
  const std::string temporary = path + ".tmp" + std::to_string(getpid());
  {
    std::ofstream file(temporary, std::ios::binary);
    file << text;
    file.close();
    if (!file) {
      fs::remove(temporary, error);
      throw InputError({named}, "cannot be written");
    }
  }
  fs::rename(temporary, path, error);
  if (!error) return;
  const std::string why = error.message();
  fs::remove(temporary, error);
  throw InputError({named}, "cannot be written: " + why);
}

void refuse_existing(const std::string& option, const std::string& path, bool overwrite) {
  std::error_code error;
  if (!overwrite && fs::is_regular_file(path, error))
    throw InputError({option + " " + path}, "exists already; --force overwrites it");
}

void print(const std::string& text, const std::string& output) {
  if (!output.empty() && output != "-") {
    write_file(output, text);
    return;
  }
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0)
    throw InputError({"standard output"}, "cannot be written");
}

ScenarioFile read(const Options& o, const Library& library) {
  ScenarioFile scenario;
  if (!o.scenario.empty())
    scenario = read_scenario(
        find_file(o.scenario, library.find_scenario(o.scenario), "scenario", library.scenario_names()));
  else
    scenario.settings.scenario = {"the command line"};
  for (std::size_t i = 0; i < std::size(shorthands); ++i)
    if (!o.short_values[i].empty())
      assign(scenario, shorthands[i].key, o.short_values[i], shorthands[i].option);
  for (const std::string& set : o.sets) assign(scenario, set);
  return scenario;
}

ProgressLine::ProgressLine(const Options& o) : shown_(!o.quiet && isatty(STDERR_FILENO) != 0) {}

ProgressLine::~ProgressLine() {
  if (shown_) std::fputs("\r\033[K", stderr);
}

void ProgressLine::show(const std::string& text) const {
  if (shown_) std::fputs(("\r\033[K" + text.substr(0, 75)).c_str(), stderr);
}

}  // namespace shardsim
