// Completion scripts, see completion_shells.h. Each is the tree as data and a few lines that walk the words typed so far.
#include "app/cli/completion_shells.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace switchyard::completion {
namespace {

template <class Visit>
void each(const Command& command, const Visit& visit) {
  visit(command);
  for (const Command& sub : command.commands) each(sub, visit);
}

// In single quotes: safe in all three shells but for fish, whose backslashes count there too.
std::string quoted(const std::string& text, bool fish = false) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'')
      out += fish ? "\\'" : "'\\''";
    else if (c == '\\' && fish)
      out += "\\\\";
    else
      out += c;
  }
  return out + "'";
}

std::string replaced(std::string text, char what, const char* by) {
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + std::string_view(by).size())) text.replace(at, 1, by);
  return text;
}

// --- bash ---

std::string bash_value(const Value& value) {
  std::vector<std::string> words = value.words;
  if (value.kind == Value::kText) words.push_back("@text");
  if (value.kind == Value::kTrace) words.push_back("@trace");
  if (value.kind == Value::kFile || value.kind == Value::kModel) words.push_back("@file");
  return quoted(fmt::format("{}", fmt::join(words, " ")));
}

constexpr const char* kBashWalk = R"sh(
_switchyard() {
  local cur=${COMP_WORDS[COMP_CWORD]} path= option= positional=0 files= words word i
  for ((i = 1; i < COMP_CWORD; ++i)); do
    word=${COMP_WORDS[i]}
    if [[ $option ]]; then
      [[ $word == = ]] || option=
    elif [[ $word == -* ]]; then
      [[ $(_switchyard_value "$path" "$word") ]] && option=$word
    elif [[ " $(_switchyard_commands "$path") " == *" $word "* ]]; then
      path=${path:+$path }$word positional=0
    else
      positional=$((positional + 1))
    fi
  done
  [[ $cur == = ]] && cur=
  if [[ $option ]]; then
    words=$(_switchyard_value "$path" "$option")
  elif [[ $cur == -* ]]; then
    words="$(_switchyard_options "$path") $(_switchyard_options '')"
  else
    words="$(_switchyard_commands "$path") $(_switchyard_positional "$path $positional")"
  fi
  COMPREPLY=()
  for word in $words; do
    case $word in
      @text) ;;
      @file) mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -f -- "$cur"); files=1 ;;
      @trace) mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -f -X '!*.moetrace.h5' -- "$cur"; compgen -d -- "$cur"); files=1 ;;
      "$cur"*) COMPREPLY+=("$word") ;;
    esac
  done
  [[ $files ]] && compopt -o filenames 2>/dev/null
  return 0
}
complete -F _switchyard switchyard
)sh";

// --- zsh ---

std::string function_name(const Command& command) {
  return "_switchyard" + (command.path.empty() ? "" : "_" + replaced(replaced(command.path, ' ', "_"), '-', "_"));
}

std::string zsh_text(const std::string& text) {  // inside [] and before :
  std::string out;
  for (const char c : text) {
    if (c == '[' || c == ']' || c == ':' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

std::string zsh_value(const Value& value) {
  const std::string name = zsh_text(value.name);
  const std::string words = fmt::format("{}", fmt::join(value.words, " "));
  switch (value.kind) {
    case Value::kText: return fmt::format(":{}: ", name);
    case Value::kWords: return fmt::format(":{}:({})", name, words);
    case Value::kTrace: return fmt::format(":{}:_files -g \"*.moetrace.h5(-.)\"", name);
    case Value::kFile: return fmt::format(":{}:_files", name);
    case Value::kModel: return fmt::format(":{}:{{_alternative \"names\\:name\\:({})\" \"files\\:file\\:_files\"}}", name, words);
  }
  return {};
}

std::string zsh_options(const Command& command) {
  std::string out;
  for (const Option& option : command.options)
    for (const std::string& name : option.names)
      out += " \\\n    " + quoted(fmt::format("{}[{}]{}", name, zsh_text(option.description), option.value ? zsh_value(*option.value) : ""));
  return out;
}

void zsh_function(const Command& command, std::string& out) {
  out += fmt::format("\n{}() {{\n  local context state state_descr line\n  typeset -A opt_args\n  _arguments -C -s : $_switchyard_everywhere", function_name(command));
  if (!command.path.empty()) out += zsh_options(command);
  for (size_t i = 0; i < command.positionals.size(); ++i) out += " \\\n    " + quoted(fmt::format("{}{}", i + 1, zsh_value(command.positionals[i])));
  if (command.commands.empty()) {
    out += "\n}\n";
    return;
  }
  const size_t at = command.positionals.size() + 1;
  out += fmt::format(" \\\n    '{}: :->command' \\\n    '*::: :->rest'\n  case $state in\n    command)\n      local -a commands\n      commands=(", at);
  for (const Command& sub : command.commands) out += "\n        " + quoted(fmt::format("{}:{}", sub.name, zsh_text(sub.description)));
  out += fmt::format("\n      )\n      _describe command commands ;;\n    rest)\n      words=($line[{}] $words) CURRENT=$((CURRENT + 1))\n      case $line[{}] in\n", at, at);
  for (const Command& sub : command.commands) out += fmt::format("        {}) {} ;;\n", sub.name, function_name(sub));
  out += "      esac ;;\n  esac\n}\n";
}

// --- fish ---

std::string fish_value(const Value& value) {
  const std::string words = value.words.empty() ? "" : " -a " + quoted(fmt::format("{}", fmt::join(value.words, " ")), true);
  const bool files = value.kind == Value::kFile || value.kind == Value::kModel || value.kind == Value::kTrace;
  return (files ? " -r -F" : " -x") + words;
}

}  // namespace

std::string bash(const Command& root) {
  std::string commands, options, values, values_everywhere, positionals;
  each(root, [&](const Command& c) {
    std::vector<std::string> names;
    for (const Command& sub : c.commands) names.push_back(sub.name);
    if (!names.empty()) commands += fmt::format("    {}) echo {} ;;\n", quoted(c.path), quoted(fmt::format("{}", fmt::join(names, " "))));
    names.clear();
    for (const Option& option : c.options) {
      names.insert(names.end(), option.names.begin(), option.names.end());
      if (!option.value) continue;
      std::vector<std::string> patterns;
      for (const std::string& name : option.names) patterns.push_back(c.path.empty() ? "*" + quoted(" " + name) : quoted(c.path + " " + name));
      (c.path.empty() ? values_everywhere : values) += fmt::format("    {}) echo {} ;;\n", fmt::join(patterns, "|"), bash_value(*option.value));
    }
    options += fmt::format("    {}) echo {} ;;\n", quoted(c.path), quoted(fmt::format("{}", fmt::join(names, " "))));
    for (size_t i = 0; i < c.positionals.size(); ++i)
      positionals += fmt::format("    {}) echo {} ;;\n", quoted(fmt::format("{} {}", c.path, i)), bash_value(c.positionals[i]));
  });
  return "# bash completion of switchyard; written by `switchyard completion bash`\n"
         "_switchyard_commands() {\n  case $1 in\n" + commands + "  esac\n}\n"
         "_switchyard_options() {\n  case $1 in\n" + options + "  esac\n}\n"
         "# What option $2 of command $1 takes: words, @file, @trace, @text; nothing: it is a switch.\n"
         "_switchyard_value() {\n  case \"$1 $2\" in\n" + values + values_everywhere + "  esac\n}\n"
         "_switchyard_positional() {\n  case $1 in\n" + positionals + "  esac\n}" + kBashWalk;
}

std::string zsh(const Command& root) {
  std::string out = "#compdef switchyard\n# zsh completion of switchyard; written by `switchyard completion zsh`\n\n"
                    "typeset -ga _switchyard_everywhere\n_switchyard_everywhere=(" + zsh_options(root) + "\n)\n";
  each(root, [&](const Command& c) { zsh_function(c, out); });
  return out + "\n_switchyard \"$@\"\n";
}

std::string fish(const Command& root) {
  std::string known, out;
  each(root, [&](const Command& c) {
    const std::string when = fmt::format("complete -c switchyard -n \"__switchyard_at {}\"", quoted(c.path, true));
    if (!c.path.empty()) known += " " + quoted(c.path, true);
    for (const Command& sub : c.commands) out += fmt::format("{} -a {} -d {}\n", when, quoted(sub.name, true), quoted(sub.description, true));
    for (const Option& option : c.options) {
      std::string names;
      for (const std::string& name : option.names) names += name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1);
      out += fmt::format("{}{} -d {}{}\n", c.path.empty() ? "complete -c switchyard" : when, names, quoted(option.description, true), option.value ? fish_value(*option.value) : "");
    }
    for (const Value& value : c.positionals)
      if (value.kind != Value::kText) out += when + (value.kind == Value::kWords ? "" : " -F") + (value.words.empty() ? "" : " -a " + quoted(fmt::format("{}", fmt::join(value.words, " ")), true)) + "\n";
  });
  return "# fish completion of switchyard; written by `switchyard completion fish`\n"
         "set -g __switchyard_known" + known + "\n"
         R"sh(function __switchyard_at  # whether the words so far chose the command $argv[1]
    set -l path ''
    for word in (commandline -opc)[2..-1]
        set -l longer (string trim -- "$path $word")
        contains -- "$longer" $__switchyard_known; and set path $longer
    end
    test "$path" = "$argv[1]"
end
complete -c switchyard -f
)sh" + out;
}

}  // namespace switchyard::completion
