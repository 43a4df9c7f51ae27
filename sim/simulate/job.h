// A program's ranks and groups on a cluster, folded: ranks, groups and links that cannot be told apart are
// one class each, and only one of each class is simulated.
//
// Equivalence is computed, not assumed, in two steps that are both exact:
//   1. Nodes that a symmetry exchanges (symmetry.h) are represented by the lowest of them and never listed,
//      nor are their ranks, groups and links. What a symmetry exchanges is one class of an equitable
//      partition.
//   2. Colour refinement of what is left (engine/colour_refinement.h): a graph of ranks, groups and links,
//      where a group is tied to its members and, with the number of channels, to the links its rings cross;
//      hardware and what-ifs are the initial colours. Edges say how many of those that a vertex stands for
//      are seen from each end, so the partition is that of the graph of all ranks.
// The order of a ring is not an edge: at the fluid level the members of a collective meet only in its start,
// its rate and its end. The partition is equitable, so on the quotient every start, share and finish is the
// one the full system has, in integers (see engine/max_min.h on ties). Both steps keep the lowest rank of
// every class, so reports name the same ranks.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "sim/base/id.h"
#include "sim/collective/plan.h"
#include "sim/engine/max_min.h"
#include "sim/program/program.h"
#include "sim/simulate/cluster.h"

namespace shardsim {

using RankClassId = Id<struct RankClassTag>;
using CommunicatorId = Id<struct CommunicatorTag>;

struct RankClass {
  Rank rank;  // the lowest of its members
  std::int64_t count = 0;
  int part = 0;  // of the topology
  double compute_scale = 1.0;
  IdVector<GroupId, CommunicatorId> communicator;  // by group of the program
  std::vector<LinkShare> to_device, from_device;   // links of copies between host and GPU
};

// A class of groups of ranks that are alike: one communicator of NCCL stands for `count` of them.
struct Communicator {
  GroupId group;
  std::int64_t count = 0;
  RingFabric fabric;       // folded, its links are those of a sample of its nodes
  std::vector<int> parts;  // of the topology that its members are on
  std::vector<RankClassId> members;
  std::array<std::vector<LinkShare>, link_loads> links;  // by LinkLoad: link classes; weights are channels
};

// Other jobs' traffic on a link class.
struct SharedLink {
  std::vector<LinkShare> link;  // one
  Bandwidth rate;
};

struct PlacedRank {
  Rank rank;
  RankClassId of;
};

struct Job {
  IdVector<RankClassId, RankClass> ranks;
  IdVector<CommunicatorId, Communicator> communicators;
  std::vector<Bandwidth> capacity;  // by link class
  std::vector<SharedLink> background;
  // Ascending: all ranks or, folded, the lowest of those that a symmetry exchanges. The lowest rank of each
  // class is here and, of a group with a rank that is here, the lowest of each class in it.
  std::vector<PlacedRank> placed;
};

// Requires: the rank is among job.placed.
RankClassId class_of(const Job& job, Rank rank);

// Ranks that form one instance of a group: first, first + stride, ...
struct GroupRanks {
  std::int64_t first, stride, count;
};
std::int64_t instance_of(const Mesh& mesh, Axis axis, Rank rank);
GroupRanks ranks_of(const Mesh& mesh, Axis axis, std::int64_t instance);

// With fold = false every rank, group and link is a class of its own. Requires: the program's world is the
// number of GPUs of the topology.
Job place(const Program& program, const Cluster& cluster, bool fold);

// Ranks of the instances of a group, in order.
std::vector<std::vector<Rank>> members(const Mesh& mesh, Axis axis);

}  // namespace shardsim
