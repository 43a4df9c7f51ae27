// Which nodes of a job can be exchanged with nothing to tell them apart, found by arithmetic: a large regular
// cluster is described by a few of its nodes, as long as shard groups fill whole nodes or nodes whole groups.
//
// What repeats in a job, repeats with a period in nodes: leaf switches, shard groups, groups that gather
// again after forward. Node n is written in mixed radix over strides that these periods give; a symmetry
// permutes the values of one digit, in all nodes at once. That leaves every leaf and every group whole if
// each period either holds all values of the digit or is a part of what one value moves. (Positions in a ring
// change. What a ring puts on a link does not: it passes once through the nodes it has on a leaf, leaves over
// the leaf if it has nodes on another, and in a node it is as the node's own GPUs say.) Where a period does
// not fit so, the digit is rigid: each of its values stands for itself.
//
// Whatever is unlike its neighbours singles out the values of its digits: stragglers, degraded links, other
// jobs' traffic; and no exchange crosses the border of a part or the end of the cluster.
#pragma once

#include <cstdint>
#include <set>
#include <vector>

#include "sim/program/program.h"
#include "sim/simulate/cluster.h"

namespace shardsim {

class Symmetry {
 public:
  // A set of digits, one bit each. Of a kind of objects (nodes, leaves, instances of a group): those that
  // tell them apart; all nodes of one object agree in them.
  using Digits = std::uint32_t;
  static constexpr Digits none = 0, all = ~Digits{0};

  // Every node stands for itself.
  explicit Symmetry(int nodes);
  Symmetry(const Program& program, const Cluster& cluster);

  // Of each set of nodes that may take each other's places the lowest, ascending: those that represent all.
  std::vector<int> nodes() const { return sample(false); }
  // And, for each digit of theirs, with the second lowest value: what is on several nodes or leaves is on
  // several of these, and rings over them load the links of nodes() as rings over all do.
  std::vector<int> nodes_for_rings() const { return sample(true); }

  // Of an instance of a group, of a leaf.
  Digits of_instance(const Topology& topology, const Mesh& mesh, Axis axis) const;
  Digits of_leaf(const Topology& topology) const;

  // In how many ways a symmetry can change these digits of one of nodes(). With the digits of a kind: so many
  // objects are exchanged with the one that contains the node, itself included. With those of one kind that
  // another has not: so many of them contain, or are in, one and the same object of the other.
  std::int64_t ways(int node, Digits digits) const;

 private:
  // Values of a digit that are exchanged: the lowest two and how many there are.
  struct Values {
    std::int64_t lowest, next;  // next = -1: only one
    std::int64_t count;
  };
  struct Digit {
    std::int64_t stride, below;
    bool rigid;
    std::vector<Values> values;  // by the lowest; unused in a rigid one
    std::int64_t value(std::int64_t node) const { return node % below / stride; }
    void exchange(const std::set<std::int64_t>& single, std::set<std::int64_t> starts);
  };
  void set_values(const Cluster& cluster);
  std::vector<int> sample(bool two) const;
  Digits that_move(std::int64_t period) const;

  std::int64_t nodes_;
  std::vector<Digit> digits_;  // the highest first
};

}  // namespace shardsim
