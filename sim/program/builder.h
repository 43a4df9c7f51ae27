// Writes programs: interns what repeats and appends instructions to the current body.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>

#include "sim/program/program.h"

namespace shardsim {

class ProgramBuilder {
 public:
  explicit ProgramBuilder(Mesh mesh);  // with the default stream

  // --- tables ---
  StreamId stream(std::string name);
  // Ranks of the group talk on a stream of their own, named after the axis.
  GroupId group(Axis axis);
  EventId event() { return {program_.events++}; }
  LabelId label(std::string_view text);
  KernelId kernel(const Kernel& kernel);
  TensorId tensor(std::string_view name, Bytes bytes, Category category, StreamId stream = default_stream,
                  MemorySpace space = MemorySpace::device);
  StreamId stream_of(GroupId group) const { return program_.groups[group].stream; }
  Bytes bytes_of(TensorId t) const { return program_.tensors[t].bytes; }

  // --- bodies ---
  BodyId begin_body();
  void append_to(Section section, BodyId body, std::int64_t times = 1);

  // --- instructions of the current body ---
  void alloc(TensorId t) { emit(Alloc{t}); }
  void free(TensorId t) { emit(Free{t}); }
  void record_use(TensorId t, StreamId s) { emit(RecordUse{t, s}); }
  void launch(StreamId s, KernelId k, HostWork w, LabelId l) { emit(Launch{s, k, w, l}); }
  void launch(StreamId s, const Kernel& k, HostWork w, std::string_view l) {
    launch(s, kernel(k), w, label(l));
  }
  void collective(GroupId group, CollectiveKind kind, DType dtype, Bytes bytes, std::string_view label);
  void copy(StreamId s, CopyDirection d, Bytes bytes, std::string_view l) {
    emit(Copy{s, d, bytes, label(l)});
  }
  void record(EventId e, StreamId s) { emit(Record{e, s}); }
  void wait(StreamId s, EventId e) { emit(Wait{s, e}); }
  void host_wait(EventId e) { emit(HostWait{e}); }
  void host(HostWork w, std::int32_t amount = 1) { emit(HostBusy{w, amount}); }
  void host_pass(Bytes traffic, std::string_view l) { emit(HostPass{traffic, label(l)}); }
  void begin_mark(std::string_view l) { emit(MarkBegin{label(l)}); }
  void end_mark() { emit(MarkEnd{}); }
  // `waiter` waits for everything issued on `waited` so far.
  void wait_stream(StreamId waiter, StreamId waited);
  void host_wait_stream(StreamId waited);  // the host does

  Program& program() { return program_; }
  Program finish() && { return std::move(program_); }

 private:
  void emit(Instruction i) { program_.bodies[body_].push_back(i); }

  Program program_;
  BodyId body_{-1};
  struct TextHash : std::hash<std::string_view> {
    using is_transparent = void;
  };
  std::unordered_map<std::string, LabelId, TextHash, std::equal_to<>> labels_;
  std::map<Kernel, KernelId> kernels_;
  std::map<CollectiveOp, CollectiveId> collectives_;
  std::map<std::pair<StreamId, StreamId>, EventId> stream_waits_;
  std::map<StreamId, EventId> host_waits_;
};

}  // namespace shardsim
