// First in, first out, without allocation once it has grown.
#pragma once

#include <cstddef>
#include <vector>

namespace shardsim {

template <class T>
class Fifo {
 public:
  bool empty() const { return size_ == 0; }
  std::size_t size() const { return size_; }
  const T& front() const { return ring_[head_]; }
  T& operator[](std::size_t i) { return ring_[(head_ + i) & (ring_.size() - 1)]; }
  const T& operator[](std::size_t i) const { return ring_[(head_ + i) & (ring_.size() - 1)]; }
  void push(const T& value) {
    if (size_ == ring_.size()) grow();
    ring_[(head_ + size_++) & (ring_.size() - 1)] = value;
  }
  void pop() {
    head_ = (head_ + 1) & (ring_.size() - 1);
    --size_;
  }

 private:
  static constexpr std::size_t first_capacity = 16;  // a power of two, as all that follow

  void grow() {
    std::vector<T> larger;
    larger.reserve(ring_.empty() ? first_capacity : 2 * ring_.size());
    for (std::size_t i = 0; i < size_; ++i) larger.push_back((*this)[i]);
    larger.resize(larger.capacity());
    ring_ = std::move(larger);
    head_ = 0;
  }

  std::vector<T> ring_;
  std::size_t head_ = 0, size_ = 0;
};

}  // namespace shardsim
