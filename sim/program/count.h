// What one section of a program asks for, without running it.
#pragma once

#include <array>
#include <cstdint>

#include "sim/program/program.h"

namespace shardsim {

struct Counts {
  std::int64_t instructions = 0, allocs = 0, frees = 0, launches = 0, copies = 0;
  Bytes allocated, freed;
  Flop executed;  // by the kernels, as they run
  struct Collectives {
    std::int64_t count = 0;
    Bytes bytes;  // as nccl-tests counts them
  };
  std::array<Collectives, collective_kinds> collectives;

  const Collectives& operator[](CollectiveKind k) const { return collectives[static_cast<std::size_t>(k)]; }
};

Counts count(const Program& program, Section section);

}  // namespace shardsim
