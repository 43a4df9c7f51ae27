// Our own mistakes end the program, in release too. No input can reach one of these; what a user did wrong is
// an InputError (error.h), what the simulated world does is a result.
#pragma once

#include <string_view>

namespace shardsim {

[[noreturn]] void fail(std::string_view why, const char* file, int line);

// Aborts with `why` and the place of the call unless `condition` holds.
inline void require(bool condition, std::string_view why, const char* file = __builtin_FILE(),
                    int line = __builtin_LINE()) {
  if (!condition) [[unlikely]]
    fail(why, file, line);
}

}  // namespace shardsim
