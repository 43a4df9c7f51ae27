#include "sim/base/check.h"

#include <cstdio>
#include <cstdlib>

namespace shardsim {

void fail(std::string_view why, const char* file, int line) {
  std::fprintf(stderr, "shardsim: internal error at %s:%d: %.*s\n", file, line, static_cast<int>(why.size()),
               why.data());
  std::abort();
}

}  // namespace shardsim
