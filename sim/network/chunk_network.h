// The chunk level of the network: every chunk of every step is a message that queues for the links it
// crosses.
//
// A pattern is the shape of a transfer: streams of messages between fixed places, the links each stream
// crosses, and which streams' messages another one waits for. A load is what one transfer puts on it: how
// many messages of how many bytes, how fast a stream can send at best, what a step costs before its bytes are
// of use.
//   link    first come, first served; a message holds it for its bytes there / capacity
//   route   cut-through: a message takes its turn at all its links at once and is through when it is through
//   the
//           last; switches never wait for its end
//   stream  one message under way at a time, never faster than the pace; at most `window` messages ahead of
//   the
//           stream that passes them on (NCCL's eight buffer slots)
//   step    its latency is paid by the first round of chunks; later rounds fill the pipeline behind it, as
//           the fluid level has it. In a cut-through chain it hides behind the transfer anyhow.
//   others  background traffic offers messages at its rate, per flow as large as those it queues with
// Links that cannot hold anything up (crossed by one stream only, or in series with a slower one that all the
// same streams cross) are dropped or become a pace of the stream, once, at the start.
//   leaves out  packets, priorities, congestion control; what waits at one link takes its turn at the others
//   as if it did not; equal times are served in order of arrival here
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "sim/base/id.h"
#include "sim/base/units.h"
#include "sim/engine/max_min.h"
#include "sim/engine/time_buckets.h"

namespace shardsim {

using PatternId = Id<struct PatternTag>;

struct MessageStream {
  std::vector<LinkShare> links;  // weight / channels of each message crosses the link; count is 1
  bool between_nodes = false;    // which of the two latencies its messages have
  std::vector<int> sources;      // streams of the pattern
};
struct MessagePattern {
  std::int64_t channels = 1;
  int lag = 0;               // message k waits for message k - lag of the sources
  bool cut_through = false;  // passes a message on as it comes in, not once it is there
  std::vector<MessageStream> streams;
};

struct MessageLoad {
  int messages = 1;        // of a stream, per round
  Bytes bytes;             // of a stream's messages of all rounds that have the same place in a round
  Bytes chunk;             // of a message, at most
  Bandwidth pace;          // of a stream
  Time inside, between{};  // latencies
};

// Other jobs' messages on a link, without end.
struct Background {
  int link;
  std::int64_t flows;
  Bandwidth rate;
};

class ChunkNetwork {
 public:
  struct Completion {
    PatternId pattern;
    Time at;
  };

  ChunkNetwork(std::vector<Bandwidth> capacity, const std::vector<MessagePattern>& patterns,
               const std::vector<Background>& background = {});

  // Requires: no transfer of this pattern is under way; now is not before what advance() has reached.
  void start(PatternId pattern, const MessageLoad& load, Time now);
  // For messages that leave from now on.
  void set_pace(PatternId pattern, Bandwidth pace);

  // Plays what happens up to `until`, or up to the first end of a transfer if that is earlier; returns the
  // ends found, which may lie a little ahead of what has been played.
  std::span<const Completion> advance(std::optional<Time> until);

  std::int64_t messages() const { return messages_; }  // sent so far

 private:
  static constexpr int window = 8;
  static constexpr int sizes = 2;  // messages of full rounds, and of the last

  struct Link {
    Time free;              // from when it is idle
    std::int64_t unit = 0;  // bytes per channel of the message that came last
    Bandwidth capacity;
  };
  struct Crossing {
    std::int32_t link;
    std::int64_t weight;
    std::array<Time, sizes> time;
  };
  struct Run {  // of a pattern
    std::int64_t channels = 1;
    int lag = 0;
    bool cut_through = false, running = false;
    std::int32_t first = 0, last = 0;  // streams
    std::int32_t total = 0;            // messages of a stream
    std::int32_t in_first_round = 0, before_last_round = 0;
    std::array<Bytes, sizes> bytes{};
    std::array<Time, sizes> time{};  // at the pace
    std::int32_t open = 0;           // streams that have not sent all
    Time end;                        // of what has arrived or will
  };
  struct StreamState {
    std::array<Time, window> arrival;          // of messages to pass on, by k % window
    std::array<std::uint8_t, window> arrived;  // from how many sources
    Time free;                                 // may send again
    std::array<Time, sizes> own_time;          // over links it has for itself
    Time latency;
    std::int32_t done = 0;  // messages sent
    std::int32_t run = 0;
    std::int32_t crossings, crossings_end;   // in crossings_
    std::int32_t targets, targets_end;       // in neighbours_: streams that pass its messages on
    std::int32_t sources, sources_end;       // in neighbours_
    bool queued = false, held_back = false;  // held back by the window
    bool between_nodes = false;
    std::int64_t own_weight = 0;  // on the narrowest of its own links
    Bandwidth own_capacity;
  };
  struct Other {
    std::int32_t link;
    std::int64_t flows;
    Bandwidth rate;
  };

  void reduce_links(const std::vector<MessagePattern>& patterns, const std::vector<Background>& background,
                    const std::vector<Bandwidth>& capacity);
  void send(std::int32_t stream, Time now);
  void send_background(Other& other, std::int32_t item, Time now);
  void try_queue(std::int32_t stream, Time now);
  static void deliver(StreamState& to, int message, Time when);

  std::vector<Link> links_;
  std::vector<Crossing> crossings_;
  std::vector<std::int32_t> neighbours_;
  std::vector<StreamState> streams_;
  std::vector<Run> runs_;
  std::vector<Other> others_;
  std::vector<Completion> ended_;
  TimeBuckets queue_{0};
  int running_ = 0;
  Time resumed_;  // before, nothing was under way and other jobs' messages did not matter
  std::int64_t messages_ = 0;
};

}  // namespace shardsim
