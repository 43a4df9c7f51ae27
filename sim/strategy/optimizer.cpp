#include "sim/strategy/optimizer.h"

#include <algorithm>

#include "sim/base/check.h"

namespace shardsim {
namespace {

// One pass over the elements of a tensor.
struct Pass {
  std::string_view label;
  int tensors;         // read or written, in the parameter's format
  int bytes = 0;       // per element, on top
  int makes = -1;      // a temporary, allocated before the pass
  unsigned drops = 0;  // temporaries freed after it, as bits
};
struct Temporary {
  std::string_view label;
  bool fp32;  // else in the parameter's format
};
struct Recipe {
  std::span<const Pass> passes;
  std::span<const Temporary> temporaries;
};

constexpr Temporary adam_temporaries[] = {{"sqrt(exp_avg_sq)", false}, {"denominator", false}};
constexpr Pass adam_one_by_one[] = {{"weight decay", 2},   {"exp_avg lerp", 3},
                                    {"exp_avg_sq mul", 2}, {"exp_avg_sq addcmul", 3},
                                    {"sqrt", 2, 0, 0},     {"bias correction", 2, 0, 1, 0b01},
                                    {"add eps", 2},        {"addcdiv", 4, 0, -1, 0b10}};
constexpr Pass adam_foreach[] = {
    {"weight decay", 2}, {"exp_avg lerp", 3},    {"exp_avg_sq mul", 2}, {"exp_avg_sq addcmul", 3},
    {"sqrt", 2, 0, 0},   {"bias correction", 2}, {"add eps", 2},        {"addcdiv", 4, 0, -1, 0b01}};
// Reads parameter, gradient and both moments, writes all but the gradient.
constexpr Pass adam_fused[] = {{"fused adam", 7}};

constexpr Temporary lamb_temporaries[] = {{"denominator", false}, {"update", false}};
constexpr Pass lamb_one_by_one[] = {{"exp_avg lerp", 3},
                                    {"exp_avg_sq mul", 2},
                                    {"exp_avg_sq addcmul", 3},
                                    {"denominator", 3, 0, 0},
                                    {"update", 3, 0, 1, 0b01},
                                    {"weight decay", 3},
                                    {"norms", 2},
                                    {"apply", 3, 0, -1, 0b10}};
// apex: the update takes the place of the gradient.
constexpr Pass lamb_fused[] = {
    {"gradient norm", 1}, {"lamb update", 7}, {"lamb norms", 2}, {"lamb apply", 3}};

constexpr Pass sgd_passes[] = {{"sgd", 3}};
constexpr Pass momentum_passes[] = {{"momentum mul", 2}, {"momentum add", 3}, {"sgd", 3}};
constexpr Pass momentum_fused[] = {{"fused sgd", 5}};

constexpr Temporary adafactor_temporaries[] = {{"gradient in fp32", true},
                                               {"parameter in fp32", true},
                                               {"squared gradient", true},
                                               {"update", true},
                                               {"negative update", true}};
constexpr Pass adafactor_fp32[] = {{"squared gradient", 0, 8, 2},
                                   {"means of rows and columns", 0, 8},
                                   {"outer product", 0, 4, 3, 0b100},
                                   {"scale by gradient", 0, 12},
                                   {"clip update", 0, 12},
                                   {"negate update", 0, 8, 4},
                                   {"apply", 0, 12, -1, 0b11000}};
constexpr Pass adafactor_16[] = {{"gradient to fp32", 1, 4, 0},
                                 {"parameter to fp32", 1, 4, 1},
                                 {"squared gradient", 0, 8, 2},
                                 {"means of rows and columns", 0, 8},
                                 {"outer product", 0, 4, 3, 0b100},
                                 {"scale by gradient", 0, 12},
                                 {"clip update", 0, 12},
                                 {"negate update", 0, 8, 4},
                                 {"apply", 0, 12},
                                 {"parameter from fp32", 1, 4, -1, 0b11011}};

// Both moments in 8 bits, read and written.
constexpr Pass adam_8bit[] = {{"8-bit adam", 3, 4}};

template <std::size_t N>
Recipe recipe(const Pass (&passes)[N], std::span<const Temporary> temporaries = {}) {
  return {passes, temporaries};
}

Recipe recipe_of(OptimizerKind kind, OptimizerImpl impl, DType dtype) {
  const bool fused = impl == OptimizerImpl::fused;
  switch (kind) {
    case OptimizerKind::adamw:
      return fused                            ? recipe(adam_fused)
             : impl == OptimizerImpl::foreach ? recipe(adam_foreach, adam_temporaries)
                                              : recipe(adam_one_by_one, adam_temporaries);
    case OptimizerKind::adam: {  // without weight decay
      Recipe r = recipe_of(OptimizerKind::adamw, impl, dtype);
      if (!fused) r.passes = r.passes.subspan(1);
      return r;
    }
    case OptimizerKind::lamb: return fused ? recipe(lamb_fused) : recipe(lamb_one_by_one, lamb_temporaries);
    case OptimizerKind::sgd: return recipe(sgd_passes);
    case OptimizerKind::sgd_momentum: return fused ? recipe(momentum_fused) : recipe(momentum_passes);
    case OptimizerKind::adafactor:
      return dtype == DType::fp32 ? recipe(adafactor_fp32, adafactor_temporaries)
                                  : recipe(adafactor_16, adafactor_temporaries);
    case OptimizerKind::adamw_8bit: return recipe(adam_8bit);
  }
  return {};
}

Bytes traffic(const Pass& pass, const Trained& t) {
  return {t.elements * (pass.tensors * bytes_per_element(t.dtype) + pass.bytes)};
}

bool made_by(const Recipe& recipe, int temporary) {
  return std::any_of(recipe.passes.begin(), recipe.passes.end(),
                     [&](const Pass& p) { return p.makes == temporary; });
}

// What a parameter's state consists of: names and bytes.
std::vector<std::pair<std::string_view, Bytes>> states(OptimizerKind kind, std::int64_t rows,
                                                       std::int64_t columns, DType dtype) {
  const std::int64_t n = rows * columns;
  switch (kind) {
    case OptimizerKind::adamw:
    case OptimizerKind::adam:
    case OptimizerKind::lamb: return {{"exp_avg", storage(n, dtype)}, {"exp_avg_sq", storage(n, dtype)}};
    case OptimizerKind::sgd: return {};
    case OptimizerKind::sgd_momentum: return {{"momentum_buffer", storage(n, dtype)}};
    case OptimizerKind::adafactor:  // a vector is not factored
      if (columns == 1) return {{"exp_avg_sq", storage(n, DType::fp32)}};
      return {{"exp_avg_sq_row", storage(rows, DType::fp32)},
              {"exp_avg_sq_col", storage(columns, DType::fp32)}};
    case OptimizerKind::adamw_8bit: {
      constexpr std::int64_t quantised_from = 4096, block = 256;  // bitsandbytes: min_8bit_size, blocksize
      if (n < quantised_from)
        return {{"state1", storage(n, DType::fp32)}, {"state2", storage(n, DType::fp32)}};
      const Bytes scales = storage((n + block - 1) / block, DType::fp32);
      return {{"state1", Bytes{n}}, {"absmax1", scales}, {"state2", Bytes{n}}, {"absmax2", scales}};
    }
  }
  return {};
}

}  // namespace

bool exists(OptimizerKind kind, OptimizerImpl impl) {
  switch (kind) {
    case OptimizerKind::lamb: return impl != OptimizerImpl::foreach;
    case OptimizerKind::adafactor: return impl == OptimizerImpl::for_loop;
    case OptimizerKind::adamw_8bit: return impl == OptimizerImpl::fused;
    default: return true;
  }
}

Optimizer::Optimizer(ProgramBuilder& program, const Training& training, MemorySpace space)
    : program_(program), kind_(training.optimizer), impl_(training.optimizer_impl), space_(space) {
  require(exists(kind_, impl_), "the optimizer has no such implementation");
}

Trained Optimizer::trained(const std::string& name, std::int64_t rows, std::int64_t columns, DType dtype,
                           Category category) const {
  // On the host, state and temporaries are pageable: nothing copies them to the GPU.
  const MemorySpace beside = space_ == MemorySpace::device ? MemorySpace::device : MemorySpace::host;
  const auto tensor = [&](std::string_view suffix, Bytes bytes, Category of) {
    return program_.tensor(name + std::string(suffix.empty() ? "" : " ") + std::string(suffix), bytes, of,
                           default_stream, suffix.empty() ? space_ : beside);
  };
  Trained t{.elements = rows * columns,
            .dtype = dtype,
            .parameter = tensor("", storage(rows * columns, dtype), category)};
  for (const auto& [suffix, bytes] : states(kind_, rows, columns, dtype))
    t.state.push_back(tensor(suffix, bytes, Category::optimizer_state));
  const Recipe recipe = recipe_of(kind_, impl_, dtype);
  for (int i = 0; i < static_cast<int>(recipe.temporaries.size()); ++i) {
    const Temporary& temporary = recipe.temporaries[static_cast<std::size_t>(i)];
    t.temporaries.push_back(made_by(recipe, i)
                                ? tensor(temporary.label,
                                         storage(t.elements, temporary.fp32 ? DType::fp32 : dtype),
                                         Category::temporaries)
                                : no_tensor);
  }
  return t;
}

void Optimizer::create_state(std::span<const Trained> tensors) const {
  for (const Trained& t : tensors)
    for (const TensorId state : t.state) {
      program_.alloc(state);
      pass("zero state", program_.bytes_of(state));
    }
}

void Optimizer::update(std::span<const Trained> tensors) const {
  if (tensors.empty()) return;
  const Recipe recipe = recipe_of(kind_, impl_, tensors.front().dtype);
  const auto over = [&](std::span<const Trained> some) {
    for (const Pass& p : recipe.passes) {
      Bytes bytes;
      for (const Trained& t : some) {
        if (p.makes >= 0) program_.alloc(t.temporaries[static_cast<std::size_t>(p.makes)]);
        bytes += traffic(p, t);
      }
      pass(p.label, bytes);
      for (const Trained& t : some)
        for (std::size_t i = 0; i < t.temporaries.size(); ++i)
          if ((p.drops >> i & 1) != 0) program_.free(t.temporaries[i]);
    }
  };
  if (impl_ == OptimizerImpl::for_loop)
    for (const Trained& t : tensors) over({&t, 1});
  else
    over(tensors);
}

void Optimizer::pass(std::string_view label, Bytes traffic) const {
  if (space_ == MemorySpace::device)
    program_.launch(default_stream, MemoryBound{traffic}, HostWork::optimizer_op, label);
  else
    program_.host_pass(traffic, label);
}

}  // namespace shardsim
