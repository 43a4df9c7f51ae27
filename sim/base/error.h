// What the user got wrong, with the place and a way out.
#pragma once

#include <exception>
#include <string>
#include <string_view>
#include <vector>

namespace shardsim {

// A position in an input: a file with line and column (1-based), or a command-line word (line = 0).
struct Place {
  std::string source;
  int line = 0;
  int column = 0;
};
std::string to_string(const Place& place);  // "a.toml:12:3", or just the source when there is no line

// Thrown for any mistake in an input; caught once, in main, which prints text() and exits with 2.
class InputError : public std::exception {
 public:
  InputError(Place place, std::string message) : place_(std::move(place)) {
    text_ = place_.source.empty() ? std::move(message) : to_string(place_) + ": " + message;
  }
  const char* what() const noexcept override { return text_.c_str(); }
  const std::string& text() const { return text_; }
  const Place& place() const { return place_; }

 private:
  Place place_;
  std::string text_;
};

// The name among `known` nearest to `name` by edits (insert, delete, replace, swap), or "" when none is near.
std::string nearest(std::string_view name, const std::vector<std::string>& known);

// `; did you mean "gpt2"?` for a near miss, else `; known: a, b, c`, else "" when nothing is known.
std::string suggestion(std::string_view name, const std::vector<std::string>& known);

}  // namespace shardsim
