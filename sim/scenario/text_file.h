// Reading whole files, with the complaints that users get when they cannot be read.
#pragma once

#include <cstdint>
#include <string>

namespace shardsim {

// Throws InputError for a file that is missing, a directory, or larger than `mib_max` MiB.
std::string read_text_file(const std::string& path, std::uintmax_t mib_max);

}  // namespace shardsim
