#include "sim/model/fusion.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>
#include <utility>

#include "sim/base/check.h"
#include "sim/model/min_cut.h"

namespace shardsim {
namespace {

constexpr ValueId no_value{-1};
constexpr OpId no_op{-1};

bool fusible(const Op& op) { return op.fusion != Fusion::none; }

template <class T>
bool contains(const std::vector<T>& all, const T& one) {
  return std::find(all.begin(), all.end(), one) != all.end();
}

bool is_fp8(const Kernel& k) {
  const Gemm* gemm = std::get_if<Gemm>(&k);
  return gemm != nullptr && gemm->dtype == DType::fp8;
}

// --- which operations belong together --------------------------------------------------------------------

// The operations of a segment by index, each with those whose values it reads (which come before it).
class Clusters {
 public:
  Clusters(const std::vector<const Op*>& ops, const std::vector<std::vector<int>>& makers)
      : makers_(makers), readers_(ops.size()), members_(ops.size()), cluster_(ops.size()) {
    for (int i = 0; i < size(); ++i) {
      for (const int maker : makers_[at(i)]) readers_[at(maker)].push_back(i);
      members_[at(i)] = {i};
      cluster_[at(i)] = i;
    }
    for (int i = 0; i < size(); ++i)
      for (const int maker : makers_[at(i)])
        if (fusible(*ops[at(i)]) && fusible(*ops[at(maker)]) &&
            ops[at(i)]->attention_core == ops[at(maker)]->attention_core)
          try_to_join(cluster_[at(maker)], cluster_[at(i)]);
  }

  // In an order in which they can run: of the clusters that can, the one with the earliest operation.
  std::vector<std::vector<int>> in_order() const {
    std::vector<std::vector<int>> ordered;
    std::vector<bool> done(cluster_.size(), false);
    for (int i = 0; i < size();) {
      const auto& cluster = members_[at(cluster_[at(i)])];
      if (done[at(i)] || !ready(cluster, done)) {
        ++i;
        continue;
      }
      for (const int member : cluster) done[at(member)] = true;
      ordered.push_back(cluster);
      i = 0;
    }
    require(std::all_of(done.begin(), done.end(), [](bool d) { return d; }), "clusters wait for each other");
    return ordered;
  }

 private:
  static std::size_t at(int i) { return static_cast<std::size_t>(i); }
  int size() const { return static_cast<int>(cluster_.size()); }

  bool ready(const std::vector<int>& cluster, const std::vector<bool>& done) const {
    for (const int member : cluster)
      for (const int maker : makers_[at(member)])
        if (!done[at(maker)] && cluster_[at(maker)] != cluster_[at(member)]) return false;
    return true;
  }
  // From one cluster to the other through a third.
  bool path_through_others(int from, int to) const {
    std::vector<bool> seen(cluster_.size(), false);
    std::vector<int> open{from};
    seen[at(from)] = true;
    while (!open.empty()) {
      const int c = open.back();
      open.pop_back();
      for (const int member : members_[at(c)])
        for (const int reader : readers_[at(member)]) {
          const int next = cluster_[at(reader)];
          if (next == to && c != from) return true;
          if (next == to || seen[at(next)]) continue;
          seen[at(next)] = true;
          open.push_back(next);
        }
    }
    return false;
  }
  void try_to_join(int a, int b) {
    if (a == b || path_through_others(a, b) || path_through_others(b, a)) return;
    for (const int member : members_[at(a)]) cluster_[at(member)] = b;
    auto& joined = members_[at(b)];
    joined.insert(joined.end(), members_[at(a)].begin(), members_[at(a)].end());
    std::sort(joined.begin(), joined.end());
    members_[at(a)].clear();
  }

  const std::vector<std::vector<int>>& makers_;
  std::vector<std::vector<int>> readers_;
  std::vector<std::vector<int>> members_;  // by cluster, ascending
  std::vector<int> cluster_;               // of each operation; named after one of its operations
};

// --- one kernel of several operations --------------------------------------------------------------------

class Fuser {
 public:
  Fuser(const OpGraph& graph, CompileScope scope)
      : old_(graph),
        same_(graph.values.size()),
        readers_(graph.values.size()),
        maker_(graph.values.size(), no_op),
        new_value_(graph.values.size(), no_value),
        new_op_(graph.ops.size(), no_op),
        equal_(graph.ops.size(), no_op),
        segment_of_(graph.ops.size()) {
    new_.parameters = graph.parameters;
    new_.modules = graph.modules;
    new_.parameter_dtype = graph.parameter_dtype;
    new_.metrics = graph.metrics;
    for (int s = 0; s < static_cast<int>(graph.segments.size()); ++s) {
      const Segment& segment = graph.segments[static_cast<std::size_t>(s)];
      compiled_.push_back(scope == CompileScope::model || graph.modules[segment.module].block);
      for (OpId op = segment.first; op < segment.last; ++op.index) segment_of_[op] = s;
    }
    for (const ValueId v : ids(graph.values)) same_[v] = v;
    for (const OpId op : ids(graph.ops))
      for (const ValueId v : graph.ops[op].outputs) maker_[v] = op;
    for (int s = 0; s < static_cast<int>(compiled_.size()); ++s)
      if (is_compiled(s)) find_equal_operations(graph.segments[static_cast<std::size_t>(s)]);
    for (const OpId op : ids(graph.ops))
      if (equal_[op] == no_op)
        for (const ValueId v : graph.ops[op].inputs) readers_[same_[v]].push_back(op);
  }

  OpGraph run() && {
    for (int s = 0; s < static_cast<int>(compiled_.size()); ++s) {
      const Segment& segment = old_.segments[static_cast<std::size_t>(s)];
      const OpId first = new_.ops.next_id();
      if (is_compiled(s))
        compile(segment);
      else
        for (OpId op = segment.first; op < segment.last; ++op.index) copy(op, /*compiled=*/false);
      new_.segments.push_back({segment.module, first, new_.ops.next_id()});
    }
    for (const OpId op : ids(old_.ops))
      if (equal_[op] != no_op) new_op_[op] = new_op_[equal_[op]];
    set_last_uses();
    new_.loss = new_value_[old_.loss];
    return std::move(new_);
  }

 private:
  bool is_compiled(int segment) const { return compiled_[static_cast<std::size_t>(segment)]; }
  const Op& op(OpId id) const { return old_.ops[id]; }
  const Value& value(ValueId v) const { return old_.values[v]; }
  Bytes bytes(ValueId v) const { return bytes_of(old_, v); }

  // Casts of one tensor for several products.
  void find_equal_operations(const Segment& segment) {
    using Key = std::tuple<std::string_view, int, DType, std::vector<ValueId>>;
    std::map<Key, OpId> seen;
    for (OpId id = segment.first; id < segment.last; ++id.index) {
      const Op& o = op(id);
      if (o.fusion != Fusion::pointwise || o.outputs.size() != 1 || o.inputs.empty()) continue;
      const ValueId out = o.outputs.front();
      if (value(out).held_by_user || value(out).storage != out || out == old_.loss) continue;
      if (!o.parameters.empty()) continue;
      std::vector<ValueId> inputs;
      for (const ValueId v : o.inputs) inputs.push_back(same_[v]);
      const auto [first, fresh] = seen.insert({Key{o.name, o.attention_core, value(out).dtype, inputs}, id});
      if (fresh) continue;
      same_[out] = op(first->second).outputs.front();
      equal_[id] = first->second;
    }
  }

  void compile(const Segment& segment) {
    std::vector<OpId> kept;
    std::vector<const Op*> ops;
    std::map<OpId, int> index;
    std::vector<std::vector<int>> makers;
    for (OpId id = segment.first; id < segment.last; ++id.index) {
      if (equal_[id] != no_op) continue;
      index[id] = static_cast<int>(kept.size());
      kept.push_back(id);
      ops.push_back(&op(id));
      makers.emplace_back();
      for (const ValueId v : op(id).inputs)
        if (const auto maker = index.find(maker_[same_[v]]); maker != index.end())
          makers.back().push_back(maker->second);
    }
    cast_to_fp8_.clear();
    for (const std::vector<int>& cluster : Clusters(ops, makers).in_order()) {
      std::vector<OpId> members;
      for (const int i : cluster) members.push_back(kept[static_cast<std::size_t>(i)]);
      if (fusible(op(members.front())))
        fuse(members);
      else
        copy(members.front(), /*compiled=*/true);
    }
  }

  ValueId renamed(ValueId v) const { return new_value_[same_[v]]; }
  ValueId make(ValueId v) {
    Value copy = value(v);
    copy.storage = new_.values.next_id();
    return new_value_[v] = new_.values.add(copy);
  }

  void copy(OpId id, bool compiled) {
    Op o = op(id);
    for (ValueId& v : o.inputs) v = renamed(v);
    for (ValueId& v : o.outputs) {
      const ValueId old = v;
      v = make(old);
      if (value(old).storage != old) new_.values[v].storage = renamed(value(old).storage);
    }
    for (ValueId& v : o.saved) v = renamed(v);
    if (compiled && !o.compiled && std::any_of(o.forward.begin(), o.forward.end(), is_fp8))
      share_fp8_casts(o, op(id));
    o.compiled = o.compiled || compiled;
    new_op_[id] = new_.ops.add(std::move(o));
  }

  // GraphBuilder::multiply_in_fp8 lists magnitude and cast of x, of the weight, the product; in backward of
  // the gradient, of the weight, a product, of x, a product, then the bias.
  void share_fp8_casts(Op& linear, const Op& old) {
    const ValueId x = same_[old.inputs.front()], out = old.outputs.front();
    const auto fused_here = [&](OpId other) {
      return fusible(op(other)) && segment_of_[other] == segment_of_[maker_[out]];
    };
    const bool cast_before = !cast_to_fp8_.insert(x).second, x_fused = fused_here(maker_[x]),
               gradient_fused = readers_[out].size() == 1 && fused_here(readers_[out].front());
    const std::vector<Kernel> forward = std::move(linear.forward), backward = std::move(linear.backward);
    require(forward.size() == 5 && backward.size() >= 8, "an fp8 product with other casts than expected");
    linear.forward.clear(), linear.backward.clear();
    const auto keep = [](std::vector<Kernel>& kernels, const Kernel& k, bool happens) {
      if (happens) kernels.push_back(k);
    };
    keep(linear.forward, forward[0], !cast_before && !x_fused);
    keep(linear.forward, forward[1], !cast_before);
    linear.forward.insert(linear.forward.end(), forward.begin() + 2, forward.end());
    keep(linear.backward, backward[0], !gradient_fused);
    keep(linear.backward, backward[1], true);
    linear.backward.insert(linear.backward.end(),
                           {backward[3], backward[4]});  // forward found the magnitudes
    keep(linear.backward, backward[6], !cast_before);
    linear.backward.insert(linear.backward.end(), backward.begin() + 7, backward.end());
  }

  // A value inside or beside the cluster, or the statistics of a reduction in it.
  struct Vertex {
    ValueId value = no_value;
    std::int64_t statistics = 0;
    bool external = false, leaves = false, given = false, wanted = false;
    bool small = false;         // a statistic: not counted as traffic, as elsewhere
    bool after_weight = false;  // made with the help of a parameter
  };
  struct Cluster {
    std::vector<OpId> ops;
    std::vector<Vertex> vertices;
    std::vector<std::pair<int, int>> edges;
    std::map<ValueId, int> vertex;

    Vertex& operator[](ValueId v) { return vertices[static_cast<std::size_t>(vertex.at(v))]; }
    int add(Vertex v) {
      vertices.push_back(v);
      if (v.value != no_value) vertex[v.value] = static_cast<int>(vertices.size()) - 1;
      return static_cast<int>(vertices.size()) - 1;
    }
  };

  bool leaves(const Cluster& cluster, ValueId v) const {
    if (value(v).held_by_user || v == old_.loss) return true;
    return std::any_of(readers_[v].begin(), readers_[v].end(),
                       [&](OpId reader) { return !contains(cluster.ops, reader); });
  }
  bool gets_gradient_from_outside(const Cluster& cluster, ValueId v) const {
    if (v == old_.loss) return true;
    return std::any_of(readers_[v].begin(), readers_[v].end(), [&](OpId reader) {
      if (contains(cluster.ops, reader)) return false;
      for (std::size_t i = 0; i < op(reader).inputs.size(); ++i)
        if (same_[op(reader).inputs[i]] == v && op(reader).gradients[i] != Gradient::none) return true;
      return false;
    });
  }

  Cluster describe(std::vector<OpId> ops) const {
    Cluster c;
    c.ops = std::move(ops);
    for (const OpId id : c.ops) {
      const Op& o = op(id);
      std::vector<int> from;
      bool after_weight = !o.parameters.empty();
      std::int64_t largest = 0;
      for (const ValueId input : o.inputs) {
        const ValueId v = same_[input];
        if (c.vertex.find(v) == c.vertex.end()) c.add({.value = v, .external = true, .given = true});
        from.push_back(c.vertex.at(v));
        after_weight = after_weight || c[v].after_weight;
        largest = std::max(largest, value(v).elements);
      }
      const bool keeps_beside = o.fusion == Fusion::reduction || o.fusion == Fusion::random;
      for (std::size_t i = 1; i < o.outputs.size() && keeps_beside; ++i)
        from.push_back(c.add({.value = o.outputs[i], .given = true, .small = o.fusion == Fusion::reduction}));
      if (o.statistics > 0) from.push_back(c.add({.statistics = o.statistics, .given = true, .small = true}));
      for (std::size_t i = 0; i < (keeps_beside ? 1 : o.outputs.size()); ++i) {
        const bool constant = i > 0 && value(o.outputs[i]).dtype == DType::boolean;
        const bool reduced = o.fusion == Fusion::reduction && value(o.outputs[i]).elements * 4 < largest;
        const int made =
            c.add({.value = o.outputs[i], .given = reduced, .small = reduced, .after_weight = after_weight});
        if (!reduced && !constant)
          for (const int input : from) c.edges.emplace_back(input, made);
      }
      for (const ValueId v : o.saved) c[same_[v]].wanted = true;
    }
    for (Vertex& v : c.vertices)
      if (v.value != no_value && !v.external) v.leaves = leaves(c, v.value);
    return c;
  }

  Bytes size(const Vertex& v) const {
    return v.value == no_value ? storage(v.statistics, DType::fp32) : bytes(v.value);
  }

  // By bytes; between equals first what has to be written anyway, then what is there already. Costs nothing:
  // what others outside keep.
  std::vector<int> choose_kept(const Cluster& c) const {
    KeepGraph keep;
    keep.edges = c.edges;
    for (const Vertex& v : c.vertices) {
      constexpr std::int64_t scale = 1024;
      const std::int64_t rank = v.leaves ? 1 : v.external ? 2 : 3;
      const bool free = v.value != no_value && (v.leaves || v.external) && kept_outside(c, v.value);
      keep.vertices.push_back({(free ? 0 : size(v).count * scale) + rank, v.given, v.wanted});
    }
    return cheapest_to_keep(keep);
  }
  bool kept_outside(const Cluster& c, ValueId v) const {
    if (value(v).held_by_user) return true;
    const auto keeps = [&](OpId other) {
      if (other == no_op || contains(c.ops, other) || fusible(op(other))) return false;
      return std::any_of(op(other).saved.begin(), op(other).saved.end(),
                         [&](ValueId s) { return same_[s] == v; });
    };
    return keeps(maker_[v]) || std::any_of(readers_[v].begin(), readers_[v].end(), keeps);
  }

  // Where the gradient of a value comes from: passed on from a result of the cluster, or made anew for a
  // value.
  struct Origin {
    bool incoming;
    ValueId value;
    friend auto operator<=>(const Origin&, const Origin&) = default;
  };
  Origin origin_of_gradient(const Cluster& c, ValueId v, bool external) const {
    int contributions = !external && gets_gradient_from_outside(c, v) ? 1 : 0;
    ValueId passed_on = no_value;
    for (const OpId id : c.ops)
      for (std::size_t i = 0; i < op(id).inputs.size(); ++i) {
        if (same_[op(id).inputs[i]] != v || op(id).gradients[i] == Gradient::none) continue;
        ++contributions;
        if (op(id).gradients[i] == Gradient::alias) passed_on = op(id).outputs.front();
      }
    if (contributions != 1) return {false, v};
    if (passed_on != no_value) return origin_of_gradient(c, passed_on, false);
    return {!external && gets_gradient_from_outside(c, v), v};
  }

  void fuse(const std::vector<OpId>& members) {
    Cluster c = describe(members);
    const Op& first = op(members.front());
    Op o{.name = name_of(members), .module = first.module, .kind = OpKind::fused, .compiled = true};
    o.attention_core = first.attention_core;

    std::vector<int> kept = choose_kept(c);
    std::vector<ValueId> results;  // old names, without statistics
    Bytes moved, kept_bytes;
    for (int i = 0; i < static_cast<int>(c.vertices.size()); ++i) {
      const Vertex& v = c.vertices[static_cast<std::size_t>(i)];
      const bool is_kept = contains(kept, i);
      if (is_kept && !v.small) kept_bytes += size(v);
      if (v.external || v.leaves || is_kept)
        if (!v.small) moved += size(v);
      if (!v.external && v.value != no_value && (v.leaves || is_kept)) results.push_back(v.value);
    }
    if (!results.empty() || moved.count > 0) o.forward = {MemoryBound{moved}};

    // Gradients: those passed on come from the first result; inputs that share one stand side by side.
    std::map<Origin, std::vector<ValueId>> groups;
    std::vector<Origin> order;
    std::vector<ValueId> without;
    for (const Vertex& v : c.vertices) {
      if (!v.external) continue;
      if (!value(v.value).needs_grad) {
        without.push_back(v.value);
        continue;
      }
      const Origin origin = origin_of_gradient(c, v.value, true);
      if (groups[origin].empty()) order.push_back(origin);
      groups[origin].push_back(v.value);
    }
    for (auto& [origin, inputs] : groups) {  // equal sizes side by side: a sum may mix formats
      const Bytes size = bytes(inputs.front());
      std::stable_partition(inputs.begin(), inputs.end(), [&](ValueId v) { return bytes(v) == size; });
    }
    ValueId passed_on = no_value;
    Bytes made;
    for (const Origin& origin : order) {
      const bool alias = origin.incoming && (passed_on == no_value || passed_on == origin.value);
      if (alias) passed_on = origin.value;
      for (const ValueId v : groups[origin]) {
        const bool shared = v != groups[origin].front() && bytes(v) == bytes(groups[origin].front());
        o.inputs.push_back(new_value_[v]);
        o.gradients.push_back(alias ? Gradient::alias : shared ? Gradient::same : Gradient::fresh);
        if (!alias && !shared) made += bytes(v);
      }
    }
    for (const ValueId v : without) {
      o.inputs.push_back(new_value_[v]);
      o.gradients.push_back(Gradient::none);
    }
    if (passed_on != no_value)
      std::stable_partition(results.begin(), results.end(), [&](ValueId v) { return v == passed_on; });

    for (const ValueId v : results) o.outputs.push_back(make(v));
    for (const int i : kept) {
      const Vertex& v = c.vertices[static_cast<std::size_t>(i)];
      if (v.value != no_value) {
        o.saved.push_back(new_value_[v.value]);
        continue;
      }
      const ValueId statistics = new_.values.next_id();
      new_.values.add({"statistics", v.statistics, DType::fp32, statistics, false, {}});
      o.outputs.push_back(statistics);
      o.saved.push_back(statistics);
    }

    Bytes incoming, incoming_after_weight;
    for (const Vertex& v : c.vertices) {
      if (!v.leaves || !gets_gradient_from_outside(c, v.value)) continue;
      incoming += size(v);
      if (v.after_weight) incoming_after_weight += size(v);
    }
    for (const OpId id : members)
      o.parameters.insert(o.parameters.end(), op(id).parameters.begin(), op(id).parameters.end());
    if (made.count > 0) o.backward.emplace_back(MemoryBound{incoming + kept_bytes + made});
    if (!o.parameters.empty()) o.backward.emplace_back(MemoryBound{incoming_after_weight + kept_bytes});

    const OpId id = new_.ops.add(std::move(o));
    for (const OpId member : members) new_op_[member] = id;
  }

  std::string_view name_of(const std::vector<OpId>& members) const {
    if (members.size() == 1) return op(members.front()).name;
    const auto any = [&](auto&& is) {
      return std::any_of(members.begin(), members.end(), [&](OpId id) { return is(op(id)); });
    };
    if (any([](const Op& o) { return !o.parameters.empty(); })) return "fused norm";
    if (any([](const Op& o) { return o.statistics > 0; })) return "fused softmax";
    return "fused pointwise";
  }

  // Generated code drops a value after its last reader; a reference of Python's counts only outside the
  // region that made the value.
  void set_last_uses() {
    for (const OpId id : ids(new_.ops))
      for (const auto* values : {&new_.ops[id].inputs, &new_.ops[id].outputs})
        for (const ValueId v : *values) new_.values[new_.values[v].storage].last_use = id;
    for (const ValueId v : ids(old_.values)) {
      if (new_value_[v] == no_value || value(v).storage != v || same_[v] != v) continue;
      const int made_in = segment_of_[maker_[v]];
      if (is_compiled(made_in) && segment_of_[value(v).last_use] == made_in) continue;
      OpId& last = new_.values[new_value_[v]].last_use;
      last = std::max(last, new_op_[value(v).last_use]);
    }
    const OpId end{new_.ops.next_id().index - 1};
    for (Value& v : new_.values)
      if (v.autocast_cache) v.last_use = end;
  }

  const OpGraph& old_;
  OpGraph new_;
  std::vector<bool> compiled_;                    // by segment
  IdVector<ValueId, ValueId> same_;               // the value that stands for it
  IdVector<ValueId, std::vector<OpId>> readers_;  // of operations that remain
  IdVector<ValueId, OpId> maker_;
  IdVector<ValueId, ValueId> new_value_;
  IdVector<OpId, OpId> new_op_;
  IdVector<OpId, OpId> equal_;  // the earlier operation that makes its result, or none
  IdVector<OpId, int> segment_of_;
  std::set<ValueId> cast_to_fp8_;  // in this segment, so far
};

}  // namespace

OpGraph fuse(const OpGraph& graph, CompileScope scope) { return Fuser(graph, scope).run(); }

}  // namespace shardsim
