#include "sim/network/chunk_network.h"

#include <algorithm>
#include <limits>
#include <map>

#include "sim/base/check.h"

namespace shardsim {
namespace {

// What would end later ends then: far beyond what the simulation accepts, and sums still fit.
constexpr Time never{std::int64_t{1} << 62};
constexpr std::int64_t background_unit = 64 << 10;  // bytes per flow until there is traffic to queue with

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

// Of weight / channels of so many bytes.
Time time_on(Bytes bytes, std::int64_t weight, std::int64_t channels, Bandwidth capacity) {
  const Wide divisor = Wide{capacity.count} * channels;
  return work_time((Wide{bytes.count} * weight * picoseconds_per_second + divisor - 1) / divisor);
}

struct User {
  std::int32_t stream;
  std::int64_t weight, channels;
};

// Whether every user needs `a` for no longer than `b`. Requires: the same users.
bool no_slower(const std::vector<User>& a, Bandwidth capacity_a, const std::vector<User>& b,
               Bandwidth capacity_b) {
  for (std::size_t i = 0; i < a.size(); ++i)
    if (Wide{a[i].weight} * capacity_b.count > Wide{b[i].weight} * capacity_a.count) return false;
  return true;
}

}  // namespace

ChunkNetwork::ChunkNetwork(std::vector<Bandwidth> capacity, const std::vector<MessagePattern>& patterns,
                           const std::vector<Background>& background) {
  for (const MessagePattern& pattern : patterns) {
    Run run;
    run.channels = pattern.channels;
    run.lag = pattern.lag;
    run.cut_through = pattern.cut_through;
    run.first = static_cast<std::int32_t>(streams_.size());
    std::vector<std::vector<std::int32_t>> targets(pattern.streams.size());
    for (std::size_t s = 0; s < pattern.streams.size(); ++s)
      for (const int from : pattern.streams[s].sources)
        targets[at(from)].push_back(run.first + static_cast<std::int32_t>(s));
    for (std::size_t s = 0; s < pattern.streams.size(); ++s) {
      StreamState state{};
      state.run = static_cast<std::int32_t>(runs_.size());
      state.between_nodes = pattern.streams[s].between_nodes;
      state.sources = static_cast<std::int32_t>(neighbours_.size());
      for (const int from : pattern.streams[s].sources) neighbours_.push_back(run.first + from);
      state.sources_end = state.targets = static_cast<std::int32_t>(neighbours_.size());
      neighbours_.insert(neighbours_.end(), targets[s].begin(), targets[s].end());
      state.targets_end = static_cast<std::int32_t>(neighbours_.size());
      streams_.push_back(state);
    }
    run.last = static_cast<std::int32_t>(streams_.size());
    runs_.push_back(run);
  }
  reduce_links(patterns, background, capacity);
  queue_ = TimeBuckets(streams_.size() + others_.size());
  for (std::size_t o = 0; o < others_.size(); ++o)
    queue_.push(static_cast<std::int32_t>(streams_.size() + o), Time{});
}

// Keeps the links at which somebody can have to wait.
void ChunkNetwork::reduce_links(const std::vector<MessagePattern>& patterns,
                                const std::vector<Background>& background,
                                const std::vector<Bandwidth>& capacity) {
  std::vector<std::vector<User>> users(capacity.size());
  std::int32_t stream = 0;
  for (const MessagePattern& pattern : patterns)
    for (const MessageStream& s : pattern.streams) {
      for (const LinkShare& share : s.links)
        users[at(share.link)].push_back({stream, share.weight, pattern.channels});
      ++stream;
    }
  std::vector<char> shared(capacity.size(), 0), kept(capacity.size(), 0);
  for (const Background& b : background) shared[at(b.link)] = kept[at(b.link)] = 1;
  std::map<std::vector<std::int32_t>, std::vector<std::size_t>> alike;  // links by their users
  for (std::size_t l = 0; l < capacity.size(); ++l) {
    if (shared[l] || users[l].empty()) continue;
    if (users[l].size() == 1) {
      StreamState& only = streams_[at(users[l].front().stream)];
      const std::int64_t weight = users[l].front().weight;
      if (only.own_weight == 0 ||
          Wide{weight} * only.own_capacity.count > Wide{only.own_weight} * capacity[l].count)
        only.own_weight = weight, only.own_capacity = capacity[l];
      continue;
    }
    std::vector<std::int32_t> who;
    for (const User& user : users[l]) who.push_back(user.stream);
    std::vector<std::size_t>& rivals = alike[who];
    const auto holds_up = [&](std::size_t a, std::size_t b) {
      return no_slower(users[b], capacity[b], users[a], capacity[a]);
    };
    if (std::any_of(rivals.begin(), rivals.end(), [&](std::size_t other) { return holds_up(other, l); }))
      continue;
    std::erase_if(rivals, [&](std::size_t other) {
      if (!holds_up(l, other)) return false;
      kept[other] = 0;
      return true;
    });
    rivals.push_back(l);
    kept[l] = 1;
  }
  std::vector<std::int32_t> number(capacity.size(), -1);
  for (std::size_t l = 0; l < capacity.size(); ++l) {
    if (!kept[l]) continue;
    number[l] = static_cast<std::int32_t>(links_.size());
    links_.push_back({.free = {}, .unit = 0, .capacity = capacity[l]});
  }
  stream = 0;
  for (const MessagePattern& pattern : patterns)
    for (const MessageStream& s : pattern.streams) {
      StreamState& state = streams_[at(stream++)];
      state.crossings = static_cast<std::int32_t>(crossings_.size());
      for (const LinkShare& share : s.links)
        if (number[at(share.link)] >= 0) crossings_.push_back({number[at(share.link)], share.weight, {}});
      state.crossings_end = static_cast<std::int32_t>(crossings_.size());
    }
  for (const Background& b : background) others_.push_back({number[at(b.link)], b.flows, b.rate});
}

void ChunkNetwork::start(PatternId pattern, const MessageLoad& load, Time now) {
  Run& run = runs_[at(pattern.index)];
  require(!run.running && load.bytes.count > 0 && load.chunk.count > 0 && load.messages > 0,
          "a pattern carries one transfer at a time");
  const std::int64_t rounds = (load.bytes.count + load.chunk.count - 1) / load.chunk.count;
  require(rounds * load.messages < std::numeric_limits<std::int32_t>::max(),
          "messages are counted in 32 bits");
  run.running = true;
  run.total = static_cast<std::int32_t>(rounds * load.messages);
  run.in_first_round = load.messages;
  run.before_last_round = run.total - load.messages;
  run.bytes = {load.chunk, load.bytes - load.chunk * (rounds - 1)};
  run.open = run.last - run.first;
  run.end = now;
  set_pace(pattern, load.pace);
  for (std::int32_t s = run.first; s < run.last; ++s) {
    StreamState& state = streams_[at(s)];
    state.done = 0;
    state.free = now;
    state.latency = state.between_nodes ? load.between : load.inside;
    state.arrived.fill(0);
    state.held_back = false;
    for (std::size_t z = 0; z < sizes; ++z) {
      state.own_time[z] = state.own_weight == 0
                              ? Time{}
                              : time_on(run.bytes[z], state.own_weight, run.channels, state.own_capacity);
      for (std::int32_t c = state.crossings; c < state.crossings_end; ++c)
        crossings_[at(c)].time[z] = time_on(run.bytes[z], crossings_[at(c)].weight, run.channels,
                                            links_[at(crossings_[at(c)].link)].capacity);
    }
  }
  if (running_++ == 0) resumed_ = now;
  for (std::int32_t s = run.first; s < run.last; ++s) try_queue(s, now);
}

void ChunkNetwork::set_pace(PatternId pattern, Bandwidth pace) {
  Run& run = runs_[at(pattern.index)];
  for (std::size_t z = 0; z < sizes; ++z) run.time[z] = run.bytes[z] / pace;
}

std::span<const ChunkNetwork::Completion> ChunkNetwork::advance(std::optional<Time> until) {
  ended_.clear();
  Time limit = until.value_or(Time{std::numeric_limits<std::int64_t>::max()});
  const auto streams = static_cast<std::int32_t>(streams_.size());
  while (running_ > 0 && !queue_.empty() && queue_.next() <= limit) {
    const Time now = queue_.next();
    const std::size_t before = ended_.size();
    queue_.take([&](std::int32_t item) {
      if (item < streams)
        send(item, now);
      else
        send_background(others_[at(item - streams)], item, now);
    });
    for (std::size_t i = before; i < ended_.size(); ++i) limit = std::min(limit, ended_[i].at);
  }
  return ended_;
}

// The next message of the stream goes to its links.
void ChunkNetwork::send(std::int32_t stream, Time now) {
  StreamState& s = streams_[at(stream)];
  Run& run = runs_[at(s.run)];
  const std::int32_t k = s.done++;
  s.queued = false;
  ++messages_;
  const std::size_t size = k < run.before_last_round ? 0 : 1;
  Time end = std::min(never, now + std::max(run.time[size], s.own_time[size]));
  for (std::int32_t c = s.crossings; c < s.crossings_end; ++c) {
    const Crossing& crossing = crossings_[at(c)];
    Link& link = links_[at(crossing.link)];
    link.free = std::min(never, std::max(link.free, now) + crossing.time[size]);
    end = std::max(end, link.free);
    if (!others_.empty()) link.unit = run.bytes[size].count / run.channels;
  }
  s.free = end;
  s.arrived[at((k - run.lag) & (window - 1))] = 0;
  const Time there = k < run.in_first_round || run.cut_through ? end + s.latency : end;
  run.end = std::max(run.end, there);
  for (std::int32_t t = s.targets; t < s.targets_end; ++t) {
    deliver(streams_[at(neighbours_[at(t)])], k, there);
    try_queue(neighbours_[at(t)], now);
  }
  for (std::int32_t f = s.sources; f < s.sources_end; ++f)
    if (streams_[at(neighbours_[at(f)])].held_back) try_queue(neighbours_[at(f)], now);
  if (s.done < run.total) {
    try_queue(stream, now);
  } else if (--run.open == 0) {
    run.running = false;
    --running_;
    ended_.push_back({{s.run}, run.end});
  }
}

void ChunkNetwork::deliver(StreamState& to, int message, Time when) {
  const std::size_t slot = at(message & (window - 1));
  to.arrival[slot] = to.arrived[slot]++ == 0 ? when : std::max(to.arrival[slot], when);
}

// Plans the stream's next message, if everything it waits for is known.
void ChunkNetwork::try_queue(std::int32_t stream, Time now) {
  StreamState& s = streams_[at(stream)];
  const Run& run = runs_[at(s.run)];
  if (s.queued || s.done == run.total) return;
  Time ready = std::max(s.free, now);
  if (const std::int32_t from = s.done - run.lag; from >= 0 && s.sources != s.sources_end) {
    const std::size_t slot = at(from & (window - 1));
    if (s.arrived[slot] < s.sources_end - s.sources) return;
    const Time overlap = run.cut_through ? run.time[s.done < run.before_last_round ? 0 : 1] : Time{};
    ready = std::max(ready, s.arrival[slot] - overlap);
  }
  for (std::int32_t t = s.targets; t < s.targets_end; ++t)
    if (s.done - window + run.lag >= streams_[at(neighbours_[at(t)])].done) {
      s.held_back = true;
      return;
    }
  s.held_back = false;
  s.queued = true;
  queue_.push(stream, ready);
}

// One message for all flows at once, as large per flow as what it queues with.
void ChunkNetwork::send_background(Other& other, std::int32_t item, Time now) {
  if (now < resumed_) {
    queue_.push(item, resumed_);
    return;
  }
  ++messages_;
  Link& link = links_[at(other.link)];
  const Bytes bytes{(link.unit > 0 ? link.unit : background_unit) * other.flows};
  link.free = std::min(never, std::max(link.free, now) + bytes / link.capacity);
  queue_.push(item, std::min(never, std::max(link.free, now + bytes / other.rate)));
}

}  // namespace shardsim
