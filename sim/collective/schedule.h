// The messages of a collective: who sends how many to whom, and what each waits for.
//
// A leg is a series of messages from one position of the group to another, sent in order. Message k of a
// leg leaves when message k - lag of each of its sources has arrived: in a ring a position passes on what
// came the step before (lag 1), in a tree what comes now (lag 0). Positions are those of RingRoutes.
//   source  NVIDIA/nccl src/device/all_gather.h, reduce_scatter.h, all_reduce.h (rings), src/graph/trees.cc
#pragma once

#include <vector>

#include "sim/base/collective_kind.h"

namespace shardsim {

struct Leg {
  enum class Way : std::uint8_t {
    ring,        // to the next position
    chain_up,    // to the position before, of the same node
    chain_down,  // to the next position of the same node
    parent,      // from the head of a node to that of another
    child,
  };
  Way way;
  int from, to;
  int half = 0;              // of the data: each of the two trees carries one
  std::vector<int> sources;  // other legs
};

struct Schedule {
  int lag = 0;
  int messages = 1;  // of each leg, per round of chunks
  std::vector<Leg> legs;
};

// Every position sends `messages` messages to the next. A ring of n: all-gather and reduce-scatter n - 1,
// all-reduce 2 (n - 1).
Schedule ring_schedule(int positions, int messages);
int ring_messages(CollectiveKind kind, int positions);

// All-reduce over NCCL's double binary tree of nodes, a chain inside each node that ends in its head: up to
// the root of each tree, down again. Requires: two nodes or more, each with a position.
Schedule tree_schedule(const std::vector<int>& positions_of_node);

// Which of the n parts of a round a message of a ring carries, and whether the receiver adds it to its own.
struct Payload {
  int part;
  bool reduce;
};
Payload ring_payload(CollectiveKind kind, int positions, int position, int message);

// Parents of the nodes in the two trees; -1 at the root.
std::vector<int> first_tree(int nodes);
std::vector<int> second_tree(int nodes);

}  // namespace shardsim
