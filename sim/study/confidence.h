// An interval for the step time of a run, from the errors of validated runs that resemble it, and what of the
// run no validated one has. The errors are those of the shipped constants on scenarios/validation/*.csv, kept
// in scenarios/validation/residuals.csv, which `validate --residuals` writes.
//   leaves out  memory, and errors that all published runs share
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "sim/result/confidence.h"
#include "sim/result/record.h"
#include "sim/scenario/csv.h"
#include "sim/scenario/library.h"

namespace shardsim {

// What makes runs alike.
struct RunFeatures {
  std::string family, model, gpu, generation, stack;
  std::string strategy;  // kind
  std::string sharding;  // "none", "optimizer", "hybrid", "full"
  std::string precision, attention, checkpointing;
  bool compile = false, overlaid = false;
  bool mixed = false,
       what_if = false;  // a cluster of several parts; stragglers, slow links, other jobs, chunks
  double parameters = 0, tokens = 0;  // tokens of a GPU's micro-step
  std::int64_t gpus = 0, nodes = 0, sequence = 0;
};
RunFeatures features(const RunRecord& run);

struct Residual {
  std::string id, table, quality;
  RunFeatures features;
  double log_error = 0;  // ln(predicted / measured step time)
};

// How different two runs are, 0 = alike. A sum, in units in which 1 is another GPU generation and strategy:
// 0.1 per doubling of parameters, GPUs, tokens or sequence; 0.4 for one node against several; 0.8 for another
// GPU generation (0.15: another GPU of it); 0.8 for sharded against replicated parameters (0.3: another
// strategy of that kind); 0.3 each for sharding, stack, attention, model family; 0.5 for 16 bits against 32
// (0.1: another format); 0.2 for checkpointing; 0.6 for torch.compile. Engineering estimates.
double distance(const RunFeatures& a, const RunFeatures& b);

// The 5% to 95% quantiles of the errors of the nearest rows, weighted by exp(-2 distance), and widened by a
// factor of 1 + the distance of the nearest; the prediction itself is always inside. Rows of quality
// "outlier" or "lengths-unknown" do not count. Nothing without residuals, or for a run that is out of memory.
std::optional<Confidence> confidence(const RunRecord& run, const std::vector<Residual>& residuals);

// The same for a step time of 1 s: low and high.
struct Interval {
  double low = 0, high = 0;
};
Interval interval(const RunFeatures& run, const std::vector<const Residual*>& rows);

// Share of the rows whose measured time lies in the interval that the others give: all others, or only those
// of other models, or of other tables.
enum class LeaveOut : std::uint8_t { row, model, table };
double coverage(const std::vector<Residual>& rows, LeaveOut what);

// The file that came with the program; empty if there is none. Throws InputError for one that is wrong.
std::vector<Residual> read_residuals(const Library& library);
std::vector<Residual> read_residuals(const CsvTable& table);
inline constexpr const char* residuals_table = "validation/residuals";
// The tables whose residuals it holds.
std::vector<std::string> validation_tables(const Library& library);

std::string to_csv(const std::vector<Residual>& residuals);

}  // namespace shardsim
