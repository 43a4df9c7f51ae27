// Who shares which link at what rate: the fluid level of the network.
//
// Transfers cross links with a number of channels each and share capacity max-min. A change re-solves only
// the links and transfers connected to it; transfers elsewhere keep their rates. Rates are integers and do
// not depend on the order of calls within one instant, as long as solve() runs once after all of them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "sim/base/id.h"
#include "sim/base/units.h"
#include "sim/engine/max_min.h"

namespace shardsim {

using TransferId = Id<struct TransferTag>;

class Network {
 public:
  // `capacity` of each link; `transfers` is the number of transfers that may ever exist.
  Network(std::vector<Bandwidth> capacity, int transfers);

  // Starts a transfer. `links` must outlive it. Requires: not running, cap > 0, channels > 0.
  void start(TransferId id, std::int64_t channels, Bandwidth cap, std::span<const LinkShare> links);
  void set_cap(TransferId id, Bandwidth cap);
  void stop(TransferId id);

  // Shares capacity again around everything that changed. Returns the transfers whose rate changed,
  // ascending.
  std::span<const TransferId> solve();
  // Of a running transfer, as of the last solve().
  Bandwidth rate(TransferId id) const { return transfers_[id].rate; }
  std::int64_t solves() const { return solves_; }

 private:
  struct Transfer {
    bool active = false, touched = false;
    std::int64_t channels = 0;
    Bandwidth cap, rate;
    std::span<const LinkShare> links;
  };
  void touch(TransferId id);
  void collect_component(TransferId seed);

  std::vector<Bandwidth> capacity_;
  IdVector<TransferId, Transfer> transfers_;
  std::vector<std::vector<TransferId>> on_link_;  // active transfers per link
  std::vector<TransferId> touched_, changed_;
  std::int64_t solves_ = 0;

  // Buffers of solve().
  MaxMin max_min_;
  std::vector<char> seen_link_, seen_transfer_;
  std::vector<int> local_link_, component_links_;
  std::vector<TransferId> component_, visited_;
  std::vector<Bandwidth> local_capacity_;
  std::vector<LinkShare> local_shares_;
  std::vector<Flow> flows_;
};

}  // namespace shardsim
