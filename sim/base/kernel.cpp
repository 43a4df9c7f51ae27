#include "sim/base/kernel.h"

namespace shardsim {
namespace {

double product(std::int64_t a, std::int64_t b, std::int64_t c, std::int64_t d) {
  return static_cast<double>(a) * static_cast<double>(b) * static_cast<double>(c) * static_cast<double>(d);
}

// Two matrix products forward; five backward (scores again, and the gradients of v, p, q and k).
// Dao et al. 2022, arXiv:2205.14135, algorithms 1 and 4.
double attention_flop(const FusedAttention& a) {
  const double one_product = 2 * product(a.heads, a.queries, a.keys, a.head_dim);
  return one_product * (a.backward ? 5 : 2) * (a.causal ? 0.5 : 1.0);
}

struct Count {
  double operator()(const Gemm& g) const { return 2 * product(g.batch, g.m, g.n, g.k); }
  double operator()(const MemoryBound&) const { return 0; }
  double operator()(const FusedAttention& a) const { return attention_flop(a); }
};

}  // namespace

Flop executed_flop(const Kernel& kernel) { return {std::visit(Count{}, kernel)}; }

}  // namespace shardsim
