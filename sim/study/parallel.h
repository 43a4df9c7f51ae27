// Independent work on all cores. Results do not depend on how many there are: each piece writes to a place of
// its own.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <thread>
#include <vector>

namespace shardsim {

inline std::size_t cores() { return std::max(1u, std::thread::hardware_concurrency()); }

// Calls work(i) for i = 0 .. n-1. Of several exceptions the one of the lowest i is thrown, after all have
// ended.
template <class Work>
void in_parallel(std::size_t n, const Work& work) {
  std::vector<std::exception_ptr> errors(n);
  std::atomic<std::size_t> next{0};
  const auto take = [&] {
    for (std::size_t i = next++; i < n; i = next++) {
      try {
        work(i);
      } catch (...) {
        errors[i] = std::current_exception();
      }
    }
  };
  std::vector<std::thread> others;
  for (std::size_t t = 1; t < std::min(n, cores()); ++t) others.emplace_back(take);
  take();
  for (std::thread& t : others) t.join();
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
}

}  // namespace shardsim
