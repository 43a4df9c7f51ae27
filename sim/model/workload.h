// What one micro-batch of training asks of a model: sizes, number formats, attention.
#pragma once

#include <cstdint>
#include <string_view>

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
  // Linear layers of the blocks multiply in fp8, their operands scaled and cast on the way; the rest as
  // above.
  bool fp8_linears = false;

  DType residual() const { return autocast ? DType::fp32 : compute; }
};

// Which copies of the logits live until the backward pass ends: the head's result as the model's output, its
// fp32 copy (a model that returns logits.float()), both, or none.
enum class HeldLogits : std::uint8_t { head, fp32, both, none };
constexpr std::string_view name(HeldLogits h) {
  constexpr std::string_view names[] = {"head", "fp32", "both", "none"};
  return names[static_cast<int>(h)];
}

struct Workload {
  std::int64_t micro_batch = 1;       // sequences
  std::int64_t sequence = 1;          // tokens; of the encoder for encoder-decoder models
  std::int64_t decoder_sequence = 0;  // encoder-decoder models only
  double dropout = 0.0;
  double masked_share = 1.0;     // of the positions whose logits a masked model computes
  std::int64_t loss_chunks = 1;  // more than 1: head and loss as one operation, so many tokens at a time
  bool fused_loss = false;       // log-softmax and loss as one kernel that keeps the logits as they are
  HeldLogits held_logits = HeldLogits::head;
  std::int64_t train_metrics =
      0;  // cross-entropies that the training loop computes for its log, per micro-batch
  AttentionKind attention = AttentionKind::unfused;
  bool fused_softmax =
      false;  // unfused attention scales, masks and normalises scores in one kernel (Megatron-LM)
  Numerics numerics;
};

}  // namespace shardsim
