// Is a value ruled out only when it cannot fit, and is the boundary the one that trying everything finds?
#include "sim/study/fit.h"

#include <doctest/doctest.h>

#include "sim/program/count.h"

#include "tests/support/hardware.h"
#include "tests/support/programs.h"
#include "tests/support/random_scenario.h"
#include "tests/support/scenario_of.h"
#include "tests/support/seed.h"

namespace shardsim {
namespace {

const Place here{"test"};

Settings mpt_7b(const std::vector<std::string>& more) {
  std::vector<std::string> sets{"model=mpt-7b", "topology=dgx-a100-40gb", "cluster.gpus=16"};
  sets.insert(sets.end(), more.begin(), more.end());
  return scenario_of(sets).settings;
}

TEST_CASE("live requested bytes equal a naive count, and no allocator does with less") {
  const std::uint64_t seed = seed_of_run(20);
  ScenarioGenerator scenarios(seed);
  for (int i = 0; i < 40; ++i) {
    const Settings settings = scenarios.next();
    CAPTURE(seed);
    CAPTURE(describe(settings));
    const Scenario scenario = resolve(settings, test_library());
    const Program program = compile(scenario);
    LiveBytes naive(program);
    for (const Section s : {Section::init, Section::first, Section::second, Section::steady}) naive.run(s);
    CHECK(peak_live_bytes(program) == naive.peak());
    const Memory memory = run(scenario).result.memory;
    const MemoryFloor floor = memory_floor(scenario);
    CHECK(floor.live <= memory.peak_allocated);
    CHECK(floor.outside <= memory.outside_allocator);
    CHECK(floor.capacity == memory.capacity);
  }
}

TEST_CASE("what the floor rules out runs out of memory") {
  for (const char* batch : {"4", "5", "6", "8"}) {
    const Settings settings = mpt_7b({std::string("training.micro_batch=") + batch});
    const Trial ruled_out = try_run([&] { return settings; }, test_library());
    REQUIRE(ruled_out.floor.exceeds());
    CHECK(!ruled_out.run.has_value());
    CHECK(!ruled_out.fits());
    const Trial trial = try_run([&] { return settings; }, test_library(), true);
    CHECK(trial.run->result.out_of_memory());
  }
}

TEST_CASE("live requested bytes never fall as batch, sequence or layers grow") {
  const std::uint64_t seed = seed_of_run(21);
  ScenarioGenerator scenarios(seed);
  for (int i = 0; i < 40; ++i) {
    Settings settings = scenarios.next();
    CAPTURE(seed);
    CAPTURE(describe(settings));
    for (const char* key : {"training.micro_batch", "training.sequence_length",
                            "training.decoder_sequence_length", "model.layers", "model.encoder_layers"}) {
      const Setting* now = settings.find(key);
      if (now == nullptr) continue;
      CHECK(live_bytes_grow_with(key, settings));
      Bytes before;
      for (std::int64_t more = 0; more < 4; ++more) {
        const std::int64_t value = std::get<std::int64_t>(now->value) + more;
        const Bytes live = memory_floor(resolve(with(settings, key, value, here), test_library())).live;
        CAPTURE(key);
        CAPTURE(value);
        CHECK(live >= before);
        before = live;
      }
    }
  }
}

TEST_CASE("the boundary is the one that simulating every value finds") {
  const std::string key = "training.sequence_length";
  for (const char* batch : {"4", "7"}) {
    const Settings settings = mpt_7b({std::string("training.micro_batch=") + batch});
    std::vector<Scalar> values;
    std::vector<char> fits;
    for (std::int64_t s = 256; s <= 2304; s += 256) {  // the model has 2048 positions
      values.emplace_back(s);
      fits.push_back(try_run([&] { return with(settings, key, s, here); }, test_library(), true).fits());
    }
    const auto at = [&](const Scalar& v) { return with(settings, key, v, here); };
    for (const bool monotone : {false, true}) {
      SearchOptions options;
      options.floor_is_monotone = monotone;
      const Boundary b = find_boundary(values, at, test_library(), options);
      const auto last =
          static_cast<std::size_t>(std::find(fits.rbegin(), fits.rend(), 1).base() - fits.begin());
      REQUIRE(b.last_fit.has_value());
      REQUIRE(b.first_oom.has_value());
      CHECK(b.last_fit->value == values[last - 1]);
      CHECK(b.last_fit->trial.fits());
      CHECK(b.first_oom->value == values[last]);
      CHECK(b.first_oom->trial.run->result.out_of_memory());
    }
  }
}

TEST_CASE("values of which none, all or no legal one fits have no boundary") {
  const auto boundary = [](const Settings& settings, const std::vector<Scalar>& values) {
    const std::function<Settings(const Scalar&)> at = [&](const Scalar& v) {
      return with(settings, "training.sequence_length", v, here);
    };
    SearchOptions options;
    options.floor_is_monotone = true;
    return find_boundary(values, at, test_library(), options);
  };
  const std::vector<Scalar> some{std::int64_t{128}, std::int64_t{256}};
  const Boundary all = boundary(mpt_7b({}), some);
  CHECK(all.last_fit->value == some[1]);
  CHECK(!all.first_oom.has_value());
  const Boundary none = boundary(mpt_7b({"strategy.kind=ddp"}), some);
  CHECK(!none.last_fit.has_value());
  CHECK(none.first_oom->value == some[0]);
  CHECK(none.first_oom->trial.run->result.out_of_memory());
  const Boundary illegal = boundary(mpt_7b({}), {std::int64_t{4096}, std::int64_t{8192}});
  CHECK(!illegal.last_fit.has_value());
  CHECK(!illegal.first_oom.has_value());
  CHECK(illegal.refusal == "test: sequences of 4096 tokens need as many positions; the model has 2048");
  const Boundary stopped = boundary(mpt_7b({}), {std::int64_t{256}, std::int64_t{4096}});
  CHECK(stopped.last_fit->value == Scalar(std::int64_t{256}));
  CHECK(stopped.refused_after == "test: sequences of 4096 tokens need as many positions; the model has 2048");
}

}  // namespace
}  // namespace shardsim
