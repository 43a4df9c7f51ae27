// Does mutated input either read or raise an InputError with a place, and never anything else?
#include <fstream>
#include <sstream>

#include <doctest/doctest.h>

#include "sim/base/random.h"
#include "sim/scenario/scenario.h"

#include "tests/support/hardware.h"
#include "tests/support/seed.h"

namespace shardsim {
namespace {

std::string contents(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// One small change: a byte, a line, a token from a list of awkward ones.
void mutate(std::string& text, Random& random) {
  constexpr const char* awkward[] = {"nan",
                                     "inf",
                                     "-1",
                                     "0",
                                     "9223372036854775807",
                                     "1e308",
                                     "\"\"",
                                     "[]",
                                     "{}",
                                     "true",
                                     "\"\\u0000\"",
                                     "=",
                                     "[",
                                     "]]",
                                     "\"",
                                     "\n",
                                     "..",
                                     "[[straggler]]\ngpu = 0\n",
                                     "[[degraded_link]]\nnode = 0\ndevice = \"nic0\"\nscale = 0.5\n",
                                     "[[background_job]]\ngb_per_s = 3\n",
                                     "#",
                                     "1_0"};
  const auto at = [&] {
    return static_cast<std::size_t>(random.between(0, static_cast<std::int64_t>(text.size())));
  };
  switch (random.between(0, 4)) {
    case 0:
      if (!text.empty()) text[at() % text.size()] = static_cast<char>(random.between(0, 255));
      break;
    case 1:
      text.insert(at(), awkward[random.between(0, static_cast<std::int64_t>(std::size(awkward)) - 1)]);
      break;
    case 2: text.erase(std::min(at(), text.size()), static_cast<std::size_t>(random.between(1, 20))); break;
    case 3: {  // replace a value
      const std::size_t equals = text.find('=', at());
      if (equals == std::string::npos) break;
      const std::size_t end = std::min(text.find('\n', equals), text.size());
      text.replace(
          equals + 1, end - equals - 1,
          std::string(" ") + awkward[random.between(0, static_cast<std::int64_t>(std::size(awkward)) - 1)]);
      break;
    }
    case 4: {  // double a line
      const std::size_t start = text.rfind('\n', at() == 0 ? 0 : at() - 1);
      if (start == std::string::npos) break;
      const std::size_t end = std::min(text.find('\n', start + 1), text.size());
      text.insert(start, text.substr(start, end - start));
      break;
    }
  }
}

TEST_CASE("mutated scenarios read or raise InputError") {
  const std::uint64_t seed = seed_of_run(4242);
  Random random(seed);
  const Library library = test_library();
  std::vector<std::string> corpus;
  for (const std::string& name : library.scenario_names())
    corpus.push_back(contents(library.find_scenario(name)));
  corpus.push_back(
      "[model]\nfamily = \"gpt\"\nlayers = 2\nhidden = 64\nheads = 4\nvocab = 100\n[topology.node]\ngpu = "
      "\"a100-sxm-80gb\"\ngpus = 2\n"
      "intra = \"links\"\nlink = [{a = \"gpu0\", b = \"gpu1\", gb_per_s = 50}]\nnics = 1\nnic_gbps = "
      "100\ntransport = \"ib\"\n"
      "[cluster]\ngpus = 4\n[[straggler]]\ngpu = 1\ncompute_scale = 0.5\n");
  int good = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string text =
        corpus[static_cast<std::size_t>(random.between(0, static_cast<std::int64_t>(corpus.size()) - 1))];
    for (std::int64_t n = random.between(1, 4); n > 0; --n) mutate(text, random);
    CAPTURE(seed);
    CAPTURE(i);
    try {
      const ScenarioFile file = read_scenario_text(text, "fuzz.toml");
      Settings settings = file.settings;
      for (const SweepAxis& axis : file.axes)
        for (const auto& [key, value] : axis.points.front().sets)
          settings.set(key, value, {Origin::Kind::sweep, axis.place, {}});
      const Scenario scenario = resolve(settings, library);
      ++good;
      // Small ones are run as well.
      const double work = static_cast<double>(scenario.gpus) *
                          static_cast<double>(scenario.training.micro_batches) *
                          static_cast<double>(scenario.model.layers + scenario.model.encoder_layers +
                                              scenario.model.decoder_layers);
      if (good % 20 == 0 && work < 5e4) run(scenario);
    } catch (const InputError& error) {
      REQUIRE_FALSE(error.text().empty());
    }
  }
  CHECK(good > 100);
}

}  // namespace
}  // namespace shardsim
