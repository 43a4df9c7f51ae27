// A job's collectives and copies as messages: network.detail = "chunk".
//
// The schedules of the algorithms and the rings' links become patterns of the chunk network; latency, rate
// and protocol come from the same plan as at the fluid level, so that a collective alone takes as long to
// within a step of its ring. Members still meet before a collective begins, and it ends for all with the last
// message.
//   chunks  NCCL's: a ring moves up to 4 slots of 512 KiB per channel and step, a tree one (NCCL enqueue.cc,
//           protocol Simple; buffers of 4 MiB)
//   leaves out  folding: every rank is simulated
#pragma once

#include <optional>
#include <vector>

#include "sim/collective/plan.h"
#include "sim/network/chunk_network.h"
#include "sim/network/network.h"
#include "sim/program/program.h"
#include "sim/simulate/cluster.h"
#include "sim/simulate/job.h"

namespace shardsim {

// Messages of the rings of a group, of its double trees, and of any other algorithm: one stream over all
// links.
MessagePattern ring_pattern(const Topology& topology, std::span<const Rank> members);
MessagePattern tree_pattern(const Topology& topology, std::span<const Rank> members);
MessagePattern plain_pattern(const Topology& topology, const RingFabric& fabric, const Plan& plan);

// What a planned collective puts on the pattern of its algorithm.
MessageLoad message_load(const Plan& plan, const RingFabric& fabric, CollectiveKind kind, Bytes bytes,
                         Bandwidth cap);
// Of the latency, what passes before the first message leaves; the rest is paid step by step.
Time before_messages(const Plan& plan, const RingFabric& fabric, CollectiveKind kind);

class ChunkLevel {
 public:
  struct End {
    TransferId transfer;
    Time at;
  };

  // `planned`: by communicator, the plans of its collectives. Transfers are numbered as the executor does: a
  // communicator's, then those of every rank and stream. Requires: the job is not folded.
  ChunkLevel(const Program& program, const Cluster& cluster, const Job& job,
             const std::vector<std::vector<Plan>>& planned);

  void start(CommunicatorId c, const Plan& plan, CollectiveKind kind, Bytes bytes, Bandwidth cap, Time now);
  void set_cap(CommunicatorId c, const Plan& plan, CollectiveKind kind, Bytes bytes, Bandwidth cap);
  void copy(RankClassId r, int stream, bool to_device, Bytes bytes, Time now);
  std::span<const End> advance(std::optional<Time> until);
  std::int64_t messages() const { return network_->messages(); }

 private:
  struct Patterns {
    std::optional<PatternId> ring, tree;
    struct Plain {
      LinkLoad load;
      int channels;
      PatternId pattern;
    };
    std::vector<Plain> plain;
  };
  std::optional<PatternId> pattern_of(CommunicatorId c, const Plan& plan) const;

  const Job& job_;
  int streams_;
  std::vector<Bandwidth> pcie_;  // of the GPUs of each part
  IdVector<CommunicatorId, Patterns> patterns_;
  std::optional<PatternId> first_copy_;  // of rank, stream and direction
  std::vector<TransferId> transfer_of_;  // by pattern
  std::optional<ChunkNetwork> network_;
  std::vector<End> ends_;
};

}  // namespace shardsim
