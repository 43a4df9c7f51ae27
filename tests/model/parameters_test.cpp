// Do the bundled models have the parameters their authors count, to the digit, and each block its share?
#include <doctest/doctest.h>

#include "sim/model/family.h"
#include "sim/scenario/scenario.h"

#include "tests/support/hardware.h"

namespace shardsim {
namespace {

ModelSpec model_named(const std::string& name) {
  const std::string text = "model = \"" + name + "\"\ntopology = \"single-gpu\"\n";
  return resolve(read_scenario_text(text, "a.toml").settings, test_library()).model;
}
OpGraph graph_of(const ModelSpec& spec) {
  return build(spec, {.micro_batch = 1, .sequence = 8, .decoder_sequence = 8, .numerics = {}});
}
std::int64_t parameters(const std::string& name) { return parameter_count(graph_of(model_named(name))); }

std::int64_t parameters_of(const OpGraph& graph, const std::string& module) {
  for (const ModuleId m : ids(graph.modules))
    if (graph.modules[m].name == module) return parameter_count(graph, m);
  return -1;
}

TEST_CASE("T5 models have the parameters of Hugging Face's") {
  // T5ForConditionalGeneration of the t5-* config.json files; Raffel et al. 2020, arXiv:1910.10683.
  CHECK(parameters("t5-small") == 60'506'624);
  CHECK(parameters("t5-base") == 222'903'552);
  CHECK(parameters("t5-large") == 737'668'096);
  CHECK(parameters("t5-3b") == 2'851'598'336);
  CHECK(parameters("t5-11b") == 11'307'321'344);
}

TEST_CASE("flan-T5 models have the parameters of Hugging Face's: gated, with a head of their own") {
  CHECK(parameters("flan-t5-small") == 76'961'152);
  CHECK(parameters("flan-t5-base") == 247'577'856);
  CHECK(parameters("flan-t5-large") == 783'150'080);
  CHECK(parameters("flan-t5-xl") == 2'849'757'184);
  CHECK(parameters("flan-t5-xxl") == 11'135'332'352);
}

TEST_CASE("BERT, RoBERTa and BART have the parameters of Hugging Face's") {
  // BertForPreTraining (110M and 336M), RobertaForMaskedLM, BartForConditionalGeneration, heads tied.
  CHECK(parameters("bert-base") == 110'106'428);
  CHECK(parameters("bert-large") == 336'226'108);
  CHECK(parameters("roberta-base") == 124'697'433);
  CHECK(parameters("roberta-large") == 355'412'057);
  CHECK(parameters("bart-large") == 406'291'456);
  // BertForMaskedLM: no pooler, no next-sentence head.
  ModelSpec spec = model_named("bert-base");
  spec.pooler = false;
  CHECK(parameter_count(graph_of(spec)) == 109'514'298);
}

TEST_CASE("LLaMA models have the parameters of their checkpoints") {
  // Hugging Face model cards (safetensors): huggyllama, meta-llama.
  CHECK(parameters("llama-7b") == 6'738'415'616);
  CHECK(parameters("llama-13b") == 13'015'864'320);
  CHECK(parameters("llama-30b") == 32'528'943'616);
  CHECK(parameters("llama-65b") == 65'285'660'672);
  CHECK(parameters("llama2-7b") == 6'738'415'616);
  CHECK(parameters("llama2-13b") == 13'015'864'320);
  CHECK(parameters("llama2-70b") == 68'976'648'192);
  CHECK(parameters("llama3-8b") == 8'030'261'248);
  CHECK(parameters("llama3-70b") == 70'553'706'496);
}

TEST_CASE("BLOOM and BloombergGPT have the parameters that their authors state") {
  // bigscience/bloom* model cards; arXiv:2303.17564, table 4.
  CHECK(parameters("bloom-560m") == 559'214'592);
  CHECK(parameters("bloom-1b1") == 1'065'314'304);
  CHECK(parameters("bloom-176b") == 176'247'271'424);
  CHECK(parameters("bloomberggpt-50b") == 50'558'868'480);
}

TEST_CASE("GPT-3's family, OPT and Chinchilla have the sizes of their tables") {
  const auto millions = [](const std::string& name) { return static_cast<double>(parameters(name)) * 1e-6; };
  // Brown et al. 2020, arXiv:2005.14165, table D.1, rounded there.
  CHECK(millions("gpt3-small") == doctest::Approx(125).epsilon(0.002));
  CHECK(millions("gpt3-medium") == doctest::Approx(356).epsilon(0.002));
  CHECK(millions("gpt3-large") == doctest::Approx(760).epsilon(0.002));
  CHECK(millions("gpt3-xl") == doctest::Approx(1320).epsilon(0.004));
  CHECK(millions("gpt3-2.7b") == doctest::Approx(2650).epsilon(0.002));
  CHECK(millions("gpt3-6.7b") == doctest::Approx(6660).epsilon(0.002));
  CHECK(millions("gpt3-13b") == doctest::Approx(12850).epsilon(0.002));
  CHECK(millions("opt-175b") == doctest::Approx(175e3).epsilon(0.003));
  // 70 billion with the projections of relative positions, h^2 in each of 80 layers, which are left out.
  const double projections = 80 * 8192.0 * 8192.0 * 1e-6;
  CHECK(millions("chinchilla-70b") + projections == doctest::Approx(70e3).epsilon(0.002));
}

TEST_CASE("the inferred T5 shapes have the sizes that the FSDP paper names them by") {
  // "T5-611M", "T5-2.28B": arXiv:2304.11277, figure 6; the digits are those of the inferred shapes.
  CHECK(parameters("t5-611m") == 611'838'976);
  CHECK(parameters("t5-2.28b") == 2'280'642'560);
}

TEST_CASE("GPT-2 models have the parameters of Hugging Face's") {
  // GPT2LMHeadModel of the gpt2* config.json files, the head tied to the embedding.
  CHECK(parameters("gpt2") == 124'439'808);
  CHECK(parameters("gpt2-medium") == 354'823'168);
  CHECK(parameters("gpt2-large") == 774'030'080);
  CHECK(parameters("gpt2-xl") == 1'557'611'200);
}

TEST_CASE("MPT models have the n_params of MosaicML's benchmark tables") {
  // llm-foundry, scripts/train/benchmarking.
  CHECK(parameters("mpt-1b") == 1'315'950'592);
  CHECK(parameters("mpt-3b") == 2'651'837'440);
  CHECK(parameters("mpt-7b") == 6'658'859'008);
  CHECK(parameters("mpt-13b") == 12'853'954'560);
  CHECK(parameters("mpt-30b") == 29'975'214'080);
  CHECK(parameters("mpt-70b") == 64'862'437'376);
}

TEST_CASE("GPT-3 has 174.6 billion parameters") {
  // Brown et al. 2020, arXiv:2005.14165, table 2.1, 12 L h^2 (1 + 13/(12 h)) + (V + s) h; given to 0.1
  // billion.
  CHECK(static_cast<double>(parameters("gpt3-175b")) == doctest::Approx(174.6e9).epsilon(1e-4));
  // minGPT's head is a parameter of its own.
  CHECK(static_cast<double>(parameters("mingpt-175b")) == doctest::Approx(175.2e9).epsilon(1e-3));
}

TEST_CASE("a T5 encoder block has 4di + 2df + 2d parameters, a decoder block 8di + 2df + 3d") {
  for (const std::string name : {"t5-small", "t5-3b", "t5-11b", "t5-611m", "t5-2.28b"}) {
    CAPTURE(name);
    const ModelSpec spec = model_named(name);
    const OpGraph graph = graph_of(spec);
    const std::int64_t d = spec.hidden, i = spec.heads * spec.head_dim, f = spec.ffn,
                       encoder = 4 * d * i + 2 * d * f + 2 * d, decoder = 8 * d * i + 2 * d * f + 3 * d,
                       bias = 32 * spec.heads;  // 32 buckets, in the first block of each stack
    CHECK(parameters_of(graph, "encoder 0") == encoder + bias);
    CHECK(parameters_of(graph, "decoder 0") == decoder + bias);
    for (std::int64_t layer = 1; layer < spec.encoder_layers; ++layer)
      CHECK(parameters_of(graph, "encoder " + std::to_string(layer)) == encoder);
    for (std::int64_t layer = 1; layer < spec.decoder_layers; ++layer)
      CHECK(parameters_of(graph, "decoder " + std::to_string(layer)) == decoder);
    CHECK(parameters_of(graph, "root") == spec.vocab * d + 2 * d);  // two final norms
  }
}

TEST_CASE("a GPT block has 12 h^2 + 13 h parameters") {
  for (const std::string name : {"gpt2", "gpt2-xl", "mpt-7b", "gpt3-175b"}) {
    CAPTURE(name);
    const ModelSpec spec = model_named(name);
    const OpGraph graph = graph_of(spec);
    const std::int64_t h = spec.hidden;
    for (std::int64_t layer = 0; layer < spec.layers; ++layer)
      CHECK(parameters_of(graph, "decoder " + std::to_string(layer)) == 12 * h * h + 13 * h);
    CHECK(parameters_of(graph, "root") == (spec.vocab + spec.max_positions + 2) * h);
  }
}

TEST_CASE("a LLaMA block has 2 h i + 2 h i_kv + 3 h f + 2 h parameters") {
  for (const std::string name : {"llama-7b", "llama2-70b", "llama3-8b"}) {
    CAPTURE(name);
    const ModelSpec spec = model_named(name);
    const OpGraph graph = graph_of(spec);
    const std::int64_t h = spec.hidden, i = spec.heads * spec.head_dim, kv = spec.key_heads() * spec.head_dim;
    CHECK(parameters_of(graph, "decoder 7") == 2 * h * i + 2 * h * kv + 3 * h * spec.ffn + 2 * h);
    CHECK(parameters_of(graph, "root") == 2 * spec.vocab * h + h);
  }
}

TEST_CASE("grouped keys and values need weights for their heads only") {
  ModelSpec spec = model_named("gpt2");
  const std::int64_t all = parameter_count(graph_of(spec)), h = spec.hidden;
  spec.kv_heads = 1;
  CHECK(parameter_count(graph_of(spec)) == all - 12 * 2 * (h - 64) * (h + 1));
}

TEST_CASE("what a spec leaves out has no parameters") {
  ModelSpec spec = model_named("gpt2");
  const std::int64_t h = spec.hidden, all = parameter_count(graph_of(spec));
  spec.max_positions = 0;
  CHECK(parameter_count(graph_of(spec)) == all - 1024 * h);
  spec.bias = false;  // of qkv, attention out, up, down; of two LayerNorms; and of the final one
  CHECK(parameter_count(graph_of(spec)) == all - 1024 * h - 12 * (3 + 1 + 4 + 1 + 2) * h - h);
  spec.tied_embeddings = false;
  CHECK(parameter_count(graph_of(spec)) == all - 1024 * h - 12 * 11 * h - h + spec.vocab * h);
}

TEST_CASE("the size of the batch and the number formats do not change the count") {
  for (const std::string name : {"gpt2", "t5-small"}) {
    const ModelSpec spec = model_named(name);
    const Numerics autocast{DType::bf16, DType::bf16, DType::fp32, true};
    CHECK(parameter_count(build(spec, {.micro_batch = 3,
                                       .sequence = 64,
                                       .decoder_sequence = 5,
                                       .dropout = 0.1,
                                       .numerics = autocast})) == parameter_count(graph_of(spec)));
  }
}

}  // namespace
}  // namespace shardsim
