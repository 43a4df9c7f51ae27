// Are the figures of scenarios/course-notes/README.md those of the program?
#include <doctest/doctest.h>

#include "sim/scenario/scenario.h"

#include "tests/support/hardware.h"

namespace shardsim {
namespace {

struct BytesPerParameter {
  double parameters, gradients, optimizer, activations_and_temporaries, peak;
};

BytesPerParameter course_1b(const std::string& precision, std::int64_t micro_batch, std::int64_t sequence) {
  ScenarioFile file;
  file.settings.scenario = {"course notes"};
  for (const std::string& set :
       {std::string("model=course-1b"), std::string("topology=single-gpu"), "training.precision=" + precision,
        std::string("training.attention=unfused"), std::string("training.optimizer_impl=foreach"),
        std::string("training.gradient_clipping=false"),
        "training.micro_batch=" + std::to_string(micro_batch),
        "training.sequence_length=" + std::to_string(sequence)})
    assign(file, set);
  const RunRecord record = run(resolve(file.settings, test_library()));
  CHECK(record.parameters == doctest::Approx(1e9).epsilon(1e-6));
  const auto per_parameter = [&](Bytes b) { return static_cast<double>(b.count) / 1e9; };
  const auto of = [&](Category c) {
    return per_parameter(record.result.memory.at_peak[static_cast<std::size_t>(c)]);
  };
  return {of(Category::parameters), of(Category::gradients), of(Category::optimizer_state),
          of(Category::activations) + of(Category::temporaries),
          per_parameter(record.result.memory.peak_allocated)};
}

// Blocks of the allocator are up to 2% larger than what they hold.
TEST_CASE("fp32 weights 4, gradients 4, Adam 8 bytes per parameter: together only in the optimizer's step") {
  const BytesPerParameter small = course_1b("fp32", 1, 256);
  CHECK(small.parameters == doctest::Approx(4).epsilon(0.02));
  CHECK(small.gradients == doctest::Approx(4).epsilon(0.02));
  CHECK(small.optimizer == doctest::Approx(8).epsilon(0.02));
  CHECK(small.activations_and_temporaries ==
        doctest::Approx(4).epsilon(0.02));  // sqrt(exp_avg_sq) by foreach
  CHECK(small.peak == doctest::Approx(20).epsilon(0.02));
}

TEST_CASE(
    "the notes' 8 bytes of activations and temporaries are one sequence of 992 tokens, no more no less") {
  CHECK(course_1b("fp32", 1, 992).activations_and_temporaries == doctest::Approx(8).epsilon(0.05));
  CHECK(course_1b("fp32", 4, 1024).activations_and_temporaries > 30);
  CHECK(course_1b("fp32", 1, 256).activations_and_temporaries < 5);
}

TEST_CASE("mixed precision does not halve the state of a model, pure 16-bit training does") {
  const BytesPerParameter full = course_1b("fp32", 1, 992), mixed = course_1b("bf16-mixed", 1, 992),
                          pure = course_1b("bf16-pure", 1, 992);
  CHECK(mixed.parameters + mixed.optimizer ==
        doctest::Approx(full.parameters + full.optimizer).epsilon(0.01));
  CHECK(pure.parameters + pure.optimizer ==
        doctest::Approx((full.parameters + full.optimizer) / 2).epsilon(0.01));
  CHECK(mixed.peak > 0.9 * full.peak);
  CHECK(pure.peak < 0.6 * full.peak);
}

}  // namespace
}  // namespace shardsim
