#include <algorithm>
#include <string>
#include <utility>

#include "sim/strategy/step_writer.h"
#include "sim/strategy/strategy.h"

namespace shardsim {
namespace {

constexpr Bytes first_bucket{1 << 20};  // dist._DEFAULT_FIRST_BUCKET_BYTES

// Parameters whose gradients are reduced together.
struct Bucket {
  std::vector<ParameterId> parameters;
  std::int64_t elements = 0;
  TensorId buffer;
  EventId reduced;  // on the group's stream, after the all-reduce
};

class DdpCompiler {
 public:
  DdpCompiler(const OpGraph& graph, const Training& training, const Framework& framework, std::int64_t world,
              const Ddp& options)
      : step_(graph, training, framework, {world, 1}),
        program_(step_.program),
        options_(options),
        group_(program_.group(Axis::world)),
        autograd_(step_.make_autograd()),
        next_(step_.make_autograd()) {
    for (const Parameter& p : graph.parameters)
      trained_.push_back(step_.trained(p.name, p.rows, p.elements / p.rows));
  }

  Program run() && {
    std::vector<ParameterId> registered;
    for (const ParameterId p : ids(step_.graph.parameters)) registered.push_back(p);
    const auto whole = make_buckets(registered, /*unlimited=*/true);
    step_.begin_init(trained_);
    for (const Bucket& b : whole) program_.alloc(b.buffer);

    // Step 1 reduces everything in one bucket and records the order in which gradients arrive; from it the
    // buckets are rebuilt before the forward pass of step 2.
    const auto start = micro_batches(whole);
    const BodyId first_update = step_.optimizer_body(trained_, true, std::nullopt);
    const auto buckets = make_buckets(arrivals_, false);
    const BodyId rebuild = rebuild_body(whole, buckets);
    const auto steady = micro_batches(buckets);
    const BodyId update = step_.optimizer_body(trained_, false, std::nullopt);

    step_.append(Section::first, start, first_update);
    program_.append_to(Section::second, rebuild);
    for (const Section section : {Section::second, Section::steady}) step_.append(section, steady, update);
    return std::move(step_).finish();
  }

 private:
  DType dtype() const { return step_.training.stored; }
  std::int64_t width() const { return bytes_per_element(dtype()); }

  // compute_bucket_assignment_by_size: a bucket closes once it has reached its limit.
  std::vector<Bucket> make_buckets(const std::vector<ParameterId>& order, bool unlimited) {
    std::vector<Bucket> buckets;
    Bucket open;
    for (const ParameterId p : order) {
      open.parameters.push_back(p);
      open.elements += step_.graph.parameters[p].elements;
      const Bytes limit = buckets.empty() ? std::min(first_bucket, options_.bucket_cap) : options_.bucket_cap;
      if (!unlimited && storage(open.elements, dtype()) >= limit) buckets.push_back(std::exchange(open, {}));
    }
    if (!open.parameters.empty()) buckets.push_back(std::move(open));
    for (std::size_t i = 0; i < buckets.size(); ++i) {
      buckets[i].buffer =
          program_.tensor(unlimited ? "bucket of all gradients" : "bucket " + std::to_string(i),
                          storage(buckets[i].elements, dtype()), Category::communication_buffers);
      buckets[i].reduced = program_.event();
    }
    return buckets;
  }

  BodyId rebuild_body(const std::vector<Bucket>& old, const std::vector<Bucket>& fresh) {
    const BodyId body = program_.begin_body();
    for (const Bucket& b : old) program_.free(b.buffer);
    for (const Bucket& b : fresh) program_.alloc(b.buffer);
    return body;
  }

  std::vector<Repeat> micro_batches(const std::vector<Bucket>& buckets) {
    const auto autograd = [&](MicroBatch micro) -> Autograd& { return micro.first ? autograd_ : next_; };
    return step_.micro_batches(
        step_.accumulates_unreduced(), [&](MicroBatch micro) { autograd(micro).forward(); },
        [&](MicroBatch micro) {
          begin_reduction(buckets);
          autograd(micro).backward(
              [&](ParameterId p, TensorId gradient) { on_gradient(buckets, p, gradient, micro); });
          if (micro.reduces) finish_reduction(buckets);
          autograd(micro).end_micro_batch();
        });
  }

  void begin_reduction(const std::vector<Bucket>& buckets) {
    next_bucket_ = 0;
    missing_.clear();
    bucket_of_.assign(step_.graph.parameters.size(), 0);
    for (std::size_t i = 0; i < buckets.size(); ++i) {
      missing_.push_back(buckets[i].parameters.size());
      for (const ParameterId p : buckets[i].parameters) bucket_of_[p] = i;
    }
    arrivals_.clear();
  }

  // mark_variable_ready: divides by the world size on the way into the bucket. Buckets are reduced strictly
  // in order; a full one waits for those before it. Under no_sync the gradient only accumulates.
  void on_gradient(const std::vector<Bucket>& buckets, ParameterId p, TensorId gradient, MicroBatch micro) {
    arrivals_.push_back(p);
    Trained& t = trained_[static_cast<std::size_t>(p.index)];
    const bool kept = !options_.gradient_as_bucket_view || step_.accumulates_unreduced();
    if (kept) step_.accumulate(t, gradient, !micro.first);
    if (!micro.reduces) return;
    if (kept)
      step_.pass("copy to bucket", t.elements, 2 * width(), HostWork::backward_op);
    else
      step_.pass(micro.first ? "copy to bucket" : "accumulate in bucket", t.elements,
                 (micro.first ? 2 : 3) * width(), HostWork::backward_op);
    if (options_.gradient_as_bucket_view)
      program_.free(kept ? std::exchange(t.gradient, no_tensor) : gradient);
    --missing_[bucket_of_[p]];
    for (; next_bucket_ < buckets.size() && missing_[next_bucket_] == 0; ++next_bucket_) {
      const Bucket& bucket = buckets[next_bucket_];
      const StreamId stream = program_.stream_of(group_);
      program_.host(HostWork::bucket_hook);
      program_.wait_stream(stream, default_stream);
      program_.collective(group_, CollectiveKind::all_reduce, dtype(), program_.bytes_of(bucket.buffer),
                          program_.program().labels[program_.program().tensors[bucket.buffer].label]);
      program_.record(bucket.reduced, stream);
    }
  }

  // finalize_backward: the default stream waits for each bucket, whose parts go back into the gradients
  // (unless the gradients are views of the bucket).
  void finish_reduction(const std::vector<Bucket>& buckets) {
    for (const Bucket& bucket : buckets) {
      program_.wait(default_stream, bucket.reduced);
      if (options_.gradient_as_bucket_view) continue;
      for (const ParameterId p : bucket.parameters)
        step_.pass("copy from bucket", step_.graph.parameters[p].elements, 2 * width(),
                   HostWork::backward_op);
    }
  }

  StepWriter step_;
  ProgramBuilder& program_;
  Ddp options_;
  GroupId group_;
  Autograd autograd_, next_;
  std::vector<Trained> trained_;

  std::vector<std::size_t> missing_;  // parameters of each bucket still without gradient
  IdVector<ParameterId, std::size_t> bucket_of_;
  std::size_t next_bucket_ = 0;
  std::vector<ParameterId> arrivals_;
};

}  // namespace

Program compile(const OpGraph& graph, const Training& training, const Framework& framework,
                std::int64_t world, const Ddp& options) {
  return DdpCompiler(graph, training, framework, world, options).run();
}

}  // namespace shardsim
