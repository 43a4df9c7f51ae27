#include "sim/study/collective_table.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <numeric>

#include <fmt/format.h>

#include "sim/collective/plan.h"
#include "sim/engine/max_min.h"
#include "sim/scenario/scenario.h"
#include "sim/simulate/job.h"

namespace shardsim {
namespace {

std::string lower(const std::string& text) {
  std::string out;
  for (const char c : text) out += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}
// "all-gather", "All_Gather" and "allgather" are one word.
std::string plain(const std::string& text) {
  std::string out = lower(text);
  std::erase_if(out, [](char c) { return c == '-' || c == '_'; });
  return out;
}

// The value whose name this is, however it is written.
template <class Enum>
Enum named(const std::string& option, const std::string& text, std::initializer_list<Enum> values) {
  std::vector<std::string> names;
  for (const Enum v : values) {
    if (plain(std::string(name(v))) == plain(text)) return v;
    names.emplace_back(name(v));
  }
  std::string list;
  for (const std::string& n : names) list += (list.empty() ? "" : ", ") + n;
  const std::string near = nearest(text, names);
  throw InputError({option + " " + text},
                   near.empty() ? fmt::format("unknown; {} are known", list)
                                : fmt::format("unknown; did you mean \"{}\"? {} are known", near, list));
}

// --- sizes ------------------------------------------------------------------------------------------------

constexpr std::int64_t bytes_max = std::int64_t{1} << 50;
constexpr std::size_t sizes_max = 10'000;

// "8", "64K", "1M", "8G": nccl-tests' parser, in powers of 1024.
std::int64_t size_of(const std::string& text, const std::string& all) {
  std::int64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  int shift = -1;
  std::string unit = lower(std::string(rest, end));
  if (unit.size() == 2 && unit[1] == 'b') unit.pop_back();
  if (unit.size() == 3 && unit.ends_with("ib")) unit.resize(1);
  if (unit.empty() || unit == "b") shift = 0;
  if (unit == "k") shift = 10;
  if (unit == "m") shift = 20;
  if (unit == "g") shift = 30;
  if (unit == "t") shift = 40;
  if (error != std::errc{} || shift < 0)
    throw InputError(
        {"--sizes " + all},
        fmt::format("\"{}\" is not a size; bytes, or \"64K\", \"1M\", \"8G\" (powers of 1024) are "
                    "expected",
                    text));
  if (value < 1 || value > bytes_max >> shift)
    throw InputError({"--sizes " + all},
                     fmt::format("\"{}\" is not between 1 byte and {} TiB", text, bytes_max >> 40));
  return value << shift;
}

std::string trimmed(std::string text) {
  text.erase(0, text.find_first_not_of(" []"));
  text.erase(text.find_last_not_of(" []") + 1);
  return text;
}

// "1M..8G", "1M..8G x4", "1M..16M +1M", "1M,4M,16M".
std::vector<Bytes> read_sizes(const std::string& text, CollectiveResult& result) {
  std::vector<Bytes> sizes;
  const auto add = [&](std::int64_t bytes) {
    if (sizes.size() == sizes_max)
      throw InputError({"--sizes " + text}, fmt::format("has more than {} sizes", sizes_max));
    sizes.push_back({bytes});
  };
  if (const std::size_t dots = text.find(".."); dots != std::string::npos) {
    std::string high = trimmed(text.substr(dots + 2)), step = "x2";
    if (const std::size_t space = high.find(' '); space != std::string::npos) {
      step = trimmed(high.substr(space));
      high.resize(space);
    }
    const std::int64_t from = size_of(trimmed(text.substr(0, dots)), text), to = size_of(high, text);
    if (from > to) throw InputError({"--sizes " + text}, "starts above its end");
    result.step_factor = step[0] == 'x';
    const bool known = step[0] == 'x' || step[0] == '+';
    result.step = known ? size_of(step.substr(1), text) : 0;
    if (!known || (result.step_factor && result.step < 2))
      throw InputError({"--sizes " + text},
                       fmt::format("steps by \"{}\"; \"x2\" or \"+1M\" is expected", step));
    for (Wide v = from; v <= to; v = result.step_factor ? v * result.step : v + result.step)
      add(static_cast<std::int64_t>(v));
  } else {
    std::string rest = trimmed(text);
    while (!rest.empty()) {
      const std::size_t comma = std::min(rest.find(','), rest.size());
      add(size_of(trimmed(rest.substr(0, comma)), text));
      rest.erase(0, comma + 1);
    }
    if (sizes.empty()) throw InputError({"--sizes"}, "no size is given");
  }
  result.bytes_min = *std::min_element(sizes.begin(), sizes.end());
  result.bytes_max = *std::max_element(sizes.begin(), sizes.end());
  return sizes;
}

// --- elements ---------------------------------------------------------------------------------------------

struct ElementType {
  std::string_view name;  // as nccl-tests prints it
  std::string_view alias;
  std::int64_t bytes;
};
constexpr ElementType element_types[] = {{"int8", "", 1},         {"uint8", "", 1},     {"int32", "", 4},
                                         {"uint32", "", 4},       {"int64", "", 8},     {"uint64", "", 8},
                                         {"half", "fp16", 2},     {"float", "fp32", 4}, {"double", "fp64", 8},
                                         {"bfloat16", "bf16", 2}, {"f8e4m3", "fp8", 1}, {"f8e5m2", "", 1}};

const ElementType& element_type(const std::string& text) {
  std::vector<std::string> names;
  for (const ElementType& t : element_types) {
    if (text == t.name || text == t.alias) return t;
    names.emplace_back(t.name);
  }
  throw InputError({"--datatype " + text}, "unknown" + suggestion(text, names));
}

// Bytes and count that nccl-tests makes of a size. An all-gather's and a reduce-scatter's parts are whole
// multiples of 16 bytes. (NVIDIA/nccl-tests src/all_gather.cu, reduce_scatter.cu)
void shape(CollectiveLine& line, CollectiveKind kind, Bytes asked, const ElementType& type, int ranks) {
  const std::int64_t elements = asked.count / type.bytes;
  if (kind == CollectiveKind::all_reduce) {
    line.count = elements;
    line.bytes = {elements * type.bytes};
  } else {
    line.count = elements / ranks / (16 / type.bytes) * (16 / type.bytes);
    line.bytes = {line.count * ranks * type.bytes};
  }
  if (line.count == 0)
    throw InputError({"--sizes"}, fmt::format("{} bytes are too few for an {} of {} over {} ranks",
                                              asked.count, name(kind), type.name, ranks));
}

// --- groups -----------------------------------------------------------------------------------------------

Scenario cluster(const CollectiveQuery& query, std::int64_t gpus, const std::string& option,
                 const Library& library) {
  Settings settings;
  settings.scenario = {"the command line"};
  const auto origin = [](const std::string& place) { return Origin{Origin::Kind::flag, {place}, {}}; };
  settings.set("topology", query.topology, origin("--topology " + query.topology));
  settings.set("cluster.gpus", gpus, origin(option));
  settings.set("model", std::string("gpt2"), origin("the command line"));  // any: nothing of it is run
  if (!query.stack.empty()) settings.set("training.stack", query.stack, origin("--stack " + query.stack));
  return resolve(settings, library);
}

Axis axis_named(const std::string& text) {
  if (text == "world") return Axis::world;
  if (text == "shard") return Axis::shard;
  if (text == "replica") return Axis::replica;
  throw InputError({"--axis " + text}, "unknown; world, shard and replica are known");
}

Plan choose(const CollectiveQuery& query, const CollectiveModel& model, const RingFabric& fabric,
            CollectiveKind kind, Bytes bytes) {
  std::optional<Algorithm> algorithm;
  std::optional<Protocol> protocol;
  if (!query.algorithm.empty())
    algorithm = named<Algorithm>("--algorithm", query.algorithm,
                                 {Algorithm::ring, Algorithm::tree, Algorithm::nvls, Algorithm::nvls_tree});
  if (!query.protocol.empty())
    protocol =
        named<Protocol>("--protocol", query.protocol, {Protocol::ll, Protocol::ll128, Protocol::simple});
  std::optional<Plan> best;
  std::string known;
  for (const Plan& p : candidates(model, fabric, kind, bytes)) {
    known += fmt::format("{}{} {}", known.empty() ? "" : ", ", name(p.algorithm), name(p.protocol));
    if ((algorithm && p.algorithm != *algorithm) || (protocol && p.protocol != *protocol)) continue;
    if (!best || p.alone() < best->alone()) best = p;
  }
  if (!best)
    throw InputError({(algorithm ? "--algorithm " + query.algorithm : "") +
                      (algorithm && protocol ? " " : "") + (protocol ? "--protocol " + query.protocol : "")},
                     fmt::format("NCCL has no such {} in a group of {} GPUs on {} nodes; it has {}",
                                 name(kind), fabric.ranks, fabric.nodes, known));
  return *best;
}

std::int64_t weight(const ChannelsOnLink& on, LinkClass kind, LinkLoad load) {
  const bool twice = load == (kind == LinkClass::nvlink ? LinkLoad::node_twice : LinkLoad::network_twice);
  return twice ? 2 * on.channels : on.channels;
}

// The groups of an axis, all at work on the same collective.
class Groups {
 public:
  Groups(const Topology& topology, const Mesh& mesh, Axis axis) : topology_(topology) {
    for (const auto& group : members(mesh, axis)) fabrics_.push_back(ring_fabric(topology, group));
    for (int l = 0; l < topology.links(); ++l) capacity_.push_back(topology.capacity({l}));
  }
  const std::vector<RingFabric>& fabrics() const { return fabrics_; }

  // Of each group. They start together and differ little, so each keeps its first share to its end.
  std::vector<Bandwidth> rates(const std::vector<Plan>& plans) {
    std::vector<std::vector<LinkShare>> shares(plans.size());
    std::vector<Flow> flows;
    for (std::size_t g = 0; g < plans.size(); ++g) {
      for (const ChannelsOnLink& on : fabrics_[g].links)
        shares[g].push_back({on.link.index, weight(on, topology_.link_class(on.link), plans[g].load)});
      flows.push_back({plans[g].channels, plans[g].cap, shares[g]});
    }
    const auto solved = solver_.solve(capacity_, flows);
    return {solved.begin(), solved.end()};
  }

 private:
  const Topology& topology_;
  std::vector<RingFabric> fabrics_;
  std::vector<Bandwidth> capacity_;
  MaxMin solver_;
};

Mesh mesh_of(const CollectiveQuery& query, const Scenario& s, Axis axis) {
  Mesh mesh{.world = s.gpus};
  if (axis == Axis::world) {
    if (query.sharding_factor)
      throw InputError({fmt::format("--sharding-factor {}", *query.sharding_factor)},
                       "goes with --axis shard or --axis replica");
    return mesh;
  }
  mesh.shard = query.sharding_factor.value_or(s.topology.node.gpus);
  if (mesh.shard < 1 || s.gpus % mesh.shard != 0)
    throw InputError({fmt::format("--sharding-factor {}", mesh.shard)},
                     fmt::format("does not divide {} GPUs", s.gpus));
  return mesh;
}

CollectiveTable table(const CollectiveQuery& query, const Scenario& s, CollectiveKind kind,
                      const std::vector<Bytes>& sizes, const ElementType& type) {
  const Axis axis = axis_named(query.axis);
  const Topology topology(s.topology, s.gpu, static_cast<int>(s.gpus));
  Groups groups(topology, mesh_of(query, s, axis), axis);
  const CollectiveModel model{s.stack.nccl, s.gpu.architecture, s.topology.node.transport,
                              s.topology.node.network_overhead};
  const RingFabric& first = groups.fabrics().front();
  if (first.ranks < 2)
    throw InputError({fmt::format("--gpus {}", s.gpus)},
                     axis == Axis::world
                         ? "a collective needs two GPUs"
                         : fmt::format("the groups of axis {} have one GPU each", query.axis));
  CollectiveTable result{.gpus = s.gpus,
                         .groups = static_cast<int>(groups.fabrics().size()),
                         .ranks = first.ranks,
                         .nodes = first.nodes,
                         .lines = {}};
  for (const Bytes asked : sizes) {
    CollectiveLine line;
    shape(line, kind, asked, type, first.ranks);
    std::vector<Plan> plans;
    for (const RingFabric& fabric : groups.fabrics())
      plans.push_back(choose(query, model, fabric, kind, line.bytes));
    const std::vector<Bandwidth> rates = groups.rates(plans);
    for (std::size_t g = 0; g < plans.size(); ++g) {
      const Plan& plan = plans[g];
      const Time time = plan.latency + plan.wire / rates[g];
      if (g > 0 && time <= line.time) continue;  // the slowest is shown
      line.time = time;
      line.latency = plan.latency;
      line.bus = plan.bus;
      line.wire = plan.wire;
      line.rate = rates[g];
      line.algorithm = name(plan.algorithm);
      line.protocol = name(plan.protocol);
      line.channels = plan.sms;
    }
    result.lines.push_back(std::move(line));
  }
  return result;
}

}  // namespace

double CollectiveTable::average_bus_gb_per_s() const {
  double sum = 0;
  for (const CollectiveLine& line : lines) sum += line.bus_gb_per_s();
  return sum / static_cast<double>(lines.size());
}

CollectiveResult collective_table(const CollectiveQuery& query, const Library& library) {
  if (query.topology.empty())
    throw InputError({"collective"}, "needs a --topology; `shardsim show topologies` lists them");
  CollectiveResult result;
  result.kind = named<CollectiveKind>(
      "--kind", query.kind,
      {CollectiveKind::all_gather, CollectiveKind::reduce_scatter, CollectiveKind::all_reduce});
  const ElementType& type = element_type(query.datatype);
  const std::vector<Bytes> sizes = read_sizes(query.sizes, result);
  std::vector<std::pair<std::int64_t, std::string>> gpus;  // and the option that says so
  if (query.gpus.empty()) {
    const Scenario one = cluster(query, 1, "--gpus", library);
    gpus.emplace_back(one.topology.node.gpus, "--gpus");
  } else {
    const std::string option = "--gpus " + query.gpus;
    for (const SweepAxis::Point& p : read_axis_text("cluster.gpus", query.gpus, {option}).points)
      gpus.emplace_back(std::get<std::int64_t>(p.sets.front().second), option);
  }
  for (const auto& [count, option] : gpus) {
    const Scenario s = cluster(query, count, option, library);
    result.topology = s.topology.name;
    result.gpu = s.gpu.name;
    result.stack = s.stack.name;
    result.tables.push_back(table(query, s, result.kind, sizes, type));
  }
  result.datatype = type.name;
  result.axis = query.axis;
  return result;
}

}  // namespace shardsim
