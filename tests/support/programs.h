// Reading programs in tests: orders of collectives, bytes that are live.
#pragma once

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "sim/program/program.h"

namespace shardsim {

// Calls visit(instruction) for every instruction of a section, repeats included.
template <class Visit>
void for_each(const Program& program, Section section, const Visit& visit) {
  for (const Repeat& repeat : program[section])
    for (std::int64_t i = 0; i < repeat.times; ++i)
      for (const Instruction& instruction : program.bodies[repeat.body]) visit(instruction);
}

// What runs on the groups of one axis in a section, in order of issue: "AG root, AG block 1, RS block 1".
inline std::string collectives_of(const Program& program, Section section, Axis axis) {
  constexpr const char* shorts[] = {"AG", "RS", "AR"};
  std::string text;
  for_each(program, section, [&](const Instruction& instruction) {
    const auto* c = std::get_if<Collective>(&instruction);
    if (c == nullptr) return;
    const CollectiveOp& op = program.collectives[c->what];
    if (program.groups[op.group].axis != axis) return;
    text += (text.empty() ? "" : ", ") + std::string(shorts[static_cast<int>(op.kind)]) + " " +
            program.labels[c->label];
  });
  return text;
}

// Requested bytes that are live, by category, as the program runs through sections in order: of the GPU, or
// of the host.
class LiveBytes {
 public:
  explicit LiveBytes(const Program& program, bool on_host = false) : program_(program), on_host_(on_host) {}

  void run(Section section) {
    for_each(program_, section, [&](const Instruction& i) { run(i); });
  }
  void run(BodyId body) {
    for (const Instruction& i : program_.bodies[body]) run(i);
  }
  Bytes now(Category c) const { return now_[static_cast<std::size_t>(c)]; }
  Bytes peak(Category c) const { return peak_[static_cast<std::size_t>(c)]; }
  Bytes total() const { return total_; }
  Bytes peak() const { return peak_total_; }

 private:
  void run(const Instruction& instruction) {
    if (const auto* alloc = std::get_if<Alloc>(&instruction)) add(alloc->tensor, 1);
    if (const auto* free = std::get_if<Free>(&instruction)) add(free->tensor, -1);
  }
  void add(TensorId id, std::int64_t sign) {
    const Tensor& t = program_.tensors[id];
    if ((t.space != MemorySpace::device) != on_host_) return;
    const auto c = static_cast<std::size_t>(t.category);
    now_[c] += t.bytes * sign;
    total_ += t.bytes * sign;
    peak_[c] = std::max(peak_[c], now_[c]);
    peak_total_ = std::max(peak_total_, total_);
  }
  const Program& program_;
  bool on_host_;
  std::array<Bytes, categories> now_{}, peak_{};
  Bytes total_, peak_total_;
};

}  // namespace shardsim
