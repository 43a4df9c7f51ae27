// Independent work on all cores. Results do not depend on how many there are: each piece writes to a place of
// its own.
#pragma once

#include <cstddef>
#include <functional>

namespace shardsim {

// Calls work(i) for i = 0 .. n-1, begun in this order; work may itself call in_parallel. After an exception
// a thread begins no other piece than one it was about to, and of several the one of the lowest i is thrown,
// after all have ended.
void in_parallel(std::size_t n, const std::function<void(std::size_t)>& work);

// The same; `finished` is told after each i how many are done, one call at a time, from any thread.
using Finished = std::function<void(std::size_t i, std::size_t done)>;
void in_parallel(std::size_t n, const std::function<void(std::size_t)>& work, const Finished& finished);

// The same for n short pieces that others wait for: a thread that has done its own takes up nothing else
// meanwhile.
void in_lockstep(std::size_t n, const std::function<void(std::size_t)>& work);

int threads_at_hand();

// Calls `work`, whose in_parallel use so many threads, also more than there are cores; 0 = one per core.
void with_threads(int threads, const std::function<void()>& work);

}  // namespace shardsim
