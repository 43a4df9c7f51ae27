// The architectures: a family turns a spec and a workload into an op graph.
#pragma once

#include <span>
#include <string_view>

#include "sim/model/op_graph.h"
#include "sim/model/spec.h"
#include "sim/model/workload.h"

namespace shardsim {

// GPT-2's block (minGPT, MPT, GPT-3): pre-LayerNorm, one fused qkv projection, causal attention, MLP.
OpGraph gpt(const ModelSpec& spec, const Workload& workload);

// T5's encoder-decoder: RMS norms, relative position bias, cross attention; Hugging Face modeling_t5.py.
OpGraph t5(const ModelSpec& spec, const Workload& workload);

struct FamilyEntry {
  Family family;
  std::string_view name, summary;
  OpGraph (*build)(const ModelSpec&, const Workload&);
  bool encoder_decoder;
};
std::span<const FamilyEntry> families();
const FamilyEntry& entry(Family family);

// Requires: workload.micro_batch, sequence (and decoder_sequence) > 0, attention legal for the family.
OpGraph build(const ModelSpec& spec, const Workload& workload);

}  // namespace shardsim
