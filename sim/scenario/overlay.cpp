#include "sim/scenario/overlay.h"

#include <algorithm>
#include <charconv>
#include <sstream>

#include <fmt/format.h>

#include "sim/scenario/library.h"
#include "sim/scenario/overlay_document.h"
#include "sim/scenario/settings.h"
#include "sim/scenario/text_file.h"

namespace shardsim {
namespace {

constexpr std::string_view all_files = "*";
constexpr std::uintmax_t file_mib_max = 16;
constexpr const char* no_constants[] = {"name", "source", "versions", "architecture"};

Scalar scalar_or_text(const toml::node& node) {
  if (const std::optional<Scalar> scalar = scalar_of(node)) return *scalar;
  std::ostringstream text;
  if (const toml::array* array = node.as_array())
    text << *array;
  else
    text << "a table";
  return text.str();
}

// "tile_efficiency[0]" -> "tile_efficiency", 0; no index = npos.
std::pair<std::string_view, std::size_t> split_index(std::string_view key) {
  const std::size_t bracket = key.find('[');
  if (bracket == std::string_view::npos || !key.ends_with(']')) return {key, std::string_view::npos};
  std::size_t index = 0;
  const char* end = key.data() + key.size() - 1;
  const auto [rest, error] = std::from_chars(key.data() + bracket + 1, end, index);
  if (error != std::errc{} || rest != end) return {key, std::string_view::npos};
  return {key.substr(0, bracket), index};
}

toml::node* child(toml::table& table, std::string_view key) {
  const auto [name, index] = split_index(key);
  toml::node* node = table.get(name);
  if (node == nullptr || index == std::string_view::npos) return node;
  toml::array* array = node->as_array();
  return array != nullptr && index < array->size() ? array->get(index) : nullptr;
}

std::vector<std::string> names_in(const toml::table& table) {
  std::vector<std::string> names;
  for (const auto& [key, node] : table)
    if (std::find(std::begin(no_constants), std::end(no_constants), key.str()) == std::end(no_constants))
      names.emplace_back(key.str());
  return names;
}

// Quoted keys may be dotted: "gemm.bf16.tile_efficiency[0]".
toml::node* find_in(toml::table& table, std::string_view key, toml::table*& parent, std::string_view& last) {
  parent = &table;
  for (;;) {
    const std::size_t dot = key.find('.');
    last = key.substr(0, dot);
    toml::node* node = child(*parent, last);
    if (dot == std::string_view::npos || node == nullptr) return node;
    if (node->as_table() == nullptr) return nullptr;
    parent = node->as_table();
    key.remove_prefix(dot + 1);
  }
}

class Merge {
 public:
  Merge(std::string file, std::string prefix, bool any_file, std::vector<OverlaidConstant>& in_force)
      : file_(std::move(file)), prefix_(std::move(prefix)), any_file_(any_file), in_force_(in_force) {}

  void merge(toml::table& target, toml::table& source, const std::string& path) {
    for (auto&& [key, node] : source) {
      const std::string name(key.str());
      toml::table* parent = nullptr;
      std::string_view last;
      toml::node* old = find_in(target, name, parent, last);
      const bool word = path.empty() && std::find(std::begin(no_constants), std::end(no_constants), name) !=
                                            std::end(no_constants);
      if (old == nullptr && any_file_) continue;
      if (old == nullptr || word)
        throw InputError(place_of(key, file_),
                         word ? fmt::format("\"{}\" is no constant that an overlay can replace", name)
                              : fmt::format("unknown constant \"{}\" in [{}]{}", last, prefix_ + path,
                                            suggestion(last, names_in(*parent))));
      const std::string full = path + "." + name;
      if (toml::table* into = old->as_table(); into != nullptr && node.as_table() != nullptr) {
        merge(*into, *node.as_table(), full);
        continue;
      }
      if (old->as_table() != nullptr)
        throw InputError(place_of(node, file_), fmt::format("\"{}\" is a table of constants", name));
      replace(*parent, last, node, *old, full);
    }
  }

 private:
  void replace(toml::table& parent, std::string_view key, toml::node& node, const toml::node& old,
               const std::string& path) {
    in_force_.push_back({prefix_ + path, scalar_or_text(node), scalar_or_text(old), place_of(node, file_)});
    const auto [name, index] = split_index(key);
    if (index == std::string_view::npos) {
      parent.insert_or_assign(name, std::move(node));
      return;
    }
    toml::array& array = *parent.get(name)->as_array();
    array.replace(array.cbegin() + static_cast<std::ptrdiff_t>(index), std::move(node));
  }

  std::string file_, prefix_;
  bool any_file_;
  std::vector<OverlaidConstant>& in_force_;
};

// The table of a section for a file, or all files; null if there is none.
toml::table* table_of(toml::table& overlay, std::string_view section, std::string_view name) {
  toml::table* files = overlay[section].as_table();
  return files == nullptr ? nullptr : (*files)[name].as_table();
}

// Two overlays, or the two tables of one, may set the same constant: one row, with what the file had.
void keep_last(std::vector<OverlaidConstant>& in_force) {
  for (std::size_t i = 0; i < in_force.size(); ++i)
    for (std::size_t k = i + 1; k < in_force.size(); ++k)
      if (in_force[k].key == in_force[i].key) {
        in_force[k].before = in_force[i].before;
        in_force.erase(in_force.begin() + static_cast<std::ptrdiff_t>(i--));
        break;
      }
}

void each_leaf(const toml::node& node, const std::string& key, const std::string& file,
               const std::function<void(const std::string&, const toml::node&)>& visit) {
  if (const toml::table* table = node.as_table()) {
    for (const auto& [k, v] : *table)
      each_leaf(v, key.empty() ? std::string(k.str()) : key + "." + std::string(k.str()), file, visit);
  } else {
    visit(key, node);
  }
}

void check_topology(const std::string& key, const toml::node& node, const std::string& file) {
  const Place place = place_of(node, file);
  const KeySpec& spec = key_spec("topology." + key, place);
  if (spec.type == KeySpec::Type::text)
    throw InputError(place, fmt::format("\"{}\" is no constant that an overlay can replace", key));
  if (node.as_array() != nullptr) throw InputError(place, fmt::format("topology.{} is a list", key));
  checked(spec, scalar_or_text(node), place);
}

// A constant for all files must stand in one of them at least.
void check_for_all(const toml::table& constants, const OverlaySection& section, const std::string& file,
                   const Library& library) {
  each_leaf(constants, "", file, [&](const std::string& key, const toml::node& node) {
    std::vector<std::string> known;
    for (const std::string& name : library.names(section.folder)) {
      const toml::table document = parse_constants(section.name, library.find(section.folder, name, {}));
      if (find_constant(document, key) != nullptr) return;
      for (std::string& one : names_in(document)) known.push_back(std::move(one));
    }
    std::sort(known.begin(), known.end());
    known.erase(std::unique(known.begin(), known.end()), known.end());
    throw InputError(place_of(node, file), fmt::format("unknown constant \"{}\" in [{}.\"*\"]{}", key,
                                                       section.name, suggestion(key, known)));
  });
}

void read_again(std::string_view section, const std::string& path, Overlays& overlays) {
  if (section == "gpu") read_gpu(path, &overlays);
  if (section == "stack") read_stack(path, &overlays);
  if (section == "transport") read_transport(path, &overlays);
}

void check_section(const OverlaySection& section, const toml::table& files, const Overlay& overlay,
                   const Library& library) {
  for (const auto& [key, node] : files) {
    const std::string name(key.str());
    const toml::table* constants = node.as_table();
    if (constants == nullptr)
      throw InputError(
          place_of(node, overlay.file),
          fmt::format("{0}.{1} is a value; a table [{0}.{1}] of constants is expected", section.name, name));
    if (name != all_files) library.find(section.folder, name, place_of(key, overlay.file));
    if (section.name == "topology") {
      each_leaf(*constants, "", overlay.file, [&](const std::string& constant, const toml::node& value) {
        check_topology(constant, value, overlay.file);
      });
      continue;
    }
    if (name == all_files) check_for_all(*constants, section, overlay.file, library);
    for (const std::string& one :
         name == all_files ? library.names(section.folder) : std::vector<std::string>{name}) {
      Overlays only{{overlay}, {}};
      read_again(section.name, library.find(section.folder, one, {}), only);
    }
  }
}

}  // namespace

std::vector<toml::table> overlay_tables(const Overlay& overlay, std::string_view section,
                                        std::string_view name) {
  std::vector<toml::table> tables;
  toml::table document = parse_toml_text(overlay.text, overlay.file);
  for (const std::string_view which : {all_files, name})
    if (toml::table* table = table_of(document, section, which)) tables.push_back(std::move(*table));
  return tables;
}

void overlay_document(Overlays& overlays, std::string_view section, toml::table& document) {
  const std::string name = document["name"].value_or(std::string());
  for (const Overlay& overlay : overlays.overlays) {
    toml::table parsed = parse_toml_text(overlay.text, overlay.file);
    for (const std::string_view which : {all_files, std::string_view(name)})
      if (toml::table* table = table_of(parsed, section, which))
        Merge(overlay.file, fmt::format("{}.{}", section, name), which == all_files, overlays.in_force)
            .merge(document, *table, "");
  }
  keep_last(overlays.in_force);
}

const toml::node* find_constant(const toml::table& document, std::string_view key) {
  toml::table* parent = nullptr;
  std::string_view last;
  return find_in(const_cast<toml::table&>(document), key, parent, last);
}

void check_overlay(const Overlay& overlay, const Library& library) {
  const toml::table document = parse_toml_text(overlay.text, overlay.file);
  bool any = false;
  for (const auto& [key, node] : document) {
    if (key.str() == "name" || key.str() == "source") continue;
    const auto* section = std::find_if(std::begin(overlay_sections), std::end(overlay_sections),
                                       [&](const OverlaySection& s) { return s.name == key.str(); });
    if (section == std::end(overlay_sections))
      throw InputError(place_of(key, overlay.file),
                       fmt::format("unknown section \"{}\" of an overlay{}", key.str(),
                                   suggestion(key.str(), {"gpu", "stack", "transport", "topology"})));
    if (node.as_table() == nullptr)
      throw InputError(place_of(node, overlay.file),
                       fmt::format("\"{0}\" is no table; [{0}.NAME] is expected", section->name));
    check_section(*section, *node.as_table(), overlay, library);
    any = any || !node.as_table()->empty();
  }
  if (!any)
    throw InputError({overlay.file, 1, 1},
                     "holds no constants; a table such as [gpu.a100-sxm-40gb] is expected");
}

Overlay read_overlay(const std::string& path, const Library& library) {
  Overlay overlay{path, read_text_file(path, file_mib_max)};
  check_overlay(overlay, library);
  return overlay;
}

}  // namespace shardsim
