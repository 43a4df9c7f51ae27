// What a program asks for, without running it.
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

// The most bytes of requested tensors that are live at once, from the set-up through every step: no allocator
// can do with less, however it rounds and whatever it caches.
// Requires: verify(program) is empty, so a repeated body or step leaves what is live as it was.
Bytes peak_live_bytes(const Program& program);

}  // namespace shardsim
