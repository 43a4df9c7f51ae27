#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "sim/model/family.h"
#include "sim/scenario/scenario.h"
#include "sim/topology/node_shape.h"

namespace shardsim {
namespace {

// Reads explicit values and supplies defaults, remembering the origin of each.
class Resolver {
 public:
  Resolver(const Settings& settings, const Library& library) : settings_(settings), library_(library) {}

  Scenario run() {
    s_.gpus = 0;
    read_library_tables();
    read_model();
    read_topology();
    read_cluster();
    read_workload();
    read_batch();
    read_precision();
    read_attention();
    read_training();
    read_strategy();
    read_what_ifs();
    check_sizes();
    collect_values();
    return std::move(s_);
  }

 private:
  // --- access
  // -----------------------------------------------------------------------------------------------

  [[noreturn]] void fail(const std::string& key, const std::string& message) const {
    throw InputError(settings_.place(key), message);
  }
  bool given(const std::string& key) const { return settings_.has(key); }

  template <class T>
  T get(const std::string& key, const T& fallback, const std::string& reason) {
    if (const Setting* setting = settings_.find(key)) return std::get<T>(setting->value);
    Origin origin;
    origin.reason = reason;
    settings_.set(key, Scalar(fallback), origin);
    return fallback;
  }
  std::int64_t integer(const std::string& key, std::int64_t fallback, const std::string& reason) {
    return get<std::int64_t>(key, fallback, reason);
  }
  double number(const std::string& key, double fallback, const std::string& reason) {
    return get<double>(key, fallback, reason);
  }
  bool flag(const std::string& key, bool fallback, const std::string& reason) {
    return get<bool>(key, fallback, reason);
  }
  std::string text(const std::string& key, const std::string& fallback, const std::string& reason) {
    return get<std::string>(key, fallback, reason);
  }
  template <class T>
  T required(const std::string& key, std::string_view what) {
    const Setting* setting = settings_.find(key);
    if (setting == nullptr) fail(key, fmt::format("{} needs \"{}\"", what, key.substr(key.rfind('.') + 1)));
    return std::get<T>(setting->value);
  }
  std::int64_t required_int(const std::string& key, std::string_view what) {
    return required<std::int64_t>(key, what);
  }

  template <class Enum, std::size_t Count>
  static Enum parse(const std::string& text, const Enum (&values)[Count]) {
    return *std::find_if(std::begin(values), std::end(values), [&](Enum v) { return name(v) == text; });
  }

  // --- model and topology
  // -----------------------------------------------------------------------------------

  // A name stands for the keys of its file; explicit keys of the scenario win over them.
  void read_library_tables() {
    for (const auto& [key, kind] : {std::pair("model", "models"), std::pair("topology", "topologies")}) {
      if (const Setting* named = settings_.find(key)) {
        const std::string path =
            library_.find(kind, std::get<std::string>(named->value), named->origin.place);
        if (path == settings_.scenario.source)
          fail(key, fmt::format("{} = \"{}\" is this very file", key, path));
        add_library_file(settings_, path, key);
      } else if (!settings_.has_table(key)) {
        const std::vector<std::string> known = library_.names(kind);
        std::string list;
        for (const std::string& name : known) list += (list.empty() ? "; known: " : ", ") + name;
        fail(key, fmt::format("the scenario needs a \"{}\"{}", key, list));
      }
    }
  }

  void read_model() {
    ModelSpec& m = s_.model;
    constexpr std::string_view what = "the model";
    m.name = text("model.name", "inline", "a model without a name");
    m.family = parse(required<std::string>("model.family", what), {Family::gpt, Family::t5});
    const bool t5 = m.family == Family::t5;
    const std::vector<std::string> other =
        t5 ? std::vector<std::string>{"model.layers"}
           : std::vector<std::string>{"model.encoder_layers", "model.decoder_layers"};
    for (const std::string& key : other)
      if (given(key)) fail(key, fmt::format("family \"{}\" has no \"{}\"", name(m.family), key.substr(6)));
    if (t5) {
      m.encoder_layers = required_int("model.encoder_layers", what);
      m.decoder_layers = required_int("model.decoder_layers", what);
    } else {
      m.layers = required_int("model.layers", what);
    }
    m.hidden = required_int("model.hidden", what);
    m.heads = required_int("model.heads", what);
    if (!given("model.head_dim") && m.hidden % m.heads != 0)
      fail("model.heads",
           fmt::format("{} heads do not divide a hidden size of {}; give head_dim", m.heads, m.hidden));
    m.head_dim = integer("model.head_dim", m.hidden / m.heads, "hidden / heads");
    m.ffn = integer("model.ffn", 4 * m.hidden, "4 * hidden");
    m.vocab = required_int("model.vocab", what);
    m.max_positions = integer("model.max_positions", 0, "no learned positions");
    m.tied_embeddings = flag("model.tied_embeddings", true, "the family's usual");
    m.activation = parse(text("model.activation", t5 ? "relu" : "gelu", "the family's usual"),
                         {Activation::relu, Activation::gelu, Activation::gelu_tanh});
    m.bias = flag("model.bias", !t5, "the family's usual");
    m.dropout = number("model.dropout", t5 ? 0.1 : 0.0, "the family's usual");
    reject_what_the_family_lacks();
  }

  void reject_what_the_family_lacks() {
    const ModelSpec& m = s_.model;
    const bool t5 = m.family == Family::t5;
    if (integer("model.kv_heads", m.heads, "as many as heads") != m.heads)
      fail("model.kv_heads", "grouped key and value heads are not supported yet");
    if (text("model.norm", t5 ? "rmsnorm" : "layernorm", "the family's usual") !=
        (t5 ? "rmsnorm" : "layernorm"))
      fail("model.norm", fmt::format("another norm than the usual one of family \"{}\" is not supported yet",
                                     name(m.family)));
    if (!t5) return;
    if (m.activation != Activation::relu)
      fail("model.activation", "family \"t5\" is supported with activation \"relu\" only, yet");
    if (m.bias) fail("model.bias", "family \"t5\" has no biases");
    if (m.max_positions != 0)
      fail("model.max_positions", "family \"t5\" has relative positions, not learned ones");
  }

  void read_topology() {
    TopologySpec& t = s_.topology;
    constexpr std::string_view what = "the topology";
    t.name = text("topology.name", "inline", "a topology without a name");
    t.source = text("topology.source", "", "none given");
    t.gpu = required<std::string>("topology.node.gpu", what);
    s_.gpu = read_gpu(library_.find("topologies/gpus", t.gpu, settings_.place("topology.node.gpu")));

    NodeSpec& node = t.node;
    node.gpus = static_cast<int>(required_int("topology.node.gpus", what));
    node.gpus_place = settings_.place("topology.node.gpus");
    if (node.gpus == 1) text("topology.node.intra", "nvswitch", "a single GPU has no links");
    node.intra = parse(required<std::string>("topology.node.intra", what),
                       {Intra::nvswitch, Intra::hybrid_cube_mesh, Intra::pcie, Intra::links});
    if (node.intra == Intra::hybrid_cube_mesh && node.gpus != 8)
      fail("topology.node.gpus", fmt::format("a hybrid cube mesh has 8 GPUs, not {}", node.gpus));
    read_links(node);
    node.gpus_per_pcie_switch =
        static_cast<int>(integer("topology.node.gpus_per_pcie_switch", 2, "as in DGX nodes"));
    node.nics = static_cast<int>(integer("topology.node.nics", 0, "no network"));
    if (node.nics > 0) read_network(t);
    make_node_shape(node, s_.gpu);  // complains about links that do not connect
  }

  void read_links(NodeSpec& node) {
    const int links = settings_.list_size("topology.node.link");
    if (node.intra != Intra::links) {
      if (links > 0) fail("topology.node.intra", "[[node.link]] needs intra = \"links\"");
      return;
    }
    if (links == 0) fail("topology.node.intra", "intra = \"links\" needs [[node.link]] entries");
    for (int i = 0; i < links; ++i) {
      const std::string prefix = fmt::format("topology.node.link[{}].", i);
      ExplicitLink link{.a = required<std::string>(prefix + "a", "a link"),
                        .b = required<std::string>(prefix + "b", "a link"),
                        .bandwidth = from_gb_per_s(required<double>(prefix + "gb_per_s", "a link")),
                        .place = settings_.place(prefix + "a")};
      for (const std::string& end : {link.a, link.b})
        if (end.starts_with("gpu") && !is_gpu(end, node.gpus))
          throw InputError(link.place, fmt::format("\"{}\" is not a GPU of the node; gpu0 to gpu{} are", end,
                                                   node.gpus - 1));
      node.links.push_back(std::move(link));
    }
  }
  static bool is_gpu(const std::string& device, int gpus) {
    for (int g = 0; g < gpus; ++g)
      if (device == fmt::format("gpu{}", g)) return true;
    return false;
  }

  void read_network(TopologySpec& t) {
    NodeSpec& node = t.node;
    node.nic = from_gb_per_s(required<double>("topology.node.nic_gbps", "a node with NICs") / 8);
    node.network_overhead =
        from_microseconds(number("topology.node.network_overhead_us", 1.0, "an Intel host"));
    node.transport = resolved_transport();
    FabricSpec& fabric = t.fabric;
    fabric.kind = parse(text("topology.fabric.kind", "single-switch", "one switch joins all nodes"),
                        {FabricKind::single_switch, FabricKind::fat_tree, FabricKind::rail_fat_tree});
    if (fabric.kind == FabricKind::single_switch) return;
    fabric.nodes_per_leaf =
        static_cast<int>(required_int("topology.fabric.nodes_per_leaf", "a fabric with leaves"));
    fabric.oversubscription = number("topology.fabric.oversubscription", 1.0, "full bisection");
  }

  // The constants of a named transport, those of a table, or those of a name with some replaced.
  Transport resolved_transport() {
    const std::string prefix = "topology.node.transport";
    constexpr std::string_view what = "a transport";
    const Setting* named = settings_.find(prefix);
    if (named == nullptr && !settings_.has_table(prefix))
      fail(prefix, "a node with NICs needs a \"transport\"");
    Transport t;
    t.name = named ? std::get<std::string>(named->value)
                   : text(prefix + ".name", "inline", "a transport without a name");
    if (named)
      t = read_transport(library_.find("topologies/transports", t.name, named->origin.place));
    else
      t.efficiency = required<double>(prefix + ".efficiency", what),
      t.half_rate_mib = required<double>(prefix + ".half_rate_mib", what);
    const std::string origin = named ? fmt::format("transport \"{}\"", t.name) : "";
    const auto or_reason = [&](const char* reason) { return named ? origin : std::string(reason); };
    t.efficiency = number(prefix + ".efficiency", t.efficiency, origin);
    t.efficiency_many_leaves =
        number(prefix + ".efficiency_many_leaves", t.efficiency_many_leaves, or_reason("no loss"));
    t.half_rate_mib = number(prefix + ".half_rate_mib", t.half_rate_mib, origin);
    t.hop_latency = from_microseconds(
        number(prefix + ".hop_latency_us", seconds(t.hop_latency) * 1e6, or_reason("none")));
    t.ll128 = flag(prefix + ".ll128", t.ll128, or_reason("NICs close to their GPUs"));
    return t;
  }

  void read_cluster() {
    const std::int64_t node = s_.topology.node.gpus;
    if (node == 1 && s_.topology.node.nics == 0)
      s_.gpus = integer("cluster.gpus", 1, "the topology has one");
    else
      s_.gpus = required_int("cluster.gpus", "[cluster]");
    if (s_.gpus > node && s_.gpus % node != 0)
      fail("cluster.gpus", fmt::format("{} GPUs do not fill nodes of {}; {} or {} do", s_.gpus, node,
                                       s_.gpus / node * node, (s_.gpus / node + 1) * node));
    if (s_.gpus > node && s_.topology.node.nics == 0)
      fail("cluster.gpus", fmt::format("{} GPUs need several nodes, but the nodes of \"{}\" have no NICs",
                                       s_.gpus, s_.topology.name));
  }

  // --- training
  // ---------------------------------------------------------------------------------------------

  // T5's span corruption: 15% of the tokens are noise, in spans of 3 on average; each span leaves one
  // sentinel in the input and one in the target, both end with EOS. (t5/data/preprocessors.py,
  // random_spans_helper)
  static std::int64_t span_corruption_targets(std::int64_t inputs) {
    const auto lengths = [](std::int64_t tokens) {
      const auto noise = static_cast<std::int64_t>(std::llround(static_cast<double>(tokens) * 0.15));
      const auto spans = static_cast<std::int64_t>(std::llround(static_cast<double>(noise) / 3.0));
      return std::pair(tokens - noise + spans + 1, noise + spans + 1);
    };
    auto tokens =
        static_cast<std::int64_t>(static_cast<double>(inputs) / 0.95);  // 1 - 0.15 + 0.05, from below
    tokens = std::max<std::int64_t>(1, std::min(tokens, inputs));
    while (lengths(tokens + 1).first <= inputs) ++tokens;
    return lengths(tokens).second;
  }

  void read_workload() {
    const bool encoder_decoder = entry(s_.model.family).encoder_decoder;
    const std::string usual = encoder_decoder ? "span-corruption" : "causal";
    if (text("training.objective", usual, "the family's usual") != usual)
      fail("training.objective",
           fmt::format("family \"{}\" is trained with objective \"{}\"", name(s_.model.family), usual));
    Workload& w = s_.workload;
    const std::int64_t positions = s_.model.max_positions;
    const std::int64_t usual_length = encoder_decoder ? 512 : positions > 0 ? positions : 2048;
    w.sequence = integer("training.sequence_length", usual_length,
                         positions > 0 ? "the model's positions" : "the family's usual");
    if (positions > 0 && w.sequence > positions)
      fail("training.sequence_length",
           fmt::format("sequences of {} tokens need as many positions; the model has {}", w.sequence,
                       positions));
    if (encoder_decoder)
      w.decoder_sequence = integer("training.decoder_sequence_length", span_corruption_targets(w.sequence),
                                   fmt::format("span corruption of {} tokens", w.sequence));
    else if (given("training.decoder_sequence_length"))
      fail("training.decoder_sequence_length",
           fmt::format("family \"{}\" has no decoder of its own", name(s_.model.family)));
    w.dropout = number("training.dropout", s_.model.dropout, "the model's");
  }

  std::int64_t tokens_per_sample() const { return s_.workload.sequence + s_.workload.decoder_sequence; }

  // micro_batch * grad_accum * gpus = global_batch: two of the three imply the third.
  void read_batch() {
    const std::string micro_key = "training.micro_batch", accum_key = "training.grad_accum";
    std::string global_key = "training.global_batch";
    std::optional<std::int64_t> global;
    if (given("training.global_batch")) global = required_int(global_key, "");
    if (given("training.global_batch_tokens")) {
      const std::int64_t tokens = required_int("training.global_batch_tokens", ""),
                         sample = tokens_per_sample();
      if (tokens % sample != 0)
        fail(
            "training.global_batch_tokens",
            fmt::format("{} tokens are not whole sequences of {}; {} or {} are", tokens, sample,
                        std::max<std::int64_t>(1, tokens / sample) * sample, (tokens / sample + 1) * sample));
      if (global && *global != tokens / sample)
        fail("training.global_batch_tokens", fmt::format("{} tokens are {} sequences, but global_batch is {}",
                                                         tokens, tokens / sample, *global));
      if (!global) global_key = "training.global_batch_tokens";
      global = tokens / sample;
    }
    std::int64_t micro = given(micro_key) ? required_int(micro_key, "") : 0;
    std::int64_t accum = given(accum_key) ? required_int(accum_key, "") : 0;
    if (global) {
      if (micro == 0) micro = divide(*global, accum == 0 ? 1 : accum, global_key, micro_key);
      if (accum == 0) accum = divide(*global, micro, global_key, accum_key);
      if (micro * accum * s_.gpus != *global)
        fail(global_key,
             fmt::format("a micro-batch of {}, {} micro-steps and {} GPUs make a global batch of {}, not {}",
                         micro, accum, s_.gpus, micro * accum * s_.gpus, *global));
    }
    const std::string implied = global ? "implied by the global batch" : "";
    s_.workload.micro_batch = integer(micro_key, micro == 0 ? 1 : micro, global ? implied : "the smallest");
    s_.training.micro_batches =
        integer(accum_key, accum == 0 ? 1 : accum, global ? implied : "no accumulation");
    s_.global_batch = s_.workload.micro_batch * s_.training.micro_batches * s_.gpus;
    s_.global_batch_tokens = s_.global_batch * tokens_per_sample();
    integer("training.global_batch", s_.global_batch, "micro_batch * grad_accum * gpus");
    integer("training.global_batch_tokens", s_.global_batch_tokens, "global_batch * tokens of a sequence");
  }
  std::int64_t divide(std::int64_t global, std::int64_t by, const std::string& global_key,
                      const std::string& missing) const {
    const std::int64_t unit = by * s_.gpus;
    if (global % unit != 0)
      fail(global_key,
           fmt::format("a global batch of {} sequences gives no whole {} on {} GPUs; {} or {} do", global,
                       missing.substr(9), s_.gpus, std::max<std::int64_t>(1, global / unit) * unit,
                       (global / unit + 1) * unit));
    return global / unit;
  }

  bool has(DType t) const { return s_.gpu.profile(t).has_value(); }

  void read_precision() {
    struct Precision {
      std::string name;
      DType multiply, compute;
    };
    const Precision known[] = {{"fp32", DType::fp32, DType::fp32},
                               {"tf32", DType::tf32, DType::fp32},
                               {"fp16-mixed", DType::fp16, DType::fp16},
                               {"bf16-mixed", DType::bf16, DType::bf16}};
    const std::string usual = has(DType::bf16) ? "bf16-mixed" : has(DType::fp16) ? "fp16-mixed" : "fp32";
    s_.precision = text("training.precision", usual, fmt::format("what {} is fastest in", s_.gpu.name));
    const Precision& p = *std::find_if(std::begin(known), std::end(known),
                                       [&](const auto& k) { return k.name == s_.precision; });
    if (!has(p.multiply)) {
      std::string legal;
      for (const Precision& k : known)
        if (has(k.multiply)) legal += (legal.empty() ? "" : ", ") + k.name;
      fail("training.precision",
           fmt::format("{} has no {} matrix units; legal here: {}", s_.gpu.name, name(p.multiply), legal));
    }
    const bool mixed = p.compute != DType::fp32;
    const bool fsdp = text("strategy.kind", "fsdp", "the strategy for models of any size") == "fsdp";
    Numerics& n = s_.workload.numerics;
    n.multiply = p.multiply;
    n.compute = p.compute;
    if (!mixed && given("training.mixed_precision"))
      fail("training.mixed_precision", fmt::format("precision \"{}\" mixes nothing", s_.precision));
    if (mixed) {
      const std::string usual_caster = fsdp ? "fsdp" : "autocast";
      const std::string caster =
          text("training.mixed_precision", usual_caster, fmt::format("{}'s usual", fsdp ? "FSDP" : "DDP"));
      if (caster == "fsdp" && !fsdp)
        fail("training.mixed_precision", "MixedPrecision on shards needs strategy.kind = \"fsdp\"");
      n.autocast = caster == "autocast";
    }
    n.parameter = mixed && !n.autocast ? p.compute : DType::fp32;
    const std::string reduce =
        text("training.reduce_precision", std::string(name(n.parameter)), "the format of the gradients");
    s_.training.reduce = parse(reduce, {DType::fp32, DType::bf16, DType::fp16});
    if (!fsdp && s_.training.reduce != DType::fp32)
      fail("training.reduce_precision", "DDP's compression hooks are not supported yet");
    s_.training.loss_scaling = s_.precision == "fp16-mixed";
  }

  void read_attention() {
    const auto legal = [&](AttentionKind kind) {
      if (kind == AttentionKind::unfused) return std::string();
      if (std::find(s_.stack.attention.begin(), s_.stack.attention.end(), kind) == s_.stack.attention.end())
        return fmt::format("stack \"{}\" has no \"{}\" attention", s_.stack.name, name(kind));
      if (s_.model.family == Family::t5)
        return fmt::format("\"{}\" attention cannot add T5's relative position bias", name(kind));
      if (s_.workload.numerics.compute == DType::fp32)
        return fmt::format("\"{}\" attention computes in 16 bits; precision is \"{}\"", name(kind),
                           s_.precision);
      if (std::none_of(s_.gpu.attention.begin(), s_.gpu.attention.end(),
                       [&](const auto& p) { return p.kind == kind; }))
        return fmt::format("\"{}\" attention does not run on {}", name(kind), s_.gpu.name);
      return std::string();
    };
    const std::string stack = text("training.stack", "eager-2023", "eager PyTorch of the GPU's generation");
    s_.stack = read_stack(library_.find("topologies/stacks", stack, settings_.place("training.stack")));
    AttentionKind best = AttentionKind::unfused;
    for (auto kind = s_.stack.attention.rbegin(); kind != s_.stack.attention.rend(); ++kind)
      if (legal(*kind).empty()) best = *kind;
    s_.workload.attention = parse(text("training.attention", std::string(name(best)), "the best legal one"),
                                  {AttentionKind::unfused, AttentionKind::flash, AttentionKind::flash2});
    if (const std::string why = legal(s_.workload.attention); !why.empty()) fail("training.attention", why);
  }

  void read_training() {
    Training& t = s_.training;
    t.optimizer =
        parse(text("training.optimizer", "adamw", "the usual"), {OptimizerKind::adamw, OptimizerKind::adam});
    t.optimizer_impl = parse(
        text("training.optimizer_impl", s_.stack.optimizer_impl, fmt::format("stack {}", s_.stack.name)),
        {OptimizerImpl::for_loop, OptimizerImpl::foreach, OptimizerImpl::fused});
    t.checkpointing = parse(text("training.activation_checkpointing", "none", "PyTorch's"),
                            {Checkpointing::none, Checkpointing::full});
    t.gradient_clipping = flag("training.gradient_clipping", true, "the usual");
    t.sync_each_step = flag("training.sync_each_step", true, "the loss is printed");
    flag("training.activation_offload", false, "PyTorch's");
    integer("training.loss_chunks", 1, "PyTorch's");
    flag("training.compile", false, "PyTorch's");
    flag("training.no_sync", false, "PyTorch's");
  }

  // --- strategy
  // ---------------------------------------------------------------------------------------------

  void read_strategy() {
    const std::string kind = std::get<std::string>(settings_.find("strategy.kind")->value);
    text("strategy.cpu_offload", "none", "PyTorch's");
    if (kind == "ddp")
      read_ddp();
    else
      read_fsdp();
  }

  void reject(std::initializer_list<const char*> keys, std::string_view kind) const {
    for (const char* key : keys)
      if (given(key))
        fail(key, fmt::format("{} has no option \"{}\"", kind, std::string_view(key).substr(9)));
  }

  void read_ddp() {
    reject({"strategy.sharding_factor", "strategy.reshard_after_forward", "strategy.backward_prefetch",
            "strategy.forward_prefetch", "strategy.limit_all_gathers", "strategy.use_orig_params",
            "strategy.wrap"},
           "DDP");
    Ddp ddp;
    ddp.bucket_cap = {std::llround(number("strategy.bucket_cap_mb", 25, "PyTorch's") * 1048576)};
    ddp.gradient_as_bucket_view = flag("strategy.gradient_as_bucket_view", false, "PyTorch's");
    s_.strategy = ddp;
    s_.strategy_name = "ddp";
  }

  void read_fsdp() {
    reject({"strategy.bucket_cap_mb", "strategy.gradient_as_bucket_view"}, "FSDP");
    Fsdp f;
    f.sharding_factor = sharding_factor();
    f.reshard_after_forward = flag("strategy.reshard_after_forward", true, "FULL_SHARD");
    f.backward_prefetch = parse(text("strategy.backward_prefetch", "pre", "PyTorch's"),
                                {BackwardPrefetch::pre, BackwardPrefetch::post, BackwardPrefetch::none});
    f.forward_prefetch = flag("strategy.forward_prefetch", false, "PyTorch's");
    f.limit_all_gathers = flag("strategy.limit_all_gathers", s_.stack.limit_all_gathers,
                               fmt::format("stack {}", s_.stack.name));
    f.use_orig_params = flag("strategy.use_orig_params", true, "recommended since PyTorch 2.1");
    f.wrap =
        parse(text("strategy.wrap", "block", "one unit per transformer block"), {Wrap::block, Wrap::model});
    s_.strategy = f;
    s_.strategy_name = fmt::format("fsdp F={}", f.sharding_factor);
  }

  std::int64_t sharding_factor() {
    const std::string key = "strategy.sharding_factor";
    if (!given(key)) return get<std::int64_t>(key, s_.gpus, "full sharding");
    const Scalar& value = settings_.find(key)->value;
    if (const auto* name = std::get_if<std::string>(&value))
      return *name == "full" ? s_.gpus : std::min<std::int64_t>(s_.gpus, s_.topology.node.gpus);
    const std::int64_t factor = std::get<std::int64_t>(value);
    if (factor < 1 || s_.gpus % factor != 0) {
      std::int64_t below = std::min(factor, s_.gpus), above = below;
      while (below > 1 && s_.gpus % below != 0) --below;
      while (above < s_.gpus && s_.gpus % above != 0) ++above;
      fail(key, below == above ? fmt::format("a sharding factor of {} does not divide {} GPUs; {} does",
                                             factor, s_.gpus, below)
                               : fmt::format("a sharding factor of {} does not divide {} GPUs; {} or {} do",
                                             factor, s_.gpus, below, above));
    }
    return factor;
  }

  // --- the rest
  // ---------------------------------------------------------------------------------------------

  void read_what_ifs() {
    const int stragglers = settings_.list_size("straggler");
    for (int i = 0; i < stragglers; ++i) {
      const std::string prefix = fmt::format("straggler[{}].", i);
      const std::int64_t gpu = required_int(prefix + "gpu", "a straggler");
      if (gpu >= s_.gpus)
        fail(prefix + "gpu",
             fmt::format("GPU {} does not exist; the job has GPUs 0 to {}", gpu, s_.gpus - 1));
      for (const Straggler& other : s_.stragglers)
        if (other.rank.index == gpu) fail(prefix + "gpu", fmt::format("GPU {} is a straggler twice", gpu));
      s_.stragglers.push_back(
          {{static_cast<std::int32_t>(gpu)}, required<double>(prefix + "compute_scale", "a straggler")});
    }
    text("network.detail", "fluid", "fast, and exact where transfers do not queue");
  }

  // The simulation counts in 64 bits; no real workload comes near.
  void check_sizes() const {
    const ModelSpec& m = s_.model;
    const Workload& w = s_.workload;
    const double tokens =
        static_cast<double>(w.micro_batch) * static_cast<double>(std::max(w.sequence, w.decoder_sequence));
    const double widest = static_cast<double>(std::max({m.ffn, m.vocab, 3 * m.heads * m.head_dim, m.hidden}));
    const double scores =
        tokens * static_cast<double>(std::max(w.sequence, w.decoder_sequence)) * static_cast<double>(m.heads);
    const double weights = widest * static_cast<double>(std::max(m.hidden, m.heads * m.head_dim));
    constexpr double elements_max = 1e14;
    if (tokens * widest > elements_max || scores > elements_max)
      fail("training.micro_batch", "the micro-batch makes tensors of more than 1e14 elements");
    const double layers =
        static_cast<double>(std::max<std::int64_t>(1, m.layers + m.encoder_layers + m.decoder_layers));
    if (weights * layers * 4 > elements_max) fail("model.hidden", "the model has more than 1e14 parameters");
    if (static_cast<double>(s_.gpus) * static_cast<double>(w.micro_batch) *
            static_cast<double>(s_.training.micro_batches) * static_cast<double>(tokens_per_sample()) >
        1e17)
      fail("training.global_batch", "the global batch has more than 1e17 tokens");
  }

  void collect_values() {
    const auto& all = settings_.all();
    std::uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a over "key=value\n"
    const auto add = [&](const std::string& key, const Setting& setting) {
      s_.values.push_back({key, setting.value, to_string(setting.origin)});
      for (const char c : key + "=" + to_string(setting.value) + "\n")
        hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
    };
    for (const KeySpec& spec : keys()) {
      const std::string key(spec.key);
      if (const std::size_t list = key.find("[]"); list != std::string::npos) {
        for (int i = 0; i < settings_.list_size(key.substr(0, list)); ++i) {
          const std::string element = key.substr(0, list) + fmt::format("[{}]", i) + key.substr(list + 2);
          if (const Setting* setting = settings_.find(element)) add(element, *setting);
        }
      } else if (const auto found = all.find(key); found != all.end()) {
        add(key, found->second);
      }
    }
    s_.hash = hash;
  }

  Settings settings_;  // grows by what files and defaults add
  const Library& library_;
  Scenario s_{};
};

}  // namespace

Scenario resolve(const Settings& settings, const Library& library) {
  return Resolver(settings, library).run();
}

}  // namespace shardsim
