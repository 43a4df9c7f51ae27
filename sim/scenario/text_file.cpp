#include "sim/scenario/text_file.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <fmt/format.h>

#include "sim/base/error.h"

namespace shardsim {

std::string read_text_file(const std::string& path, std::uintmax_t mib_max) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) throw InputError({path}, "is a directory, not a file");
  const std::uintmax_t size = std::filesystem::file_size(path, error);
  if (!error && size > mib_max << 20)
    throw InputError({path},
                     fmt::format("has {} MiB; files of more than {} MiB are not read", size >> 20, mib_max));
  std::ifstream file(path, std::ios::binary);
  if (!file) throw InputError({path}, fmt::format("cannot be read: {}", std::strerror(errno)));
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace shardsim
