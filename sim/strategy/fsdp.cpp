#include <deque>
#include <string>
#include <utility>

#include "sim/base/check.h"
#include "sim/strategy/step_writer.h"
#include "sim/strategy/strategy.h"
#include "sim/strategy/wrap.h"

namespace shardsim {
namespace {

constexpr std::size_t gathers_in_flight_max = 2;  // _FreeEventQueue._max_num_inflight_all_gathers

// Gradients are divided before and after the reduction, to stay in the range of 16-bit formats.
// (torch/distributed/algorithms/_comm_hooks/default_hooks.py: DefaultState._get_gradient_predivide_factor)
std::int64_t predivide_factor(std::int64_t world) {
  std::int64_t factor = 1;
  while (world % factor == 0 && world / factor > factor) factor *= 2;
  return factor;
}

// One wrapped module and its flat parameter.
struct Unit {
  std::string name;
  std::size_t parameters = 0;
  std::int64_t elements = 0;           // padded so that every rank's shard is equal
  std::int64_t shard = 0;              // elements of a rank
  Trained trained{};                   // the shard as stored, and the optimizer's state
  TensorId gradient[2]{};              // as stored: shard of the first and of a later micro-batch
  TensorId host_gradient = no_tensor;  // with CPU offload
  TensorId device_shard = no_tensor;   // the same: the shard on the GPU, for the all-gather
  TensorId low_shard = no_tensor;      // the shard in param_dtype
  TensorId full = no_tensor;           // all-gathered
  TensorId flat_gradient[2]{};         // concatenated, unsharded, of the first and of a later micro-batch
  TensorId cast_gradient = no_tensor;  // the same in reduce_dtype
  TensorId reduced = no_tensor;        // this rank's shard in reduce_dtype
  EventId freed[2]{};  // on the default stream, when the unsharded parameter is freed; in turns
  bool unsharded = false;
  std::vector<TensorId> arrived{};  // gradients of its parameters, until they are concatenated
};

class FsdpCompiler {
 public:
  FsdpCompiler(const OpGraph& graph, const Training& training, const Framework& framework, std::int64_t world,
               const Fsdp& options)
      : step_(graph, training, framework, {world, options.sharding_factor},
              options.cpu_offload ? MemorySpace::pinned : MemorySpace::device),
        program_(step_.program),
        options_(options),
        world_(world),
        factor_(options.sharding_factor),
        param_dtype_(graph.parameter_dtype),
        autograd_(step_.make_autograd()) {
    require(factor_ >= 1 && world % factor_ == 0, "the sharding factor divides the ranks");
    require(!offloads() || shards(), "FSDP offloads sharded parameters only");
    unshard_ = program_.stream("unshard");
    pre_unshard_ = program_.stream("pre_unshard");
    post_backward_ = program_.stream("post_backward");
    if (factor_ > 1) shard_group_ = program_.group(Axis::shard);
    if (factor_ > 1 && factor_ < world) {
      replica_group_ = program_.group(Axis::replica);
      all_reduce_ = program_.stream("all_reduce");
    }
    if (factor_ == 1) replica_group_ = program_.group(Axis::world);
    make_units();
  }

  Program run() && {
    init();
    // Forward prefetch knows the order of the units only from step 2 on; the queue of the rate limiter is
    // empty only in the very first micro-batch.
    const auto first_step = micro_batches(false);
    const auto step = micro_batches(options_.forward_prefetch);
    std::vector<Trained> trained;
    for (const Unit& u : units_) trained.push_back(u.trained);
    const BodyId first_update = step_.optimizer_body(trained, true, shard_group_);
    const BodyId update = step_.optimizer_body(trained, false, shard_group_);

    step_.append_steps(first_step, first_update, step, update);
    return std::move(step_).finish();
  }

 private:
  bool shards() const { return factor_ > 1; }
  bool offloads() const { return options_.cpu_offload; }
  bool mixed() const { return param_dtype_ != stored(); }
  DType stored() const { return step_.training.stored; }
  DType reduce_dtype() const { return step_.training.reduce; }
  StreamId reduction_end() const { return all_reduce_ ? *all_reduce_ : post_backward_; }

  // --- units ----------------------------------------------------------------------------------------------

  void make_units() {
    const OpGraph& graph = step_.graph;
    const Wrapping wrapping = wrap_modules(graph, options_.wrap);
    unit_of_ = wrapping.unit_of;
    for (const ModuleId m : wrapping.units) units_.push_back({.name = graph.modules[m].name});
    for (const Parameter& p : graph.parameters) {
      Unit& unit = units_[unit_of_[p.module]];
      const std::int64_t alignment = 16 / bytes_per_element(stored());  // elements between addresses
      unit.elements +=
          options_.use_orig_params ? (p.elements + alignment - 1) / alignment * alignment : p.elements;
      ++unit.parameters;
    }
    for (Unit& u : units_) make_tensors(u);
  }

  void make_tensors(Unit& u) {
    u.shard = (u.elements + factor_ - 1) / factor_;
    u.elements = u.shard * factor_;
    u.trained = step_.trained(u.name + (shards() ? " shard" : ""), u.shard);
    const auto tensor = [&](std::string_view what, std::int64_t n, DType t, Category c, StreamId s) {
      return program_.tensor(u.name + " " + std::string(what), storage(n, t), c, s);
    };
    if (mixed())
      u.low_shard =
          tensor("low-precision shard", u.shard, param_dtype_, Category::unsharded_parameters, pre_unshard_);
    if (shards())
      u.full = tensor("unsharded", u.elements, param_dtype_, Category::unsharded_parameters, unshard_);
    if (reduce_dtype() != param_dtype_ && !result_is_whole())
      u.cast_gradient = tensor("gradient in reduce dtype", u.elements, reduce_dtype(),
                               Category::communication_buffers, post_backward_);
    if (shards() && reduce_dtype() != stored())
      u.reduced =
          tensor("reduced shard", u.shard, reduce_dtype(), Category::communication_buffers, post_backward_);
    for (TensorId& gradient : u.gradient)
      gradient = tensor("gradient shard", u.shard, stored(), Category::gradients, gradient_stream());
    for (const std::size_t i : {0U, 1U})
      u.flat_gradient[i] = flat_is_result() ? u.gradient[i]
                                            : tensor("flat gradient", u.elements, param_dtype_,
                                                     Category::communication_buffers, default_stream);
    if (offloads()) {
      u.host_gradient = program_.tensor(u.name + " gradient shard", storage(u.shard, stored()),
                                        Category::gradients, default_stream, MemorySpace::pinned);
      u.device_shard =
          tensor("shard on the GPU", u.shard, stored(), Category::unsharded_parameters, pre_unshard_);
    } else {
      u.trained.gradient = u.gradient[0];
    }
    for (EventId& e : u.freed) e = program_.event();
  }
  // F = 1 reducing in the stored format: the reduced gradient is the unsharded one, in place.
  bool result_is_whole() const { return !shards() && reduce_dtype() == stored(); }
  bool flat_is_result() const { return result_is_whole() && !mixed(); }
  StreamId gradient_stream() const {
    if (flat_is_result()) return default_stream;
    return reduce_dtype() == stored() ? post_backward_ : reduction_end();
  }

  // Deferred initialisation, unit by unit, the root last: parameters in full, their concatenation, the shard.
  void init() {
    step_.begin_init({});
    for (std::size_t i = 1; i <= units_.size(); ++i) {
      const std::size_t index = i % units_.size();
      Unit& u = units_[index];
      std::vector<TensorId> full;
      for (const Parameter& p : step_.graph.parameters)
        if (unit_of_[p.module] == index)
          full.push_back(program_.tensor(p.name, storage(p.elements, stored()), Category::temporaries));
      const TensorId flat =
          program_.tensor(u.name + " flattened", storage(u.elements, stored()), Category::temporaries);
      for (const TensorId p : full) program_.alloc(p);
      program_.alloc(flat);
      for (const TensorId p : full) program_.free(p);
      program_.alloc(u.trained.parameter);
      if (offloads()) program_.alloc(u.host_gradient);
      program_.free(flat);
    }
  }

  // --- parameters -----------------------------------------------------------------------------------------

  // _unshard: cast the shard, gather the rest.
  void unshard(Unit& u) {
    if (u.unsharded) return;
    u.unsharded = true;
    if (offloads()) {
      program_.alloc(u.device_shard);
      program_.copy(pre_unshard_, CopyDirection::host_to_device, program_.bytes_of(u.device_shard), u.name);
    }
    if (mixed()) {
      program_.alloc(u.low_shard);
      step_.pass("cast shard", u.shard, stored_bytes() + bytes_per_param(), HostWork::forward_op,
                 pre_unshard_);
      if (offloads()) program_.free(u.device_shard);
    }
    if (mixed() || offloads()) program_.wait_stream(unshard_, pre_unshard_);
    if (!shards()) return;
    if (options_.limit_all_gathers && free_events_.size() >= gathers_in_flight_max) {
      program_.host_wait(free_events_.front());
      free_events_.pop_front();
    }
    program_.alloc(u.full);
    step_.communicate(*shard_group_, unshard_, CollectiveKind::all_gather, param_dtype_,
                      program_.bytes_of(u.full), u.name, {u.full});
    if (mixed()) {
      step_.mark_used_by(*shard_group_, u.low_shard);
      program_.record_use(u.low_shard, unshard_);
      program_.free(u.low_shard);
    } else if (offloads()) {
      step_.mark_used_by(*shard_group_, u.device_shard);
      program_.free(u.device_shard);
    }
  }

  // _reshard: free the unsharded parameter once the default stream has used it.
  void reshard(Unit& u) {
    u.unsharded = false;
    const TensorId gone = shards() ? u.full : u.low_shard;
    if (gone == no_tensor) return;
    program_.record_use(gone, default_stream);
    program_.free(gone);
    if (!shards() || !options_.limit_all_gathers) return;
    program_.record(u.freed[0], default_stream);
    free_events_.push_back(u.freed[0]);
    std::swap(u.freed[0], u.freed[1]);  // the limiter may hold a unit's last two frees
  }

  // --- passes ---------------------------------------------------------------------------------------------

  Unit& unit(const Segment& s) { return units_[unit_of_[s.module]]; }
  bool is_root(const Unit& u) const { return &u == &units_.front(); }
  Unit& root() { return units_.front(); }

  std::vector<Repeat> micro_batches(bool forward_prefetch) {
    return step_.micro_batches(
        step_.accumulates_unreduced(), [&](MicroBatch) { forward(forward_prefetch); },
        [&](MicroBatch micro) {
          backward(micro);
          autograd_.end_micro_batch();
        });
  }

  void forward(bool prefetch) {
    program_.wait_stream(unshard_, default_stream);  // the optimizer's step comes before the next all-gather
    program_.wait_stream(pre_unshard_, default_stream);
    program_.host(HostWork::unit_hook);
    unshard(root());
    program_.wait_stream(default_stream, unshard_);
    for (std::size_t i = 0; i < step_.graph.segments.size(); ++i) {
      const Segment& segment = step_.graph.segments[i];
      Unit& u = unit(segment);
      if (is_root(u)) {
        autograd_.forward(segment);
        continue;
      }
      program_.host(HostWork::unit_hook);
      unshard(u);
      program_.wait_stream(default_stream, unshard_);
      if (prefetch)
        if (Unit* next = next_unit(i)) unshard(*next);
      autograd_.forward(segment);
      if (options_.reshard_after_forward) reshard(u);
    }
  }

  Unit* next_unit(std::size_t i) {
    for (++i; i < step_.graph.segments.size(); ++i)
      if (Unit& u = unit(step_.graph.segments[i]); !is_root(u)) return &u;
    return nullptr;
  }
  Unit* previous_unit(std::size_t i) {
    while (i-- > 0)
      if (Unit& u = unit(step_.graph.segments[i]); !is_root(u)) return &u;
    return nullptr;
  }
  void prefetch_previous(std::size_t i) {
    if (Unit* previous = previous_unit(i)) unshard(*previous);
  }

  void backward(MicroBatch micro) {
    const auto& segments = step_.graph.segments;
    program_.host(HostWork::unit_hook);
    if (options_.backward_prefetch == BackwardPrefetch::pre) prefetch_previous(segments.size());
    autograd_.begin_backward();
    for (std::size_t i = segments.size(); i-- > 0;) {
      Unit& u = unit(segments[i]);
      if (!is_root(u)) {
        program_.host(HostWork::unit_hook);
        unshard(u);
        program_.wait_stream(default_stream, unshard_);
        if (options_.backward_prefetch == BackwardPrefetch::pre) prefetch_previous(i);
      }
      autograd_.backward(
          segments[i],
          [&](ParameterId p, TensorId gradient) {
            Unit& owner = units_[unit_of_[step_.graph.parameters[p].module]];
            owner.arrived.push_back(gradient);
            if (owner.arrived.size() == owner.parameters) post_backward(owner, i, micro);
          },
          recompute_hooks());
    }
    program_.wait_stream(default_stream, post_backward_);
    if (all_reduce_) program_.wait_stream(default_stream, *all_reduce_);
    // The optimizer reads the gradients on the host.
    if (offloads() && micro.reduces) program_.host_wait_stream(reduction_end());
  }

  // A checkpoint of several blocks runs their forward once more, gathered and resharded as in forward.
  RecomputeHooks recompute_hooks() {
    return {[this](const Segment& s) {
              if (is_root(unit(s))) return;
              program_.host(HostWork::unit_hook);
              unshard(unit(s));
              program_.wait_stream(default_stream, unshard_);
            },
            [this](const Segment& s) {
              if (options_.reshard_after_forward && !is_root(unit(s))) reshard(unit(s));
            }};
  }

  // --- gradients ------------------------------------------------------------------------------------------

  // The flat parameter's gradient is complete: free the parameter, reduce the gradient. Under no_sync it is
  // kept whole, and a parameter that forward kept stays unsharded too.
  void post_backward(Unit& u, std::size_t segment, MicroBatch micro) {
    const bool adds_whole = step_.accumulates_unreduced() && !micro.first;
    const bool adds_shards = !step_.accumulates_unreduced() && !micro.first;
    const TensorId result = u.gradient[adds_shards ? 1 : 0];
    TensorId flat = u.flat_gradient[adds_whole || (adds_shards && flat_is_result()) ? 1 : 0];
    program_.alloc(flat);  // SplitWithSizesBackward concatenates
    step_.pass("concatenate gradients", u.elements, 2 * bytes_per_param(), HostWork::backward_op);
    for (const TensorId g : u.arrived) program_.free(g);
    u.arrived.clear();
    if (adds_whole) {
      step_.pass("accumulate gradient", u.elements, 3 * bytes_per_param(), HostWork::backward_op);
      program_.free(std::exchange(flat, u.flat_gradient[0]));
    }
    if (micro.reduces || options_.reshard_after_forward) reshard(u);
    if (options_.backward_prefetch == BackwardPrefetch::post && !is_root(u)) prefetch_previous(segment);
    if (micro.reduces) reduce(u, flat, result, adds_shards);
  }

  void reduce(Unit& u, TensorId flat, TensorId result, bool adds_shards) {
    program_.wait_stream(post_backward_, default_stream);
    TensorId whole = flat;
    if (reduce_dtype() != param_dtype_) {
      whole = u.cast_gradient != no_tensor ? u.cast_gradient : result;
      program_.alloc(whole);
      step_.pass("cast gradient", u.elements, bytes_per_param() + bytes_per_reduced(), HostWork::backward_op,
                 post_backward_);
    }
    TensorId reduced = whole;
    if (shards()) program_.alloc(reduced = u.reduced != no_tensor ? u.reduced : result);
    divide("predivide gradient", u.elements, predivide_factor(world_), post_backward_);
    if (shards()) reduce_scatter(u, whole, reduced);
    if (replica_group_) all_reduce(u, reduced);
    divide("postdivide gradient", u.shard, world_ / predivide_factor(world_), reduction_end());
    if (reduced != result) {
      program_.alloc(result);
      step_.pass("cast gradient shard", u.shard, bytes_per_reduced() + stored_bytes(), HostWork::backward_op,
                 reduction_end());
    }
    if (shards() && reduced != result) program_.free(reduced);
    if (whole != flat && whole != result) program_.free(whole);
    if (offloads()) {
      program_.copy(reduction_end(), CopyDirection::device_to_host, program_.bytes_of(result), u.name);
      program_.free(result);
    } else if (adds_shards) {
      step_.pass("accumulate gradient", u.shard, 3 * stored_bytes(), HostWork::backward_op, reduction_end());
      program_.free(result);
    }
    if (flat != result) {
      program_.record_use(flat, post_backward_);
      program_.free(flat);
    }
  }
  std::int64_t stored_bytes() const { return bytes_per_element(stored()); }
  std::int64_t bytes_per_param() const { return bytes_per_element(param_dtype_); }
  std::int64_t bytes_per_reduced() const { return bytes_per_element(reduce_dtype()); }

  void divide(std::string_view label, std::int64_t elements, std::int64_t by, StreamId stream) {
    if (by > 1) step_.pass(label, elements, 2 * bytes_per_reduced(), HostWork::backward_op, stream);
  }

  void reduce_scatter(const Unit& u, TensorId whole, TensorId shard) {
    step_.communicate(*shard_group_, post_backward_, CollectiveKind::reduce_scatter, reduce_dtype(),
                      program_.bytes_of(whole), u.name, {whole, shard});
  }

  // Hybrid: this rank's shard, over the replicas, on a stream of its own. F = 1: the whole gradient.
  void all_reduce(const Unit& u, TensorId tensor) {
    if (all_reduce_) {
      program_.wait_stream(*all_reduce_, post_backward_);
      program_.record_use(tensor, *all_reduce_);
    }
    step_.communicate(*replica_group_, reduction_end(), CollectiveKind::all_reduce, reduce_dtype(),
                      program_.bytes_of(tensor), u.name, {tensor});
  }

  StepWriter step_;
  ProgramBuilder& program_;
  Fsdp options_;
  std::int64_t world_, factor_;
  DType param_dtype_;
  Autograd autograd_;
  StreamId unshard_, pre_unshard_, post_backward_;
  std::optional<StreamId> all_reduce_;
  std::optional<GroupId> shard_group_, replica_group_;
  std::vector<Unit> units_;
  IdVector<ModuleId, std::size_t> unit_of_;
  std::deque<EventId> free_events_;  // of the rate limiter
};

}  // namespace

Program compile(const OpGraph& graph, const Training& training, const Framework& framework,
                std::int64_t world, const Fsdp& options) {
  return FsdpCompiler(graph, training, framework, world, options).run();
}

}  // namespace shardsim
