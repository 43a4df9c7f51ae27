// What one micro-batch of training asks of a model: sizes, number formats, attention.
#pragma once

#include <cstdint>

#include "sim/base/dtype.h"
#include "sim/base/kernel.h"

namespace shardsim {

// Number formats as the operations see them.
struct Numerics {
  DType multiply = DType::fp32;   // of matrix products: fp32, tf32, fp16, bf16
  DType compute = DType::fp32;    // storage of their operands and results
  DType parameter = DType::fp32;  // storage of parameters while operations run
  // torch.autocast: parameters and residual stream stay fp32, operands of matrix products are cast.
  bool autocast = false;

  DType residual() const { return autocast ? DType::fp32 : compute; }
};

struct Workload {
  std::int64_t micro_batch = 1;       // sequences
  std::int64_t sequence = 1;          // tokens; of the encoder for encoder-decoder models
  std::int64_t decoder_sequence = 0;  // encoder-decoder models only
  double dropout = 0.0;
  AttentionKind attention = AttentionKind::unfused;
  Numerics numerics;
};

}  // namespace shardsim
