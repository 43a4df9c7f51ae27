#include "sim/program/count.h"

#include <algorithm>

namespace shardsim {
namespace {

void add(Counts& c, const Program& program, const Instruction& instruction, std::int64_t times) {
  c.instructions += times;
  if (const auto* alloc = std::get_if<Alloc>(&instruction)) {
    c.allocs += times;
    c.allocated += program.tensors[alloc->tensor].bytes * times;
  } else if (const auto* free = std::get_if<Free>(&instruction)) {
    c.frees += times;
    c.freed += program.tensors[free->tensor].bytes * times;
  } else if (const auto* launch = std::get_if<Launch>(&instruction)) {
    c.launches += times;
    c.executed += executed_flop(program.kernels[launch->kernel]) * static_cast<double>(times);
  } else if (std::holds_alternative<Copy>(instruction)) {
    c.copies += times;
  } else if (const auto* collective = std::get_if<Collective>(&instruction)) {
    const CollectiveOp& op = program.collectives[collective->what];
    auto& kind = c.collectives[static_cast<std::size_t>(op.kind)];
    kind.count += times;
    kind.bytes += op.bytes * times;
  }
}

}  // namespace

Counts count(const Program& program, Section section) {
  Counts counts;
  for (const Repeat& repeat : program[section])
    for (const Instruction& i : program.bodies[repeat.body]) add(counts, program, i, repeat.times);
  return counts;
}

Bytes peak_live_bytes(const Program& program) {
  Bytes live, peak;
  const auto on_device = [&](TensorId t) {
    const Tensor& tensor = program.tensors[t];
    return tensor.space == MemorySpace::device ? tensor.bytes : Bytes{};
  };
  for (const Section s : {Section::init, Section::first, Section::second, Section::steady})
    for (const Repeat& repeat : program[s])
      for (const Instruction& i : program.bodies[repeat.body]) {
        if (const auto* alloc = std::get_if<Alloc>(&i)) live += on_device(alloc->tensor);
        if (const auto* free = std::get_if<Free>(&i)) live -= on_device(free->tensor);
        peak = std::max(peak, live);
      }
  return peak;
}

}  // namespace shardsim
