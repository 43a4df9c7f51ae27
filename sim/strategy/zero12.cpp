#include <algorithm>
#include <string>
#include <utility>

#include "sim/base/check.h"
#include "sim/strategy/zero.h"

namespace shardsim {
namespace {

constexpr std::int64_t start_alignment = 2;  // elements: nccl_start_alignment_factor

class Zero12Compiler {
 public:
  Zero12Compiler(const OpGraph& graph, const Training& training, const Framework& framework,
                 std::int64_t world, const Zero& options)
      : step_(graph, training, framework, {world, 1}, optimizer_space(options)),
        program_(step_.program),
        options_(options),
        world_(world),
        dtype_(graph.parameter_dtype),
        autograd_(step_.make_autograd()),
        next_(step_.make_autograd()),
        communicated_(program_.event()) {
    require(options.offload != ZeroOffload::parameters, "parameters are offloaded by stage 3 only");
    if (world > 1) group_ = program_.group(Axis::world);
    if (options.overlap_comm) reduction_ = program_.stream("reduction");
    lay_out_parameters();
    make_tensors();
  }

  Program run() && {
    init();
    const auto autograd = [&](MicroBatch micro) -> Autograd& { return micro.first ? autograd_ : next_; };
    const auto micro_batches =
        step_.micro_batches(/*last_apart=*/true, [&](MicroBatch micro) { autograd(micro).forward(); },
                            [&](MicroBatch micro) {
                              backward(autograd(micro), micro);
                              autograd(micro).end_micro_batch();
                            });
    const BodyId first_update = update_body(true), update = update_body(false);
    step_.append_steps(micro_batches, first_update, micro_batches, update);
    return std::move(step_).finish();
  }

 private:
  bool offloads() const { return options_.offload != ZeroOffload::none; }
  bool overlaps() const { return options_.overlap_comm; }
  bool partitions_gradients() const { return options_.stage == 2; }
  bool accumulates() const { return step_.training.micro_batches > 1; }
  std::int64_t width() const { return bytes_per_element(dtype_); }
  StreamId reduction_stream() const { return reduction_.value_or(default_stream); }
  std::int64_t elements(ParameterId p) const { return step_.graph.parameters[p].elements; }
  // What this rank owns of so many elements. Ranks differ by the parameters that straddle their boundaries.
  std::int64_t own_part(std::int64_t n) const { return (n + world_ - 1) / world_; }

  // --- memory ---------------------------------------------------------------------------------------------

  void lay_out_parameters() {
    std::int64_t total = 0;
    for (const Parameter& p : step_.graph.parameters) {
      offset_.push_back(total);
      total += p.elements;
      largest_ = std::max(largest_, p.elements);
    }
    const std::int64_t alignment = start_alignment * world_;
    partition_ = (total + alignment - 1) / alignment * start_alignment;
    gradient_.assign(step_.graph.parameters.size(), no_tensor);
  }

  TensorId tensor(std::string_view name, std::int64_t n, DType t, Category c,
                  StreamId stream = default_stream) {
    return program_.tensor(name, storage(n, t), c, stream);
  }
  TensorId pinned(std::string_view name, std::int64_t n, DType t, Category c) {
    return program_.tensor(name, storage(n, t), c, default_stream, MemorySpace::pinned);
  }

  void make_tensors() {
    parameters_ = tensor("flat parameters", partition_ * world_, dtype_, Category::parameters);
    master_ =
        step_.optimizer.trained("fp32 partition", partition_, 1, DType::fp32, Category::optimizer_state);
    for (const std::size_t i : {0U, 1U}) {
      const std::string number = std::to_string(i + 1);
      ipg_.push_back(tensor("IPG buffer " + number, options_.reduce_bucket_size, dtype_,
                            Category::communication_buffers));
      own_gradients_.push_back(
          tensor("gradient partition", partition_, dtype_, Category::gradients, reduction_stream()));
    }
    if (!overlaps()) ipg_.pop_back();
    flat_gradient_ = tensor("flat gradient partition", partition_, dtype_, Category::gradients);
    master_gradient_ = dtype_ == DType::fp32
                           ? flat_gradient_
                           : tensor("fp32 gradient partition", partition_, DType::fp32, Category::gradients);
  }

  // The model arrives in the flat buffer by way of the host. Its own partition is cloned and cast; a fp32
  // gradient of zeros comes and goes.
  void init() {
    step_.begin_init({});
    program_.alloc(parameters_);
    const TensorId clone = tensor("cloned partition", partition_, dtype_, Category::temporaries);
    program_.alloc(clone);
    program_.alloc(master_.parameter);
    program_.free(clone);
    if (offloads()) {
      init_host();
      return;
    }
    const TensorId zeros = tensor("zero gradient", partition_, DType::fp32, Category::temporaries);
    program_.alloc(zeros);
    program_.free(zeros);
  }

  void init_host() {
    program_.alloc(pinned("16-bit partition", partition_, dtype_, Category::parameters));
    program_.alloc(pinned("fp32 gradient partition", partition_, DType::fp32, Category::gradients));
    program_.alloc(pinned("gradient staging", largest_, dtype_, Category::communication_buffers));
    program_.alloc(tensor("gradient staging on the GPU", largest_, dtype_, Category::communication_buffers));
    if (accumulates())
      program_.alloc(pinned("accumulated gradients", partition_, dtype_, Category::gradients));
  }

  // --- passes ---------------------------------------------------------------------------------------------

  void backward(Autograd& autograd, MicroBatch micro) {
    autograd.backward([&](ParameterId p, TensorId gradient) { on_gradient(p, gradient, micro); });
    if (!partitions_gradients() && !overlaps() && micro.reduces)
      for (const ParameterId p : ids(step_.graph.parameters)) add_to_bucket(p, micro);
    if (partitions_gradients() || micro.reduces) finish_reduction(micro);
  }

  // Stage 1 accumulates whole gradients and reduces at the boundary, during backward only with overlap_comm.
  void on_gradient(ParameterId p, TensorId gradient, MicroBatch micro) {
    set_up_buckets();
    if (!partitions_gradients() && !micro.first) {
      step_.pass("accumulate gradient", elements(p), 3 * width(), HostWork::backward_op);
      program_.free(gradient);
    } else {
      gradient_[p] = gradient;
    }
    if (partitions_gradients() || (overlaps() && micro.reduces)) add_to_bucket(p, micro);
  }

  void set_up_buckets() {
    if (std::exchange(buckets_ready_, true)) return;
    for (const TensorId buffer : ipg_) program_.alloc(buffer);
    filling_ = 0;
  }

  // --- reduction ------------------------------------------------------------------------------------------

  // A parameter that does not fit into the bucket is reduced alone, where it is.
  void add_to_bucket(ParameterId p, MicroBatch micro) {
    if (!bucket_.empty() && bucket_elements_ + elements(p) > options_.reduce_bucket_size) {
      reduce_bucket(micro);
      if (overlaps()) filling_ = 1 - filling_;
    }
    bucket_.push_back(p);
    bucket_elements_ += elements(p);
    if (elements(p) > options_.reduce_bucket_size) return;
    step_.pass("copy to IPG buffer", elements(p), 2 * width(), HostWork::backward_op);
    program_.free(std::exchange(gradient_[p], no_tensor));
  }

  void reduce_bucket(MicroBatch micro) {
    const TensorId alone = gradient_[bucket_.front()];
    const StreamId stream = reduction_stream();
    program_.host(HostWork::bucket_hook);
    if (overlaps()) {  // the other buffer may be filled once its reduction is over
      program_.wait_stream(stream, default_stream);
      program_.wait_stream(default_stream, stream);
    }
    on_bucket("average bucket", 2 * width());
    if (options_.multi_rank_bucket_allreduce)
      all_reduce(alone == no_tensor ? ipg_[filling_] : alone);
    else
      communicate(CollectiveKind::reduce_scatter, alone == no_tensor ? ipg_[filling_] : alone, dtype_);
    if (offloads())
      own_part_to_host(micro);
    else
      own_part_to_partition(micro);
    if (alone != no_tensor) program_.free(std::exchange(gradient_[bucket_.front()], no_tensor));
    bucket_.clear();
    bucket_elements_ = 0;
  }

  // Slices of several owners are concatenated, reduced together, and the own ones copied back.
  void all_reduce(TensorId buffer) {
    const bool concatenates = owners_in_bucket() > 1, casts = step_.training.reduce != dtype_;
    const TensorId flat = concatenates ? bucket_tensor("concatenated bucket", dtype_) : buffer;
    if (concatenates) {
      program_.alloc(flat);
      on_bucket("concatenate slices", 2 * width());
    }
    const TensorId cast = casts ? bucket_tensor("cast bucket", step_.training.reduce) : flat;
    const std::int64_t cast_bytes = width() + bytes_per_element(step_.training.reduce);
    if (casts) {
      program_.alloc(cast);
      on_bucket("cast bucket", cast_bytes);
    }
    communicate(CollectiveKind::all_reduce, cast, step_.training.reduce);
    if (casts) {
      on_bucket("cast bucket back", cast_bytes);
      program_.free(cast);
    }
    if (concatenates) {
      step_.pass("copy own slices", own_part(bucket_elements_), 2 * width(), HostWork::backward_op,
                 reduction_stream());
      program_.free(flat);
    }
  }

  void communicate(CollectiveKind kind, TensorId buffer, DType dtype) {
    issue(step_,
          {group_, reduction_stream(), kind, dtype, storage(bucket_elements_, dtype),
           "bucket " + std::to_string(++buckets_reduced_)},
          communicated_, {buffer});
    program_.wait(reduction_stream(), communicated_);
  }

  std::int64_t owners_in_bucket() const {
    std::int64_t first = world_, last = 0;
    for (const ParameterId p : bucket_) {
      const std::int64_t offset = offset_[static_cast<std::size_t>(p.index)];
      first = std::min(first, offset / partition_);
      last = std::max(last, (offset + elements(p) - 1) / partition_);
    }
    return last - first + 1;
  }
  TensorId bucket_tensor(std::string_view name, DType dtype) {
    return tensor(name, bucket_elements_, dtype, Category::communication_buffers, reduction_stream());
  }
  void on_bucket(std::string_view label, std::int64_t bytes) {
    step_.pass(label, bucket_elements_, bytes, HostWork::backward_op, reduction_stream());
  }

  // copy_grads_in_partition: one buffer for all of a micro-step, made on first use.
  void own_part_to_partition(MicroBatch micro) {
    if (!std::exchange(own_gradients_live_, true)) program_.alloc(own_gradients(micro));
    step_.pass("copy to gradient partition", own_part(bucket_elements_), 2 * width(), HostWork::backward_op,
               reduction_stream());
  }
  bool adds_partitions(MicroBatch micro) const { return partitions_gradients() && !micro.first; }
  TensorId own_gradients(MicroBatch micro) const { return own_gradients_[adds_partitions(micro) ? 1 : 0]; }

  // Accumulated in 16 bits on the host, with the addition on the GPU; handed to the optimizer in fp32.
  void own_part_to_host(MicroBatch micro) {
    const std::int64_t own = own_part(bucket_elements_);
    const StreamId stream = reduction_stream();
    if (accumulates() && partitions_gradients()) {
      if (!micro.first) {
        program_.copy(stream, CopyDirection::host_to_device, storage(own, dtype_), "accumulated gradients");
        step_.pass("accumulate gradient", own, 3 * width(), HostWork::backward_op, stream);
      }
      program_.copy(stream, CopyDirection::device_to_host, storage(own, dtype_), "accumulated gradients");
    }
    if (!micro.reduces) return;
    std::int64_t largest = 0;  // parameters are cast one by one
    for (const ParameterId p : bucket_) largest = std::max(largest, elements(p));
    const TensorId cast = tensor("gradient in fp32", std::min(own, largest), DType::fp32,
                                 Category::communication_buffers, stream);
    step_.pass("gradient norm", own, width(), HostWork::backward_op, stream);
    program_.alloc(cast);
    step_.pass("gradients to fp32", own, width() + 4, HostWork::backward_op, stream);
    program_.copy(stream, CopyDirection::device_to_host, storage(own, DType::fp32), "gradients");
    program_.free(cast);
  }

  // independent_gradient_partition_epilogue
  void finish_reduction(MicroBatch micro) {
    reduce_bucket(micro);
    if (overlaps())
      for (const StreamId s : {default_stream, reduction_stream()}) program_.host_wait_stream(s);
    if (!offloads() && adds_partitions(micro)) {
      step_.pass("accumulate gradient", partition_, 3 * width(), HostWork::backward_op);
      program_.free(own_gradients(micro));
    }
    for (const TensorId buffer : ipg_) program_.free(buffer);
    buckets_ready_ = own_gradients_live_ = false;
    buckets_reduced_ = 0;
  }

  // --- step -----------------------------------------------------------------------------------------------

  BodyId update_body(bool first) {
    const BodyId body = program_.begin_body();
    program_.begin_mark("optimizer");
    if (offloads())
      update_on_host(first);
    else
      update_on_device(first);
    all_gather();
    step_.end_step();
    program_.end_mark();
    return body;
  }

  void update_on_device(bool first) {
    check_gradients(step_, group_, storage(partition_, dtype_));
    program_.alloc(flat_gradient_);
    step_.pass("flatten gradients", partition_, 2 * width(), HostWork::optimizer_op);
    if (master_gradient_ != flat_gradient_) {
      program_.alloc(master_gradient_);
      step_.pass("gradients to fp32", partition_, width() + 4, HostWork::optimizer_op);
      program_.free(flat_gradient_);
    }
    program_.free(own_gradients_.front());
    step_.optimizer.pass("unscale and clip", storage(2 * partition_, DType::fp32));
    if (first) step_.optimizer.create_state({&master_, 1});
    step_.optimizer.update({&master_, 1});
    program_.free(master_gradient_);
    step_.pass("write parameters", partition_, 4 + width(), HostWork::optimizer_op);
  }

  void update_on_host(bool first) {
    check_gradients_on_host(step_, group_);
    step_.optimizer.pass("unscale and clip", storage(2 * partition_, DType::fp32));
    if (first) step_.optimizer.create_state({&master_, 1});
    step_.optimizer.update({&master_, 1});
    step_.optimizer.pass("write parameters", Bytes{partition_ * (4 + width())});
    program_.copy(default_stream, CopyDirection::host_to_device, storage(partition_, dtype_), "parameters");
  }

  // In place, a part of every partition at a time, before the next forward.
  void all_gather() {
    if (!group_) return;
    const std::int64_t chunks =
        std::max<std::int64_t>(1, partition_ * world_ / options_.allgather_bucket_size);
    const std::int64_t chunk = partition_ / chunks / start_alignment * start_alignment;
    for (std::int64_t i = 0; i < chunks; ++i) {
      const std::int64_t n = i + 1 < chunks ? chunk : partition_ - i * chunk;
      if (n == 0) continue;
      issue(step_,
            {group_, default_stream, CollectiveKind::all_gather, dtype_, storage(n * world_, dtype_),
             "parameters"},
            communicated_, {parameters_});
      program_.wait(default_stream, communicated_);
    }
  }

  StepWriter step_;
  ProgramBuilder& program_;
  Zero options_;
  std::int64_t world_;
  DType dtype_;
  std::optional<GroupId> group_;
  std::optional<StreamId> reduction_;
  Autograd autograd_, next_;  // of the first micro-step and of later ones
  EventId communicated_;

  std::vector<std::int64_t> offset_;  // of each parameter in the flat buffer
  std::int64_t partition_ = 0;        // elements of a rank
  std::int64_t largest_ = 0;          // elements of a parameter
  TensorId parameters_{}, flat_gradient_{}, master_gradient_{};
  Trained master_{};
  std::vector<TensorId> ipg_;            // two with overlap_comm
  std::vector<TensorId> own_gradients_;  // of the first micro-step and of a later one

  // While a micro-batch is written.
  IdVector<ParameterId, TensorId> gradient_;
  std::vector<ParameterId> bucket_;
  std::int64_t bucket_elements_ = 0;
  std::size_t filling_ = 0;  // the IPG buffer
  int buckets_reduced_ = 0;
  bool buckets_ready_ = false, own_gradients_live_ = false;
};

}  // namespace

Program compile_zero12(const OpGraph& graph, const Training& training, const Framework& framework,
                       std::int64_t world, const Zero& options) {
  return Zero12Compiler(graph, training, framework, world, options).run();
}

}  // namespace shardsim
