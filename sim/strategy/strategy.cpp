#include "sim/strategy/strategy.h"

#include "sim/strategy/step_writer.h"

namespace shardsim {
namespace {

Program compile_plain(const OpGraph& graph, const Training& training, const Framework& framework) {
  StepWriter step(graph, training, framework, {1, 1});
  std::vector<Trained> trained;
  for (const Parameter& p : graph.parameters)
    trained.push_back(step.trained(p.name, p.rows, p.elements / p.rows));
  step.begin_init(trained);

  Autograd first = step.make_autograd(), later = step.make_autograd();
  const auto autograd = [&](MicroBatch micro) -> Autograd& { return micro.first ? first : later; };
  const auto micro_batches = step.micro_batches(
      false, [&](MicroBatch micro) { autograd(micro).forward(); },
      [&](MicroBatch micro) {
        autograd(micro).backward([&](ParameterId p, TensorId gradient) {
          step.accumulate(trained[static_cast<std::size_t>(p.index)], gradient, !micro.first);
        });
        autograd(micro).end_micro_batch();
      });
  const BodyId first_update = step.optimizer_body(trained, true, std::nullopt);
  const BodyId update = step.optimizer_body(trained, false, std::nullopt);
  step.append_steps(micro_batches, first_update, micro_batches, update);
  return std::move(step).finish();
}

}  // namespace

Program compile(const OpGraph& graph, const Training& training, const Framework& framework,
                std::int64_t world, const Strategy& strategy) {
  const bool keeps_master =
      std::holds_alternative<Zero>(strategy) || std::holds_alternative<MegatronDp>(strategy);
  if (world == 1 && !keeps_master) return compile_plain(graph, training, framework);
  return std::visit([&](const auto& options) { return compile(graph, training, framework, world, options); },
                    strategy);
}

}  // namespace shardsim
