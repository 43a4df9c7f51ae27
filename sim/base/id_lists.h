// Many short lists, one per id.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "sim/base/id.h"

namespace shardsim {

// A list for each id, all in one block of memory. Lists do not grow, their elements may change.
template <class I, class T>
class IdLists {
 public:
  IdLists() = default;
  // Lists for ids 0 .. n-1; each keeps the order of its entries.
  IdLists(std::size_t n, const std::vector<std::pair<I, T>>& entries)
      : end_(n, 0), elements_(entries.size()) {
    for (const auto& [id, element] : entries) ++end_[id];
    std::int32_t begin = 0;
    for (std::int32_t& end : end_) begin += std::exchange(end, begin);
    for (const auto& [id, element] : entries) elements_[static_cast<std::size_t>(end_[id]++)] = element;
  }

  std::span<T> operator[](I i) { return {elements_.data() + begin(i), size(i)}; }
  std::span<const T> operator[](I i) const { return {elements_.data() + begin(i), size(i)}; }

 private:
  std::int32_t begin(I i) const { return i.index == 0 ? 0 : end_[I{i.index - 1}]; }
  std::size_t size(I i) const { return static_cast<std::size_t>(end_[i] - begin(i)); }

  IdVector<I, std::int32_t> end_;  // in elements_
  std::vector<T> elements_;
};

}  // namespace shardsim
