// Finds and reads the files that come with the program or with the user: models, topologies, GPUs, stacks.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "sim/base/error.h"
#include "sim/hardware/gpu.h"
#include "sim/hardware/stack.h"
#include "sim/scenario/overlay.h"
#include "sim/topology/spec.h"

namespace shardsim {

// Folders that hold models/, topologies/ and scenarios/; earlier ones win.
class Library {
 public:
  explicit Library(std::vector<std::string> roots) : roots_(std::move(roots)) {}

  // The path of a file of a kind ("models", "topologies/gpus") by name, or the name itself if it is a path
  // (has a slash or ends in .toml). Throws InputError at `place` with the nearest name.
  std::string find(std::string_view kind, const std::string& name, const Place& place) const;
  std::vector<std::string> names(std::string_view kind) const;  // sorted, without .toml

  // Scenarios go by their path under scenarios/, without .toml: "fsdp-paper/model-scale".
  std::string find_scenario(const std::string& name) const;  // "" if there is none
  std::vector<std::string> scenario_names() const;
  // Tables of measured runs by their path under scenarios/, without .csv.
  std::string find_table(const std::string& name) const;  // "" if there is none
  std::vector<std::string> table_names() const;

 private:
  std::string find_under_scenarios(const std::string& name, const char* extension) const;
  std::vector<std::string> names_under_scenarios(const char* extension) const;

  std::vector<std::string> roots_;
};

// Each throws InputError with the place of what is wrong, in the file or in the overlay.
Gpu read_gpu(const std::string& path, Overlays* overlays = nullptr);
Stack read_stack(const std::string& path, Overlays* overlays = nullptr);
Transport read_transport(const std::string& path, Overlays* overlays = nullptr);

}  // namespace shardsim
