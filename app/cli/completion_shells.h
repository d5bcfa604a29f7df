// The tree of commands as completion needs it, and one writer a shell. Main thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace switchyard::completion {

struct Value {
  enum Kind { kText, kWords, kFile, kModel, kTrace } kind;
  std::vector<std::string> words;  // offered beside files
  std::string name;                // "FILE"
};

struct Option {
  std::vector<std::string> names;  // "-o", "--output"
  std::string description;
  std::optional<Value> value;  // none: a switch
};

struct Command {
  std::string path;  // "trace export"; empty: the program
  std::string name, description;
  std::vector<Option> options;
  std::vector<Value> positionals;
  std::vector<Command> commands;
};

std::string bash(const Command& root);
std::string zsh(const Command& root);
std::string fish(const Command& root);

}  // namespace switchyard::completion
