// Does each optimizer keep and move what its implementation does? Bytes per element from the sources named in
// sim/strategy/optimizer.h.
#include "sim/strategy/optimizer.h"

#include <doctest/doctest.h>

#include "sim/program/count.h"

#include "tests/support/print.h"
#include "tests/support/programs.h"

namespace shardsim {
namespace {

constexpr std::int64_t rows = 512, columns = 1024, matrix = rows * columns, vector = 256;

// One matrix and one short vector, updated in every step.
Program updated(OptimizerKind kind, OptimizerImpl impl, DType dtype = DType::fp32,
                MemorySpace space = MemorySpace::device) {
  ProgramBuilder b({1, 1});
  const Training training{.optimizer = kind, .optimizer_impl = impl};
  const Optimizer optimizer(b, training, space);
  const std::vector<Trained> tensors{optimizer.trained("matrix", rows, columns, dtype),
                                     optimizer.trained("vector", vector, 1, dtype)};
  b.append_to(Section::init, b.begin_body());
  for (const Trained& t : tensors) b.alloc(t.parameter);
  b.append_to(Section::first, b.begin_body());
  optimizer.create_state(tensors);
  optimizer.update(tensors);
  const BodyId update = b.begin_body();
  optimizer.update(tensors);
  b.append_to(Section::second, update);
  b.append_to(Section::steady, update);
  return std::move(b).finish();
}

Bytes kept(OptimizerKind kind, OptimizerImpl impl, DType dtype = DType::fp32) {
  const Program program = updated(kind, impl, dtype);
  LiveBytes live(program);
  for (const Section s : {Section::init, Section::first, Section::second}) live.run(s);
  return live.now(Category::optimizer_state);
}
Bytes temporaries(OptimizerKind kind, OptimizerImpl impl, DType dtype = DType::fp32) {
  const Program program = updated(kind, impl, dtype);
  LiveBytes live(program);
  for (const Section s : {Section::init, Section::first, Section::second}) live.run(s);
  CHECK(live.now(Category::temporaries) == Bytes{});
  return live.peak(Category::temporaries);
}
double traffic_per_element(OptimizerKind kind, OptimizerImpl impl, DType dtype = DType::fp32) {
  const Program program = updated(kind, impl, dtype);
  Bytes total;
  for_each(program, Section::steady, [&](const Instruction& i) {
    if (const auto* launch = std::get_if<Launch>(&i))
      total += std::get<MemoryBound>(program.kernels[launch->kernel]).traffic;
  });
  return static_cast<double>(total.count) / (matrix + vector);
}

TEST_CASE("Adam, AdamW and LAMB keep two moments, SGD nothing, momentum one buffer") {
  constexpr std::int64_t n = matrix + vector;
  for (const OptimizerKind kind : {OptimizerKind::adam, OptimizerKind::adamw, OptimizerKind::lamb}) {
    CHECK(kept(kind, OptimizerImpl::fused) == Bytes{8 * n});
    CHECK(kept(kind, OptimizerImpl::for_loop, DType::bf16) == Bytes{4 * n});
  }
  CHECK(kept(OptimizerKind::sgd, OptimizerImpl::foreach) == Bytes{});
  CHECK(kept(OptimizerKind::sgd_momentum, OptimizerImpl::foreach) == Bytes{4 * n});
}

TEST_CASE("Adafactor keeps a number per row and column of a matrix, one per element of a vector, in fp32") {
  for (const DType t : {DType::fp32, DType::bf16})
    CHECK(kept(OptimizerKind::adafactor, OptimizerImpl::for_loop, t) ==
          Bytes{4 * (rows + columns) + 4 * vector});
}

TEST_CASE("8-bit Adam keeps two bytes per element and a scale per 256, small tensors in fp32") {
  CHECK(kept(OptimizerKind::adamw_8bit, OptimizerImpl::fused) ==
        Bytes{2 * (matrix + 4 * matrix / 256) + 8 * vector});
}

TEST_CASE(
    "Adam's temporaries: twice the largest tensor one by one, once all of them by foreach, none fused") {
  CHECK(temporaries(OptimizerKind::adamw, OptimizerImpl::for_loop) == Bytes{2 * 4 * matrix});
  CHECK(temporaries(OptimizerKind::adamw, OptimizerImpl::foreach) == Bytes{4 * (matrix + vector)});
  CHECK(temporaries(OptimizerKind::adamw, OptimizerImpl::fused) == Bytes{});
}

TEST_CASE("Adafactor's temporaries: two of the largest tensor in fp32, with copies of 16-bit tensors four") {
  CHECK(temporaries(OptimizerKind::adafactor, OptimizerImpl::for_loop) == Bytes{2 * 4 * matrix});
  CHECK(temporaries(OptimizerKind::adafactor, OptimizerImpl::for_loop, DType::bf16) == Bytes{4 * 4 * matrix});
}

TEST_CASE(
    "bytes that a step of Adam moves: 80 per element in eager passes, 28 in one kernel, half in 16 bits") {
  CHECK(traffic_per_element(OptimizerKind::adamw, OptimizerImpl::for_loop) == doctest::Approx(80));
  CHECK(traffic_per_element(OptimizerKind::adamw, OptimizerImpl::foreach) == doctest::Approx(80));
  CHECK(traffic_per_element(OptimizerKind::adam, OptimizerImpl::foreach) == doctest::Approx(72));
  CHECK(traffic_per_element(OptimizerKind::adamw, OptimizerImpl::fused) == doctest::Approx(28));
  CHECK(traffic_per_element(OptimizerKind::adamw, OptimizerImpl::fused, DType::bf16) == doctest::Approx(14));
}

TEST_CASE("the first step creates all state, parameter by parameter, before the first update") {
  const Program program = updated(OptimizerKind::adamw, OptimizerImpl::for_loop);
  std::string order;
  for_each(program, Section::first, [&](const Instruction& i) {
    if (const auto* alloc = std::get_if<Alloc>(&i))
      order += program.labels[program.tensors[alloc->tensor].label] + ", ";
  });
  CHECK(order.starts_with(
      "matrix exp_avg, matrix exp_avg_sq, vector exp_avg, vector exp_avg_sq, matrix sqrt(exp_avg_sq), "));
}

TEST_CASE("on the host an update is passes over host memory of as many bytes as on the GPU") {
  const Program device = updated(OptimizerKind::adamw, OptimizerImpl::foreach);
  const Program host =
      updated(OptimizerKind::adamw, OptimizerImpl::foreach, DType::fp32, MemorySpace::pinned);
  Bytes traffic;
  for_each(host, Section::steady, [&](const Instruction& i) {
    CHECK(!std::holds_alternative<Launch>(i));
    if (const auto* pass = std::get_if<HostPass>(&i)) traffic += pass->traffic;
  });
  CHECK(static_cast<double>(traffic.count) / (matrix + vector) ==
        doctest::Approx(traffic_per_element(OptimizerKind::adamw, OptimizerImpl::foreach)));
  for (const Tensor& t : host.tensors) CHECK(t.space != MemorySpace::device);
}

TEST_CASE("every optimizer has an implementation") {
  for (int kind = 0; kind <= static_cast<int>(OptimizerKind::adamw_8bit); ++kind) {
    int implementations = 0;
    for (const OptimizerImpl impl : {OptimizerImpl::for_loop, OptimizerImpl::foreach, OptimizerImpl::fused})
      implementations += exists(static_cast<OptimizerKind>(kind), impl);
    CHECK(implementations > 0);
  }
}

}  // namespace
}  // namespace shardsim
