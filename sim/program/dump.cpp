#include "sim/program/dump.h"

#include <fmt/format.h>

namespace shardsim {
namespace {

std::string text(Bytes b) {
  if (b.count < 1024) return fmt::format("{} B", b.count);
  const double count = static_cast<double>(b.count);
  if (b.count < 1 << 20) return fmt::format("{:.2f} KiB", count / 1024);
  if (b.count < 1 << 30) return fmt::format("{:.2f} MiB", count / 1048576);
  return fmt::format("{:.2f} GiB", count / 1073741824);
}

struct KernelText {
  std::string operator()(const Gemm& g) const {
    return fmt::format("gemm {}{}x{}x{} {}", g.batch > 1 ? fmt::format("{}x ", g.batch) : "", g.m, g.n, g.k,
                       name(g.dtype));
  }
  std::string operator()(const MemoryBound& m) const {
    return fmt::format("memory {}{}", text(m.traffic), m.narrow ? " of 16-bit elements" : "");
  }
  std::string operator()(const FusedAttention& a) const {
    return fmt::format("{} {} {}x {}x{}x{}{}", name(a.kind), a.backward ? "backward" : "forward", a.heads,
                       a.queries, a.keys, a.head_dim, a.causal ? " causal" : "");
  }
};

struct InstructionText {
  const Program& p;

  std::string label(LabelId l) const { return p.labels[l]; }
  std::string stream(StreamId s) const { return "@" + p.streams[s].name; }
  std::string tensor(TensorId t) const { return label(p.tensors[t].label); }

  std::string operator()(const Alloc& i) const {
    const Tensor& t = p.tensors[i.tensor];
    constexpr const char* spaces[] = {"", "pinned", "host"};
    return fmt::format("alloc {} {} {}", tensor(i.tensor), text(t.bytes),
                       t.space == MemorySpace::device ? stream(t.stream) : spaces[static_cast<int>(t.space)]);
  }
  std::string operator()(const Free& i) const { return "free " + tensor(i.tensor); }
  std::string operator()(const RecordUse& i) const {
    return fmt::format("record_use {} {}", tensor(i.tensor), stream(i.stream));
  }
  std::string operator()(const Launch& i) const {
    return fmt::format("launch {} {}  # {}", stream(i.stream), std::visit(KernelText{}, p.kernels[i.kernel]),
                       label(i.label));
  }
  std::string operator()(const Collective& i) const {
    const CollectiveOp& op = p.collectives[i.what];
    const Group& group = p.groups[op.group];
    return fmt::format("collective {} {} {} {} {}  # {}", name(op.kind), name(group.axis), name(op.dtype),
                       text(op.bytes), stream(group.stream), label(i.label));
  }
  std::string operator()(const Copy& i) const {
    return fmt::format("copy {} {} {}  # {}", stream(i.stream),
                       i.direction == CopyDirection::host_to_device ? "host_to_device" : "device_to_host",
                       text(i.bytes), label(i.label));
  }
  std::string operator()(const Record& i) const {
    return fmt::format("record e{} {}", i.event.index, stream(i.stream));
  }
  std::string operator()(const Wait& i) const {
    return fmt::format("wait {} e{}", stream(i.stream), i.event.index);
  }
  std::string operator()(const HostWait& i) const { return fmt::format("host_wait e{}", i.event.index); }
  std::string operator()(const HostBusy& i) const {
    return fmt::format("host {} {}", name(i.work), i.amount);
  }
  std::string operator()(const HostPass& i) const {
    return fmt::format("host_pass {}  # {}", text(i.traffic), label(i.label));
  }
  std::string operator()(const MarkBegin& i) const { return fmt::format("begin {}", label(i.label)); }
  std::string operator()(const MarkEnd&) const { return "end"; }
};

}  // namespace

std::string dump(const Program& program, Section section) {
  std::string out;
  for (const Repeat& repeat : program[section]) {
    if (repeat.times > 1) out += fmt::format("repeat {}\n", repeat.times);
    int depth = repeat.times > 1 ? 1 : 0;
    for (const Instruction& i : program.bodies[repeat.body]) {
      if (std::holds_alternative<MarkEnd>(i)) --depth;
      out += fmt::format("{:{}}{}\n", "", 2 * depth, std::visit(InstructionText{program}, i));
      if (std::holds_alternative<MarkBegin>(i)) ++depth;
    }
  }
  return out;
}

}  // namespace shardsim
