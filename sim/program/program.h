// A step program: what one host thread issues during training, in order, as data.
//
// One host thread launches kernels, collectives, copies, allocations and frees onto a few streams. Strategies
// write programs; verify, count, dump and simulate read them. All ranks of a job run the same program; groups
// are symbolic axes of the mesh and become ranks when the program meets a cluster.
//   source  the CUDA runtime and PyTorch's caching allocator, ProcessGroupNCCL, FSDP and DDP
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "sim/base/category.h"
#include "sim/base/collective_kind.h"
#include "sim/base/dtype.h"
#include "sim/base/host_work.h"
#include "sim/base/id.h"
#include "sim/base/kernel.h"
#include "sim/base/units.h"

namespace shardsim {

using StreamId = Id<struct StreamTag>;
using EventId = Id<struct EventTag>;
using TensorId = Id<struct TensorTag>;
using GroupId = Id<struct GroupTag>;
using KernelId = Id<struct KernelTag>;
using CollectiveId = Id<struct CollectiveTag>;
using LabelId = Id<struct LabelTag>;
using BodyId = Id<struct BodyTag>;

// --- tables -----------------------------------------------------------------------------------------------

enum class MemorySpace : std::uint8_t {
  device,  // the GPU's, by the caching allocator, from the pool of the tensor's stream
  pinned,  // page-locked host memory
  host,    // pageable
};
struct Tensor {
  LabelId label;
  Bytes bytes;  // requested, > 0
  Category category;
  StreamId stream;
  MemorySpace space = MemorySpace::device;
};

struct Stream {
  std::string name;
};
inline constexpr TensorId no_tensor{-1};
inline constexpr StreamId default_stream{0};  // where the model computes; the step is timed on it

// Who takes part in a collective. With a sharding factor F, ranks [kF, (k+1)F) share one copy of the model
// (shard), ranks of equal position in their shard group hold the same part of it (replica). Shard groups are
// cut into smaller groups of neighbours that each hold a copy between forward and backward (reshard).
enum class Axis : std::uint8_t { world, shard, replica, reshard };
constexpr std::string_view name(Axis a) {
  constexpr std::string_view names[] = {"world", "shard", "replica", "reshard"};
  return names[static_cast<int>(a)];
}
struct Mesh {
  std::int64_t world = 1;
  std::int64_t shard = 1;    // F, divides world
  std::int64_t reshard = 1;  // divides shard
};
// One communicator per rank; its collectives run on one stream in the order of issue.
struct Group {
  Axis axis;
  StreamId stream;
};

struct CollectiveOp {
  GroupId group;
  CollectiveKind kind;
  DType dtype;
  Bytes bytes;  // as nccl-tests counts them
  friend auto operator<=>(const CollectiveOp&, const CollectiveOp&) = default;
};

// --- instructions -----------------------------------------------------------------------------------------

struct Alloc {  // on the host's timeline
  TensorId tensor;
};
struct Free {
  TensorId tensor;
};
// The tensor's memory is used on another stream too: after a free it can be reused only when that stream has
// passed the point of the free.
struct RecordUse {
  TensorId tensor;
  StreamId stream;
};
struct Launch {
  StreamId stream;
  KernelId kernel;
  HostWork work;
  LabelId label;
};
struct Collective {
  CollectiveId what;
  LabelId label;
};
enum class CopyDirection : std::uint8_t { host_to_device, device_to_host };
struct Copy {  // from or to pinned memory, asynchronous
  StreamId stream;
  CopyDirection direction;
  Bytes bytes;
  LabelId label;
};
struct Record {
  EventId event;
  StreamId stream;
};
struct Wait {  // the stream waits for the event's latest record in host order
  StreamId stream;
  EventId event;
};
struct HostWait {  // the host does; an event never recorded counts as complete, as in CUDA
  EventId event;
};
struct HostBusy {
  HostWork work;
  std::int32_t amount;
};
struct HostPass {  // the host's cores stream through host memory, which the ranks of a node share
  Bytes traffic;   // read + written
  LabelId label;
};
struct MarkBegin {  // nested phases for people: "forward", "decoder 17"
  LabelId label;
};
struct MarkEnd {};

using Instruction = std::variant<Alloc, Free, RecordUse, Launch, Collective, Copy, Record, Wait, HostWait,
                                 HostBusy, HostPass, MarkBegin, MarkEnd>;

// --- program ----------------------------------------------------------------------------------------------

using Body = std::vector<Instruction>;
struct Repeat {
  BodyId body;
  std::int64_t times;
  friend bool operator==(const Repeat&, const Repeat&) = default;
};
// DDP rebuilds its buckets in step 2, the optimizer's state appears in step 1: sections differ, their bodies
// may be shared. After `second`, `steady` repeats.
enum class Section : std::uint8_t { init, first, second, steady };
inline constexpr int sections = 4;
constexpr std::string_view name(Section s) {
  constexpr std::string_view names[] = {"init", "first step", "second step", "steady step"};
  return names[static_cast<int>(s)];
}

// FLOP of one step on one rank, from the matrix products of the model, without causal discount.
struct StepFlop {
  Flop model;     // forward and backward, nothing twice
  Flop hardware;  // with recomputation
};

struct Program {
  Mesh mesh;
  IdVector<LabelId, std::string> labels;
  IdVector<StreamId, Stream> streams;
  IdVector<GroupId, Group> groups;
  IdVector<TensorId, Tensor> tensors;
  IdVector<KernelId, Kernel> kernels;
  IdVector<CollectiveId, CollectiveOp> collectives;
  int events = 0;
  IdVector<BodyId, Body> bodies;
  std::array<std::vector<Repeat>, sections> section;
  StepFlop flop;

  const std::vector<Repeat>& operator[](Section s) const { return section[static_cast<std::size_t>(s)]; }
  std::vector<Repeat>& operator[](Section s) { return section[static_cast<std::size_t>(s)]; }
};

}  // namespace shardsim
