// Applying overlays to parsed files: include only in .cpp files of this room.
#pragma once

#include <string_view>

#include "sim/scenario/overlay.h"
#include "sim/scenario/toml.h"

namespace shardsim {

// The kinds of files that overlays reach: "gpu" is in "topologies/gpus".
struct OverlaySection {
  std::string_view name, folder;
};
inline constexpr OverlaySection overlay_sections[] = {{"gpu", "topologies/gpus"},
                                                      {"stack", "topologies/stacks"},
                                                      {"transport", "topologies/transports"},
                                                      {"topology", "topologies"}};

// A file as its reader sees it: a stack with what it is based on.
toml::table parse_constants(std::string_view section, const std::string& path);

// Replaces the constants of a GPU, stack or transport file. They keep the place they have in the overlay.
void overlay_document(Overlays& overlays, std::string_view section, toml::table& document);

// The tables of an overlay for one file: that of all files first.
std::vector<toml::table> overlay_tables(const Overlay& overlay, std::string_view section,
                                        std::string_view name);

// The node of "gemm.bf16.tile_efficiency[0]", or null.
const toml::node* find_constant(const toml::table& document, std::string_view key);

}  // namespace shardsim
