// Number formats: how a tensor is stored, and in which format a matrix product is computed.
#pragma once

#include <cstdint>
#include <string_view>

#include "sim/base/units.h"

namespace shardsim {

// tf32 is a way to multiply fp32 tensors, not a way to store them.
enum class DType : std::uint8_t { fp32, tf32, fp16, bf16, fp8, int64, boolean };

constexpr std::int64_t bytes_per_element(DType t) {
  switch (t) {
    case DType::fp32:
    case DType::tf32: return 4;
    case DType::fp16:
    case DType::bf16: return 2;
    case DType::fp8:
    case DType::boolean: return 1;
    case DType::int64: return 8;
  }
  return 0;
}
constexpr Bytes storage(std::int64_t elements, DType t) { return {elements * bytes_per_element(t)}; }

constexpr std::string_view name(DType t) {
  constexpr std::string_view names[] = {"fp32", "tf32", "fp16", "bf16", "fp8", "int64", "bool"};
  return names[static_cast<int>(t)];
}

}  // namespace shardsim
