// Dense indices that cannot be mixed up: a Rank is not a LinkId is not a TensorId.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace shardsim {

template <class Tag>
struct Id {
  std::int32_t index{};
  friend constexpr auto operator<=>(Id, Id) = default;
};

// A vector indexed by one kind of id only.
template <class I, class T>
class IdVector : private std::vector<T> {
  using Base = std::vector<T>;

 public:
  using Base::assign, Base::back, Base::begin, Base::clear, Base::emplace_back, Base::empty, Base::end,
      Base::pop_back, Base::push_back, Base::reserve, Base::resize, Base::size;
  using typename Base::const_reference;
  using typename Base::reference;

  IdVector() = default;
  explicit IdVector(std::size_t n, const T& value = T{}) : Base(n, value) {}
  IdVector(std::initializer_list<T> values) : Base(values) {}

  reference operator[](I i) { return Base::operator[](static_cast<std::size_t>(i.index)); }
  const_reference operator[](I i) const { return Base::operator[](static_cast<std::size_t>(i.index)); }

  I next_id() const { return I{static_cast<std::int32_t>(Base::size())}; }
  I add(T value) {
    const I id = next_id();
    Base::push_back(std::move(value));
    return id;
  }
  friend bool operator==(const IdVector& a, const IdVector& b) {
    return static_cast<const Base&>(a) == static_cast<const Base&>(b);
  }
};

// The ids 0 .. size-1 of an IdVector, for range-based loops.
template <class I>
struct IdRange {
  struct iterator {
    std::int32_t i;
    I operator*() const { return I{i}; }
    iterator& operator++() { return ++i, *this; }
    friend bool operator==(iterator, iterator) = default;
  };
  std::int32_t count;
  iterator begin() const { return {0}; }
  iterator end() const { return {count}; }
};
template <class I, class T>
IdRange<I> ids(const IdVector<I, T>& v) {
  return {static_cast<std::int32_t>(v.size())};
}

using Rank = Id<struct RankTag>;  // position of a process in the job, 0 .. gpus-1

}  // namespace shardsim
