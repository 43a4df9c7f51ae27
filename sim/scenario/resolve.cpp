#include <filesystem>
#include <set>

#include "sim/scenario/resolver.h"

namespace shardsim {
namespace {

constexpr int parts_max = 64;
constexpr std::int64_t gpus_max = 4194304;

}  // namespace

Scenario Resolver::run() {
  s_.gpus = 0;
  check_lists();
  read_overlay();
  read_library_tables();
  read_model();
  read_topology();
  read_cluster();
  read_workload();
  read_batch();
  read_stack();
  read_precision();
  read_attention();
  read_training();
  read_strategy();
  read_allocator();
  read_what_ifs();
  check_sizes();
  collect_values();
  return std::move(s_);
}

// On the command line the elements of a list have numbers: 0, 1, ... without gaps.
void Resolver::check_lists() const {
  for (const auto& [key, setting] : settings_.all()) {
    const std::size_t open = key.find('['), close = key.find(']');
    if (open == std::string::npos) continue;
    const std::string list = key.substr(0, open);
    const int size = settings_.list_size(list);
    bool known = false;
    for (int i = 0; i < size; ++i)
      known = known || key.substr(0, close + 1) == fmt::format("{}[{}]", list, i);
    if (!known) fail(key, fmt::format("there is no {}[{}] before {}", list, size, key.substr(0, close + 1)));
  }
}

// A path from here, or from the folder of the scenario.
void Resolver::read_overlay() {
  const Setting* named = settings_.find("overlay");
  if (named == nullptr) return;
  namespace fs = std::filesystem;
  const std::string path = std::get<std::string>(named->value);
  const fs::path beside = fs::path(named->origin.place.source).parent_path() / path;
  std::error_code error;
  const bool is_beside = !fs::exists(path, error) && fs::exists(beside, error);
  if (!is_beside && !fs::exists(path, error))
    fail("overlay", fmt::format("overlay = \"{}\" cannot be read: no such file", path));
  overlays_.overlays.insert(overlays_.overlays.begin(),
                            shardsim::read_overlay(is_beside ? beside.string() : path, library_));
}

// A name stands for the keys of its file; explicit keys of the scenario win over them.
void Resolver::read_library_tables() {
  read_library_table("model", "models");
  const int count = parts();
  if (count > parts_max)
    fail(part_key(parts_max), fmt::format("{} parts are more than {}", count, parts_max));
  for (int p = 0; p < count; ++p) read_library_table(part_key(p) + ".topology", "topologies");
  if (count == 0 || given("topology")) read_library_table("topology", "topologies");
  settle_tables_of_parts();
}

void Resolver::read_library_table(const std::string& key, std::string_view kind) {
  if (const Setting* named = settings_.find(key)) {
    const std::string path = library_.find(kind, std::get<std::string>(named->value), named->origin.place);
    if (path == settings_.scenario.source) fail(key, fmt::format("{} = \"{}\" is this very file", key, path));
    add_library_file(settings_, path, key);
    if (key.ends_with("topology"))
      for (const Overlay& overlay : overlays_.overlays)
        add_topology_overlay(settings_, overlay, std::filesystem::path(path).stem().string(), key);
  } else if (!settings_.has_table(key)) {
    const std::vector<std::string> known = library_.names(kind);
    std::string list;
    for (const std::string& name : known) list += (list.empty() ? "; known: " : ", ") + name;
    const std::size_t dot = key.rfind('.');
    fail(key, dot == std::string::npos
                  ? fmt::format("the scenario needs a \"{}\"{}", key, list)
                  : fmt::format("{} needs a \"{}\"{}", key.substr(0, dot), key.substr(dot + 1), list));
  }
}

// In a mixed cluster, the parts say what nodes there are, and the one topology says what joins them: its own
// fabric, else that of the first part.
void Resolver::settle_tables_of_parts() {
  const auto explicit_key = [&](const std::string& prefix) -> const std::string* {
    for (const auto& [key, setting] : settings_.all())
      if (key.starts_with(prefix) && setting.origin.kind > Origin::Kind::library) return &key;
    return nullptr;
  };
  const int count = parts();
  std::set<std::string> known;
  for (int p = 0; p < count; ++p) known.insert(part_key(p));
  for (const auto& [key, setting] : settings_.all())
    if (const std::string part = key.substr(0, key.find('.', std::string_view("cluster.").size()));
        part.starts_with("cluster.part[") && !known.contains(part))
      fail(key, fmt::format("there is no {} before {}", part_key(count), part));
  if (count == 0) return;
  if (const std::string* key = explicit_key("topology.node"))
    fail(*key, fmt::format("nodes of a mixed cluster are those of its parts; {} is expected",
                           part_key(0) + "." + *key));
  settings_.drop("topology.node");
  if (given("topology"))  // only its fabric counts
    for (const char* key : {"topology.name", "topology.source"})
      if (explicit_key(key) == nullptr) settings_.drop(key);
  for (int p = 0; p < count; ++p) {
    const std::string fabric = part_key(p) + ".topology.fabric";
    if (const std::string* key = explicit_key(fabric);
        key != nullptr && (p > 0 || given("topology") || settings_.has_table("topology.fabric")))
      fail(*key, "the parts are joined by one fabric, that of \"topology\", or of the first part");
    if (p == 0 && !given("topology"))
      for (const auto& [key, setting] : std::map(settings_.all()))
        if (key.starts_with(fabric + "."))
          settings_.set(key.substr(key.find("topology")), setting.value, setting.origin);
    settings_.drop(fabric);
  }
  if (const Setting* first = settings_.find(part_key(0) + ".topology"))
    text("topology", std::get<std::string>(first->value), "the fabric of the first part");
}

void Resolver::check_nodes_are_filled(const std::string& key, std::int64_t gpus,
                                      const TopologySpec& t) const {
  const std::int64_t node = t.node.gpus;
  if (gpus > node && gpus % node != 0)
    fail(key, fmt::format("{} GPUs do not fill nodes of {}; {} or {} do", gpus, node, gpus / node * node,
                          (gpus / node + 1) * node));
  if (gpus > node && t.node.nics == 0)
    fail(key, fmt::format("{} GPUs need several nodes, but the nodes of \"{}\" have no NICs", gpus, t.name));
}

void Resolver::read_parts() {
  std::int64_t sum = 0;
  std::string terms;
  for (std::size_t p = 0; p < s_.parts.size(); ++p) {
    ClusterPart& part = s_.parts[p];
    const std::string name = part_key(static_cast<int>(p)), key = name + ".gpus";
    part.gpus = required_int(key, name);
    check_nodes_are_filled(key, part.gpus, part.topology);
    if (s_.parts.size() > 1 && part.topology.node.nics == 0)
      fail(name + ".topology", fmt::format("a network joins the parts, but the nodes of \"{}\" have no NICs",
                                           part.topology.name));
    sum += part.gpus;
    terms += (p == 0 ? "" : " + ") + fmt::format("{}", part.gpus);
  }
  if (sum > gpus_max)
    fail("cluster.part[0].gpus", fmt::format("{} = {} GPUs are more than {}", terms, sum, gpus_max));
  s_.gpus = integer("cluster.gpus", sum, "the sum of the parts");
  if (s_.gpus != sum)
    fail("cluster.gpus", fmt::format("cluster.gpus is {}, but the parts have {} = {}", s_.gpus, terms, sum));
}

void Resolver::read_cluster() {
  if (!s_.parts.empty()) return read_parts();
  const std::int64_t node = s_.topology.node.gpus;
  if (node == 1 && s_.topology.node.nics == 0)
    s_.gpus = integer("cluster.gpus", 1, "the topology has one");
  else
    s_.gpus = required_int("cluster.gpus", "[cluster]");
  check_nodes_are_filled("cluster.gpus", s_.gpus, s_.topology);
}

void Resolver::read_what_ifs() {
  const int stragglers = settings_.list_size("straggler");
  for (int i = 0; i < stragglers; ++i) {
    const std::string prefix = fmt::format("straggler[{}].", i);
    const std::int64_t gpu = required_int(prefix + "gpu", "a straggler");
    if (gpu >= s_.gpus)
      fail(prefix + "gpu", fmt::format("GPU {} does not exist; the job has GPUs 0 to {}", gpu, s_.gpus - 1));
    for (const Straggler& other : s_.stragglers)
      if (other.rank.index == gpu) fail(prefix + "gpu", fmt::format("GPU {} is a straggler twice", gpu));
    s_.stragglers.push_back(
        {{static_cast<std::int32_t>(gpu)}, required<double>(prefix + "compute_scale", "a straggler")});
  }
  read_jitter();
  read_degraded_links();
  read_background_jobs();
  s_.detail = parse(text("network.detail", "fluid", "fast, and exact where transfers do not queue"),
                    {NetworkDetail::fluid, NetworkDetail::chunk});
}

void Resolver::read_jitter() {
  // GPUs of one kind differ by 2 to 3% from the slowest to the fastest (power, temperature), one GPU's steps
  // by 0.4 to 0.8%. Engineering estimate within what MosaicML's runs lose from 16 to 128 A100s beyond
  // communication.
  constexpr double usual = 0.01;
  const double of_topology =
      number("topology.fabric.step_jitter", usual, "GPUs differ by 2 to 3%, steps by less: an estimate");
  s_.topology.fabric.step_jitter = of_topology;
  s_.jitter.step_sigma = number("jitter.step_sigma", of_topology, "the topology's step_jitter");
  s_.jitter.mode = parse(text("jitter.mode", "expected-maximum", "the mean over many steps, and folded"),
                         {Jitter::Mode::expected_maximum, Jitter::Mode::sampled});
  if (s_.jitter.mode == Jitter::Mode::sampled)
    s_.jitter.seed = static_cast<std::uint64_t>(integer("jitter.seed", 1, "any will do"));
  else if (given("jitter.seed"))
    fail("jitter.seed", "nothing is drawn unless jitter.mode = \"sampled\"");
}

// The simulation counts in 64 bits; no real workload comes near.
void Resolver::check_sizes() const {
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

void Resolver::collect_values() {
  const auto& all = settings_.all();
  std::uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a over "key=value\n"
  const auto hashed = [&](const std::string& key, const Scalar& value) {
    for (const char c : key + "=" + to_string(value) + "\n")
      hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  };
  const auto add = [&](const std::string& key, const Setting& setting) {
    s_.values.push_back({key, setting.value, to_string(setting.origin)});
    if (key != "overlay") hashed(key, setting.value);  // what it changes counts, not where it stands
  };
  const auto add_all = [&](const std::string& key) {
    if (const std::size_t list = key.find("[]"); list != std::string::npos) {
      for (int i = 0; i < settings_.list_size(key.substr(0, list)); ++i) {
        const std::string element = key.substr(0, list) + fmt::format("[{}]", i) + key.substr(list + 2);
        if (const Setting* setting = settings_.find(element)) add(element, *setting);
      }
    } else if (const auto found = all.find(key); found != all.end()) {
      add(key, found->second);
    }
  };
  for (const KeySpec& spec : keys()) {
    if (spec.key != "cluster.part[].topology") {
      add_all(std::string(spec.key));
      continue;
    }
    for (int p = 0, count = parts(); p < count; ++p)
      for (const KeySpec& of_topology : keys())
        if (of_topology.key.starts_with("topology"))
          add_all(part_key(p) + "." + std::string(of_topology.key));
  }
  for (const OverlaidConstant& c : overlays_.in_force) {
    s_.values.push_back({"overlay." + c.key, c.value,
                         fmt::format("{}, in place of {}", to_string(c.place), to_string(c.before))});
    hashed(c.key, c.value);
  }
  s_.hash = hash;
}

Scenario resolve(const Settings& settings, const Library& library, const Overlay& overlay) {
  return Resolver(settings, library, overlay).run();
}

}  // namespace shardsim
