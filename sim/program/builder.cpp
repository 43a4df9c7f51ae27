#include "sim/program/builder.h"

#include "sim/base/check.h"

namespace shardsim {

ProgramBuilder::ProgramBuilder(Mesh mesh) {
  require(mesh.shard > 0 && mesh.world % mesh.shard == 0, "the sharding factor divides the ranks");
  require(mesh.reshard > 0 && mesh.shard % mesh.reshard == 0, "resharding divides the sharding factor");
  program_.mesh = mesh;
  stream("default");
}

StreamId ProgramBuilder::stream(std::string name) { return program_.streams.add({std::move(name)}); }

GroupId ProgramBuilder::group(Axis axis) {
  return program_.groups.add({axis, stream("nccl " + std::string(name(axis)))});
}

LabelId ProgramBuilder::label(std::string_view text) {
  if (const auto known = labels_.find(text); known != labels_.end()) return known->second;
  return labels_.emplace(text, program_.labels.add(std::string(text))).first->second;
}

KernelId ProgramBuilder::kernel(const Kernel& kernel) {
  const auto [it, fresh] = kernels_.try_emplace(kernel, program_.kernels.next_id());
  if (fresh) program_.kernels.add(kernel);
  return it->second;
}

TensorId ProgramBuilder::tensor(std::string_view name, Bytes bytes, Category category, StreamId stream,
                                MemorySpace space) {
  require(bytes.count > 0, "a tensor without bytes");
  return program_.tensors.add({label(name), bytes, category, stream, space});
}

BodyId ProgramBuilder::begin_body() { return body_ = program_.bodies.add({}); }

void ProgramBuilder::append_to(Section section, BodyId body, std::int64_t times) {
  if (times > 0) program_[section].push_back({body, times});
}

void ProgramBuilder::collective(GroupId group, CollectiveKind kind, DType dtype, Bytes bytes,
                                std::string_view text) {
  const CollectiveOp what{group, kind, dtype, bytes};
  const auto [it, fresh] = collectives_.try_emplace(what, program_.collectives.next_id());
  if (fresh) program_.collectives.add(what);
  host(HostWork::collective_enqueue);
  emit(Collective{it->second, label(text)});
}

void ProgramBuilder::wait_stream(StreamId waiter, StreamId waited) {
  if (waiter == waited) return;
  const auto [it, fresh] = stream_waits_.try_emplace({waiter, waited}, EventId{program_.events});
  if (fresh) event();
  record(it->second, waited);
  wait(waiter, it->second);
}

void ProgramBuilder::host_wait_stream(StreamId waited) {
  const auto [it, fresh] = host_waits_.try_emplace(waited, EventId{program_.events});
  if (fresh) event();
  record(it->second, waited);
  host_wait(it->second);
}

}  // namespace shardsim
