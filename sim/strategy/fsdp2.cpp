#include <string>
#include <utility>

#include "sim/base/check.h"
#include "sim/strategy/step_writer.h"
#include "sim/strategy/strategy.h"
#include "sim/strategy/wrap.h"

namespace shardsim {
namespace {

// A module and its parameters: one all-gather, one reduce-scatter.
struct Unit {
  std::string name;
  std::int64_t elements = 0;           // padded so that every rank's shard is equal
  std::int64_t shard = 0;              // elements of a rank
  std::vector<Trained> trained{};      // shards of its parameters
  std::vector<TensorId> full{};        // unsharded parameters, where the model computes
  std::vector<TensorId> whole{};       // under no_sync: their gradients so far in reduce_dtype
  std::vector<TensorId> partial{};     // between forward and backward, when resharded to fewer ranks
  TensorId cast_shard = no_tensor;     // the shards in param_dtype, on their way into the all-gather
  TensorId gathered = no_tensor;       // output of the all-gather
  TensorId reduce_input{};             // unsharded gradients in reduce_dtype, output of the copy-in
  TensorId reduce_output = no_tensor;  // this rank's part of the sum in reduce_dtype, if that is not fp32
  TensorId gradient[2]{};              // as stored: shard of the first and of a later micro-batch
  TensorId host_gradient = no_tensor;  // with CPU offload: of the step, and of a later micro-batch
  TensorId host_addend = no_tensor;
  TensorId device_shard = no_tensor;  // the same: the shards on the GPU, on their way into the all-gather
  EventId gather_done{}, copied_out{}, resharded{}, reduce_done{};
  enum class State : std::uint8_t { sharded, partial, gathering, unsharded };
  State state = State::sharded;
  bool holds_partial = false;       // `partial` is alive
  std::vector<TensorId> arrived{};  // gradients of its parameters
  std::size_t arrivals = 0;
  std::vector<TensorId> kept{};  // under no_sync, what they add up in
};

class Fsdp2Compiler {
 public:
  Fsdp2Compiler(const OpGraph& graph, const Training& training, const Framework& framework,
                std::int64_t world, const Fsdp2& options)
      : step_(graph, training, framework, {world, options.sharding_factor, options.reshard},
              options.cpu_offload ? MemorySpace::pinned : MemorySpace::device),
        program_(step_.program),
        options_(options),
        factor_(options.sharding_factor),
        param_dtype_(graph.parameter_dtype),
        autograd_(step_.make_autograd()),
        next_(step_.make_autograd()) {
    require(factor_ >= 1 && world % factor_ == 0, "the sharding factor divides the ranks");
    require(options.reshard >= 1 && factor_ % options.reshard == 0, "resharding divides the shard group");
    copy_in_ = program_.stream("all_gather_copy_in");
    all_gather_ = program_.stream("all_gather");
    reduce_scatter_ = program_.stream("reduce_scatter");
    if (factor_ > 1) shard_group_ = program_.group(Axis::shard);
    if (reshards_partly()) reshard_group_ = program_.group(Axis::reshard);
    if (factor_ < world) {
      replica_group_ = program_.group(factor_ > 1 ? Axis::replica : Axis::world);
      all_reduce_ = program_.stream("all_reduce");
    }
    make_units();
  }

  Program run() && {
    std::vector<Trained> trained;
    for (const Unit& u : units_) trained.insert(trained.end(), u.trained.begin(), u.trained.end());
    step_.begin_init(trained);  // made on the meta device: only the shards appear
    if (offloads())
      for (const Unit& u : units_) program_.alloc(u.host_gradient);
    const auto step = step_.micro_batches(
        step_.accumulates_unreduced(), [&](MicroBatch micro) { forward(autograd(micro)); },
        [&](MicroBatch micro) {
          backward(autograd(micro), micro);
          autograd(micro).end_micro_batch();
        });
    const BodyId first_update = step_.optimizer_body(trained, true, shard_group_);
    const BodyId update = step_.optimizer_body(trained, false, shard_group_);
    step_.append_steps(step, first_update, step, update);
    return std::move(step_).finish();
  }

 private:
  bool offloads() const { return options_.cpu_offload; }
  DType stored() const { return step_.training.stored; }
  bool mixed() const { return param_dtype_ != stored(); }
  DType reduce_dtype() const { return step_.training.reduce; }
  bool casts_reduced() const { return reduce_dtype() != stored(); }
  bool casts_gradients() const { return reduce_dtype() != param_dtype_; }
  bool reshards_partly() const { return options_.reshard > 1 && options_.reshard < factor_; }
  bool keeps_unsharded() const { return options_.reshard == 1 && factor_ > 1; }
  StreamId reduction_end() const { return all_reduce_ ? *all_reduce_ : reduce_scatter_; }
  std::int64_t param_bytes() const { return bytes_per_element(param_dtype_); }
  std::int64_t reduce_bytes() const { return bytes_per_element(reduce_dtype()); }
  std::int64_t stored_bytes() const { return bytes_per_element(stored()); }

  // --- units ----------------------------------------------------------------------------------------------

  void make_units() {
    const OpGraph& graph = step_.graph;
    const Wrapping wrapping = wrap_modules(graph, options_.wrap);
    unit_of_ = wrapping.unit_of;
    for (const ModuleId m : wrapping.units) units_.push_back({.name = graph.modules[m].name});
    for (const Parameter& p : graph.parameters) {
      Unit& unit = units_[unit_of_[p.module]];
      position_.push_back(unit.full.size());
      add_parameter(unit, p);
    }
    for (Unit& u : units_) make_tensors(u);
  }

  // Sharded along its first dimension: every rank has the same number of rows, the last of them padding.
  void add_parameter(Unit& u, const Parameter& p) {
    const std::int64_t rows = (p.rows + factor_ - 1) / factor_, columns = p.elements / p.rows;
    u.shard += rows * columns;
    u.trained.push_back(step_.trained(p.name + " shard", rows, columns));
    if (step_.accumulates_unreduced() && casts_gradients())
      u.whole.push_back(program_.tensor(p.name + " accumulated gradient", storage(p.elements, reduce_dtype()),
                                        Category::gradients));
    const std::int64_t padded = rows * columns * factor_;
    u.full.push_back(program_.tensor(p.name, storage(padded, param_dtype_), Category::unsharded_parameters));
    if (reshards_partly())
      u.partial.push_back(program_.tensor(p.name + " resharded",
                                          storage(padded / options_.reshard, param_dtype_),
                                          Category::unsharded_parameters));
  }

  void make_tensors(Unit& u) {
    u.elements = u.shard * factor_;
    const auto tensor = [&](std::string_view what, std::int64_t n, DType t, Category c, StreamId s) {
      return program_.tensor(u.name + " " + std::string(what), storage(n, t), c, s);
    };
    if (mixed())
      u.cast_shard = tensor("cast shard", u.shard, param_dtype_, Category::unsharded_parameters, copy_in_);
    u.gathered =
        tensor("all-gather output", u.elements, param_dtype_, Category::unsharded_parameters, copy_in_);
    u.reduce_input = tensor("reduce-scatter input", u.elements, reduce_dtype(),
                            Category::communication_buffers, default_stream);
    if (casts_reduced())
      u.reduce_output = tensor("reduce-scatter output", u.shard, reduce_dtype(),
                               Category::communication_buffers, reduce_scatter_);
    for (TensorId& g : u.gradient)
      g = tensor("gradient shard", u.shard, stored(), Category::gradients,
                 casts_reduced() ? reduction_end() : reduce_scatter_);
    if (offloads()) {
      for (TensorId* t : {&u.host_gradient, &u.host_addend})
        *t = program_.tensor(u.name + " gradient shard", storage(u.shard, stored()), Category::gradients,
                             default_stream, MemorySpace::pinned);
      u.device_shard =
          tensor("shards on the GPU", u.shard, stored(), Category::unsharded_parameters, copy_in_);
    } else {
      u.trained.front().gradient = u.gradient[0];  // one tensor; the parameters' gradients are views of it
    }
    for (EventId* e : {&u.gather_done, &u.copied_out, &u.resharded, &u.reduce_done}) *e = program_.event();
  }

  // --- parameters -----------------------------------------------------------------------------------------

  // FSDPParamGroup.unshard: copy the shards into their place of the output, gather the rest.
  void unshard(Unit& u) {
    if (u.state == Unit::State::gathering || u.state == Unit::State::unsharded) return;
    const bool from_partial = u.state == Unit::State::partial;
    const std::int64_t mine = from_partial ? u.elements / options_.reshard : u.shard;
    u.state = Unit::State::gathering;
    if (from_partial) program_.wait(copy_in_, u.resharded);
    program_.alloc(u.gathered);
    const bool moves = offloads() && !from_partial, casts = mixed() && !from_partial;
    if (moves) {
      program_.alloc(u.device_shard);
      program_.copy(copy_in_, CopyDirection::host_to_device, program_.bytes_of(u.device_shard), u.name);
    }
    if (casts) {
      program_.alloc(u.cast_shard);
      step_.pass("cast shards", u.shard, stored_bytes() + param_bytes(), HostWork::forward_op, copy_in_);
      if (moves) program_.free(u.device_shard);
    }
    step_.pass("copy in", mine, 2 * param_bytes(), HostWork::forward_op, copy_in_);
    if (casts) program_.free(u.cast_shard);
    if (moves && !casts) program_.free(u.device_shard);
    program_.wait_stream(all_gather_, copy_in_);
    if (const auto group = from_partial ? reshard_group_ : shard_group_)
      step_.communicate(*group, all_gather_, CollectiveKind::all_gather, param_dtype_,
                        program_.bytes_of(u.gathered), u.name);
    program_.record(u.gather_done, all_gather_);
  }

  // FSDPParamGroup.wait_for_unshard: copy the parameters out of the all-gather's output, which in forward
  // lives until the next unit's copy-out.
  void wait_for_unshard(Unit& u, bool forward) {
    if (u.state != Unit::State::gathering) return;
    u.state = Unit::State::unsharded;
    if (forward) drop_gathered();
    program_.wait(default_stream, u.gather_done);
    for (const TensorId t : u.full) program_.alloc(t);
    step_.pass("copy out", u.elements, 2 * param_bytes(), HostWork::forward_op);
    program_.record(u.copied_out, default_stream);
    if (std::exchange(u.holds_partial, false))
      for (const TensorId t : u.partial) program_.free(t);
    gathered_ = &u;
    if (!forward) drop_gathered();
  }
  void drop_gathered() {
    if (gathered_ == nullptr) return;
    for (const StreamId s : {copy_in_, all_gather_}) program_.wait(s, gathered_->copied_out);
    program_.free(gathered_->gathered);
    gathered_ = nullptr;
  }

  void reshard_after_forward(Unit& u) {
    if (keeps_unsharded()) return;
    if (reshards_partly()) {
      for (const TensorId t : u.partial) program_.alloc(t);
      u.holds_partial = true;
      step_.pass("reshard", u.elements / options_.reshard, 2 * param_bytes(), HostWork::forward_op);
      program_.record(u.resharded, default_stream);
    }
    free_unsharded(u, reshards_partly() ? Unit::State::partial : Unit::State::sharded);
  }
  void free_unsharded(Unit& u, Unit::State then) {
    for (const TensorId t : u.full) program_.free(t);
    u.state = then;
  }

  // --- passes ---------------------------------------------------------------------------------------------

  Unit& unit(const Segment& s) { return units_[unit_of_[s.module]]; }
  bool is_root(const Unit& u) const { return &u == &units_.front(); }
  // The root never is resharded between forward and backward.
  bool reshards(const Unit& u) const {
    return !is_root(u) && (options_.reshard_last_block || &u != &units_.back());
  }

  Autograd& autograd(MicroBatch micro) {
    return micro.first || !step_.accumulates_unreduced() ? autograd_ : next_;
  }

  void forward(Autograd& autograd) {
    Unit& root = units_.front();
    program_.wait_stream(copy_in_, default_stream);  // the optimizer's step comes first
    program_.wait_stream(all_gather_, default_stream);
    program_.host(HostWork::unit_hook);
    unshard(root);
    wait_for_unshard(root, true);
    for (const Segment& segment : step_.graph.segments) {
      Unit& u = unit(segment);
      if (!is_root(u)) {
        program_.host(HostWork::unit_hook);
        unshard(u);
        wait_for_unshard(u, true);
      }
      autograd.forward(segment);
      if (reshards(u)) reshard_after_forward(u);
    }
    drop_gathered();
  }

  // The unit before segment i in the order of the forward pass is gathered while this one computes.
  void prefetch_before(std::size_t i) {
    while (i-- > 0)
      if (Unit& u = unit(step_.graph.segments[i]); !is_root(u)) return unshard(u);
  }

  void backward(Autograd& autograd, MicroBatch micro) {
    const auto& segments = step_.graph.segments;
    program_.host(HostWork::unit_hook);
    prefetch_before(segments.size());
    autograd.begin_backward();
    for (std::size_t i = segments.size(); i-- > 0;) {
      Unit& u = unit(segments[i]);
      if (!is_root(u)) {
        program_.host(HostWork::unit_hook);
        unshard(u);
        wait_for_unshard(u, false);
        prefetch_before(i);
      }
      autograd.backward(
          segments[i],
          [&](ParameterId p, TensorId gradient) {
            Unit& owner = units_[unit_of_[step_.graph.parameters[p].module]];
            owner.arrived.resize(owner.full.size());
            owner.arrived[position_[p]] = gradient;
            if (++owner.arrivals == owner.full.size()) post_backward(owner, micro);
          },
          recompute_hooks());
    }
    program_.wait_stream(default_stream, reduction_end());
    drop_reduce_input();
    for (const TensorId t : until_the_end_) program_.free(t);
    until_the_end_.clear();
    // The optimizer reads the gradients on the host.
    if (offloads() && micro.reduces) program_.host_wait_stream(reduction_end());
  }

  // A checkpoint of several blocks runs their forward once more, gathered and resharded as in forward.
  RecomputeHooks recompute_hooks() {
    return {[this](const Segment& s) {
              if (is_root(unit(s))) return;
              program_.host(HostWork::unit_hook);
              unshard(unit(s));
              wait_for_unshard(unit(s), false);
            },
            [this](const Segment& s) {
              if (reshards(unit(s))) reshard_after_forward(unit(s));
            }};
  }

  // --- gradients ------------------------------------------------------------------------------------------

  // FSDPParamGroup.post_backward and foreach_reduce. The input of a reduce-scatter lives until the next one
  // is about to start: the model waits for it. Under no_sync gradients are kept whole, in reduce_dtype.
  void post_backward(Unit& u, MicroBatch micro) {
    u.arrivals = 0;
    free_unsharded(u, Unit::State::sharded);
    if (step_.accumulates_unreduced()) accumulate_whole(u, micro);
    if (!micro.reduces) return;
    drop_reduce_input();
    program_.alloc(u.reduce_input);
    const std::int64_t from = step_.accumulates_unreduced() ? reduce_bytes() : param_bytes();
    step_.pass("copy gradients in", u.elements, from + reduce_bytes(), HostWork::backward_op);
    for (const TensorId g : step_.accumulates_unreduced() ? u.kept : u.arrived) program_.free(g);
    u.arrived.clear();
    program_.wait_stream(reduce_scatter_, default_stream);
    const bool adds = !step_.accumulates_unreduced() && !micro.first;
    const TensorId result = u.gradient[adds ? 1 : 0];
    const TensorId reduced = casts_reduced() ? u.reduce_output : result;
    program_.alloc(reduced);
    reduce(u);
    if (casts_reduced()) {
      program_.alloc(result);
      step_.pass("cast gradient shard", u.shard, reduce_bytes() + stored_bytes(), HostWork::backward_op,
                 reduction_end());
      if (all_reduce_)
        until_the_end_.push_back(reduced);
      else
        program_.free(reduced);
    }
    if (offloads())
      move_to_host(u, result, adds);
    else if (adds)
      step_.pass("accumulate gradient", u.shard, 3 * stored_bytes(), HostWork::backward_op, reduction_end());
    if (!adds && !offloads()) return;
    if (all_reduce_ && !casts_reduced())
      until_the_end_.push_back(result);  // of the reduce-scatter's pool, read by the all-reduce's stream
    else
      program_.free(result);
  }

  // The host adds up what later micro-batches bring, as soon as it is there.
  void move_to_host(Unit& u, TensorId gradient, bool adds) {
    if (adds) program_.alloc(u.host_addend);
    program_.copy(reduction_end(), CopyDirection::device_to_host, program_.bytes_of(gradient), u.name);
    if (!adds) return;
    program_.host_wait_stream(reduction_end());
    program_.host_pass(program_.bytes_of(gradient) * 3, "accumulate gradient");
    program_.free(u.host_addend);
  }

  // FSDPParam.to_accumulated_grad_if_needed, accumulate_unsharded_grad_if_needed.
  void accumulate_whole(Unit& u, MicroBatch micro) {
    if (micro.first && !casts_gradients()) {  // they are what accumulates
      u.kept = std::exchange(u.arrived, {});
      return;
    }
    if (micro.first) u.kept = u.whole;
    for (std::size_t i = 0; i < u.arrived.size(); ++i) {
      if (micro.first) program_.alloc(u.kept[i]);
      step_.pass("accumulate gradient", program_.bytes_of(u.arrived[i]).count / param_bytes(),
                 param_bytes() + (micro.first ? 1 : 2) * reduce_bytes(), HostWork::backward_op);
      program_.free(u.arrived[i]);
    }
    u.arrived.clear();
  }

  // fp16 is divided before and after the reduction; other formats are averaged by NCCL.
  void reduce(Unit& u) {
    const bool divides = reduce_dtype() == DType::fp16;
    if (divides)
      step_.pass("predivide gradients", u.elements, 2 * reduce_bytes(), HostWork::backward_op,
                 reduce_scatter_);
    if (shard_group_) {
      collective(*shard_group_, CollectiveKind::reduce_scatter, u.elements, reduce_scatter_, u.name);
    } else {
      step_.pass("copy gradients", u.shard, 2 * reduce_bytes(), HostWork::backward_op, reduce_scatter_);
    }
    program_.record(u.reduce_done, reduce_scatter_);
    reducing_ = &u;
    if (all_reduce_) {
      program_.wait_stream(*all_reduce_, reduce_scatter_);
      collective(*replica_group_, CollectiveKind::all_reduce, u.shard, *all_reduce_, u.name);
    }
    if (divides)
      step_.pass("postdivide gradients", u.shard, 2 * reduce_bytes(), HostWork::backward_op, reduction_end());
  }
  void collective(GroupId group, CollectiveKind kind, std::int64_t elements, StreamId stream,
                  const std::string& name) {
    step_.communicate(group, stream, kind, reduce_dtype(), storage(elements, reduce_dtype()), name);
  }
  void drop_reduce_input() {
    if (reducing_ == nullptr) return;
    program_.wait(default_stream, reducing_->reduce_done);
    program_.free(reducing_->reduce_input);
    reducing_ = nullptr;
  }

  StepWriter step_;
  ProgramBuilder& program_;
  Fsdp2 options_;
  std::int64_t factor_;
  DType param_dtype_;
  Autograd autograd_, next_;  // under no_sync gradients of the first micro-batch outlive it
  StreamId copy_in_, all_gather_, reduce_scatter_;
  std::optional<StreamId> all_reduce_;
  std::optional<GroupId> shard_group_, reshard_group_, replica_group_;
  std::vector<Unit> units_;
  IdVector<ModuleId, std::size_t> unit_of_;
  IdVector<ParameterId, std::size_t> position_;  // in its unit
  Unit* gathered_ = nullptr;                     // its all-gather output is still alive
  Unit* reducing_ = nullptr;                     // its reduce-scatter input is still alive
  std::vector<TensorId> until_the_end_;          // read by the streams that reduce and copy
};

}  // namespace

Program compile(const OpGraph& graph, const Training& training, const Framework& framework,
                std::int64_t world, const Fsdp2& options) {
  return Fsdp2Compiler(graph, training, framework, world, options).run();
}

}  // namespace shardsim
