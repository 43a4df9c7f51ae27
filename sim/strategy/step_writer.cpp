#include "sim/strategy/step_writer.h"

#include <fmt/format.h>

#include "sim/base/check.h"
#include "sim/program/verify.h"

namespace shardsim {

StepWriter::StepWriter(const OpGraph& g, const Training& t, const Framework& f, Mesh mesh)
    : graph(g), training(t), framework(f), program(mesh), scalar_ready_(program.event()) {
  const double micro_batches = static_cast<double>(t.micro_batches);
  const Flop forward = forward_flop(g);
  program.program().flop.model = forward * 3.0 * micro_batches;
  program.program().flop.hardware = (forward * 3.0 + make_autograd().recomputed_flop()) * micro_batches;
}

Autograd StepWriter::make_autograd() {
  return Autograd(graph, program, training.checkpointing == Checkpointing::full);
}

void StepWriter::accumulate(Trained& to, TensorId gradient, bool later) {
  if (!later) {
    to.gradient = gradient;
    return;
  }
  pass("accumulate gradient", to.elements, 12, HostWork::backward_op);
  program.free(gradient);
}

Trained StepWriter::trained(const std::string& name, std::int64_t elements) {
  const Bytes bytes = storage(elements, DType::fp32);
  const auto tensor = [&](const char* suffix, Category category) {
    return program.tensor(name + suffix, bytes, category);
  };
  return {.elements = elements,
          .parameter = tensor("", Category::parameters),
          .gradient = no_tensor,
          .first_moment = tensor(" exp_avg", Category::optimizer_state),
          .second_moment = tensor(" exp_avg_sq", Category::optimizer_state),
          .root = tensor(" sqrt(exp_avg_sq)", Category::temporaries),
          .denominator = tensor(" denominator", Category::temporaries)};
}

void StepWriter::begin_init(std::span<const Trained> parameters) {
  program.append_to(Section::init, program.begin_body());
  if (framework.cublas_workspace.count > 0)  // a handle per thread: Python's and the autograd engine's
    for (const char* thread : {"forward", "backward"})
      program.alloc(program.tensor(fmt::format("cuBLAS workspace, {}", thread), framework.cublas_workspace,
                                   Category::temporaries));
  for (const Trained& t : parameters) program.alloc(t.parameter);
}

void StepWriter::pass(std::string_view label, std::int64_t elements, int bytes_per_element, HostWork work,
                      StreamId stream) {
  program.launch(stream, MemoryBound{Bytes{elements * bytes_per_element}}, work, label);
}

std::int64_t StepWriter::total(std::span<const Trained> tensors) const {
  std::int64_t elements = 0;
  for (const Trained& t : tensors) elements += t.elements;
  return elements;
}

BodyId StepWriter::optimizer_body(std::span<const Trained> tensors, bool first,
                                  std::optional<GroupId> norm_group) {
  const BodyId body = program.begin_body();
  program.begin_mark("optimizer");
  if (training.loss_scaling) unscale(tensors, norm_group);
  if (training.gradient_clipping) clip(tensors, norm_group);
  if (first)
    for (const Trained& t : tensors)
      for (const TensorId state : {t.first_moment, t.second_moment}) {
        program.alloc(state);
        pass("zero state", t.elements, 4, HostWork::optimizer_op);
      }
  adam(tensors);
  for (const Trained& t : tensors)  // zero_grad(set_to_none=True)
    if (t.gradient != no_tensor) program.free(t.gradient);
  if (training.sync_each_step) wait_for_scalar("loss");
  program.end_mark();
  return body;
}

void StepWriter::wait_for_scalar(std::string_view what) {
  program.copy(default_stream, CopyDirection::device_to_host, Bytes{4}, what);
  program.record(scalar_ready_, default_stream);
  program.host_wait(scalar_ready_);
}

// GradScaler.unscale_ and the check for infinities that step() reads on the host.
void StepWriter::unscale(std::span<const Trained> tensors, std::optional<GroupId> norm_group) {
  pass("unscale gradients", total(tensors), 8, HostWork::optimizer_op);
  if (norm_group) {
    program.wait_stream(program.stream_of(*norm_group), default_stream);
    program.collective(*norm_group, CollectiveKind::all_reduce, DType::fp32, Bytes{4}, "found infinity");
    program.wait_stream(default_stream, program.stream_of(*norm_group));
  }
  wait_for_scalar("found infinity");
}

// clip_grad_norm_: norms per tensor, the norm of the norms, then a scaling without a host wait.
void StepWriter::clip(std::span<const Trained> tensors, std::optional<GroupId> norm_group) {
  pass("gradient norms", total(tensors), 4, HostWork::optimizer_op);
  pass("total norm", static_cast<std::int64_t>(tensors.size()), 4, HostWork::optimizer_op);
  if (norm_group) {
    program.wait_stream(program.stream_of(*norm_group), default_stream);
    program.collective(*norm_group, CollectiveKind::all_reduce, DType::fp32, Bytes{4}, "gradient norm");
    program.wait_stream(default_stream, program.stream_of(*norm_group));
  }
  pass("clip gradients", total(tensors), 8, HostWork::optimizer_op);
}

// Bytes per element of the passes of torch/optim/adam.py and adamw.py over fp32 tensors; about 80 in all.
//   fused: reads parameter, gradient and both moments, writes all but the gradient (28)
void StepWriter::adam(std::span<const Trained> tensors) {
  switch (training.optimizer_impl) {
    case OptimizerImpl::for_loop:
      for (const Trained& t : tensors) adam_one_by_one(t);
      break;
    case OptimizerImpl::foreach: adam_foreach(tensors); break;
    case OptimizerImpl::fused: pass("fused adam", total(tensors), 28, HostWork::optimizer_op); break;
  }
}

void StepWriter::adam_one_by_one(const Trained& t) {
  const auto run = [&](std::string_view label, int bytes) {
    pass(label, t.elements, bytes, HostWork::optimizer_op);
  };
  if (training.optimizer == OptimizerKind::adamw) run("weight decay", 8);
  run("exp_avg lerp", 12);
  run("exp_avg_sq mul", 8);
  run("exp_avg_sq addcmul", 12);
  program.alloc(t.root);
  run("sqrt", 8);
  program.alloc(t.denominator);
  run("bias correction", 8);
  program.free(t.root);
  run("add eps", 8);
  run("addcdiv", 16);
  program.free(t.denominator);
}

void StepWriter::adam_foreach(std::span<const Trained> tensors) {
  const std::int64_t elements = total(tensors);
  const auto run = [&](std::string_view label, int bytes) {
    pass(label, elements, bytes, HostWork::optimizer_op);
  };
  if (training.optimizer == OptimizerKind::adamw) run("weight decay", 8);
  run("exp_avg lerp", 12);
  run("exp_avg_sq mul", 8);
  run("exp_avg_sq addcmul", 12);
  for (const Trained& t : tensors) program.alloc(t.root);
  run("sqrt", 8);
  run("bias correction", 8);
  run("add eps", 8);
  run("addcdiv", 16);
  for (const Trained& t : tensors) program.free(t.root);
}

Program StepWriter::finish() && {
  Program result = std::move(program).finish();
  const std::string offence = verify(result);
  require(offence.empty(), offence);
  return result;
}

}  // namespace shardsim
