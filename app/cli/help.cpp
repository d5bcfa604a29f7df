// Help and suggestions, see help.h.
#include "app/cli/help.h"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "engine/base/text.h"

namespace switchyard {
namespace {

class ExamplesFirst final : public CLI::Formatter {
 public:
  std::string make_help(const CLI::App* app, std::string name, CLI::AppFormatMode mode) const override {
    if (mode == CLI::AppFormatMode::Sub) return CLI::Formatter::make_help(app, name, mode);
    std::string text = app->get_description() + "\n\n";
    if (!app->get_footer().empty()) text += app->get_footer() + "\n\n";
    text += make_usage(app, name);
    text += make_positionals(app) + make_groups(app, mode) + make_subcommands(app, mode);
    if (app->get_parent()) text += "Options of every command (--json, -o, -q, ...): switchyard --help\n";
    return text;
  }
  std::string make_footer(const CLI::App*) const override { return {}; }
  std::string make_option_opts(const CLI::Option* option) const override {
    return option->get_positional() || option->get_type_size() == 0
               ? ""
               : " " + option->get_type_name().substr(0, option->get_type_name().find(':'));
  }
};

size_t edits_between(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> cost(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) cost[i][0] = i;
  for (size_t j = 0; j <= b.size(); ++j) cost[0][j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    for (size_t j = 1; j <= b.size(); ++j) {
      cost[i][j] = std::min({cost[i - 1][j] + 1, cost[i][j - 1] + 1, cost[i - 1][j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        cost[i][j] = std::min(cost[i][j], cost[i - 2][j - 2] + 1);
    }
  }
  return cost[a.size()][b.size()];
}

std::vector<std::string> command_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; }))
    names.push_back(sub->get_name());
  return names;
}

size_t positionals(const CLI::App& app) {
  size_t count = 0;
  for (const CLI::Option* option : app.get_options()) count += option->get_positional();
  return count;
}

std::vector<std::string> option_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* at = &app; at; at = at->get_parent())
    for (const CLI::Option* option : at->get_options())
      for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  return names;
}

std::string with_suggestion(std::string text, const std::string& suggestion) {
  return suggestion.empty() ? text : text + " Did you mean " + suggestion + "?";
}

}  // namespace

CLI::Validator whole_number(uint64_t min, uint64_t max) {
  return CLI::Validator(
      [min, max](std::string& text) -> std::string {
        uint64_t value = 0;
        const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
        if (problem == std::errc() && end == text.data() + text.size() && value >= min && value <= max) return {};
        return fmt::format("{} is no whole number from {} to {}", quote(text, 40), min, max);
      },
      "");
}

std::shared_ptr<CLI::Formatter> make_help_formatter() {
  auto formatter = std::make_shared<ExamplesFirst>();
  formatter->column_width(34);
  return formatter;
}

std::string did_you_mean(std::string_view word, const std::vector<std::string>& candidates) {
  std::string best;
  size_t best_edits = std::max<size_t>(1, word.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    const bool begins = word.size() >= 3 && candidate.starts_with(word);
    const size_t edits = begins ? 0 : edits_between(word, candidate);
    if (edits < best_edits) {
      best = candidate;
      best_edits = edits;
    }
  }
  return best;
}

std::string explain_unknown(const CLI::App& app, const std::vector<std::string>& arguments) {
  // Follow the command words as far as they are known.
  const CLI::App* at = &app;
  size_t arguments_taken = 0;
  for (const std::string& word : arguments) {
    const auto names = command_names(*at);
    if (names.empty()) break;
    if (word.starts_with("-")) continue;
    if (std::find(names.begin(), names.end(), word) == names.end()) {
      if (arguments_taken++ < positionals(*at)) continue;
      return with_suggestion(fmt::format("\"{}\" is no command of {}.", word, at->get_name()),
                             did_you_mean(word, names));
    }
    at = at->get_subcommand(word);
    arguments_taken = 0;
  }
  for (const std::string& word : app.remaining(true)) {
    if (word.starts_with("-")) {
      const std::string name = word.substr(0, word.find('='));
      return with_suggestion(fmt::format("{} is no option of {}.", name, at->get_name()),
                             did_you_mean(name, option_names(*at)));
    }
  }
  const auto extras = app.remaining(true);
  return extras.empty() ? "" : fmt::format("\"{}\" was not expected by {}.", extras.front(), at->get_name());
}

}  // namespace switchyard
