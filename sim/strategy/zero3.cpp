#include <algorithm>
#include <string>
#include <utility>

#include "sim/base/check.h"
#include "sim/strategy/parameter_coordinator.h"
#include "sim/strategy/zero.h"

namespace shardsim {
namespace {

constexpr std::size_t reductions_ahead = 3;  // max_param_reduce_events and the one that exceeds them

// Parameters that the optimizer updates together, to bound its temporaries.
struct SubGroup {
  std::string name;
  std::int64_t elements = 0;  // of this rank's partition
  Trained master{};           // in fp32
  TensorId flat_gradient = no_tensor;
  TensorId master_gradient = no_tensor;  // in fp32
};

class Zero3Compiler {
 public:
  Zero3Compiler(const OpGraph& graph, const Training& training, const Framework& framework,
                std::int64_t world, const Zero& options)
      : step_(graph, training, framework, {world, ranks(options, world)}, optimizer_space(options)),
        program_(step_.program),
        options_(options),
        ranks_(ranks(options, world)),
        dtype_(graph.parameter_dtype),
        group_(program_.group(Axis::shard)),
        gather_stream_(options.overlap_comm ? program_.stream("all_gather") : default_stream),
        reduce_stream_(options.overlap_comm ? program_.stream("reduce_and_partition") : default_stream),
        coordinator_(step_, options, group_, ranks_, gather_stream_),
        autograd_(step_.make_autograd()),
        communicated_(program_.event()) {
    require(ranks_ > 1 && world % ranks_ == 0, "the ranks that share all states divide the ranks");
    if (ranks_ < world) replicas_ = program_.group(Axis::replica);
    require(!replicas_ || !offloads(), "MiCS offloads nothing");
    for (std::size_t i = 0; i < reductions_ahead; ++i) reduced_.push_back(program_.event());
    autograd_.set_hooks({.before_forward = [this](OpId op) { coordinator_.fetch(op); },
                         .after_forward = [this](OpId op) { coordinator_.release(op); },
                         .before_backward = [this](OpId op) { coordinator_.fetch(op); },
                         .after_backward = [this](OpId op) { coordinator_.release(op); }});
    make_sub_groups();
    make_tensors();
  }

  Program run() && {
    init();
    const auto first_step = micro_batches(false);  // records the trace
    const BodyId first_update = update_body(true);
    const auto step = micro_batches(true);
    const BodyId update = update_body(false);
    step_.append_steps(first_step, first_update, step, update);
    return std::move(step_).finish();
  }

 private:
  static std::int64_t ranks(const Zero& options, std::int64_t world) {
    return options.mics_shard_size == 0 ? world : options.mics_shard_size;
  }
  bool offloads() const { return options_.offload != ZeroOffload::none; }
  bool has_master() const { return dtype_ != DType::fp32 || offloads(); }  // else the partition itself
  std::int64_t width() const { return bytes_per_element(dtype_); }
  std::int64_t elements(ParameterId p) const { return step_.graph.parameters[p].elements; }

  // --- memory ---------------------------------------------------------------------------------------------

  void make_sub_groups() {
    SubGroup open;
    for (const ParameterId p : ids(step_.graph.parameters)) {
      open.elements += coordinator_.part(p);
      partition_ += coordinator_.part(p);
      if (open.elements < options_.sub_group_size &&
          p.index + 1 < static_cast<int>(step_.graph.parameters.size()))
        continue;
      open.name = "sub-group " + std::to_string(sub_groups_.size() + 1);
      sub_groups_.push_back(std::exchange(open, {}));
    }
  }

  TensorId tensor(const std::string& name, std::int64_t n, DType t, Category c,
                  StreamId stream = default_stream, MemorySpace space = MemorySpace::device) {
    return program_.tensor(name, storage(n, t), c, stream, space);
  }
  MemorySpace host_if(bool offloaded) const { return offloaded ? MemorySpace::pinned : MemorySpace::device; }

  void make_tensors() {
    parameters_ = tensor("parameter partitions", partition_, dtype_, Category::parameters, default_stream,
                         host_if(options_.offload == ZeroOffload::parameters));
    gradients_ = tensor("gradient partitions", partition_, dtype_, Category::gradients, default_stream,
                        host_if(offloads()));
    ipg_ = tensor("IPG buffer", options_.reduce_bucket_size, dtype_, Category::communication_buffers);
    for (SubGroup& g : sub_groups_) {
      g.master =
          step_.optimizer.trained(g.name + " in fp32", g.elements, 1, DType::fp32, Category::optimizer_state);
      g.flat_gradient = tensor(g.name + " flat gradient", g.elements, dtype_, Category::gradients);
      g.master_gradient = dtype_ == DType::fp32 && !offloads()
                              ? g.flat_gradient
                              : tensor(g.name + " fp32 gradient", g.elements, DType::fp32,
                                       Category::gradients, default_stream, host_if(offloads()));
    }
  }

  // zero.Init: each parameter is materialised and cut. Then the fp32 partitions, by way of a converted copy,
  // a gradient of zeros that comes and goes, and the buffers.
  void init() {
    step_.begin_init({});
    program_.alloc(parameters_);
    for (const Parameter& p : step_.graph.parameters) {
      const TensorId whole = tensor(p.name + " materialised", p.elements, dtype_, Category::temporaries);
      program_.alloc(whole);
      program_.free(whole);
    }
    std::int64_t largest = 0;
    for (const SubGroup& g : sub_groups_) {
      largest = std::max(largest, g.elements);
      if (has_master()) init_master(g);
    }
    if (!offloads()) {
      const TensorId zeros = tensor("zero gradient", largest, DType::fp32, Category::temporaries);
      program_.alloc(zeros);
      program_.free(zeros);
    }
    program_.alloc(ipg_);
    program_.alloc(gradients_);
  }

  void init_master(const SubGroup& g) {
    if (offloads()) {
      program_.alloc(g.master.parameter);
      program_.alloc(g.master_gradient);
      return;
    }
    const TensorId converted = tensor(g.name + " converted", g.elements, DType::fp32, Category::temporaries);
    program_.alloc(converted);
    program_.alloc(g.master.parameter);
    program_.free(converted);
  }

  // --- passes ---------------------------------------------------------------------------------------------

  std::vector<Repeat> micro_batches(bool traced) {
    return step_.micro_batches(
        /*last_apart=*/true,
        [&, traced](MicroBatch) {
          coordinator_.begin_micro_batch(traced);
          autograd_.forward();
        },
        [&](MicroBatch micro) {
          autograd_.backward([&](ParameterId p, TensorId gradient) { on_gradient(p, gradient, micro); });
          reduce_bucket(micro);
          program_.host_wait_stream(reduce_stream_);
          buckets_reduced_ = 0;
          autograd_.end_micro_batch();
          coordinator_.end_micro_batch();
        });
  }

  // --- gradients ------------------------------------------------------------------------------------------

  void wait_for_default() {
    if (reduce_stream_ != default_stream) program_.wait_stream(reduce_stream_, default_stream);
  }
  void free_after_reduction(TensorId gradient) {
    if (reduce_stream_ != default_stream) program_.record_use(gradient, reduce_stream_);
    program_.free(gradient);
  }

  // A parameter that does not fit into the bucket is reduced alone, where it is.
  void on_gradient(ParameterId p, TensorId gradient, MicroBatch micro) {
    if (!bucket_.empty() && bucket_elements_ + elements(p) > options_.reduce_bucket_size)
      reduce_bucket(micro);
    wait_for_default();
    bucket_.push_back(p);
    bucket_elements_ += elements(p);
    bucket_part_ += coordinator_.part(p);
    if (bucket_elements_ > options_.reduce_bucket_size) {
      alone_ = gradient;
      return;
    }
    step_.pass("copy to IPG buffer", elements(p), 2 * width(), HostWork::backward_op, reduce_stream_);
    free_after_reduction(gradient);
  }

  void reduce_bucket(MicroBatch micro) {
    const EventId event = reduced_[reductions_++ % reduced_.size()];
    program_.host_wait(event);
    program_.host(HostWork::bucket_hook);
    reduce_scatter();
    if (offloads())
      part_to_host(micro);
    else
      part_to_partitions(micro);
    if (alone_ != no_tensor) free_after_reduction(std::exchange(alone_, no_tensor));
    program_.record(event, reduce_stream_);
    bucket_.clear();
    bucket_elements_ = bucket_part_ = 0;
  }

  // reduce_scatter_coalesced: parts are interleaved by rank in a buffer of their own; the result is a slice
  // of it.
  void reduce_scatter() {
    const DType wire = step_.training.reduce;
    const std::int64_t padded = bucket_part_ * ranks_, cast_bytes = width() + bytes_per_element(wire);
    const bool casts = wire != dtype_, interleaves = bucket_.size() > 1 || padded != bucket_elements_;
    TensorId buffer = alone_ == no_tensor ? ipg_ : alone_;
    const auto into = [&](std::string_view name, std::int64_t n, std::int64_t bytes) {
      buffer = program_.tensor(name, storage(n, wire), Category::communication_buffers, reduce_stream_);
      program_.alloc(buffer);
      step_.pass(name, n, bytes, HostWork::backward_op, reduce_stream_);
      return buffer;
    };
    const TensorId cast = casts ? into("cast bucket", bucket_elements_, cast_bytes) : no_tensor;
    const TensorId interleaved =
        interleaves ? into("interleaved bucket", padded, 2 * bytes_per_element(wire)) : no_tensor;
    step_.pass("average bucket", padded, 2 * bytes_per_element(wire), HostWork::backward_op, reduce_stream_);
    issue(step_,
          {group_, reduce_stream_, CollectiveKind::reduce_scatter, wire, storage(padded, wire),
           "bucket " + std::to_string(++buckets_reduced_)},
          communicated_, {buffer});
    program_.wait(reduce_stream_, communicated_);
    if (casts) step_.pass("cast part", bucket_part_, cast_bytes, HostWork::backward_op, reduce_stream_);
    if (interleaved != no_tensor) program_.free(interleaved);
    if (cast != no_tensor) program_.free(cast);
  }

  // MiCS adds up over the replicas at the accumulation boundary only.
  void part_to_partitions(MicroBatch micro) {
    step_.pass(micro.first ? "copy to gradient partitions" : "accumulate gradient", bucket_part_,
               (micro.first ? 2 : 3) * width(), HostWork::backward_op, reduce_stream_);
    if (!replicas_ || !micro.reduces) return;
    step_.pass("average over replicas", bucket_part_, 2 * width(), HostWork::backward_op, reduce_stream_);
    issue(step_,
          {*replicas_, reduce_stream_, CollectiveKind::all_reduce, dtype_, storage(bucket_part_, dtype_),
           "bucket " + std::to_string(buckets_reduced_)},
          communicated_, {});
    program_.wait(reduce_stream_, communicated_);
  }

  // Accumulated in the partitions' format on the host, with the addition on the GPU; handed to the optimizer
  // in fp32.
  void part_to_host(MicroBatch micro) {
    const auto copy = [&](CopyDirection direction, DType t) {
      program_.copy(reduce_stream_, direction, storage(bucket_part_, t), "gradient partitions");
    };
    const TensorId part = tensor("gradient part on the GPU", bucket_part_, dtype_,
                                 Category::communication_buffers, reduce_stream_);
    program_.alloc(part);
    if (micro.first) copy(CopyDirection::device_to_host, dtype_);
    copy(CopyDirection::host_to_device, dtype_);
    if (!micro.first) {
      step_.pass("accumulate gradient", bucket_part_, 3 * width(), HostWork::backward_op, reduce_stream_);
      copy(CopyDirection::device_to_host, dtype_);
    }
    if (micro.reduces) {
      const TensorId cast = tensor("gradient part in fp32", bucket_part_, DType::fp32,
                                   Category::communication_buffers, reduce_stream_);
      step_.pass("gradient norm", bucket_part_, width(), HostWork::backward_op, reduce_stream_);
      program_.alloc(cast);
      step_.pass("gradients to fp32", bucket_part_, width() + 4, HostWork::backward_op, reduce_stream_);
      copy(CopyDirection::device_to_host, DType::fp32);
      program_.free(cast);
    }
    program_.free(part);
  }

  // --- step -----------------------------------------------------------------------------------------------

  BodyId update_body(bool first) {
    const BodyId body = program_.begin_body();
    program_.begin_mark("optimizer");
    coordinator_.release_persistent();
    if (offloads())
      check_gradients_on_host(step_, group_);
    else
      check_gradients(step_, group_, storage(partition_, dtype_));
    for (const SubGroup& g : sub_groups_) update(g, first);
    coordinator_.gather_persistent();
    step_.end_step();
    program_.end_mark();
    return body;
  }

  void update(const SubGroup& g, bool first) {
    if (!offloads()) {
      program_.alloc(g.flat_gradient);
      step_.pass("flatten gradients", g.elements, 2 * width(), HostWork::optimizer_op);
      if (g.master_gradient != g.flat_gradient) {
        program_.alloc(g.master_gradient);
        step_.pass("gradients to fp32", g.elements, width() + 4, HostWork::optimizer_op);
        program_.free(g.flat_gradient);
      }
    }
    step_.optimizer.pass("unscale and clip", storage(2 * g.elements, DType::fp32));
    if (first) step_.optimizer.create_state({&g.master, 1});
    step_.optimizer.update({&g.master, 1});
    if (has_master()) step_.optimizer.pass("write parameters", Bytes{g.elements * (4 + width())});
    if (options_.offload == ZeroOffload::optimizer)
      program_.copy(default_stream, CopyDirection::host_to_device, storage(g.elements, dtype_), g.name);
    if (!offloads()) program_.free(g.master_gradient);
  }

  StepWriter step_;
  ProgramBuilder& program_;
  Zero options_;
  std::int64_t ranks_;  // that share one copy of all states
  DType dtype_;
  GroupId group_;
  std::optional<GroupId> replicas_;  // MiCS
  StreamId gather_stream_, reduce_stream_;
  ParameterCoordinator coordinator_;
  Autograd autograd_;
  EventId communicated_;
  std::vector<EventId> reduced_;  // a ring: the host runs ahead by so many reductions
  std::size_t reductions_ = 0;

  std::int64_t partition_ = 0;  // elements of this rank
  std::vector<SubGroup> sub_groups_;
  TensorId parameters_{}, gradients_{}, ipg_{};

  // While a micro-batch is written.
  std::vector<ParameterId> bucket_;
  std::int64_t bucket_elements_ = 0, bucket_part_ = 0;
  TensorId alone_ = no_tensor;  // the gradient of a bucket that is one large parameter
  int buckets_reduced_ = 0;
};

}  // namespace

Program compile_zero3(const OpGraph& graph, const Training& training, const Framework& framework,
                      std::int64_t world, const Zero& options) {
  return Zero3Compiler(graph, training, framework, world, options).run();
}

}  // namespace shardsim
