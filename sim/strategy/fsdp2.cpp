#include <string>
#include <utility>

#include "sim/base/check.h"
#include "sim/strategy/step_writer.h"
#include "sim/strategy/strategy.h"

namespace shardsim {
namespace {

// A module and its parameters: one all-gather, one reduce-scatter.
struct Unit {
  std::string name;
  std::int64_t elements = 0;           // padded so that every rank's shard is equal
  std::int64_t shard = 0;              // elements of a rank
  std::vector<Trained> trained{};      // shards of its parameters
  std::vector<TensorId> full{};        // unsharded parameters, where the model computes
  std::vector<TensorId> partial{};     // between forward and backward, when resharded to fewer ranks
  TensorId cast_shard = no_tensor;     // the shards in param_dtype, on their way into the all-gather
  TensorId gathered = no_tensor;       // output of the all-gather
  TensorId reduce_input{};             // unsharded gradients in reduce_dtype, output of the copy-in
  TensorId reduce_output = no_tensor;  // this rank's part of the sum in reduce_dtype, if that is not fp32
  TensorId gradient[2]{};              // fp32 shard of the first and of a later micro-batch
  EventId gather_done{}, copied_out{}, resharded{}, reduce_done{};
  enum class State : std::uint8_t { sharded, partial, gathering, unsharded };
  State state = State::sharded;
  bool holds_partial = false;       // `partial` is alive
  std::vector<TensorId> arrived{};  // gradients of its parameters
};

class Fsdp2Compiler {
 public:
  Fsdp2Compiler(const OpGraph& graph, const Training& training, const Framework& framework,
                std::int64_t world, const Fsdp2& options)
      : step_(graph, training, framework, {world, options.sharding_factor, options.reshard}),
        program_(step_.program),
        options_(options),
        factor_(options.sharding_factor),
        param_dtype_(graph.parameter_dtype),
        autograd_(step_.make_autograd()) {
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
    const BodyId first = micro_batch(false);
    const std::int64_t more = step_.training.micro_batches - 1;
    const BodyId later = more > 0 ? micro_batch(true) : first;
    const BodyId first_update = step_.optimizer_body(trained, true, shard_group_);
    const BodyId update = step_.optimizer_body(trained, false, shard_group_);
    for (const Section section : {Section::first, Section::second, Section::steady}) {
      program_.append_to(section, first);
      program_.append_to(section, later, more);
      program_.append_to(section, section == Section::first ? first_update : update);
    }
    return std::move(step_).finish();
  }

 private:
  bool mixed() const { return param_dtype_ != DType::fp32; }
  DType reduce_dtype() const { return step_.training.reduce; }
  bool casts_reduced() const { return reduce_dtype() != DType::fp32; }
  bool reshards_partly() const { return options_.reshard > 1 && options_.reshard < factor_; }
  bool keeps_unsharded() const { return options_.reshard == 1 && factor_ > 1; }
  StreamId reduction_end() const { return all_reduce_ ? *all_reduce_ : reduce_scatter_; }
  int param_bytes() const { return static_cast<int>(bytes_per_element(param_dtype_)); }
  int reduce_bytes() const { return static_cast<int>(bytes_per_element(reduce_dtype())); }

  // --- units ----------------------------------------------------------------------------------------------

  void make_units() {
    const OpGraph& graph = step_.graph;
    unit_of_.assign(graph.modules.size(), 0);
    units_.push_back({.name = graph.modules[ModuleId{0}].name});
    for (const ModuleId m : ids(graph.modules)) {
      if (!graph.modules[m].block || options_.wrap == Wrap::model) continue;
      unit_of_[m] = units_.size();
      units_.push_back({.name = graph.modules[m].name});
    }
    for (const Parameter& p : graph.parameters) add_parameter(units_[unit_of_[p.module]], p);
    for (Unit& u : units_) make_tensors(u);
  }

  // Sharded along its first dimension: every rank has the same number of rows, the last of them padding.
  void add_parameter(Unit& u, const Parameter& p) {
    const std::int64_t shard = (p.rows + factor_ - 1) / factor_ * (p.elements / p.rows);
    u.shard += shard;
    u.trained.push_back(step_.trained(p.name + " shard", shard));
    u.full.push_back(
        program_.tensor(p.name, storage(p.elements, param_dtype_), Category::unsharded_parameters));
    if (reshards_partly()) {
      const std::int64_t part = (p.rows + options_.reshard - 1) / options_.reshard * (p.elements / p.rows);
      u.partial.push_back(program_.tensor(p.name + " resharded", storage(part, param_dtype_),
                                          Category::unsharded_parameters));
    }
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
      g = tensor("gradient shard", u.shard, DType::fp32, Category::gradients,
                 casts_reduced() ? reduction_end() : reduce_scatter_);
    u.trained.front().gradient = u.gradient[0];  // one tensor; the parameters' gradients are views of it
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
    if (mixed() && !from_partial) {
      program_.alloc(u.cast_shard);
      step_.pass("cast shards", u.shard, 4 + param_bytes(), HostWork::forward_op, copy_in_);
    }
    step_.pass("copy in", mine, 2 * param_bytes(), HostWork::forward_op, copy_in_);
    if (mixed() && !from_partial) program_.free(u.cast_shard);
    program_.wait_stream(all_gather_, copy_in_);
    if (const auto group = from_partial ? reshard_group_ : shard_group_) {
      const StreamId nccl = program_.stream_of(*group);
      program_.wait_stream(nccl, all_gather_);
      program_.collective(*group, CollectiveKind::all_gather, param_dtype_, program_.bytes_of(u.gathered),
                          u.name);
      program_.wait_stream(all_gather_, nccl);
    }
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

  BodyId micro_batch(bool later) {
    const BodyId body = program_.begin_body();
    program_.begin_mark("forward");
    forward();
    program_.end_mark();
    program_.begin_mark("backward");
    backward(later);
    autograd_.end_micro_batch();
    program_.end_mark();
    return body;
  }

  void forward() {
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
      autograd_.forward(segment);
      if (reshards(u)) reshard_after_forward(u);
    }
    drop_gathered();
  }

  // The unit before segment i in the order of the forward pass is gathered while this one computes.
  void prefetch_before(std::size_t i) {
    while (i-- > 0)
      if (Unit& u = unit(step_.graph.segments[i]); !is_root(u)) return unshard(u);
  }

  void backward(bool later) {
    const auto& segments = step_.graph.segments;
    program_.host(HostWork::unit_hook);
    prefetch_before(segments.size());
    autograd_.begin_backward();
    for (std::size_t i = segments.size(); i-- > 0;) {
      Unit& u = unit(segments[i]);
      if (!is_root(u)) {
        program_.host(HostWork::unit_hook);
        unshard(u);
        wait_for_unshard(u, false);
        prefetch_before(i);
      }
      autograd_.backward(
          segments[i],
          [&](ParameterId p, TensorId gradient) {
            Unit& owner = units_[unit_of_[step_.graph.parameters[p].module]];
            owner.arrived.push_back(gradient);
            if (owner.arrived.size() == owner.full.size()) post_backward(owner, later);
          },
          recompute_hooks());
    }
    program_.wait_stream(default_stream, reduction_end());
    drop_reduce_input();
    for (const TensorId t : until_the_end_) program_.free(t);
    until_the_end_.clear();
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
  // is about to start: the model waits for it.
  void post_backward(Unit& u, bool later) {
    free_unsharded(u, Unit::State::sharded);
    drop_reduce_input();
    program_.alloc(u.reduce_input);
    step_.pass("copy gradients in", u.elements, param_bytes() + reduce_bytes(), HostWork::backward_op);
    for (const TensorId g : u.arrived) program_.free(g);
    u.arrived.clear();
    program_.wait_stream(reduce_scatter_, default_stream);
    const TensorId result = u.gradient[later ? 1 : 0];
    const TensorId reduced = casts_reduced() ? u.reduce_output : result;
    program_.alloc(reduced);
    reduce(u);
    if (casts_reduced()) {
      program_.alloc(result);
      step_.pass("cast gradient shard", u.shard, reduce_bytes() + 4, HostWork::backward_op, reduction_end());
      if (all_reduce_)
        until_the_end_.push_back(reduced);
      else
        program_.free(reduced);
    }
    if (later) {
      step_.pass("accumulate gradient", u.shard, 12, HostWork::backward_op, reduction_end());
      until_the_end_.push_back(result);
    }
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
    const StreamId nccl = program_.stream_of(group);
    program_.wait_stream(nccl, stream);
    program_.collective(group, kind, reduce_dtype(), storage(elements, reduce_dtype()), name);
    program_.wait_stream(stream, nccl);
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
  Autograd autograd_;
  StreamId copy_in_, all_gather_, reduce_scatter_;
  std::optional<StreamId> all_reduce_;
  std::optional<GroupId> shard_group_, reshard_group_, replica_group_;
  std::vector<Unit> units_;
  IdVector<ModuleId, std::size_t> unit_of_;
  Unit* gathered_ = nullptr;             // its all-gather output is still alive
  Unit* reducing_ = nullptr;             // its reduce-scatter input is still alive
  std::vector<TensorId> until_the_end_;  // read by the all-reduce stream
};

}  // namespace

Program compile(const OpGraph& graph, const Training& training, const Framework& framework,
                std::int64_t world, const Fsdp2& options) {
  return Fsdp2Compiler(graph, training, framework, world, options).run();
}

}  // namespace shardsim
