#include "sim/collective/schedule.h"

#include <numeric>

#include "sim/base/check.h"

namespace shardsim {
namespace {

std::size_t at(int i) { return static_cast<std::size_t>(i); }

// ncclGetBtree: node 0 is the root with one child; every other node hangs on the one that shares its bits
// above the lowest set bit and has the next bit set, if there is such a node.
int parent_in_btree(int nodes, int node) {
  if (node == 0) return -1;
  const int bit = node & -node;
  const int up = (node ^ bit) | (bit << 1);
  return up < nodes ? up : node ^ bit;
}

class TreeWriter {
 public:
  explicit TreeWriter(const std::vector<int>& positions_of_node) : count_(positions_of_node) {
    head_.resize(count_.size());
    std::exclusive_scan(count_.begin(), count_.end(), head_.begin(), 0);
  }

  void add(int half, const std::vector<int>& parent) {
    const auto n = count_.size();
    std::vector<std::vector<int>> into_head(n);  // streams that bring a node what is to be added up
    std::vector<int> up(n, -1), chain_up(n, -1);
    for (std::size_t v = 0; v < n; ++v) {
      for (int i = count_[v] - 1; i > 0; --i) {  // the far end of the chain begins
        const int before = chain_up[v];
        chain_up[v] = add({Leg::Way::chain_up, head_[v] + i, head_[v] + i - 1, half, {}});
        if (before >= 0) source(chain_up[v], before);
      }
      if (chain_up[v] >= 0) into_head[v].push_back(chain_up[v]);
    }
    for (std::size_t v = 0; v < n; ++v)
      if (parent[v] >= 0) {
        up[v] = add({Leg::Way::parent, head_[v], head_[at(parent[v])], half, {}});
        into_head[at(parent[v])].push_back(up[v]);
      }
    for (std::size_t v = 0; v < n; ++v)
      if (up[v] >= 0) schedule.legs[at(up[v])].sources = into_head[v];
    std::vector<int> down(n, -1);  // from the parent
    for (std::size_t v = 0; v < n; ++v)
      if (parent[v] >= 0) down[v] = add({Leg::Way::child, head_[at(parent[v])], head_[v], half, {}});
    // What a node sends on: the total at the root, else what came down.
    const auto wait_for_total = [&](int stream, std::size_t v) {
      if (down[v] >= 0)
        source(stream, down[v]);
      else
        schedule.legs[at(stream)].sources = into_head[v];
    };
    for (std::size_t v = 0; v < n; ++v)
      if (down[v] >= 0) wait_for_total(down[v], at(parent[v]));
    for (std::size_t v = 0; v < n; ++v)
      for (int i = 0, before = -1; i + 1 < count_[v]; ++i) {
        const int stream = add({Leg::Way::chain_down, head_[v] + i, head_[v] + i + 1, half, {}});
        if (before >= 0)
          source(stream, before);
        else
          wait_for_total(stream, v);
        before = stream;
      }
  }

  Schedule schedule;

 private:
  int add(Leg leg) {
    schedule.legs.push_back(std::move(leg));
    return static_cast<int>(schedule.legs.size()) - 1;
  }
  void source(int stream, int of) { schedule.legs[at(stream)].sources.push_back(of); }

  std::vector<int> count_, head_;  // positions of each node, and the first of them
};

}  // namespace

Schedule ring_schedule(int positions, int messages) {
  Schedule schedule{.lag = 1, .messages = messages, .legs = {}};
  for (int p = 0; p < positions; ++p)
    schedule.legs.push_back({Leg::Way::ring, p, (p + 1) % positions, 0, {(p + positions - 1) % positions}});
  return schedule;
}

int ring_messages(CollectiveKind kind, int positions) {
  return (kind == CollectiveKind::all_reduce ? 2 : 1) * (positions - 1);
}

Schedule tree_schedule(const std::vector<int>& positions_of_node) {
  const int nodes = static_cast<int>(positions_of_node.size());
  require(nodes > 1, "a tree joins nodes");
  TreeWriter writer(positions_of_node);
  writer.add(0, first_tree(nodes));
  writer.add(1, second_tree(nodes));
  return std::move(writer.schedule);
}

// A reduce-scatter adds part p up on its way from position p around to p; an all-gather takes it from there.
Payload ring_payload(CollectiveKind kind, int positions, int position, int message) {
  const bool reduce = kind != CollectiveKind::all_gather && message < positions - 1;
  const int step = message % (positions - 1);
  const int part = position - step - (reduce ? 1 : 0);
  return {((part % positions) + positions) % positions, reduce};
}

std::vector<int> first_tree(int nodes) {
  std::vector<int> parent;
  for (int v = 0; v < nodes; ++v) parent.push_back(parent_in_btree(nodes, v));
  return parent;
}

// ncclGetDtree: the first tree mirrored, or shifted by one when the nodes are odd in number, so that inner
// nodes of one tree are leaves of the other.
std::vector<int> second_tree(int nodes) {
  std::vector<int> parent;
  for (int v = 0; v < nodes; ++v) {
    const bool odd = nodes % 2 == 1;
    const int up = parent_in_btree(nodes, odd ? (v + nodes - 1) % nodes : nodes - 1 - v);
    parent.push_back(up < 0 ? -1 : odd ? (up + 1) % nodes : nodes - 1 - up);
  }
  return parent;
}

}  // namespace shardsim
