// A program's ranks and groups on a cluster, folded: ranks, groups and links that cannot be told apart are
// one class each, and only one of each class is simulated.
//
// Equivalence is computed, not assumed: colour refinement of the graph of ranks, groups and links, where a
// group is tied to its members and, with the number of channels, to the links its rings cross; hardware and
// what-ifs are the initial colours. The order of a ring is not an edge: at the fluid level the members of a
// collective meet only in its start, its rate and its end. The partition is equitable, so on the quotient
// every start, share and finish is the one the full system has, in integers (see engine/max_min.h on ties).
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
  RingFabric fabric;
  std::vector<int> parts;  // of the topology that its members are on
  std::vector<RankClassId> members;
  std::array<std::vector<LinkShare>, link_loads> links;  // by LinkLoad: link classes; weights are channels
};

// Other jobs' traffic on a link class.
struct SharedLink {
  std::vector<LinkShare> link;  // one
  Bandwidth rate;
};

struct Job {
  IdVector<RankClassId, RankClass> ranks;
  IdVector<CommunicatorId, Communicator> communicators;
  std::vector<Bandwidth> capacity;  // by link class
  IdVector<Rank, RankClassId> class_of;
  std::vector<SharedLink> background;
};

// With fold = false every rank, group and link is a class of its own. Requires: the program's world is the
// number of GPUs of the topology.
Job place(const Program& program, const Cluster& cluster, bool fold);

// Ranks of the instances of a group, in order.
std::vector<std::vector<Rank>> members(const Mesh& mesh, Axis axis);

}  // namespace shardsim
