// Appends the operations that eager PyTorch runs to an OpGraph: the vocabulary the model families are written
// in.
//
// Each function appends one operation (or the few that the framework really launches), with the kernels of
// its forward and backward, and what it saves. Bytes moved follow from the operands: every operand read once,
// every result written once, as pointwise kernels do. Sources: PyTorch's derivatives.yaml for what is saved;
// tests/model compares the saved sets with a walk of PyTorch's autograd graph.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "sim/model/op_graph.h"
#include "sim/model/workload.h"

namespace shardsim {

// The queries and keys of an attention layer; kv_heads divides heads.
struct AttentionShape {
  std::int64_t batch, heads, kv_heads, queries, keys, head_dim;
  bool causal;
};

// Implementations of x * rsqrt(mean(x^2) + eps) * weight.
//   t5     Hugging Face T5LayerNorm: statistics of an fp32 copy, which scale x itself
//   llama  Hugging Face LlamaRMSNorm and torchtitan's (2024): the fp32 copy is scaled, then cast back
//   fused  one kernel: torch.nn.RMSNorm since PyTorch 2.8, apex, Liger
enum class RmsNorm : std::uint8_t { t5, llama, fused };

class GraphBuilder {
 public:
  explicit GraphBuilder(const Workload& workload);

  // --- modules and parameters ---------------------------------------------------------------------------
  // Operations appended from now on belong to the module; returning to the root opens a new segment.
  ModuleId begin_block(std::string name);
  void begin_root();
  // Registered under the current module.
  ParameterId parameter(std::string_view name, std::int64_t rows, std::int64_t columns = 1);

  // Operations appended in between are one attention core, from the product that makes the scores to the
  // context: what selective checkpointing runs again. A fused attention is one by itself.
  void begin_attention_core() { core_ = ++cores_; }
  void end_attention_core() { core_ = 0; }

  // --- operations ---------------------------------------------------------------------------------------
  ValueId from_host(std::string_view name, std::int64_t tokens);  // integers copied to the GPU
  ValueId embedding(ValueId ids, ParameterId table, std::int64_t rows, std::int64_t width);
  // Rows of x[.., width] at `positions`, which were copied from the host.
  ValueId gather(ValueId x, ValueId positions, std::int64_t width);
  // x[batch,sequence,width] + the first rows of the table, `elements` = sequence * width
  ValueId add_positions(ValueId x, ParameterId table, std::int64_t elements);
  // y[rows,out] = x[rows,in] W[in,out] (+ b). Under autocast casts x and, once per forward, W; in blocks with
  // fp8_linears casts both operands of each of its three products.
  ValueId linear(ValueId x, std::int64_t rows, std::int64_t in, std::int64_t out, ParameterId weight,
                 const ParameterId* bias = nullptr);
  ValueId layer_norm(ValueId x, std::int64_t width, ParameterId weight, const ParameterId* bias);
  ValueId rms_norm(ValueId x, std::int64_t width, ParameterId weight, RmsNorm implementation);
  // result[batch,m,n] = a[batch,m,k] b[batch,k,n]; both operands are saved.
  ValueId batched_product(std::string_view name, ValueId a, ValueId b, std::int64_t batch, std::int64_t m,
                          std::int64_t n, std::int64_t k);
  ValueId copy(std::string_view name, ValueId x);  // permute + contiguous
  // Contiguous tensors of so many elements from one packed one; the gradients are stacked again.
  std::vector<ValueId> split(std::string_view name, ValueId x, const std::vector<std::int64_t>& elements);
  ValueId repeat(std::string_view name, ValueId x, std::int64_t times);  // every head copied to its group
  ValueId cast(ValueId x, DType to);
  ValueId scale(std::string_view name, ValueId x);         // by a constant
  ValueId add_constant(std::string_view name, ValueId x);  // a small tensor, broadcast
  ValueId masked_fill(ValueId x, std::int64_t mask_elements);
  ValueId softmax(ValueId x, std::int64_t width);  // over rows of so many
  ValueId dropout(ValueId x);                      // nothing at probability 0
  ValueId activation_relu(ValueId x);
  ValueId activation_gelu(ValueId x);
  ValueId activation_silu(ValueId x);
  ValueId activation_tanh(ValueId x);
  ValueId activation_gelu_tanh(ValueId x);  // "gelu_new", written out in Python: eight kernels
  ValueId multiply(std::string_view name, ValueId a, ValueId b);
  ValueId residual_add(ValueId x, ValueId branch);
  ValueId add_in_place(ValueId x, ValueId addend);  // x keeps its memory
  // bias[heads, queries, keys] looked up per bucket, plus mask -> [batch, heads, queries, keys]. Shared by
  // the stack, so no part of the attention core that happens to make it.
  ValueId position_bias(ParameterId table, std::int64_t batch, std::int64_t heads, std::int64_t queries,
                        std::int64_t keys);
  ValueId zero_bias(std::int64_t elements);  // the mask alone, materialised; needs no gradient
  // Cosines and sines of rotary embeddings, made once for all layers; x cos + rotate_half(x) sin.
  struct Rotation {
    ValueId cos, sin;
  };
  Rotation rotation(std::int64_t sequence, std::int64_t head_dim, DType dtype);
  ValueId rotary(std::string_view name, ValueId x, const Rotation& rotation);
  // Of q, k and v, in one packed tensor or in three.
  ValueId fused_attention(const std::vector<ValueId>& qkv, const AttentionShape& shape);
  // Mean cross-entropy of [tokens, vocab] logits, in fp32 if `upcast`; the graph's loss.
  void loss(ValueId logits, ValueId labels, bool upcast);
  ValueId cross_entropy(ValueId logits, ValueId labels, bool upcast);
  ValueId mean_loss(ValueId scores, ValueId labels);  // of a few scores, which nobody holds
  // The same from the head's input, the logits of one of workload.loss_chunks parts of the rows at a time:
  // the forward pass makes the gradients too. linkedin/Liger-Kernel, ops/fused_linear_cross_entropy.py.
  ValueId chunked_cross_entropy(ValueId x, ValueId labels, std::int64_t rows, std::int64_t in,
                                std::int64_t vocab, ParameterId weight, const ParameterId* bias = nullptr);
  // flash-attn's CrossEntropyLoss: reads 16-bit logits as they are, keeps them and a log-sum-exp per token.
  ValueId fused_mean_loss(ValueId logits, ValueId labels);
  void total_loss(const std::vector<ValueId>& losses);  // their sum is the graph's loss

  // The Python function that created `x` still holds it here (locals die when a function returns).
  void keep_until_here(ValueId x);

  const Workload& workload() const { return workload_; }
  DType compute() const { return workload_.numerics.compute; }
  OpGraph finish() &&;

 private:
  // How a pointwise operation treats one input.
  struct In {
    ValueId value;
    Gradient gradient = Gradient::fresh;
    bool saved = false;
  };
  ValueId value(std::string_view name, std::int64_t elements, DType dtype, bool needs_grad);
  Op& append(Op op);
  bool in_16_bits(const Op& op) const;
  ValueId pointwise(std::string_view name, std::string_view result, DType dtype,
                    std::initializer_list<In> inputs, bool save_result = false);
  ValueId cast_weight(ParameterId weight, std::int64_t elements);
  void multiply_in_fp8(Op& linear, std::int64_t rows, std::int64_t in, std::int64_t out) const;
  void add_metrics(ValueId logits, ValueId labels);
  Bytes bytes(ValueId v) const { return bytes_of(graph_, v); }
  std::int64_t rows_of(ValueId labels) const { return graph_.values[labels].elements; }
  bool needs_grad(ValueId v) const { return graph_.values[v].needs_grad; }

  Workload workload_;
  OpGraph graph_;
  ModuleId module_{};
  int core_ = 0, cores_ = 0;  // the attention core that is open, those begun so far
};

}  // namespace shardsim
