#include "sim/scenario/resolver.h"

namespace shardsim {

void Resolver::read_model() {
  ModelSpec& m = s_.model;
  constexpr std::string_view what = "the model";
  m.name = text("model.name", "inline", "a model without a name");
  m.family = parse(required<std::string>("model.family", what), {Family::gpt, Family::t5});
  const bool t5 = m.family == Family::t5;
  const std::vector<std::string> other =
      t5 ? std::vector<std::string>{"model.layers"}
         : std::vector<std::string>{"model.encoder_layers", "model.decoder_layers"};
  for (const std::string& key : other)
    if (given(key)) fail(key, fmt::format("family \"{}\" has no \"{}\"", name(m.family), key.substr(6)));
  if (t5) {
    m.encoder_layers = required_int("model.encoder_layers", what);
    m.decoder_layers = required_int("model.decoder_layers", what);
  } else {
    m.layers = required_int("model.layers", what);
  }
  m.hidden = required_int("model.hidden", what);
  m.heads = required_int("model.heads", what);
  if (!given("model.head_dim") && m.hidden % m.heads != 0)
    fail("model.heads",
         fmt::format("{} heads do not divide a hidden size of {}; give head_dim", m.heads, m.hidden));
  m.head_dim = integer("model.head_dim", m.hidden / m.heads, "hidden / heads");
  m.ffn = integer("model.ffn", 4 * m.hidden, "4 * hidden");
  m.vocab = required_int("model.vocab", what);
  m.max_positions = integer("model.max_positions", 0, "no learned positions");
  m.tied_embeddings = flag("model.tied_embeddings", true, "the family's usual");
  m.activation = parse(text("model.activation", t5 ? "relu" : "gelu", "the family's usual"),
                       {Activation::relu, Activation::gelu, Activation::gelu_tanh});
  m.bias = flag("model.bias", !t5, "the family's usual");
  m.dropout = number("model.dropout", t5 ? 0.1 : 0.0, "the family's usual");
  reject_what_the_family_lacks();
}

void Resolver::reject_what_the_family_lacks() {
  const ModelSpec& m = s_.model;
  const bool t5 = m.family == Family::t5;
  if (integer("model.kv_heads", m.heads, "as many as heads") != m.heads)
    fail("model.kv_heads", "grouped key and value heads are not supported yet");
  if (text("model.norm", t5 ? "rmsnorm" : "layernorm", "the family's usual") !=
      (t5 ? "rmsnorm" : "layernorm"))
    fail("model.norm", fmt::format("another norm than the usual one of family \"{}\" is not supported yet",
                                   name(m.family)));
  if (!t5) return;
  if (m.activation != Activation::relu)
    fail("model.activation", "family \"t5\" is supported with activation \"relu\" only, yet");
  if (m.bias) fail("model.bias", "family \"t5\" has no biases");
  if (m.max_positions != 0)
    fail("model.max_positions", "family \"t5\" has relative positions, not learned ones");
}

}  // namespace shardsim
