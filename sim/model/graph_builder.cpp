#include "sim/model/graph_builder.h"

#include <algorithm>
#include <utility>

#include "sim/base/check.h"

namespace shardsim {
namespace {

Kernel moves(Bytes traffic) { return MemoryBound{traffic}; }

// A row that a block can hold is read once; a longer one, of a vocabulary, again for the sum and for the
// result, of which the second time comes from the L2 cache. aten/src/ATen/native/cuda/SoftMax.cu,
// cunn_SoftMaxForward and cunn_SoftMaxBackward. The share of the cache is an engineering estimate.
constexpr Bytes softmax_row_max{48 << 10};

Kernel log_softmax_forward(Bytes logits, std::int64_t rows) {
  return moves(logits * (logits > softmax_row_max * rows ? 3 : 2));
}
Kernel log_softmax_backward(Bytes logits, std::int64_t rows) {
  return moves(logits * (logits > softmax_row_max * rows ? 4 : 3));
}

}  // namespace

GraphBuilder::GraphBuilder(const Workload& workload) : workload_(workload) {
  graph_.parameter_dtype = workload.numerics.parameter;
  graph_.modules.add({"root", false});
  begin_root();
}

// --- modules and parameters -----------------------------------------------------------------------------

ModuleId GraphBuilder::begin_block(std::string name) {
  module_ = graph_.modules.add({std::move(name), true});
  graph_.segments.push_back({module_, graph_.ops.next_id(), graph_.ops.next_id()});
  return module_;
}

void GraphBuilder::begin_root() {
  module_ = ModuleId{0};
  graph_.segments.push_back({module_, graph_.ops.next_id(), graph_.ops.next_id()});
}

ParameterId GraphBuilder::parameter(std::string_view name, std::int64_t rows, std::int64_t columns) {
  return graph_.parameters.add(
      {graph_.modules[module_].name + "." + std::string(name), rows * columns, rows, module_});
}

// --- values and operations ------------------------------------------------------------------------------

ValueId GraphBuilder::value(std::string_view name, std::int64_t elements, DType dtype, bool needs_grad) {
  const ValueId id = graph_.values.next_id();
  return graph_.values.add({name, elements, dtype, id, needs_grad, graph_.ops.next_id()});
}

// All that it reads and writes, statistics and indices aside.
bool GraphBuilder::in_16_bits(const Op& op) const {
  std::int64_t largest = 0, widest = 0;
  for (const auto* values : {&op.inputs, &op.outputs})
    for (const ValueId v : *values) largest = std::max(largest, graph_.values[v].elements);
  for (const auto* values : {&op.inputs, &op.outputs})
    for (const ValueId v : *values)
      if (graph_.values[v].elements * 8 > largest && graph_.values[v].dtype != DType::int64)
        widest = std::max(widest, bytes_per_element(graph_.values[v].dtype));
  return widest == 2;
}

Op& GraphBuilder::append(Op op) {
  op.module = module_;
  op.attention_core = core_;
  if (in_16_bits(op))
    for (auto* kernels : {&op.forward, &op.backward})
      for (Kernel& kernel : *kernels)
        if (auto* pass = std::get_if<MemoryBound>(&kernel)) pass->narrow = true;
  const OpId id = graph_.ops.next_id();
  for (const ValueId v : op.inputs) graph_.values[graph_.values[v].storage].last_use = id;
  for (const ValueId v : op.outputs) graph_.values[graph_.values[v].storage].last_use = id;
  graph_.ops.add(std::move(op));
  graph_.segments.back().last = graph_.ops.next_id();
  return graph_.ops[id];
}

void GraphBuilder::keep_until_here(ValueId x) {
  const OpId last{graph_.ops.next_id().index - 1};
  OpId& use = graph_.values[graph_.values[x].storage].last_use;
  use = std::max(use, last);
}

ValueId GraphBuilder::pointwise(std::string_view name, std::string_view result, DType dtype,
                                std::initializer_list<In> inputs, bool save_result) {
  Op op{.name = name, .fusion = Fusion::pointwise};
  std::int64_t elements = 0;
  bool grad = false;
  Bytes read, saved;
  for (const In& in : inputs) {
    elements = std::max(elements, graph_.values[in.value].elements);
    grad = grad || needs_grad(in.value);
    read += bytes(in.value);
    if (in.saved) saved += bytes(in.value), op.saved.push_back(in.value);
    op.inputs.push_back(in.value);
    op.gradients.push_back(needs_grad(in.value) ? in.gradient : Gradient::none);
  }
  const ValueId out = value(result, elements, dtype, grad);
  op.outputs = {out};
  op.forward = {moves(read + bytes(out))};
  if (save_result) saved += bytes(out), op.saved.push_back(out);
  for (std::size_t i = 0; i < op.inputs.size(); ++i)  // one kernel per gradient it has to make
    if (op.gradients[i] == Gradient::fresh)
      op.backward.push_back(moves(bytes(out) + saved + bytes(op.inputs[i])));
  append(std::move(op));
  return out;
}

ValueId GraphBuilder::cast(ValueId x, DType to) {
  if (graph_.values[x].dtype == to) return x;
  return pointwise("cast", "cast", to, {{x}});
}

ValueId GraphBuilder::copy(std::string_view name, ValueId x) {
  return pointwise(name, name, graph_.values[x].dtype, {{x}});
}

ValueId GraphBuilder::scale(std::string_view name, ValueId x) {
  return pointwise(name, name, graph_.values[x].dtype, {{x}});
}

ValueId GraphBuilder::residual_add(ValueId x, ValueId branch) {
  const bool same = graph_.values[x].dtype == graph_.values[branch].dtype;
  return pointwise("residual add", "hidden", graph_.values[x].dtype,
                   {{x, Gradient::alias}, {branch, same ? Gradient::alias : Gradient::fresh}});
}

// d(ab) needs both operands; each gradient is a kernel that reads the other one.
ValueId GraphBuilder::multiply(std::string_view name, ValueId a, ValueId b) {
  const ValueId out = value(name, graph_.values[a].elements, graph_.values[a].dtype, true);
  const Bytes each = bytes(out) * 2 + bytes(a);
  append({.name = name,
          .fusion = Fusion::pointwise,
          .inputs = {a, b},
          .gradients = {Gradient::fresh, Gradient::fresh},
          .outputs = {out},
          .saved = {a, b},
          .forward = {moves(bytes(a) + bytes(b) + bytes(out))},
          .backward = {moves(each), moves(each)}});
  return out;
}

ValueId GraphBuilder::add_in_place(ValueId x, ValueId addend) {
  const ValueId out = value(graph_.values[x].name, graph_.values[x].elements, graph_.values[x].dtype, true);
  graph_.values[out].storage = graph_.values[x].storage;
  append({.name = "add in place",
          .fusion = Fusion::pointwise,
          .inputs = {x, addend},
          .gradients = {Gradient::alias, needs_grad(addend) ? Gradient::alias : Gradient::none},
          .outputs = {out},
          .forward = {moves(bytes(x) * 2 + bytes(addend))}});
  return out;
}

ValueId GraphBuilder::from_host(std::string_view name, std::int64_t tokens) {
  const ValueId ids = value(name, tokens, DType::int64, false);
  append({.name = name, .from_host = true, .outputs = {ids}});
  return ids;
}

ValueId GraphBuilder::embedding(ValueId ids, ParameterId table, std::int64_t rows, std::int64_t width) {
  const DType dtype = workload_.numerics.autocast ? DType::fp32 : compute();
  const std::int64_t tokens = graph_.values[ids].elements;
  const ValueId out = value("embedded", tokens * width, dtype, true);
  const Bytes dense_gradient = storage(rows * width, graph_.parameter_dtype);
  append({.name = "embedding",
          .inputs = {ids},
          .gradients = {Gradient::none},
          .outputs = {out},
          .saved = {ids},
          .parameters = {table},
          .forward = {moves(bytes(ids) + bytes(out) * 2)},
          .backward = {moves(dense_gradient), moves(bytes(out) * 3)}});  // fill with zeros, then scatter-add
  return out;
}

ValueId GraphBuilder::gather(ValueId x, ValueId positions, std::int64_t width) {
  const ValueId out =
      value("gathered", graph_.values[positions].elements * width, graph_.values[x].dtype, true);
  append({.name = "gather",
          .inputs = {x, positions},
          .gradients = {Gradient::fresh, Gradient::none},
          .outputs = {out},
          .saved = {positions},
          .forward = {moves(bytes(out) * 2)},
          .backward = {moves(bytes(x)), moves(bytes(out) * 3)}});  // zeros, then scatter-add
  return out;
}

ValueId GraphBuilder::add_positions(ValueId x, ParameterId table, std::int64_t elements) {
  const ValueId positions = value("positions", elements, graph_.values[x].dtype, true);
  append({.name = "position embedding",
          .outputs = {positions},
          .parameters = {table},
          .forward = {moves(bytes(positions) * 2)},
          .backward = {moves(bytes(positions) * 4)}});
  const ValueId out = value("embedded", graph_.values[x].elements, graph_.values[x].dtype, true);
  append({.name = "add positions",
          .fusion = Fusion::pointwise,
          .inputs = {x, positions},
          .gradients = {Gradient::alias, Gradient::fresh},
          .outputs = {out},
          .forward = {moves(bytes(x) * 2 + bytes(positions))},
          .backward = {moves(bytes(x) + bytes(positions))}});  // sum over the batch
  return out;
}

ValueId GraphBuilder::linear(ValueId x, std::int64_t rows, std::int64_t in, std::int64_t out_width,
                             ParameterId weight, const ParameterId* bias) {
  const DType multiply_as = workload_.numerics.multiply;
  const Gemm forward{.batch = 1, .m = rows, .n = out_width, .k = in, .dtype = multiply_as};
  x = cast(x, compute());
  Op op{.name = "linear",
        .kind = OpKind::linear,
        .inputs = {x},
        .gradients = {Gradient::fresh},
        .saved = {x},
        .forward = {forward}};
  op.model_flop = executed_flop(forward);
  op.backward = {Gemm{1, rows, in, out_width, multiply_as}, Gemm{1, in, out_width, rows, multiply_as}};
  if (workload_.numerics.autocast) {
    const ValueId low_weight = cast_weight(weight, in * out_width);
    op.inputs.push_back(low_weight);
    op.gradients.push_back(Gradient::fresh);
    op.saved.push_back(low_weight);
  } else {
    op.parameters = {weight};
  }
  const ValueId out = value("linear", rows * out_width, compute(), true);
  op.outputs = {out};
  if (bias != nullptr) {
    op.parameters.push_back(*bias);
    op.backward.push_back(moves(bytes(out)));
  }
  if (workload_.numerics.fp8_linears && module_ != ModuleId{0}) multiply_in_fp8(op, rows, in, out_width);
  append(std::move(op));
  return out;
}

// Dynamic scaling per tensor (pytorch/ao, float8/float8_linear.py): before each product both operands are
// read for their largest magnitude, then cast. What is saved stays in high precision.
void GraphBuilder::multiply_in_fp8(Op& linear, std::int64_t rows, std::int64_t in, std::int64_t out) const {
  const auto low = [](std::int64_t elements) { return storage(elements, DType::fp8); };
  std::vector<Kernel> forward, backward;
  const auto cast_to_fp8 = [&](std::vector<Kernel>& kernels, std::int64_t elements) {
    const Bytes high = storage(elements, compute());
    kernels.insert(kernels.end(), {moves(high), moves(high + low(elements))});
  };
  cast_to_fp8(forward, rows * in), cast_to_fp8(forward, in * out);
  forward.emplace_back(Gemm{1, rows, out, in, DType::fp8});
  cast_to_fp8(backward, rows * out), cast_to_fp8(backward, in * out);
  backward.emplace_back(Gemm{1, rows, in, out, DType::fp8});
  cast_to_fp8(backward, rows * in);
  backward.emplace_back(Gemm{1, in, out, rows, DType::fp8});
  for (const Kernel& k : linear.backward)  // the bias
    if (std::holds_alternative<MemoryBound>(k)) backward.push_back(k);
  linear.forward = std::move(forward), linear.backward = std::move(backward);
  linear.forward_temporary = low(rows * in) + low(in * out);
  linear.backward_temporary = low(rows * out) + std::max(low(in * out), low(rows * in));
}

ValueId GraphBuilder::cast_weight(ParameterId weight, std::int64_t elements) {
  const ValueId low = value("weight cast", elements, compute(), true);
  const Bytes traffic = storage(elements, DType::fp32) + bytes(low);
  graph_.values[low].autocast_cache = true;
  append({.name = "cast weight",
          .outputs = {low},
          .parameters = {weight},
          .forward = {moves(traffic)},
          .backward = {moves(traffic)}});
  return low;
}

ValueId GraphBuilder::layer_norm(ValueId x, std::int64_t width, ParameterId weight, const ParameterId* bias) {
  const ValueId out = value("normalised", graph_.values[x].elements, graph_.values[x].dtype, true);
  const ValueId statistics =
      value("mean and rstd", 2 * graph_.values[x].elements / width, DType::fp32, false);
  Op op{.name = "layer norm",
        .fusion = Fusion::reduction,
        .inputs = {x},
        .gradients = {Gradient::fresh},
        .outputs = {out, statistics},
        .saved = {x, statistics},
        .parameters = {weight},
        .forward = {moves(bytes(x) + bytes(out))},
        .backward = {moves(bytes(x) * 3), moves(bytes(x) * 2)}};
  if (bias != nullptr) op.parameters.push_back(*bias);
  append(std::move(op));
  return out;
}

ValueId GraphBuilder::rms_norm(ValueId x, std::int64_t width, ParameterId weight, RmsNorm implementation) {
  const std::int64_t elements = graph_.values[x].elements;
  const Bytes fp32 = storage(elements, DType::fp32);
  if (implementation == RmsNorm::fused) {
    const ValueId out = value("normalised", elements, graph_.values[x].dtype, true);
    const ValueId rstd = value("rstd", elements / width, DType::fp32, false);
    append({.name = "rms norm",
            .fusion = Fusion::reduction,
            .inputs = {x},
            .gradients = {Gradient::fresh},
            .outputs = {out, rstd},
            .saved = {x, rstd},
            .parameters = {weight},
            .forward = {moves(bytes(x) + bytes(out))},
            .backward = {moves(bytes(x) * 3), moves(bytes(x) * 2)}});
    return out;
  }
  const ValueId upcast = cast(x, DType::fp32);
  const ValueId scaled = implementation == RmsNorm::t5 ? x : upcast;
  const ValueId rstd = value("rstd", elements / width, DType::fp32, true);
  append({.name = "mean square",  // pow, mean, rsqrt; backward: expand, two products
          .fusion = Fusion::reduction,
          .inputs = {upcast},
          .gradients = {Gradient::fresh},
          .outputs = {rstd},
          .saved = {upcast},
          .forward = {moves(fp32 * 2), moves(fp32), moves(bytes(rstd) * 2)},
          .backward = {moves(bytes(rstd) * 3), moves(fp32), moves(fp32 * 3)},
          .forward_temporary = fp32,
          .backward_temporary = fp32});
  const ValueId normal = value("normalised", elements, DType::fp32, true);
  append({.name = "normalise",
          .fusion = Fusion::pointwise,
          .inputs = {scaled, rstd},
          .gradients = {Gradient::fresh, Gradient::fresh},
          .outputs = {normal},
          .saved = {scaled, rstd},
          .forward = {moves(bytes(scaled) + fp32)},
          .backward = {moves(fp32 + bytes(scaled)), moves(fp32 * 2 + bytes(scaled)), moves(fp32)},
          .backward_temporary = fp32});
  const DType result = implementation == RmsNorm::t5 ? workload_.numerics.parameter : graph_.values[x].dtype;
  const ValueId low = cast(normal, result);
  const ValueId out = value("scaled", elements, result, true);
  append({.name = "norm weight",
          .fusion = Fusion::pointwise,
          .inputs = {low},
          .gradients = {Gradient::fresh},
          .outputs = {out},
          .saved = {low},
          .parameters = {weight},
          .forward = {moves(bytes(low) * 2)},
          .backward = {moves(bytes(low) * 2), moves(bytes(low) * 3), moves(bytes(low))},
          .backward_temporary = bytes(low)});
  return out;
}

ValueId GraphBuilder::batched_product(std::string_view name, ValueId a, ValueId b, std::int64_t batch,
                                      std::int64_t m, std::int64_t n, std::int64_t k) {
  const DType as = workload_.numerics.multiply;
  const ValueId out = value(name, batch * m * n, compute(), true);
  const Gemm forward{batch, m, n, k, as};
  append({.name = name,
          .inputs = {a, b},
          .gradients = {Gradient::fresh, Gradient::fresh},
          .outputs = {out},
          .saved = {a, b},
          .forward = {forward},
          .backward = {Gemm{batch, m, k, n, as}, Gemm{batch, k, n, m, as}},
          .model_flop = executed_flop(forward)});
  return out;
}

std::vector<ValueId> GraphBuilder::split(std::string_view name, ValueId x,
                                         const std::vector<std::int64_t>& elements) {
  Op op{.name = name, .inputs = {x}, .gradients = {Gradient::fresh}, .backward = {moves(bytes(x) * 2)}};
  for (const std::int64_t part : elements) {
    op.outputs.push_back(value(name, part, graph_.values[x].dtype, true));
    op.forward.push_back(moves(bytes(op.outputs.back()) * 2));
  }
  const std::vector<ValueId> parts = op.outputs;
  append(std::move(op));
  return parts;
}

ValueId GraphBuilder::repeat(std::string_view name, ValueId x, std::int64_t times) {
  if (times == 1) return x;
  const ValueId out = value(name, graph_.values[x].elements * times, graph_.values[x].dtype, true);
  const Bytes traffic = bytes(x) + bytes(out);
  append({.name = name,
          .fusion = Fusion::pointwise,
          .inputs = {x},
          .gradients = {Gradient::fresh},
          .outputs = {out},
          .forward = {moves(traffic)},
          .backward = {moves(traffic)}});
  return out;
}

ValueId GraphBuilder::add_constant(std::string_view name, ValueId x) {
  return pointwise(name, name, graph_.values[x].dtype, {{x, Gradient::alias}});
}

ValueId GraphBuilder::masked_fill(ValueId x, std::int64_t mask_elements) {
  const ValueId out = value("masked scores", graph_.values[x].elements, graph_.values[x].dtype, true);
  const ValueId mask = value("mask", mask_elements, DType::boolean, false);
  append({.name = "mask",
          .fusion = Fusion::pointwise,
          .inputs = {x},
          .gradients = {Gradient::fresh},
          .outputs = {out, mask},
          .saved = {mask},
          .forward = {moves(bytes(x) * 2)},
          .backward = {moves(bytes(x) * 2)}});
  return out;
}

ValueId GraphBuilder::softmax(ValueId x, std::int64_t width) {
  const ValueId out = pointwise("softmax", "probabilities", graph_.values[x].dtype, {{x}}, true);
  graph_.ops.back().fusion = Fusion::reduction;
  graph_.ops.back().statistics = 2 * graph_.values[x].elements / width;  // maximum and sum
  return out;
}

ValueId GraphBuilder::dropout(ValueId x) {
  if (workload_.dropout == 0) return x;
  const ValueId out = value("dropped", graph_.values[x].elements, graph_.values[x].dtype, true);
  const ValueId mask = value("dropout mask", graph_.values[x].elements, DType::boolean, false);
  const Bytes traffic = bytes(x) * 2 + bytes(mask);
  append({.name = "dropout",
          .fusion = Fusion::random,
          .inputs = {x},
          .gradients = {Gradient::fresh},
          .outputs = {out, mask},
          .saved = {mask},
          .forward = {moves(traffic)},
          .backward = {moves(traffic)}});
  return out;
}

ValueId GraphBuilder::activation_relu(ValueId x) {
  return pointwise("relu", "activated", graph_.values[x].dtype, {{x}}, true);
}

ValueId GraphBuilder::activation_gelu(ValueId x) {
  return pointwise("gelu", "activated", graph_.values[x].dtype, {{.value = x, .saved = true}});
}

// 0.5 * x * (1 + tanh(sqrt(2/pi) * (x + 0.044715 * x^3)))
ValueId GraphBuilder::activation_gelu_tanh(ValueId x) {
  const DType t = graph_.values[x].dtype;
  const ValueId half = scale("gelu half", x);
  const ValueId cube = pointwise("gelu pow", "gelu cube", t, {{.value = x, .saved = true}});
  const ValueId scaled = scale("gelu scale cube", cube);
  const ValueId sum = pointwise("gelu add", "gelu sum", t, {{x, Gradient::alias}, {scaled, Gradient::alias}});
  const ValueId inner = scale("gelu scale sum", sum);
  const ValueId tanh = pointwise("gelu tanh", "gelu tanh", t, {{inner}}, true);
  const ValueId plus_one = pointwise("gelu add one", "gelu plus one", t, {{tanh, Gradient::alias}});
  return multiply("gelu product", half, plus_one);
}

ValueId GraphBuilder::activation_silu(ValueId x) {
  return pointwise("silu", "activated", graph_.values[x].dtype, {{.value = x, .saved = true}});
}

ValueId GraphBuilder::activation_tanh(ValueId x) {
  return pointwise("tanh", "activated", graph_.values[x].dtype, {{x}}, true);
}

ValueId GraphBuilder::position_bias(ParameterId table, std::int64_t batch, std::int64_t heads,
                                    std::int64_t queries, std::int64_t keys) {
  const int core = std::exchange(core_, 0);
  const std::int64_t scores = heads * queries * keys;
  const ValueId relative = value("relative bias", scores, workload_.numerics.parameter, true);
  append({.name = "relative bias",
          .outputs = {relative},
          .parameters = {table},
          .forward = {moves(storage(queries * keys, DType::int64)), moves(bytes(relative) * 2)},
          .backward = {moves(bytes(relative) * 3)}});
  const ValueId bias = value("position bias", batch * scores, workload_.numerics.parameter, true);
  append({.name = "bias plus mask",
          .fusion = Fusion::pointwise,
          .inputs = {relative},
          .gradients = {Gradient::fresh},
          .outputs = {bias},
          .forward = {moves(bytes(relative) + bytes(bias))},
          .backward = {moves(bytes(bias) + bytes(relative))}});  // sum over the batch
  core_ = core;
  return bias;
}

ValueId GraphBuilder::zero_bias(std::int64_t elements) {
  const int core = std::exchange(core_, 0);
  const ValueId bias = value("position bias", elements, workload_.numerics.parameter, false);
  append({.name = "zeros plus mask",
          .fusion = Fusion::pointwise,
          .outputs = {bias},
          .forward = {moves(bytes(bias))}});
  core_ = core;
  return bias;
}

GraphBuilder::Rotation GraphBuilder::rotation(std::int64_t sequence, std::int64_t head_dim, DType dtype) {
  const ValueId cos = value("cosines", sequence * head_dim, dtype, false);
  const ValueId sin = value("sines", sequence * head_dim, dtype, false);
  append({.name = "rotary tables",
          .outputs = {cos, sin},
          .forward = {moves(bytes(cos) * 2), moves(bytes(sin) * 2)}});
  return {cos, sin};
}

// Hugging Face apply_rotary_pos_emb: x cos, half of x negated, the halves swapped, times sin, and the sum.
ValueId GraphBuilder::rotary(std::string_view name, ValueId x, const Rotation& rotation) {
  const ValueId out = value(name, graph_.values[x].elements, graph_.values[x].dtype, true);
  const Bytes one = bytes(x);
  append({.name = name,
          .fusion = Fusion::pointwise,
          .inputs = {x, rotation.cos, rotation.sin},
          .gradients = {Gradient::fresh, Gradient::none, Gradient::none},
          .outputs = {out},
          .saved = {rotation.cos, rotation.sin},
          .forward = {moves(one * 2), moves(one), moves(one * 2), moves(one * 2), moves(one * 3)},
          .backward = {moves(one * 2), moves(one * 2), moves(one), moves(one * 2), moves(one * 2),
                       moves(one * 3)},
          .forward_temporary = one * 2,
          .backward_temporary = one * 2});
  return out;
}

ValueId GraphBuilder::fused_attention(const std::vector<ValueId>& qkv, const AttentionShape& shape) {
  const std::int64_t heads = shape.batch * shape.heads;
  const ValueId out = value("context", heads * shape.queries * shape.head_dim, compute(), true);
  const ValueId lse = value("log-sum-exp", heads * shape.queries, DType::fp32, false);
  FusedAttention kernel{.kind = workload_.attention,
                        .backward = false,
                        .causal = shape.causal,
                        .heads = heads,
                        .queries = shape.queries,
                        .keys = shape.keys,
                        .head_dim = shape.head_dim,
                        .dtype = workload_.numerics.multiply};
  Op op{.name = "attention",
        .kind = OpKind::fused_attention,
        .inputs = qkv,
        .outputs = {out, lse},
        .saved = qkv,
        .forward = {kernel}};
  op.gradients.assign(qkv.size(), Gradient::fresh);
  op.saved.insert(op.saved.end(), {out, lse});
  op.model_flop = executed_flop(kernel) * (shape.causal ? 2.0 : 1.0);  // without the causal discount
  // The gradient of q is summed in fp32; one more float per query for sum(dO * O).
  op.backward_temporary = storage(heads * shape.queries * (shape.head_dim + 1), DType::fp32);
  kernel.backward = true;
  op.backward = {moves(bytes(out) * 2), kernel, moves(bytes(out) * 3)};
  // Gradients of grouped keys and values are made for all heads, then summed (flash_api.cpp, dk_expanded).
  std::int64_t given = 0;
  for (const ValueId v : qkv) given += graph_.values[v].elements;
  const std::int64_t all = heads * shape.head_dim * (shape.queries + 2 * shape.keys);
  if (given < all) {
    const Bytes expanded = storage(2 * heads * shape.keys * shape.head_dim, compute());
    op.backward_temporary += expanded;
    op.backward.push_back(moves(expanded));
  }
  begin_attention_core();
  append(std::move(op));
  end_attention_core();
  return out;
}

void GraphBuilder::loss(ValueId logits, ValueId labels, bool upcast) {
  total_loss({cross_entropy(logits, labels, upcast)});
}

ValueId GraphBuilder::cross_entropy(ValueId logits, ValueId labels, bool upcast) {
  const ValueId head = logits;
  add_metrics(head, labels);
  if (workload_.fused_loss) {
    if (workload_.held_logits != HeldLogits::none)
      graph_.values[graph_.values[head].storage].held_by_user = true;
    return fused_mean_loss(logits, labels);
  }
  if (upcast) logits = cast(logits, DType::fp32);
  const HeldLogits held = workload_.held_logits;
  const auto hold = [&](ValueId v) { graph_.values[graph_.values[v].storage].held_by_user = true; };
  if (held == HeldLogits::head || held == HeldLogits::both) hold(head);
  if (held == HeldLogits::fp32 || held == HeldLogits::both) hold(logits);
  return mean_loss(logits, labels);
}

// In fp32, without autograd.
void GraphBuilder::add_metrics(ValueId logits, ValueId labels) {
  const Bytes fp32 = storage(graph_.values[logits].elements, DType::fp32);
  for (std::int64_t i = 0; i < workload_.train_metrics; ++i)
    graph_.metrics.insert(graph_.metrics.end(),
                          {{"metric's fp32 logits", moves(bytes(logits) + fp32)},
                           {"metric's log softmax", log_softmax_forward(fp32, rows_of(labels))}});
}

ValueId GraphBuilder::mean_loss(ValueId logits, ValueId labels) {
  const Bytes size = bytes(logits);
  const ValueId log_probabilities =
      value("log-probabilities", graph_.values[logits].elements, graph_.values[logits].dtype, true);
  append({.name = "log softmax",
          .fusion = Fusion::reduction,
          .statistics = 2 * rows_of(labels),  // maximum and sum
          .inputs = {logits},
          .gradients = {Gradient::fresh},
          .outputs = {log_probabilities},
          .saved = {log_probabilities},
          .forward = {log_softmax_forward(size, rows_of(labels))},
          .backward = {log_softmax_backward(size, rows_of(labels))}});
  const ValueId mean = value("loss", 1, graph_.values[logits].dtype, true);
  append({.name = "negative log-likelihood",
          .fusion = Fusion::reduction,
          .inputs = {log_probabilities, labels},
          .gradients = {Gradient::fresh, Gradient::none},
          .outputs = {mean},
          .saved = {labels},
          .forward = {moves(bytes(labels) * 2)},
          .backward = {moves(bytes(log_probabilities)), moves(bytes(labels) * 2)}});  // zeros, then scatter
  return mean;
}

ValueId GraphBuilder::fused_mean_loss(ValueId logits, ValueId labels) {
  const std::int64_t tokens = graph_.values[labels].elements;
  const ValueId losses = value("losses", tokens, DType::fp32, true);
  const ValueId lse = value("log-sum-exp", tokens, DType::fp32, false);
  append({.name = "fused cross-entropy",
          .inputs = {logits, labels},
          .gradients = {Gradient::fresh, Gradient::none},
          .outputs = {losses, lse},
          .saved = {logits, lse, labels},
          .forward = {moves(bytes(logits))},
          .backward = {moves(bytes(logits) * 2)}});
  const ValueId mean = value("loss", 1, DType::fp32, true);
  append({.name = "mean of losses",
          .inputs = {losses},
          .gradients = {Gradient::fresh},
          .outputs = {mean},
          .forward = {moves(bytes(losses))},
          .backward = {moves(bytes(losses))}});
  return mean;
}

// Autograd hands out the gradients that the forward pass made; here they are copies, which costs the weight's
// gradient a second time for a moment.
ValueId GraphBuilder::chunked_cross_entropy(ValueId x, ValueId labels, std::int64_t rows, std::int64_t in,
                                            std::int64_t vocab, ParameterId weight, const ParameterId* bias) {
  const DType as = workload_.numerics.multiply;
  x = cast(x, compute());
  Op op{
      .name = "chunked cross-entropy", .inputs = {x, labels}, .gradients = {Gradient::fresh, Gradient::none}};
  if (workload_.numerics.autocast) {
    op.inputs.push_back(cast_weight(weight, in * vocab));
    op.gradients.push_back(Gradient::fresh);
  } else {
    op.parameters = {weight};
  }
  if (bias != nullptr) op.parameters.push_back(*bias);
  const ValueId mean = value("loss", 1, DType::fp32, true);
  const ValueId input_gradient = value("input gradient", rows * in, compute(), false);
  const ValueId weight_gradient = value("weight gradient", in * vocab, compute(), false);
  op.outputs = {mean, input_gradient, weight_gradient};
  op.saved = {input_gradient, weight_gradient};
  const std::int64_t chunk = (rows + workload_.loss_chunks - 1) / workload_.loss_chunks;
  for (std::int64_t first = 0; first < rows; first += chunk) {
    const std::int64_t m = std::min(chunk, rows - first);
    const Bytes logits = storage(m * vocab, compute());
    op.forward.insert(op.forward.end(), {Gemm{1, m, vocab, in, as}, moves(logits * 3),
                                         Gemm{1, m, in, vocab, as}, Gemm{1, in, vocab, m, as}});
  }
  op.forward_temporary = storage(chunk * vocab, compute());  // logits, then their gradient in place
  op.backward = {moves(bytes(input_gradient) * 2), moves(bytes(weight_gradient) * 2)};
  op.model_flop = executed_flop(Gemm{1, rows, vocab, in, as});
  append(std::move(op));
  return mean;
}

void GraphBuilder::total_loss(const std::vector<ValueId>& losses) {
  ValueId total = losses.front();
  for (std::size_t i = 1; i < losses.size(); ++i)
    total = pointwise("sum of losses", "loss", graph_.values[total].dtype,
                      {{total, Gradient::alias}, {losses[i], Gradient::alias}});
  graph_.values[total].held_by_user = true;
  graph_.loss = total;
}

OpGraph GraphBuilder::finish() && {
  const OpId end{graph_.ops.next_id().index - 1};
  for (Value& v : graph_.values)
    if (v.autocast_cache) v.last_use = end;
  std::erase_if(graph_.segments, [](const Segment& s) { return s.first == s.last; });
  return std::move(graph_);
}

}  // namespace shardsim
