// The architectures: a family turns a spec and a workload into an op graph.
#pragma once

#include <span>
#include <string_view>

#include "sim/model/op_graph.h"
#include "sim/model/spec.h"
#include "sim/model/workload.h"

namespace shardsim {

// GPT-2's block (minGPT, MPT, GPT-3, OPT, BLOOM): pre-LayerNorm, one fused qkv projection, causal attention,
// MLP.
OpGraph gpt(const ModelSpec& spec, const Workload& workload);

// T5's encoder-decoder: RMS norms, relative position bias, cross attention; Hugging Face modeling_t5.py.
OpGraph t5(const ModelSpec& spec, const Workload& workload);

// LLaMA: RMS norms, rotary embeddings, grouped keys and values, SwiGLU; Hugging Face modeling_llama.py.
OpGraph llama(const ModelSpec& spec, const Workload& workload);

// BERT's encoder: LayerNorm behind each residual, segment embeddings, a transform before the tied head;
// Hugging Face modeling_bert.py. RoBERTa is one without segments to tell apart and without a pooler.
OpGraph bert(const ModelSpec& spec, const Workload& workload);

// BART's encoder-decoder: BERT's block, learned positions and biases everywhere; Hugging Face
// modeling_bart.py.
OpGraph bart(const ModelSpec& spec, const Workload& workload);

// A family's architecture, and what a spec and a training may ask of it. In lists "a|b" the first is the
// usual.
struct FamilyEntry {
  Family family;
  std::string_view name, summary;
  OpGraph (*build)(const ModelSpec&, const Workload&);
  bool encoder_decoder;
  std::string_view objective;
  std::string_view activations, norms, positions;
  std::string_view biases;   // "true", "false", or both
  std::string_view options;  // further keys of a model it understands
  bool tied_embeddings;      // usually
  double dropout;            // usually
};
std::span<const FamilyEntry> families();
const FamilyEntry& entry(Family family);

// Requires: workload.micro_batch, sequence (and decoder_sequence) > 0, attention legal for the family.
OpGraph build(const ModelSpec& spec, const Workload& workload);

}  // namespace shardsim
