// Does a fused graph train: the same FLOP and collectives, fewer bytes moved and held, fewer launches?
#include <doctest/doctest.h>

#include "sim/model/family.h"
#include "sim/model/fusion.h"
#include "sim/program/count.h"
#include "sim/program/verify.h"
#include "sim/strategy/strategy.h"

#include "tests/support/print.h"
#include "tests/support/programs.h"
#include "tests/support/small_llama.h"
#include "tests/support/tiny_model.h"

namespace shardsim {
namespace {

OpGraph llama(const Numerics& numerics) {
  const ModelSpec spec = small_llama(4, 704, 512);
  return build(spec,
               {.micro_batch = 4, .sequence = 128, .attention = AttentionKind::flash2, .numerics = numerics});
}

OpGraph t5(const Numerics& numerics) {
  const ModelSpec spec{.family = Family::t5,
                       .encoder_layers = 3,
                       .decoder_layers = 3,
                       .hidden = 256,
                       .heads = 4,
                       .kv_heads = 4,
                       .head_dim = 64,
                       .ffn = 1024,
                       .vocab = 512,
                       .positions = Positions::relative,
                       .norm = Norm::rmsnorm,
                       .bias = false,
                       .dropout = 0.1};
  return build(
      spec,
      {.micro_batch = 4, .sequence = 128, .decoder_sequence = 64, .dropout = 0.1, .numerics = numerics});
}

OpGraph gpt(const Numerics& numerics) {
  const ModelSpec spec{.family = Family::gpt,
                       .layers = 4,
                       .hidden = 256,
                       .heads = 4,
                       .kv_heads = 4,
                       .head_dim = 64,
                       .ffn = 1024,
                       .vocab = 512,
                       .max_positions = 128,
                       .activation = Activation::gelu_tanh,
                       .dropout = 0.1};
  return build(spec, {.micro_batch = 4, .sequence = 128, .dropout = 0.1, .numerics = numerics});
}

struct Moved {
  Bytes memory_bound;
  double flop = 0;
  std::int64_t launches = 0, compiled = 0;
};
Moved moved(const Program& p) {
  Moved m;
  for_each(p, Section::steady, [&](const Instruction& i) {
    const auto* launch = std::get_if<Launch>(&i);
    if (launch == nullptr) return;
    ++m.launches;
    m.compiled += launch->work == HostWork::compiled_op;
    m.flop += executed_flop(p.kernels[launch->kernel]).count;
    if (const auto* k = std::get_if<MemoryBound>(&p.kernels[launch->kernel])) m.memory_bound += k->traffic;
  });
  return m;
}

TEST_CASE("a compiled step executes the same FLOP and collectives, moves and holds less, launches less") {
  const Strategy strategies[] = {Ddp{}, Fsdp{.sharding_factor = 4}, Fsdp2{.sharding_factor = 4, .reshard = 4},
                                 Zero{.stage = 3}};
  for (const auto& model : {llama, t5, gpt})
    for (const Numerics& numerics : {Numerics{}, bf16_on_shards, bf16_autocast})
      for (const Checkpointing c : {Checkpointing::none, Checkpointing::full, Checkpointing::selective,
                                    Checkpointing::selective_op, Checkpointing::every_k})
        for (const bool offload : {false, true})
          for (const Strategy& s : strategies) {
            if (numerics.autocast && !std::holds_alternative<Ddp>(s)) continue;
            const OpGraph graph = model(numerics);
            const Training training{
                .micro_batches = 2, .checkpointing = c, .checkpoint_every = 2, .activation_offload = offload};
            const Program eager = compile(graph, training, Framework{}, 4, s);
            for (const CompileScope scope : {CompileScope::blocks, CompileScope::model}) {
              INFO(graph.modules[ModuleId{1}].name << " " << name(c) << " " << name(scope) << " strategy "
                                                   << s.index() << " bytes "
                                                   << bytes_per_element(numerics.compute));
              const Program fused = compile(fuse(graph, scope), training, Framework{}, 4, s);
              REQUIRE(verify(fused).empty());
              const Moved before = moved(eager), after = moved(fused);
              CHECK(after.flop == doctest::Approx(before.flop).epsilon(1e-12));
              CHECK(after.memory_bound < before.memory_bound);
              CHECK(after.launches < before.launches);
              CHECK(after.compiled > 0);
              CHECK(before.compiled == 0);
              CHECK(peak_live_bytes(fused) <= peak_live_bytes(eager));
              for (int k = 0; k < collective_kinds; ++k) {
                const auto kind = static_cast<CollectiveKind>(k);
                CHECK(count(fused, Section::steady)[kind].bytes == count(eager, Section::steady)[kind].bytes);
              }
              CHECK(fused.flop.model.count == eager.flop.model.count);
            }
          }
}

}  // namespace
}  // namespace shardsim
