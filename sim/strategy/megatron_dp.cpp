#include <algorithm>
#include <numeric>
#include <string>
#include <utility>

#include "sim/strategy/partitioned.h"
#include "sim/strategy/strategy.h"

namespace shardsim {
namespace {

constexpr std::int64_t alignment = 128;  // elements: buckets end at multiples of lcm(ranks, 128)

// Parameters whose gradients are reduced, and whose values are gathered, together.
struct Bucket {
  std::int64_t elements = 0;  // padded
  std::size_t parameters = 0;
  Trained master{};  // this rank's part in fp32
  TensorId master_gradient = no_tensor;
  EventId done{};  // on the group's stream, after the collective
  std::size_t missing = 0;
  bool gathering = false, gathered = false;
};

class MegatronDpCompiler {
 public:
  MegatronDpCompiler(const OpGraph& graph, const Training& training, const Framework& framework,
                     std::int64_t world, const MegatronDp& options)
      : step_(graph, training, framework, {world, 1}),
        program_(step_.program),
        options_(options),
        world_(world),
        dtype_(graph.parameter_dtype),
        autograd_(step_.make_autograd()) {
    if (world > 1) group_ = program_.group(Axis::world);
    make_buckets();
    for (std::size_t i = 0; i < buckets_.size(); ++i)
      make_tensors(buckets_[i], "bucket " + std::to_string(i));
    parameters_ = program_.tensor("parameter buffer", storage(elements_, dtype_), Category::parameters);
    gradients_ =
        program_.tensor("gradient buffer", storage(elements_, gradient_dtype()), Category::gradients);
    if (options_.overlap_param_gather)
      autograd_.set_hooks({.before_forward = [this](OpId op) { await_parameters(op); },
                           .after_forward = {},
                           .before_backward = {},
                           .after_backward = {}});
  }

  Program run() && {
    step_.begin_init({});
    program_.alloc(parameters_);
    program_.alloc(gradients_);
    for (const Bucket& b : buckets_)
      if (has_master()) program_.alloc(b.master.parameter);

    // With overlap_param_gather the forward pass gathers what the step before has updated.
    const auto first_step = micro_batches(false);
    const auto step = micro_batches(options_.overlap_param_gather);
    const BodyId first_update = update_body(true), update = update_body(false);
    step_.append_steps(first_step, first_update, step, update);
    return std::move(step_).finish();
  }

 private:
  DType gradient_dtype() const { return step_.training.reduce; }
  bool has_master() const { return dtype_ != DType::fp32; }  // else a view of the parameters
  bool casts_gradients() const { return gradient_dtype() != DType::fp32; }
  std::int64_t width() const { return bytes_per_element(dtype_); }
  std::int64_t gradient_width() const { return bytes_per_element(gradient_dtype()); }
  std::int64_t part(const Bucket& b) const { return b.elements / world_; }
  std::string label(const Bucket& b) const { return "bucket " + std::to_string(&b - buckets_.data()); }

  // Parameters in reverse order of registration, roughly that of their gradients.
  void make_buckets() {
    const std::int64_t multiple = std::lcm(world_, alignment);
    bucket_of_.assign(step_.graph.parameters.size(), 0);
    Bucket open;
    for (std::size_t i = step_.graph.parameters.size(); i-- > 0;) {
      const ParameterId p{static_cast<std::int32_t>(i)};
      bucket_of_[p] = buckets_.size();
      open.elements += step_.graph.parameters[p].elements;
      ++open.parameters;
      if (i > 0 && (!options_.overlap_grad_reduce || open.elements < options_.bucket_size)) continue;
      open.elements = (open.elements + multiple - 1) / multiple * multiple;
      elements_ += open.elements;
      buckets_.push_back(std::exchange(open, {}));
    }
  }

  void make_tensors(Bucket& b, const std::string& name) {
    b.master =
        step_.optimizer.trained(name + " fp32 part", part(b), 1, DType::fp32, Category::optimizer_state);
    if (casts_gradients())
      b.master_gradient =
          program_.tensor(name + " fp32 gradient", storage(part(b), DType::fp32), Category::gradients);
    b.done = program_.event();
  }

  // --- passes ---------------------------------------------------------------------------------------------

  std::vector<Repeat> micro_batches(bool gather) {
    return step_.micro_batches(
        /*last_apart=*/true,
        [&, gather](MicroBatch micro) {
          begin_micro_batch(micro, gather);
          autograd_.forward();
        },
        [&](MicroBatch micro) {
          autograd_.backward([&](ParameterId p, TensorId gradient) { on_gradient(p, gradient, micro); });
          if (micro.reduces)
            for (const Bucket& b : buckets_) program_.wait(default_stream, b.done);
          autograd_.end_micro_batch();
        });
  }

  void begin_micro_batch(MicroBatch micro, bool gather) {
    if (micro.first)
      program_.launch(default_stream, MemoryBound{program_.bytes_of(gradients_)}, HostWork::optimizer_op,
                      "zero gradient buffer");
    for (Bucket& b : buckets_) {
      b.missing = b.parameters;
      b.gathering = b.gathered = !(gather && micro.first);
    }
  }

  // Added to the buffer in its format; the last micro-batch reduces a bucket when it is complete.
  void on_gradient(ParameterId p, TensorId gradient, MicroBatch micro) {
    step_.pass("add to gradient buffer", step_.graph.parameters[p].elements, width() + 2 * gradient_width(),
               HostWork::backward_op);
    program_.free(gradient);
    Bucket& b = buckets_[bucket_of_[p]];
    if (--b.missing > 0 || !micro.reduces) return;
    program_.host(HostWork::bucket_hook);
    step_.pass("average bucket", b.elements, 2 * gradient_width(), HostWork::backward_op);
    issue(step_,
          {group_, default_stream, CollectiveKind::reduce_scatter, gradient_dtype(),
           storage(b.elements, gradient_dtype()), label(b)},
          b.done, {});
  }

  // --- parameters -----------------------------------------------------------------------------------------

  void gather(Bucket& b) {
    if (std::exchange(b.gathering, true)) return;
    issue(step_,
          {group_, default_stream, CollectiveKind::all_gather, dtype_, storage(b.elements, dtype_), label(b)},
          b.done, {});
  }

  // The gather of the next bucket goes out when a module waits for its own.
  void await_parameters(OpId op) {
    for (const ParameterId p : step_.graph.ops[op].parameters) {
      const std::size_t index = bucket_of_[p];
      if (std::exchange(buckets_[index].gathered, true)) continue;
      gather(buckets_[index]);
      program_.wait(default_stream, buckets_[index].done);
      if (index > 0) gather(buckets_[index - 1]);
    }
  }

  // --- step -----------------------------------------------------------------------------------------------

  BodyId update_body(bool first) {
    const BodyId body = program_.begin_body();
    program_.begin_mark("optimizer");
    std::vector<Trained> masters;
    for (const Bucket& b : buckets_) {
      masters.push_back(b.master);
      if (!casts_gradients()) continue;
      program_.alloc(b.master_gradient);
      step_.pass("gradients to fp32", part(b), gradient_width() + 4, HostWork::optimizer_op);
    }
    step_.unscale_and_clip(elements_ / world_, DType::fp32, step_.graph.parameters.size(), group_);
    if (first) step_.optimizer.create_state(masters);
    step_.optimizer.update(masters);
    if (has_master()) step_.pass("write parameters", elements_ / world_, 4 + width(), HostWork::optimizer_op);
    if (casts_gradients())
      for (const Bucket& b : buckets_) program_.free(b.master_gradient);
    if (!options_.overlap_param_gather)
      for (Bucket& b : buckets_) {
        b.gathering = false;
        gather(b);
        program_.wait(default_stream, b.done);
      }
    step_.end_step();
    program_.end_mark();
    return body;
  }

  StepWriter step_;
  ProgramBuilder& program_;
  MegatronDp options_;
  std::int64_t world_;
  DType dtype_;
  std::optional<GroupId> group_;
  Autograd autograd_;
  std::vector<Bucket> buckets_;
  IdVector<ParameterId, std::size_t> bucket_of_;
  std::int64_t elements_ = 0;  // of all buckets
  TensorId parameters_{}, gradients_{};
};

}  // namespace

Program compile(const OpGraph& graph, const Training& training, const Framework& framework,
                std::int64_t world, const MegatronDp& options) {
  return MegatronDpCompiler(graph, training, framework, world, options).run();
}

}  // namespace shardsim
