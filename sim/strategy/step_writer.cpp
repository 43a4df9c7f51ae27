#include "sim/strategy/step_writer.h"

#include <fmt/format.h>

#include "sim/base/check.h"
#include "sim/program/verify.h"

namespace shardsim {

StepWriter::StepWriter(const OpGraph& g, const Training& t, const Framework& f, Mesh mesh,
                       MemorySpace optimizer_space)
    : graph(g), training(t), framework(f), program(mesh), optimizer(program, t, optimizer_space) {
  program.program().flop.model = forward_flop(g) * 3.0 * static_cast<double>(t.micro_batches);
}

Autograd StepWriter::make_autograd() {
  Autograd autograd(graph, program, training);
  program.program().flop.hardware =
      (forward_flop(graph) * 3.0 + autograd.recomputed_flop()) * static_cast<double>(training.micro_batches);
  return autograd;
}

Trained StepWriter::trained(const std::string& name, std::int64_t rows, std::int64_t columns) {
  if (!training.master_copies) return optimizer.trained(name, rows, columns, training.stored);
  Trained master = optimizer.trained(name + " master", rows, columns, DType::fp32, Category::optimizer_state);
  master.gradient =
      program.tensor(name + " master gradient", storage(rows * columns, DType::fp32), Category::gradients);
  masters_.push_back(std::move(master));
  return {.elements = rows * columns,
          .dtype = training.stored,
          .parameter = program.tensor(name, storage(rows * columns, training.stored), Category::parameters)};
}

std::vector<Repeat> StepWriter::micro_batches(bool last_apart, const Pass& forward, const Pass& backward) {
  const auto write = [&](MicroBatch micro) {
    const BodyId body = program.begin_body();
    program.begin_mark("forward");
    forward(micro);
    program.end_mark();
    program.begin_mark("backward");
    backward(micro);
    program.end_mark();
    return body;
  };
  const std::int64_t more = training.micro_batches - 1, between = last_apart && more > 0 ? more - 1 : 0;
  std::vector<Repeat> bodies{{write({.first = true, .reduces = !last_apart || more == 0}), 1}};
  if (between > 0) bodies.push_back({write({.first = false, .reduces = false}), between});
  if (more > between) bodies.push_back({write({.first = false, .reduces = true}), more - between});
  return bodies;
}

void StepWriter::append(Section section, const std::vector<Repeat>& bodies, BodyId update) {
  for (const Repeat& r : bodies) program.append_to(section, r.body, r.times);
  program.append_to(section, update);
}

void StepWriter::append_steps(const std::vector<Repeat>& first, BodyId first_update,
                              const std::vector<Repeat>& later, BodyId update) {
  append(Section::first, first, first_update);
  for (const Section section : {Section::second, Section::steady}) append(section, later, update);
}

void StepWriter::accumulate(Trained& to, TensorId gradient, bool later) {
  if (!later) {
    to.gradient = gradient;
    return;
  }
  pass("accumulate gradient", to.elements, 3 * bytes_per_element(to.dtype), HostWork::backward_op);
  program.free(gradient);
}

void StepWriter::begin_init(std::span<const Trained> parameters) {
  program.append_to(Section::init, program.begin_body());
  if (framework.cublas_workspace.count > 0)  // a handle per thread: Python's and the autograd engine's
    for (const char* thread : {"forward", "backward"})
      program.alloc(program.tensor(fmt::format("cuBLAS workspace, {}", thread), framework.cublas_workspace,
                                   Category::temporaries));
  for (const Trained& t : parameters) program.alloc(t.parameter);
  for (const Trained& master : masters_) {
    program.alloc(master.parameter);
    program.alloc(master.gradient);
  }
}

void StepWriter::pass(std::string_view label, std::int64_t elements, std::int64_t bytes_per_element,
                      HostWork work, StreamId stream) {
  program.launch(stream, MemoryBound{Bytes{elements * bytes_per_element}}, work, label);
}

BodyId StepWriter::optimizer_body(std::span<const Trained> tensors, bool first,
                                  std::optional<GroupId> norm_group) {
  const BodyId body = program.begin_body();
  program.begin_mark("optimizer");
  std::int64_t elements = 0;
  for (const Trained& t : tensors) elements += t.elements;
  if (training.master_copies) {
    update_masters(tensors, first);
  } else {
    unscale_and_clip(elements, training.stored, tensors.size(), norm_group);
    if (first) optimizer.create_state(tensors);
    optimizer.update(tensors);
  }
  for (const Trained& t : tensors)  // zero_grad(set_to_none=True)
    if (t.gradient != no_tensor) program.free(t.gradient);
  end_step();
  program.end_mark();
  return body;
}

// apex/amp/_process_optimizer.py: gradients are unscaled into those of the fp32 copies, which are there for
// good; the updated copies are written back.
void StepWriter::update_masters(std::span<const Trained> tensors, bool first) {
  require(tensors.size() == masters_.size(), "every parameter has a master copy");
  std::int64_t elements = 0;
  for (const Trained& t : tensors) elements += t.elements;
  const std::int64_t both = bytes_per_element(DType::fp32) + bytes_per_element(training.stored);
  pass("unscale to master gradients", elements, both, HostWork::optimizer_op);
  if (training.loss_scaling) wait_for_scalar("found infinity");
  if (training.gradient_clipping) {
    pass("gradient norms", elements, bytes_per_element(DType::fp32), HostWork::optimizer_op);
    pass("clip gradients", elements, 2 * bytes_per_element(DType::fp32), HostWork::optimizer_op);
  }
  if (first) optimizer.create_state(masters_);
  optimizer.update(masters_);
  pass("write parameters", elements, both, HostWork::optimizer_op);
}

void StepWriter::end_step() {
  if (training.sync_each_step) wait_for_scalar("loss");
  program.host(HostWork::training_loop);
}

// GradScaler.unscale_ with the check for infinities that step() reads on the host; clip_grad_norm_ with norms
// per tensor, the norm of the norms, and a scaling without a host wait.
void StepWriter::unscale_and_clip(std::int64_t elements, DType dtype, std::size_t tensors,
                                  std::optional<GroupId> norm_group) {
  const Bytes once = storage(elements, dtype);
  if (training.loss_scaling) {
    optimizer.pass("unscale gradients", once * 2);
    if (norm_group) all_reduce_scalar(*norm_group, "found infinity");
  }
  if (training.gradient_clipping) {
    optimizer.pass("gradient norms", once);
    optimizer.pass("total norm", storage(static_cast<std::int64_t>(tensors), dtype));
    if (norm_group) all_reduce_scalar(*norm_group, "gradient norm");
    optimizer.pass("clip gradients", once * 2);
  }
  if (training.loss_scaling) wait_for_scalar("found infinity");
}

void StepWriter::communicate(GroupId group, StreamId stream, CollectiveKind kind, DType dtype, Bytes bytes,
                             std::string_view label, std::initializer_list<TensorId> tensors) {
  const StreamId nccl = program.stream_of(group);
  program.wait_stream(nccl, stream);
  program.collective(group, kind, dtype, bytes, label);
  program.wait_stream(stream, nccl);
  for (const TensorId t : tensors) mark_used_by(group, t);
}

void StepWriter::mark_used_by(GroupId group, TensorId tensor) {
  if (framework.collectives_record_streams) program.record_use(tensor, program.stream_of(group));
}

void StepWriter::all_reduce_scalar(GroupId group, std::string_view what) {
  communicate(group, default_stream, CollectiveKind::all_reduce, DType::fp32, Bytes{4}, what);
}

void StepWriter::wait_for_scalar(std::string_view what) {
  program.copy(default_stream, CopyDirection::device_to_host, Bytes{4}, what);
  program.host_wait_stream(default_stream);
}

Program StepWriter::finish() && {
  Program result = std::move(program).finish();
  const std::string offence = verify(result);
  require(offence.empty(), offence);
  return result;
}

}  // namespace shardsim
