// Are the model FLOP those of the formulas that papers divide by time?
#include <doctest/doctest.h>

#include "sim/model/family.h"

namespace shardsim {
namespace {

struct Shape {
  std::int64_t batch, sequence, layers, hidden, heads, vocab;
};
constexpr Shape shapes[] = {{1, 1, 1, 8, 1, 10},        {2, 48, 3, 160, 5, 1000},
                            {4, 128, 2, 256, 4, 50257}, {8, 2048, 4, 1024, 16, 512},
                            {3, 77, 5, 96, 3, 999},     {1, 2048, 96, 12288, 96, 50257}};

ModelSpec gpt_spec(const Shape& s) {
  return {.family = Family::gpt,
          .layers = s.layers,
          .hidden = s.hidden,
          .heads = s.heads,
          .head_dim = s.hidden / s.heads,
          .ffn = 4 * s.hidden,
          .vocab = s.vocab,
          .max_positions = s.sequence,
          .activation = Activation::gelu_tanh,
          .dropout = 0.1};
}
Workload workload(const Shape& s, AttentionKind attention) {
  return {.micro_batch = s.batch,
          .sequence = s.sequence,
          .decoder_sequence = 0,
          .dropout = 0.1,
          .attention = attention,
          .numerics = {DType::bf16, DType::bf16, DType::bf16, false}};
}
double product(std::initializer_list<std::int64_t> factors) {
  double result = 1;
  for (const std::int64_t f : factors) result *= static_cast<double>(f);
  return result;
}

TEST_CASE("GPT has the model FLOP of Megatron's formula") {
  // Forward and backward are 72 B s L h^2 (1 + s/(6h) + V/(12 L h)): Narayanan et al. 2021, arXiv:2104.04473,
  // section 5.1, without the recomputation in its 96. Written out, a third of it:
  for (const Shape& s : shapes) {
    const auto [b, n, l, h, a, v] = s;
    const double forward =
        24 * product({b, n, l, h, h}) + 4 * product({b, n, l, h, n}) + 2 * product({b, n, h, v});
    CHECK(forward_flop(gpt(gpt_spec(s), workload(s, AttentionKind::unfused))).count == forward);
  }
}

TEST_CASE("fused attention does not change the model FLOP") {
  for (const Shape& s : shapes) {
    const double unfused = forward_flop(gpt(gpt_spec(s), workload(s, AttentionKind::unfused))).count;
    for (const AttentionKind fused : {AttentionKind::flash, AttentionKind::flash2})
      CHECK(forward_flop(gpt(gpt_spec(s), workload(s, fused))).count == unfused);
  }
}

TEST_CASE("the FLOP of one GPT token are six per parameter and attention's 12 L h s, forward and backward") {
  // PaLM, arXiv:2204.02311, appendix B; without biases, norms and positions, which multiply nothing.
  const Shape s{1, 512, 4, 256, 4, 1024};
  ModelSpec spec = gpt_spec(s);
  spec.bias = false, spec.max_positions = 0;
  const OpGraph graph = gpt(spec, workload(s, AttentionKind::unfused));
  const std::int64_t norms = (2 * s.layers + 1) * s.hidden;
  const double per_token = 6 * static_cast<double>(parameter_count(graph) - norms) +
                           12 * product({s.layers, s.hidden, s.sequence});
  CHECK(3 * forward_flop(graph).count == per_token * static_cast<double>(s.sequence));
}

struct T5Shape {
  std::int64_t batch, encoder_tokens, decoder_tokens, encoder_layers, decoder_layers, hidden, heads, head_dim,
      ffn, vocab;
};

TEST_CASE("T5 counts encoder tokens in the encoder, decoder tokens in the decoder, and both across") {
  for (const T5Shape& s :
       {T5Shape{1, 1, 1, 1, 1, 8, 1, 8, 8, 10}, T5Shape{2, 48, 17, 3, 2, 160, 5, 32, 640, 1000},
        T5Shape{4, 512, 114, 2, 5, 64, 16, 128, 256, 321},
        T5Shape{8, 512, 114, 24, 24, 1024, 128, 128, 65536, 32128}}) {
    const ModelSpec spec{.family = Family::t5,
                         .encoder_layers = s.encoder_layers,
                         .decoder_layers = s.decoder_layers,
                         .hidden = s.hidden,
                         .heads = s.heads,
                         .head_dim = s.head_dim,
                         .ffn = s.ffn,
                         .vocab = s.vocab,
                         .bias = false,
                         .dropout = 0.1};
    const Workload w{.micro_batch = s.batch,
                     .sequence = s.encoder_tokens,
                     .decoder_sequence = s.decoder_tokens,
                     .dropout = 0.1,
                     .numerics = {DType::bf16, DType::bf16, DType::fp32, true}};
    const std::int64_t h = s.hidden, i = s.heads * s.head_dim, f = s.ffn, te = s.encoder_tokens,
                       td = s.decoder_tokens;
    // Per token: projections 2hi each, scores and context 2i per key each, feed-forward 4hf.
    const double encoder = product({s.batch, te, s.encoder_layers, 8 * h * i + 4 * te * i + 4 * h * f});
    const double self = product({s.batch, td, s.decoder_layers, 8 * h * i + 4 * td * i + 4 * h * f});
    const double cross = product({s.batch, s.decoder_layers, td * (4 * h * i + 4 * te * i) + te * 4 * h * i});
    const double head = product({s.batch, td, 2 * h, s.vocab});
    CHECK(forward_flop(t5(spec, w)).count == encoder + self + cross + head);
  }
}

TEST_CASE("LLaMA's are those of its projections, the scores of all heads, and three feed-forward products") {
  for (const std::int64_t kv : {8, 2, 1})
    for (const AttentionKind attention : {AttentionKind::unfused, AttentionKind::flash2}) {
      const ModelSpec spec{.family = Family::llama,
                           .layers = 3,
                           .hidden = 256,
                           .heads = 8,
                           .kv_heads = kv,
                           .head_dim = 32,
                           .ffn = 688,
                           .vocab = 1000,
                           .positions = Positions::rotary,
                           .tied_embeddings = false,
                           .activation = Activation::swiglu,
                           .norm = Norm::rmsnorm,
                           .bias = false};
      const Workload w = workload({4, 96, 3, 256, 8, 1000}, attention);
      const double layer = 4 * product({256, 256}) + 4 * product({256, kv * 32}) + 6 * product({256, 688}) +
                           4 * product({96, 256});
      CHECK(forward_flop(llama(spec, w)).count == product({4, 96}) * (3 * layer + 2 * product({256, 1000})));
    }
}

TEST_CASE("BERT's FLOP are GPT's plus the head's transform; only gathered positions reach the head") {
  const Shape s{4, 128, 2, 256, 4, 3000};
  ModelSpec spec = gpt_spec(s);
  const double body =
      forward_flop(gpt(spec, workload(s, AttentionKind::unfused))).count - 2 * product({4, 128, 256, 3000});
  spec.family = Family::bert, spec.activation = Activation::gelu;
  for (const auto& [share, rows] : {std::pair(1.0, 128), std::pair(0.15625, 20)}) {
    Workload w = workload(s, AttentionKind::unfused);
    w.masked_share = share;
    CHECK(forward_flop(bert(spec, w)).count == body + product({4, rows}) * 2 * (256 * 256 + 256 * 3000));
  }
}

TEST_CASE("a loss in chunks has the FLOP of one at once, and makes its gradients in the forward pass") {
  const Shape s{4, 128, 2, 256, 4, 3000};
  Workload w = workload(s, AttentionKind::unfused);
  const double once = forward_flop(gpt(gpt_spec(s), w)).count;
  w.loss_chunks = 7;
  const OpGraph graph = gpt(gpt_spec(s), w);
  CHECK(forward_flop(graph).count == once);
  const Op& loss = graph.ops.back();
  double executed = 0;
  for (const Kernel& k : loss.forward) executed += executed_flop(k).count;
  CHECK(executed == 3 * loss.model_flop.count);
  CHECK(loss.forward_temporary == Bytes{74 * 3000 * 2});  // ceil(512 / 7) rows in bf16
}

TEST_CASE("fp8 moves the products of blocks' linear layers, and no others, without changing the FLOP") {
  const Shape s{2, 64, 2, 128, 4, 512};
  Workload w = workload(s, AttentionKind::unfused);
  const OpGraph plain = gpt(gpt_spec(s), w);
  w.numerics.fp8_linears = true;
  const OpGraph low = gpt(gpt_spec(s), w);
  CHECK(forward_flop(low).count == forward_flop(plain).count);
  for (const Op& op : low.ops)
    for (const auto* kernels : {&op.forward, &op.backward})
      for (const Kernel& k : *kernels)
        if (const Gemm* g = std::get_if<Gemm>(&k)) {
          const bool in_block = low.modules[op.module].block && op.name == "linear";
          CHECK((g->dtype == DType::fp8) == in_block);
        }
  for (std::size_t i = 0; i < plain.segments.size(); ++i)  // saved in high precision
    CHECK(saved_bytes(low, low.segments[i]) == saved_bytes(plain, plain.segments[i]));
}

TEST_CASE("FLOP are proportional to the micro-batch and do not depend on number formats or dropout") {
  const Shape one{1, 64, 2, 128, 4, 256};
  Shape eight = one;
  eight.batch = 8;
  const double flop = forward_flop(gpt(gpt_spec(one), workload(one, AttentionKind::unfused))).count;
  CHECK(forward_flop(gpt(gpt_spec(eight), workload(eight, AttentionKind::unfused))).count == 8 * flop);
  Workload w = workload(one, AttentionKind::unfused);
  w.dropout = 0;
  w.numerics = {};
  CHECK(forward_flop(gpt(gpt_spec(one), w)).count == flop);
}

}  // namespace
}  // namespace shardsim
