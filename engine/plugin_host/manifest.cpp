// plugin.json with its rules.
#include "engine/plugin_host/manifest.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <initializer_list>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "engine/base/folder.h"
#include "engine/base/json.h"
#include "engine/base/text.h"

namespace switchyard {
namespace {

struct KindRow {
  std::string_view name, plural, words;
  bool code, in_process;
};
constexpr std::array<KindRow, kPluginKinds> kKinds = {{
    {"scheme", "schemes", "gating scheme", true, true},
    {"edit", "edits", "logit edit", true, true},
    {"metric", "metrics", "metric", true, false},
    {"view", "views", "live view", true, true},
    {"reader", "readers", "importer", true, false},
    {"writer", "writers", "exporter", true, false},
    {"report", "report_sections", "report section", true, false},
    {"section", "sections", "ready-made report section", false, false},
    {"command", "commands", "command", false, false},
    {"theme", "themes", "theme", false, false},
}};
const KindRow& row(PluginKind kind) {
  return kKinds[size_t(kind)];
}

bool is_word(std::string_view text, std::string_view extra) {
  return !text.empty() && text.size() <= 64 && text.front() >= 'a' && text.front() <= 'z' &&
         std::all_of(text.begin(), text.end(), [&](char c) {
           return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || extra.find(c) != extra.npos;
         });
}

class Parser {
 public:
  Result<Manifest> parse(const JsonView& root) {
    SY_CHECK(keys(
        root, {"id", "version", "title", "description", "license", "contract", "library", "contributes", "settings"}));
    SY_TRY(out_.id, root.text("id"));
    if (!is_word(out_.id, "-"))
      return root.fail("/id is " + quote(out_.id) + ", needs lower-case letters, digits and dashes, a letter first");
    SY_TRY(out_.version, words(root, "version", 40, true));
    SY_TRY(out_.title, words(root, "title", 100, true));
    SY_TRY(out_.description, words(root, "description", 1000));
    SY_TRY(out_.license, words(root, "license", 100));
    SY_TRY(const JsonView contract, root.at("contract"));
    SY_CHECK(keys(contract, {"core", "view"}));
    SY_TRY(out_.core, range(contract, "core"));
    SY_TRY(out_.view, range(contract, "view"));
    SY_TRY(out_.library, root.text_or("library", ""));
    if (!out_.library.empty() && !is_word(out_.library, "_-"))
      return root.fail("/library is " + quote(out_.library) +
                       ", needs a name as noisy_gate, without folder, lib and .so");
    SY_TRY(out_.settings, fields(root, "settings"));
    if (const auto contributes = root.find("contributes")) SY_CHECK(contributions(*contributes));
    if (out_.core.least == 0 && out_.has_code())
      return root.fail("/contract/core is missing; a plugin with a library needs it");
    return std::move(out_);
  }

 private:
  Result<void> keys(const JsonView& object, std::initializer_list<std::string_view> known) {
    SY_TRY(const auto members, object.as_object());
    for (const auto& [key, value] : members)
      if (std::find(known.begin(), known.end(), key) == known.end())
        out_.notes.push_back(printable(object.path() + "/" + key, 200) + " is unknown to this program and left out");
    return {};
  }

  static Result<std::string> words(const JsonView& object, std::string_view key, size_t most, bool needed = false) {
    SY_TRY(const std::string text, needed ? object.text(key) : object.text_or(key, ""));
    if (text.size() > most || (needed && text.empty()))
      return object.at(key)->fail(fmt::format("has {} bytes, needs {} to {}", text.size(), needed ? 1 : 0, most));
    return printable(text, most + 1);
  }

  static Result<ContractRange> range(const JsonView& contract, std::string_view key) {
    const auto value = contract.find(key);
    if (!value) return ContractRange{};
    if (value->json().is_array()) {
      SY_TRY(const auto ends, contract.integers(key, 1, 10'000));
      if (ends.size() != 2 || ends[0] > ends[1])
        return value->fail("needs a number, or the least and the most as [1, 2]");
      return ContractRange{int(ends[0]), int(ends[1])};
    }
    SY_TRY(const int64_t number, value->as_integer(1, 10'000));
    return ContractRange{int(number), int(number)};
  }

  Result<std::vector<PluginField>> fields(const JsonView& object, std::string_view key) {
    std::vector<PluginField> out;
    if (!object.has(key)) return out;
    SY_TRY(const auto items, object.array(key));
    if (items.size() > 64) return object.at(key)->fail(fmt::format("has {} entries, 64 are the most", items.size()));
    for (const JsonView& item : items) {
      SY_TRY(PluginField one, field(item));
      if (std::any_of(out.begin(), out.end(), [&](const PluginField& other) { return other.name == one.name; }))
        return item.fail("names " + quote(one.name) + " a second time");
      out.push_back(std::move(one));
    }
    return out;
  }

  Result<PluginField> field(const JsonView& item) {
    SY_CHECK(keys(item, {"name", "title", "type", "default", "min", "max", "choices", "unit"}));
    PluginField out;
    SY_TRY(out.name, item.text("name"));
    if (!is_word(out.name, "_"))
      return item.at("name")->fail("is " + quote(out.name) + ", needs lower-case letters, digits and underscores");
    SY_TRY(out.title, words(item, "title", 200));
    SY_TRY(out.unit, words(item, "unit", 40));
    SY_TRY(const std::string type, item.text("type"));
    bool known = false;
    for (int i = 0; i <= int(PluginField::Type::kText); ++i)
      if (type == name(PluginField::Type(i))) out.type = PluginField::Type(i), known = true;
    if (!known) return item.at("type")->fail("is " + quote(type) + ", needs real, integer, boolean, choice or text");
    if (out.type == PluginField::Type::kReal || out.type == PluginField::Type::kInteger) {
      SY_TRY(out.min, item.number("min"));
      SY_TRY(out.max, item.number("max"));
      if (!(out.min <= out.max)) return item.fail(fmt::format("has min {} and max {}", out.min, out.max));
    }
    if (out.type == PluginField::Type::kChoice) {
      SY_TRY(const auto choices, item.array("choices"));
      for (const JsonView& choice : choices) {
        SY_TRY(std::string text, choice.as_text());
        if (!is_word(text, "_-"))
          return choice.fail("is " + quote(text) + ", needs lower-case letters, digits, dashes and underscores");
        out.choices.push_back(std::move(text));
      }
      if (out.choices.empty() || out.choices.size() > 64) return item.fail("needs 1 to 64 choices");
    }
    SY_TRY(const JsonView standard, item.at("default"));
    out.standard = standard.json();
    if (const auto fits = out.text_of(out.standard); !fits) return standard.fail(fits.error().what);
    return out;
  }

  Result<void> contributions(const JsonView& object) {
    SY_TRY(const auto members, object.as_object());
    std::set<std::string> ids;
    for (const auto& [key, list] : members) {
      const auto kind =
          std::find_if(kKinds.begin(), kKinds.end(), [&](const KindRow& one) { return one.plural == key; });
      if (kind == kKinds.end()) {
        out_.notes.push_back(printable(list.path(), 200) + " is a kind that is unknown to this program and left out");
        continue;
      }
      SY_TRY(const auto items, list.as_array());
      if (items.size() > 16) return list.fail(fmt::format("has {} entries, 16 are the most", items.size()));
      for (const JsonView& item : items) {
        SY_TRY(Contribution one, contribution(item, PluginKind(kind - kKinds.begin())));
        if (!ids.insert(one.id).second) return item.fail("has the id " + quote(one.id) + " a second time");
        out_.contributions.push_back(std::move(one));
      }
    }
    return {};
  }

  Result<Contribution> contribution(const JsonView& item, PluginKind kind) {
    Contribution out;
    out.kind = kind;
    SY_CHECK(keys_of(item, kind));
    SY_TRY(out.id, item.text("id"));
    const std::string prefix = out_.id + ".";
    if (!out.id.starts_with(prefix) || !is_word(std::string_view(out.id).substr(prefix.size()), "_-"))
      return item.at("id")->fail("is " + quote(out.id) + ", needs " + quote(prefix) +
                                 " and a name of lower-case letters, digits, dashes and underscores");
    if (is_code(kind) && !out_.has_code())
      return item.fail(fmt::format("is a {}, and the plugin names no library", switchyard::words(kind)));
    if (kind == PluginKind::kView && out_.view.least == 0) return item.fail("is a view, and /contract/view is missing");
    SY_TRY(out.title, words(item, "title", 100, true));
    SY_TRY(out.description, words(item, "description", 1000));
    SY_TRY(out.parameters, fields(item, "parameters"));
    for (const PluginField& one : out.parameters)
      if (one.type == PluginField::Type::kText)
        return item.fail("has the parameter " + quote(one.name) +
                         " of type text; parameters are numbers, booleans and choices");
    SY_TRY(out.formula, words(item, "formula", 400));
    SY_TRY(out.source, words(item, "source", 200));
    SY_TRY(out.stochastic, item.boolean_or("stochastic", false));
    SY_TRY(out.causal, item.boolean_or("causal", true));
    SY_CHECK(max_slots(item, out));
    SY_TRY(out.needs, datasets(item, "needs"));
    SY_TRY(out.uses, datasets(item, "uses"));
    SY_TRY(out.patterns, texts(item, "patterns", 16));
    if (kind == PluginKind::kReader && out.patterns.empty())
      return item.fail("is an importer and names no patterns of files");
    SY_TRY(out.lacks, words(item, "lacks", 400));
    SY_TRY(out.analysis, words(item, "analysis", 100, kind == PluginKind::kSection));
    SY_TRY(out.text, words(item, "text", 4000));
    SY_TRY(out.actions, texts(item, "actions", 32));
    if (const auto edits = item.find("edits")) {
      SY_TRY(const auto list, edits->as_array());
      for (const JsonView& edit : list) SY_CHECK(edit.text("kind"));
      out.edits = edits->json();
    }
    if (kind == PluginKind::kCommand && out.actions.empty() && out.edits.empty())
      return item.fail("is a command and has neither actions nor edits");
    SY_TRY(out.file, file_name(item, "file"));
    if (kind == PluginKind::kTheme && out.file.empty()) return item.fail("is a theme and names no file");
    return out;
  }

  Result<void> keys_of(const JsonView& item, PluginKind kind) {
    switch (kind) {
      case PluginKind::kScheme:
        return keys(item, {"id", "title", "description", "parameters", "formula", "source", "stochastic", "causal",
                           "max_slots"});
      case PluginKind::kEdit:
        return keys(item, {"id", "title", "description", "parameters", "formula", "source"});
      case PluginKind::kMetric:
        return keys(item, {"id", "title", "description", "needs", "uses"});
      case PluginKind::kView:
        return keys(item, {"id", "title", "description"});
      case PluginKind::kReader:
        return keys(item, {"id", "title", "description", "patterns", "lacks"});
      case PluginKind::kWriter:
        return keys(item, {"id", "title", "description", "patterns", "needs"});
      case PluginKind::kReport:
        return keys(item, {"id", "title", "description", "parameters", "needs"});
      case PluginKind::kSection:
        return keys(item, {"id", "title", "description", "analysis", "text"});
      case PluginKind::kCommand:
        return keys(item, {"id", "title", "description", "actions", "edits"});
      case PluginKind::kTheme:
        break;
    }
    return keys(item, {"id", "title", "description", "file"});
  }

  static Result<void> max_slots(const JsonView& item, Contribution& out) {
    const auto value = item.find("max_slots");
    if (!value || value->json() == "k") return {};
    if (value->json() == "experts") {
      out.max_slots = -1;
      return {};
    }
    if (!value->json().is_number_integer()) return value->fail("needs \"k\", \"experts\" or a number");
    SY_TRY(const int64_t slots, value->as_integer(1, 65'534));
    out.max_slots = int(slots);
    return {};
  }

  static Result<std::string> file_name(const JsonView& item, std::string_view key) {
    SY_TRY(const std::string text, item.text_or(key, ""));
    if (!text.empty() && !is_file_name(text))
      return item.at(key)->fail("is " + quote(text) + ", needs a name of a file in the plugin's folder");
    return text;
  }

  static Result<std::vector<std::string>> texts(const JsonView& item, std::string_view key, size_t most) {
    std::vector<std::string> out;
    if (!item.has(key)) return out;
    SY_TRY(const auto list, item.array(key));
    if (list.size() > most)
      return item.at(key)->fail(fmt::format("has {} entries, {} are the most", list.size(), most));
    for (const JsonView& one : list) {
      SY_TRY(const std::string text, one.as_text());
      if (text.empty() || text.size() > 200) return one.fail("needs 1 to 200 bytes");
      out.push_back(printable(text, 300));
    }
    return out;
  }

  static Result<std::vector<std::string>> datasets(const JsonView& item, std::string_view key) {
    constexpr std::array kKnown = {"/routing/weight",    "/routing/router_logits", "/routing/entropy",
                                   "/routing/topk_mass", "/routing/margin",        "/routing/lse",
                                   "/tokens/token_id"};
    SY_TRY(auto names, texts(item, key, kKnown.size()));
    for (const std::string& one : names)
      if (std::find(kKnown.begin(), kKnown.end(), one) == kKnown.end())
        return item.at(key)->fail(fmt::format("names {}, known are {}", quote(one), fmt::join(kKnown, ", ")));
    return names;
  }

  Manifest out_;
};

}  // namespace

std::string_view name(PluginKind kind) {
  return row(kind).name;
}
std::string_view plural(PluginKind kind) {
  return row(kind).plural;
}
std::string_view words(PluginKind kind) {
  return row(kind).words;
}
bool is_code(PluginKind kind) {
  return row(kind).code;
}
bool runs_in_process(PluginKind kind) {
  return row(kind).in_process;
}

std::string_view name(PluginField::Type type) {
  constexpr std::array kNames = {"real", "integer", "boolean", "choice", "text"};
  return kNames[size_t(type)];
}

Result<std::string> PluginField::text_of(const nlohmann::json& value) const {
  const auto refuse = [&](std::string needed) {
    return fail(ErrorCode::kUsage,
                fmt::format("is {}, needs {}",
                            printable(value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)), needed),
                name);
  };
  switch (type) {
    case Type::kReal:
    case Type::kInteger: {
      if (!value.is_number() || (type == Type::kInteger && !value.is_number_integer()))
        return refuse(type == Type::kInteger ? "a whole number" : "a number");
      const double number = value.get<double>();
      if (!(number >= min && number <= max)) return refuse(fmt::format("{} to {}", min, max));
      return fmt::format("{}", number);
    }
    case Type::kBoolean:
      if (!value.is_boolean()) return refuse("true or false");
      return std::string(value.get<bool>() ? "yes" : "no");
    case Type::kChoice:
      if (!value.is_string() || std::find(choices.begin(), choices.end(), value.get<std::string>()) == choices.end())
        return refuse(fmt::format("one of {}", fmt::join(choices, ", ")));
      return value.get<std::string>();
    case Type::kText:
      break;
  }
  if (!value.is_string() || value.get_ref<const std::string&>().size() > 4096)
    return refuse("a text of at most 4096 bytes");
  return value.get<std::string>();
}

Result<nlohmann::json> PluginField::value_of(std::string_view text) const {
  nlohmann::json value = std::string(text);
  if (type == Type::kBoolean && (text == "yes" || text == "true")) value = true;
  if (type == Type::kBoolean && (text == "no" || text == "false")) value = false;
  if (type == Type::kReal || type == Type::kInteger) {
    double number = 0;
    const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (problem == std::errc() && end == text.data() + text.size()) {
      if (type == Type::kInteger && number == std::floor(number) && std::abs(number) < 9e15)
        value = int64_t(number);
      else
        value = number;
    }
  }
  SY_CHECK(text_of(value));
  return value;
}

const Contribution* Manifest::find(PluginKind kind, std::string_view id) const {
  for (const Contribution& one : contributions)
    if (one.kind == kind && one.id == id) return &one;
  return nullptr;
}

Result<Manifest> parse_manifest(std::string_view text, const std::string& document) {
  SY_TRY(const Json json, parse_json(text, document, {.bytes = 256 << 10, .depth = 16, .values = 20'000}));
  return Parser().parse(JsonView(json, document));
}

Result<Manifest> read_manifest(const std::filesystem::path& folder) {
  SY_TRY(const Folder opened, Folder::open(folder));
  SY_TRY(const std::string text, opened.read_text("plugin.json", 256 << 10));
  return parse_manifest(text, printable((folder / "plugin.json").string(), 400));
}

}  // namespace switchyard
