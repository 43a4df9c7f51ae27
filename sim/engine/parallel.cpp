#include "sim/engine/parallel.h"

#include <atomic>
#include <exception>
#include <limits>
#include <mutex>

#include <oneapi/tbb/global_control.h>
#include <oneapi/tbb/parallel_for.h>
#include <oneapi/tbb/task_arena.h>

namespace shardsim {
namespace {

// Of several exceptions the one of the lowest number.
class FirstError {
 public:
  bool any() const { return lowest_ != none; }
  void catch_current(std::size_t i) {
    const std::lock_guard lock(one_at_a_time_);
    if (i < lowest_) lowest_ = i, error_ = std::current_exception();
  }
  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  static constexpr std::size_t none = std::numeric_limits<std::size_t>::max();
  std::atomic<std::size_t> lowest_{none};
  std::exception_ptr error_;
  std::mutex one_at_a_time_;
};

}  // namespace

void in_parallel(std::size_t n, const std::function<void(std::size_t)>& work) {
  FirstError error;
  std::atomic<std::size_t> next{0};
  // TBB begins pieces in an order of its own, so it only says when. Pieces below one that fails have begun by
  // then: which error is the first does not depend on the threads.
  const auto take = [&](std::size_t) {
    if (error.any()) return;
    const std::size_t i = next++;
    try {
      work(i);
    } catch (...) {
      error.catch_current(i);
    }
  };
  tbb::parallel_for(std::size_t{0}, n, take, tbb::simple_partitioner{});
  error.rethrow();
}

void in_parallel(std::size_t n, const std::function<void(std::size_t)>& work, const Finished& finished) {
  std::mutex one_at_a_time;
  std::size_t done = 0;
  in_parallel(n, [&](std::size_t i) {
    work(i);
    const std::lock_guard lock(one_at_a_time);
    finished(i, ++done);
  });
}

void in_lockstep(std::size_t n, const std::function<void(std::size_t)>& work) {
  tbb::this_task_arena::isolate([&] { in_parallel(n, work); });
}

int threads_at_hand() { return tbb::this_task_arena::max_concurrency(); }

void with_threads(int threads, const std::function<void()>& work) {
  if (threads == 0) return work();
  const tbb::global_control allowed(tbb::global_control::max_allowed_parallelism,
                                    static_cast<std::size_t>(threads));
  tbb::task_arena(threads).execute(work);
}

}  // namespace shardsim
