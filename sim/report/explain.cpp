#include "sim/report/explain.h"

#include <algorithm>

#include <fmt/format.h>

#include "sim/report/numbers.h"
#include "sim/report/table.h"

namespace shardsim {
namespace {

constexpr std::size_t segments_shown = 8, stretches_shown = 24;

std::string_view meaning(Spent s) {
  switch (s) {
    case Spent::compute: return "kernels of forward and backward run";
    case Spent::exposed_all_gather: return "nothing runs: parameters are still being gathered";
    case Spent::exposed_reduce_scatter:
      return "nothing runs: gradients are still being reduced to their shards";
    case Spent::exposed_all_reduce: return "nothing runs: something is still being all-reduced";
    case Spent::exposed_other: return "nothing runs here: kernels of other streams have to end first";
    case Spent::copies: return "data moves between host and GPU, and the step waits for it";
    case Spent::optimizer: return "the optimizer, clipping and loss scaling, on the GPU or on the host";
    case Spent::host_stall: return "nothing runs: the host has not issued the next kernel yet";
    case Spent::allocator_retry:
      return "nothing runs: the allocator drains the GPU and gives memory back to CUDA";
    case Spent::straggler_wait: return "nothing runs: a collective waits until its slowest rank arrives";
    case Spent::jitter: return "the slowest of all ranks takes longer than the mean: expected, per step";
  }
  return "";
}

std::string percent_of(Time part, Time whole) { return percent(ratio(part, whole)); }

std::string short_time(Time t) {
  return seconds(t) < 1e-4 ? fmt::format("{:.1f} us", seconds(t) * 1e6) : seconds_text(t);
}

std::string breakdown(const Result& r) {
  Table table{{"where the step goes", "time", "%", "what it means"}, {}};
  for (int k = 0; k < spent_kinds; ++k) {
    const Time t = r.breakdown[static_cast<std::size_t>(k)];
    if (t.count == 0) continue;
    const auto spent = static_cast<Spent>(k);
    table.rows.push_back({with_spaces(name(spent)), short_time(t),
                          fmt::format("{:.1f}", 100 * ratio(t, r.step_time)), std::string(meaning(spent))});
  }
  table.rows.push_back({"step", short_time(r.step_time), "100.0", "the sum of the above"});
  return to_text(table);
}

// "all gather 41.2 ms (latency 3.1, transfer 30.0, slowed 8.1 ms)"
std::string part_text(const PathPart& p) {
  return fmt::format("{} {}", with_spaces(name(p.kind)), short_time(p.time));
}

std::string stretches_table(const CriticalPath& path, Time step) {
  std::vector<PathStretch> rows = stretches(path);
  const bool at_once = rows.size() > stretches_shown;
  if (at_once) rows = stretches_at_once(path);
  Table table{{at_once ? "stretch (alike ones at once)" : "stretch", "times", "%", "of which"}, {}};
  for (const PathStretch& s : rows) {
    std::vector<PathPart> parts = s.parts;
    std::stable_sort(parts.begin(), parts.end(),
                     [](const auto& a, const auto& b) { return a.time > b.time; });
    Time time;
    std::string text;
    for (const PathPart& p : parts) {
      time += p.time;
      text += (text.empty() ? "" : ", ") + part_text(p);
    }
    const std::string on = s.rank == path.rank ? "" : fmt::format(" (rank {})", s.rank.index);
    table.rows.push_back(
        {s.label + on, fmt::format("{}", s.times), fmt::format("{:.1f}", 100 * ratio(time, step)), text});
  }
  if (!at_once) {  // each is there once
    table.header.erase(table.header.begin() + 1);
    for (auto& row : table.rows) row.erase(row.begin() + 1);
  }
  return to_text(table);
}

std::string totals_table(const std::vector<PathPart>& parts, Time step) {
  Table table{{"on the path", "time", "%", "segments", "latency", "transfer", "slowed by others"}, {}};
  for (const PathPart& p : parts) {
    const bool talks = is_collective(p.kind);
    const auto if_talking = [&](Time t) { return talks ? short_time(t) : "-"; };
    const bool slows = talks || p.kind == PathKind::compute || p.kind == PathKind::optimizer;
    table.rows.push_back({with_spaces(name(p.kind)), short_time(p.time),
                          fmt::format("{:.1f}", 100 * ratio(p.time, step)), with_commas(p.segments),
                          if_talking(p.latency), if_talking(p.time - p.latency - p.slowed),
                          slows ? short_time(p.slowed) : "-"});
  }
  return to_text(table);
}

std::string longest_table(const CriticalPath& path, Time step) {
  Table table{{"longest segments of their kind", "time", "%", "in", "why not earlier"}, {}};
  for (const PathSegment& s : longest(path, segments_shown))
    table.rows.push_back({with_spaces(name(s.kind)) + (s.label.empty() ? "" : ": " + s.label),
                          short_time(s.time), fmt::format("{:.1f}", 100 * ratio(s.time, step)),
                          (s.phase.empty() ? "-" : s.phase) +
                              (s.rank == path.rank ? "" : fmt::format(" (rank {})", s.rank.index)),
                          s.reason});
  return to_text(table);
}

// What the figures say would shorten the step.
std::string hint(const PathPart& p, const RunRecord& run) {
  const Result& r = run.result;
  const double left = 1 - ratio(p.time, r.step_time);
  const std::string bound =
      left > 0.5 ? fmt::format("without it the step would take {} of its time or more", percent(left))
                 : fmt::format("it is {} of the path", percent(1 - left));
  const Time transfer = p.time - p.latency - p.slowed;
  switch (p.kind) {
    case PathKind::compute: {
      const Time kernels = r.breakdown[static_cast<std::size_t>(Spent::compute)];
      const double again = 1 - ratio(run.flops.model, run.flops.hardware);
      std::string text =
          fmt::format("{}; while it computes the GPU does {} of its peak", bound,
                      percent(run.flops.executed.count / r.throughput.peak.count / seconds(kernels)));
      if (again > 0.01) text += fmt::format(", {} of it a second time (checkpointing)", percent(again));
      if (ratio(p.slowed, p.time) > 0.01)
        text += fmt::format(", and {} of the time is lost to collectives beside it",
                            percent_of(p.slowed, p.time));
      return text;
    }
    case PathKind::optimizer:
      return bound + "; more ranks that share the states, or more tokens per step, dilute it";
    case PathKind::all_gather:
    case PathKind::reduce_scatter:
    case PathKind::all_reduce:
      if (p.latency >= std::max(transfer, p.slowed))
        return fmt::format(
            "{}; {} of it is latency of {} collectives: fewer and larger ones, or fewer ranks in each", bound,
            percent_of(p.latency, p.time), with_commas(p.segments));
      if (p.slowed >= transfer)
        return fmt::format("{}; {} of it is lost to sharing links and to compute beside it, not to distance",
                           bound, percent_of(p.slowed, p.time));
      return fmt::format(
          "{}; {} of it is transfer: fewer bytes on the wire, a faster link, or more compute to hide it",
          bound, percent_of(transfer, p.time));
    case PathKind::copy: return bound + "; less offload, or more compute to hide it";
    case PathKind::host:
      return fmt::format(
          "{}; the GPU waits for the host {} times: larger micro-batches give it longer kernels", bound,
          with_commas(p.segments));
    case PathKind::allocator:
      return fmt::format("{}; {} retries in {} steps: memory is nearly full", bound,
                         with_commas(r.memory.alloc_retries), r.steps);
    case PathKind::straggler: return fmt::format("{}; a rank {}", bound, p.reason);
    case PathKind::jitter: return bound;
  }
  return "";
}

std::string hints(std::vector<PathPart> parts, const RunRecord& run) {
  std::stable_sort(parts.begin(), parts.end(), [](const auto& a, const auto& b) { return a.time > b.time; });
  std::string out;
  for (const PathPart& p : parts)
    if (ratio(p.time, run.result.step_time) >= 0.05)
      out += fmt::format("  {}: {}\n", with_spaces(name(p.kind)), hint(p, run));
  return out.empty() ? "" : "what would help: parts of the path of 5% and more\n" + out;
}

std::string scientific(Flop f) { return fmt::format("{:.6e}", f.count); }

}  // namespace

std::string explain_step(const RunRecord& run) {
  const Result& r = run.result;
  std::string out = title(run) + "\n\n" + breakdown(r);
  if (!r.critical_path) return out;
  const CriticalPath& path = *r.critical_path;
  const std::vector<PathPart> parts = totals(path);
  out += fmt::format(
      "\ncritical path of step {} on rank {}, the slowest: what had to happen one after the other, from the "
      "end of "
      "the step before to its own\n\n",
      r.steps, path.rank.index);
  if (const auto ranks = by_rank(path); ranks.size() > 1) {
    out += "it goes over the ranks that others wait for:";
    for (std::size_t i = 0; i < std::min<std::size_t>(ranks.size(), 4); ++i)
      out += fmt::format("{} rank {} {}", i == 0 ? "" : ",", ranks[i].first.index,
                         percent_of(ranks[i].second, r.step_time));
    out += ranks.size() > 4 ? ", ...\n\n" : "\n\n";
  }
  out += stretches_table(path, r.step_time) + "\n" + totals_table(parts, r.step_time) + "\n" +
         longest_table(path, r.step_time) + "\n" + hints(parts, run);
  return out;
}

std::string explain_mfu(const RunRecord& run) {
  const Result& r = run.result;
  const FlopAccount& f = run.flops;
  const Throughput& t = r.throughput;
  const double step = seconds(r.step_time), micro = static_cast<double>(run.grad_accum);
  const Flop linear = f.forward_linear, attention = f.forward_attention;
  std::string out = title(run) + "\n\n";
  const auto line = [&](std::string_view what, const std::string& text) {
    out += fmt::format("  {:<18}{}\n", what, text);
  };
  out += "FLOPs of one GPU in one step; a multiplication and an addition are two\n";
  line("tokens T", fmt::format("{} = {} tokens of the global batch / {} GPUs", with_commas(f.tokens),
                               with_commas(run.global_batch_tokens), with_commas(run.gpus)));
  line("forward",
       fmt::format("{} = {} of linear layers + {} of attention scores and values, per micro-batch; matrix "
                   "products only, all pairs of tokens",
                   scientific(linear + attention), scientific(linear), scientific(attention)));
  line("model",
       fmt::format("{} = 3 x forward x {} micro-batch{}: backward is twice forward, nothing is counted twice",
                   scientific(f.model), run.grad_accum, run.grad_accum == 1 ? "" : "es"));
  line("hardware", fmt::format("{} = model + {} computed again by activation checkpointing",
                               scientific(f.hardware), scientific(Flop{f.hardware.count - f.model.count})));
  line("executed",
       fmt::format("{} = what the kernels do: fused causal attention computes half of the pairs, its "
                   "backward the scores again",
                   scientific(f.executed)));
  if (!run.encoder_decoder) {
    const double six = 6.0 * static_cast<double>(run.parameters) * static_cast<double>(f.tokens);
    out += "\nthe usual estimate\n";
    line("6 N T", fmt::format("{} = 6 x {} parameters x {} tokens; linear layers here: {} ({} of it)",
                              scientific(Flop{six}), with_commas(run.parameters), with_commas(f.tokens),
                              scientific(linear * (3 * micro)), percent(linear.count * 3 * micro / six)));
    line("attention",
         fmt::format("{} = 3 x {} x {}: 12 layers x hidden x sequence x T in the usual notation",
                     scientific(attention * (3 * micro)), scientific(attention), run.grad_accum));
  }
  out += "\nutilisation\n";
  line("peak", fmt::format("{:.6e} FLOP/s, dense, {}, as in the data sheet", t.peak.count, t.peak_dtype));
  line("step time", fmt::format("{:.6f} s", step));
  const auto utilisation = [&](std::string_view what, Flop flop) {
    return fmt::format("{} = {} / ({:.6f} s x {:.6e}) = {} TFLOPS / {} TFLOPS",
                       percent(flop.count / t.peak.count / step), what, step, t.peak.count,
                       tflops(FlopRate{flop.count / step}), tflops(t.peak));
  };
  line("MFU", utilisation("model", f.model));
  line("HFU", utilisation("hardware", f.hardware));
  line("of executed", utilisation("executed", f.executed));
  out += fmt::format(
      "\nPaLM (arXiv:2204.02311, appendix B) defines MFU; causal attention counts in full there and here.\n"
      "{} tokens/s per GPU = {} / {:.6f} s.\n",
      rounded(t.tokens_per_s_per_gpu), with_commas(f.tokens), step);
  return out;
}

}  // namespace shardsim
