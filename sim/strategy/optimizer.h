// The optimizers: what each keeps for a parameter, and the passes over memory that one step of it makes.
//
// A step is a list of passes. Run tensor by tensor (for-loop) each pass is a kernel of one tensor; run pass
// by pass (foreach) it is one over all tensors, so that temporaries of all tensors live at once; fused it is
// one kernel that keeps intermediate values in registers.
//   source  torch/optim/{adam,adamw,sgd}.py, Hugging Face transformers/optimization.py (Adafactor), NVIDIA
//   apex
//           fused_lamb, bitsandbytes' 8-bit Adam
//   leaves out  amsgrad, maximize, capturable, weight decay of SGD
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sim/program/builder.h"
#include "sim/strategy/options.h"

namespace shardsim {

// A tensor the optimizer updates: a parameter, or the flat shard of an FSDP unit.
struct Trained {
  std::int64_t elements;
  DType dtype;  // of the parameter, its gradient and what the optimizer derives from them
  TensorId parameter;
  TensorId gradient = no_tensor;  // set by the strategy; if any, alive when the optimizer starts
  std::vector<TensorId> state{}, temporaries{};
};

class Optimizer {
 public:
  // On the host, parameters live in `space`, state in pageable memory, and passes take the time that their
  // bytes take in host memory.
  Optimizer(ProgramBuilder& program, const Training& training, MemorySpace space = MemorySpace::device);

  // A parameter of [rows, columns], flat ones with columns = 1, with the optimizer's state and temporaries,
  // none of them allocated yet. A master copy in fp32 is itself optimizer state.
  Trained trained(const std::string& name, std::int64_t rows, std::int64_t columns, DType dtype,
                  Category category = Category::parameters) const;

  void create_state(std::span<const Trained> tensors) const;  // in the first step, before the first update
  void update(std::span<const Trained> tensors) const;

  // A pass over gradients or parameters where the optimizer runs.
  void pass(std::string_view label, Bytes traffic) const;

 private:
  ProgramBuilder& program_;
  OptimizerKind kind_;
  OptimizerImpl impl_;
  MemorySpace space_;
};

// Whether the optimizer is implemented in that way anywhere.
bool exists(OptimizerKind kind, OptimizerImpl impl);

}  // namespace shardsim
