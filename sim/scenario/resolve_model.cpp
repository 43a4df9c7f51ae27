#include "sim/model/family.h"
#include "sim/scenario/resolver.h"

namespace shardsim {
namespace {

// "a|b|c" -> {"a", "b", "c"}
std::vector<std::string> split(std::string_view list) {
  std::vector<std::string> parts;
  while (!list.empty()) {
    const std::size_t end = std::min(list.find('|'), list.size());
    parts.emplace_back(list.substr(0, end));
    list.remove_prefix(std::min(end + 1, list.size()));
  }
  return parts;
}
bool contains(const std::vector<std::string>& list, const std::string& text) {
  return std::find(list.begin(), list.end(), text) != list.end();
}

}  // namespace

void Resolver::read_model() {
  ModelSpec& m = s_.model;
  constexpr std::string_view what = "the model";
  m.name = text("model.name", "inline", "a model without a name");
  m.family = parse(required<std::string>("model.family", what),
                   {Family::gpt, Family::t5, Family::llama, Family::bert, Family::bart});
  const FamilyEntry& family = entry(m.family);
  reject_what_the_family_lacks(family);
  if (family.encoder_decoder) {
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
  m.kv_heads = integer("model.kv_heads", m.heads, "as many as heads");
  if (m.heads % m.kv_heads != 0)
    fail("model.kv_heads", fmt::format("{} key and value heads do not divide {} heads", m.kv_heads, m.heads));
  m.ffn = integer("model.ffn", 4 * m.hidden, "4 * hidden");
  m.vocab = required_int("model.vocab", what);
  m.tied_embeddings = flag("model.tied_embeddings", family.tied_embeddings, "the family's usual");
  m.activation = parse(
      family_choice("model.activation", family.activations),
      {Activation::relu, Activation::gelu, Activation::gelu_tanh, Activation::swiglu, Activation::geglu});
  m.norm = parse(family_choice("model.norm", family.norms), {Norm::layernorm, Norm::rmsnorm});
  m.bias = flag("model.bias", family.biases.starts_with("true"), "the family's usual");
  if (!contains(split(family.biases), m.bias ? "true" : "false"))
    fail("model.bias", fmt::format("family \"{}\" has {}biases", family.name, m.bias ? "no " : ""));
  m.dropout = number("model.dropout", family.dropout, "the family's usual");
  read_positions(family);
  const std::vector<std::string> options = split(family.options);
  if (contains(options, "type_vocab")) m.type_vocab = integer("model.type_vocab", 0, "no segments");
  if (contains(options, "pooler")) m.pooler = flag("model.pooler", false, "no next-sentence head");
  if (contains(options, "embedding_norm"))
    m.embedding_norm = flag("model.embedding_norm", false, "the family's usual");
  if (m.kv_heads != m.heads) m.repeat_kv = flag("model.repeat_kv", true, "Hugging Face's");
  if (m.norm == Norm::rmsnorm)
    m.norm_impl =
        parse(text("model.norm_impl", "eager", "Hugging Face's"), {NormImpl::eager, NormImpl::fused});
  else if (given("model.norm_impl"))
    fail("model.norm_impl", "norm \"layernorm\" always is one kernel");
}

std::string Resolver::family_choice(const std::string& key, std::string_view legal) {
  const std::vector<std::string> choices = split(legal);
  const std::string chosen = text(key, choices.front(), "the family's usual");
  if (!contains(choices, chosen))
    fail(key, fmt::format("family \"{}\" has no {} \"{}\"; legal here: {}", name(s_.model.family),
                          key.substr(6), chosen, fmt::join(choices, ", ")));
  return chosen;
}

void Resolver::read_positions(const FamilyEntry& family) {
  ModelSpec& m = s_.model;
  const bool may_learn = contains(split(family.positions), "learned");
  const bool may_go_without = contains(split(family.positions), "none");
  m.max_positions = integer("model.max_positions", 0, "no learned positions");
  if (may_go_without && m.max_positions == 0 && !given("model.positions"))
    text("model.positions", "none", "no learned positions");
  m.positions =
      parse(family_choice("model.positions", family.positions),
            {Positions::none, Positions::learned, Positions::rotary, Positions::alibi, Positions::relative});
  const bool learned = m.positions == Positions::learned;
  if (learned && m.max_positions == 0)
    fail("model.max_positions", "learned positions need \"max_positions\"");
  if (!learned && m.max_positions != 0)
    fail("model.max_positions",
         fmt::format("max_positions counts learned positions; {} positions are not learned",
                     name(m.positions)));
  if (m.positions == Positions::rotary && m.head_dim % 2 != 0)
    fail("model.positions", fmt::format("rotary positions turn pairs; head_dim is {}", m.head_dim));
  if (!may_learn) return;
  m.position_offset = integer("model.position_offset", 0, "a row for each position");
  if (!learned && m.position_offset != 0) fail("model.position_offset", "an offset needs learned positions");
}

void Resolver::reject_what_the_family_lacks(const FamilyEntry& family) {
  const std::vector<std::string> options = split(family.options);
  for (const char* option :
       {"kv_heads", "repeat_kv", "position_offset", "embedding_norm", "type_vocab", "pooler"})
    if (given(std::string("model.") + option) && !contains(options, option) &&
        std::string_view(option) != "kv_heads")
      fail(std::string("model.") + option, fmt::format("family \"{}\" has no \"{}\"", family.name, option));
  for (const char* key : {"layers", "encoder_layers", "decoder_layers"})
    if (given(std::string("model.") + key) == true &&
        (std::string_view(key) == "layers") == family.encoder_decoder)
      fail(std::string("model.") + key, fmt::format("family \"{}\" has no \"{}\"", family.name, key));
  if (contains(options, "kv_heads") || !given("model.kv_heads")) return;
  if (required_int("model.kv_heads", "") != required_int("model.heads", "the model"))
    fail("model.kv_heads",
         fmt::format("family \"{}\" has as many key and value heads as heads", family.name));
}

}  // namespace shardsim
