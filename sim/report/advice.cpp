#include "sim/report/numbers.h"
#include "sim/report/table.h"
#include "sim/report/text.h"

namespace shardsim {
namespace {

std::string words(const std::vector<Change>& changes) {
  std::string text;
  for (const Change& c : changes)
    text += fmt::format("{}{} = {}", text.empty() ? "" : ", ", c.key.substr(c.key.find('.') + 1),
                        to_string(c.value));
  return text;
}

}  // namespace

std::string to_text(const OomAdvice& advice) {
  std::string out;
  Table fits{{"with this it fits", "step\ns", "tokens/s\nper GPU", "speed", "reserved\npeak GiB"}, {}};
  for (const WouldFit& w : advice.would_fit)
    fits.rows.push_back({words(w.change), fmt::format("{:.4f}", seconds(w.step_time)),
                         rounded(w.tokens_per_s_per_gpu), fmt::format("{:.2f}x", 1 - w.cost),
                         gib_text(w.peak_reserved)});
  if (fits.rows.empty())
    out += "no change that was tried makes it fit\n";
  else
    out += to_text(fits) + fmt::format("speed: of {} tokens/s per GPU, were memory unlimited\n",
                                       rounded(advice.unlimited_tokens_per_s_per_gpu));
  Table tried{{"not enough", "still out of memory in"}, {}};
  for (const DoesNotHelp& d : advice.tried) tried.rows.push_back({words(d.change), d.dies_in});
  if (!tried.rows.empty()) out += "\n" + to_text(tried);
  return out;
}

}  // namespace shardsim
