// The invariants of a step program, checked once after every compile.
#pragma once

#include <string>

#include "sim/program/program.h"

namespace shardsim {

// "" if the program is sound, else the first offence with its place:
//   tensors   allocated before they are used, freed once; what is live at the end of a steady step (and of a
//             repeated body) was live at its start
//   events    a stream waits only for events recorded before; the host for events recorded anywhere
//   marks     closed in the body that opened them
//   groups    a collective runs on the stream of its group, and only collectives run there
std::string verify(const Program& program);

}  // namespace shardsim
