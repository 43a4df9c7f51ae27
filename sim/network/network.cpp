#include "sim/network/network.h"

#include <algorithm>

#include "sim/base/check.h"

namespace shardsim {

Network::Network(std::vector<Bandwidth> capacity, int transfers)
    : capacity_(std::move(capacity)),
      transfers_(static_cast<std::size_t>(transfers)),
      on_link_(capacity_.size()),
      seen_link_(capacity_.size(), 0),
      seen_transfer_(static_cast<std::size_t>(transfers), 0),
      local_link_(capacity_.size(), 0) {}

void Network::touch(TransferId id) {
  if (transfers_[id].touched) return;
  transfers_[id].touched = true;
  touched_.push_back(id);
}

void Network::start(TransferId id, std::int64_t channels, Bandwidth cap, std::span<const LinkShare> links) {
  Transfer& t = transfers_[id];
  require(!t.active && cap.count > 0 && channels > 0, "a transfer starts once, with a cap");
  t.active = true;
  t.channels = channels;
  t.cap = cap;
  t.rate = {};
  t.links = links;
  for (const LinkShare& share : links) on_link_[static_cast<std::size_t>(share.link)].push_back(id);
  touch(id);
}

void Network::set_cap(TransferId id, Bandwidth cap) {
  require(transfers_[id].active && cap.count > 0, "only a running transfer has a cap");
  if (transfers_[id].cap == cap) return;
  transfers_[id].cap = cap;
  touch(id);
}

void Network::stop(TransferId id) {
  Transfer& t = transfers_[id];
  require(t.active, "only a running transfer can stop");
  t.active = false;
  for (const LinkShare& share : t.links) {
    auto& users = on_link_[static_cast<std::size_t>(share.link)];
    users.erase(std::find(users.begin(), users.end(), id));
    for (const TransferId neighbour : users) touch(neighbour);
  }
}

// All active transfers that share links with the seed, directly or over others, and their links.
void Network::collect_component(TransferId seed) {
  component_.assign(1, seed);
  component_links_.clear();
  seen_transfer_[static_cast<std::size_t>(seed.index)] = 1;
  for (std::size_t i = 0; i < component_.size(); ++i)
    for (const LinkShare& share : transfers_[component_[i]].links) {
      const auto l = static_cast<std::size_t>(share.link);
      if (seen_link_[l]) continue;
      seen_link_[l] = 1;
      component_links_.push_back(share.link);
      for (const TransferId user : on_link_[l]) {
        char& seen = seen_transfer_[static_cast<std::size_t>(user.index)];
        if (!seen) component_.push_back(user);
        seen = 1;
      }
    }
  for (const int l : component_links_) seen_link_[static_cast<std::size_t>(l)] = 0;
}

std::span<const TransferId> Network::solve() {
  changed_.clear();
  for (const TransferId id : touched_) transfers_[id].touched = false;
  for (const TransferId seed : touched_) {
    if (!transfers_[seed].active || seen_transfer_[static_cast<std::size_t>(seed.index)]) continue;
    collect_component(seed);
    visited_.insert(visited_.end(), component_.begin(), component_.end());
    ++solves_;
    local_capacity_.clear();
    for (std::size_t i = 0; i < component_links_.size(); ++i) {
      const auto l = static_cast<std::size_t>(component_links_[i]);
      local_link_[l] = static_cast<int>(i);
      local_capacity_.push_back(capacity_[l]);
    }
    std::size_t shares = 0;
    for (const TransferId id : component_) shares += transfers_[id].links.size();
    local_shares_.clear();
    local_shares_.reserve(shares);  // the spans of flows_ point into it
    flows_.clear();
    for (const TransferId id : component_) {
      const Transfer& t = transfers_[id];
      const std::size_t first = local_shares_.size();
      for (const LinkShare& share : t.links)
        local_shares_.push_back(
            {local_link_[static_cast<std::size_t>(share.link)], share.weight, share.count});
      flows_.push_back({t.channels, t.cap, std::span(local_shares_).subspan(first)});
    }
    const auto rates = max_min_.solve(local_capacity_, flows_);
    for (std::size_t f = 0; f < component_.size(); ++f) {
      Transfer& t = transfers_[component_[f]];
      if (t.rate != rates[f]) changed_.push_back(component_[f]);
      t.rate = rates[f];
    }
  }
  for (const TransferId id : visited_) seen_transfer_[static_cast<std::size_t>(id.index)] = 0;
  visited_.clear();
  touched_.clear();
  std::sort(changed_.begin(), changed_.end());
  return changed_;
}

}  // namespace shardsim
