#include "sim/model/family.h"

namespace shardsim {
namespace {

constexpr FamilyEntry table[] = {
    {Family::gpt, "gpt", "decoder-only, LayerNorm, learned positions", gpt, false},
    {Family::t5, "t5", "encoder-decoder, RMS norm, relative position bias", t5, true},
};

}  // namespace

std::span<const FamilyEntry> families() { return table; }

const FamilyEntry& entry(Family family) { return table[static_cast<std::size_t>(family)]; }

OpGraph build(const ModelSpec& spec, const Workload& workload) {
  return entry(spec.family).build(spec, workload);
}

}  // namespace shardsim
