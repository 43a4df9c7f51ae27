// A model's forward pass as the framework executes it, with what each operation keeps for the backward pass
// and what its backward launches: enough to replay time and memory, before any strategy.
//
// The graph is flat, in execution order. It knows neither ranks nor devices; sharding, checkpointing and
// gradients' destinations are the strategies' business.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "sim/base/dtype.h"
#include "sim/base/id.h"
#include "sim/base/kernel.h"
#include "sim/base/units.h"

namespace shardsim {

using ValueId = Id<struct ValueTag>;
using ParameterId = Id<struct ParameterTag>;
using OpId = Id<struct OpTag>;
using ModuleId = Id<struct ModuleTag>;

// A tensor of the forward pass.
struct Value {
  std::string_view name;  // a literal
  std::int64_t elements;
  DType dtype;
  ValueId storage;  // the value whose memory it shares; itself when it owns memory
  bool needs_grad;
  OpId last_use;                // after it the last reference of the Python code dies
  bool held_by_user = false;    // the training loop keeps it until the micro-batch ends (the model's outputs)
  bool autocast_cache = false;  // the cache of weight casts keeps it until the forward pass ends
};

struct Parameter {
  std::string name;  // "decoder.17.fc1.weight"
  std::int64_t elements;
  std::int64_t rows;  // its first dimension, along which FSDP2 shards it
  ModuleId module;
};

// How the backward of an operation makes the gradient of one of its inputs.
enum class Gradient : std::uint8_t {
  none,   // the input needs none
  fresh,  // a new tensor, shaped as the input
  alias,  // the gradient of the (first) output itself: additions pass it on
  same,   // the tensor made for the nearest fresh one before: an addition inside a larger kernel
};

// Operations that selective checkpointing tells apart, and those that fuse() made.
enum class OpKind : std::uint8_t { other, linear, fused_attention, fused };

// What a compiler may do with an operation.
enum class Fusion : std::uint8_t {
  none,       // it stays a kernel of its own: matrix products, lookups, libraries' kernels
  pointwise,  // part of a larger kernel; a boolean beside its result is a constant
  reduction,  // the same over rows; what it makes beside its result, or smaller than its input, are
              // statistics
  random,     // pointwise, but what it makes beside its result (a mask) cannot be made again
};

struct Op {
  std::string_view name{};  // a literal
  ModuleId module{};
  OpKind kind{};
  Fusion fusion{};
  bool compiled = false;        // launched by generated code, not by the framework's dispatcher
  std::int64_t statistics = 0;  // fp32 numbers inside a reduction from which its result can be made again
  int attention_core = 0;       // of which attention (scores to context) it is part, counted from 1; 0 = none
  bool from_host = false;       // no kernel: its outputs are copied from host memory
  std::vector<ValueId> inputs{};
  std::vector<Gradient> gradients{};  // one per input
  std::vector<ValueId> outputs{};
  std::vector<ValueId> saved{};           // kept for its backward: inputs, outputs, masks, statistics
  std::vector<ParameterId> parameters{};  // whose gradients its backward makes
  std::vector<Kernel> forward{}, backward{};
  Bytes forward_temporary{}, backward_temporary{};
  Flop model_flop{};  // of its matrix products, forward, without causal discount
};

// A part of the model that a strategy may wrap: the repeated blocks, and the root that holds the rest.
struct Module {
  std::string name;  // "encoder 3", "root"
  bool block;
};

// Consecutive operations of one module; the root has several, the blocks one each.
struct Segment {
  ModuleId module;
  OpId first, last;  // [first, last)
};

// A pass of what the training loop computes from the logits once the gradients of a micro-batch are made, to
// log it. Leaves out its temporaries: by then the activations are gone.
struct MetricPass {
  std::string_view name;  // a literal
  Kernel kernel;
};

struct OpGraph {
  IdVector<ValueId, Value> values;
  IdVector<ParameterId, Parameter> parameters;  // in registration order
  IdVector<OpId, Op> ops;
  IdVector<ModuleId, Module> modules;  // modules[0] is the root
  std::vector<Segment> segments;       // in forward order
  std::vector<MetricPass> metrics;
  DType parameter_dtype{};  // as the operations see the parameters
  ValueId loss;
};

// The tensors an operation keeps, as bytes of storage; shared storages count each time they are saved.
Bytes bytes_of(const OpGraph& graph, ValueId value);

// Parameters of the model, and of one module.
std::int64_t parameter_count(const OpGraph& graph);
std::int64_t parameter_count(const OpGraph& graph, ModuleId module);

// FLOP of one forward pass (matrix products only).
Flop forward_flop(const OpGraph& graph);

// Bytes that the operations of a segment keep for backward when nothing is recomputed: distinct storages,
// without those that come from outside the segment in `shared` (masks, position biases).
Bytes saved_bytes(const OpGraph& graph, const Segment& segment, const std::vector<ValueId>& shared = {});

}  // namespace shardsim
