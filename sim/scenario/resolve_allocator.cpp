#include "sim/scenario/resolver.h"

namespace shardsim {

// The rules are those of PyTorch, which refuses or ignores the same. (c10/cuda/CUDAAllocatorConfig.cpp)
void Resolver::read_allocator() {
  AllocatorConfig& a = s_.allocator;
  const char *usual = "PyTorch's", *split_key = "allocator.max_split_size_mb",
             *collect_key = "allocator.garbage_collection_threshold",
             *fraction_key = "allocator.memory_fraction",
             *divisions_key = "allocator.roundup_power2_divisions";
  a.expandable_segments = flag("allocator.expandable_segments", false, usual);

  const std::int64_t split_mib = integer(split_key, 0, "PyTorch's: unlimited");
  if (split_mib > 0) a.max_split_size = Bytes{split_mib << 20};
  if (a.max_split_size <= AllocatorConfig::max_split_size_above)
    fail(split_key,
         fmt::format("{} is {}; more than 20 is expected, or 0 for unlimited", split_key, split_mib));
  if (split_mib > 0 && a.expandable_segments)
    fail(split_key,
         "expandable segments are split whatever their size; max_split_size_mb does not go with them");

  const double fraction = number(fraction_key, 1, "PyTorch's: the whole device");
  if (fraction == 0)
    fail(fraction_key, fmt::format("{} is 0; a share of the device above 0 is expected", fraction_key));
  const bool limited = settings_.find(fraction_key)->origin.kind != Origin::Kind::fallback;
  if (limited) a.memory_fraction = fraction;

  a.garbage_collection_threshold = number(collect_key, 0, "PyTorch's: off");
  if (a.garbage_collection_threshold == 1)
    fail(collect_key, fmt::format("{} is 1; a share below 1 is expected", collect_key));
  if (a.garbage_collection_threshold > 0 && !limited)
    fail(collect_key,
         "PyTorch collects garbage only under a memory_fraction; give allocator.memory_fraction");

  const std::int64_t divisions = integer(divisions_key, 0, "PyTorch's: off");
  if ((divisions & (divisions - 1)) != 0)
    fail(divisions_key,
         fmt::format("{} is {}; a power of two is expected, or 0 for none", divisions_key, divisions));
  a.roundup_power2_divisions = static_cast<int>(divisions);
}

}  // namespace shardsim
