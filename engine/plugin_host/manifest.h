// What plugin.json says of a plugin: everything that the program lists, enables or assigns, known before any code of
// the plugin is opened (design: plugins.md). Values; any thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "engine/base/result.h"

namespace switchyard {

enum class PluginKind : uint8_t { kScheme, kEdit, kMetric, kView, kReader, kWriter, kReport, kSection, kCommand, kTheme };
inline constexpr int kPluginKinds = 10;
std::string_view name(PluginKind kind);    // "scheme"
std::string_view plural(PluginKind kind);  // "schemes": its key in the manifest
std::string_view words(PluginKind kind);   // "gating scheme", for people
// Whether it is code of the library; the others are data.
bool is_code(PluginKind kind);
// Whether that code runs in the program itself.
bool runs_in_process(PluginKind kind);

// A number or word that people set: of a scheme, or of the plugin.
struct PluginField {
  enum class Type : uint8_t { kReal, kInteger, kBoolean, kChoice, kText } type = Type::kReal;
  std::string name, title, unit;
  nlohmann::json standard;           // of the type
  double min = 0, max = 0;           // of numbers, both included
  std::vector<std::string> choices;  // of kChoice

  // The value as text ("0.5", "yes", "red"), or why it is none.
  Result<std::string> text_of(const nlohmann::json& value) const;
  Result<nlohmann::json> value_of(std::string_view text) const;
};
std::string_view name(PluginField::Type type);

struct Contribution {
  PluginKind kind = PluginKind::kScheme;
  std::string id, title, description;
  // Schemes, edits and report sections.
  std::vector<PluginField> parameters;
  std::string formula, source;
  bool stochastic = false, causal = true;
  int max_slots = 0;          // 0: k, -1: every expert
  // Metrics, writers and report sections: datasets of the trace that they read.
  std::vector<std::string> needs, uses;
  // Readers: of file names ("*.routes.txt"); writers: the file's ending (".csv").
  std::vector<std::string> patterns;
  std::string lacks;  // what such dumps never hold, in words
  // Ready-made sections: a metric or analysis by name, and Markdown before its tables.
  std::string analysis, text;
  // Commands: ids of actions, then edits as in a script, made one after the other.
  std::vector<std::string> actions;
  nlohmann::json edits = nlohmann::json::array();
  // Themes: a file in the folder.
  std::string file;
};

struct ContractRange {
  int least = 0, most = 0;  // 0, 0: none is needed
  bool holds(int number) const { return least == 0 || (number >= least && number <= most); }
};

struct Manifest {
  std::string id, version, title, description, license;
  ContractRange core, view;
  std::string library;  // "noisy_gate": libnoisy_gate.so; empty: no code
  std::vector<Contribution> contributions;
  std::vector<PluginField> settings;
  std::vector<std::string> notes;  // keys that this program does not know

  const Contribution* find(PluginKind kind, std::string_view id) const;
  bool has_code() const { return !library.empty(); }
  std::string library_file() const { return "lib" + library + ".so"; }
};

// plugin.json of the folder, at most 256 KiB. kNotFound, kMalformed with file and JSON path. Names in it are single
// path components. Ids: lower-case letters, digits and dashes, 64 at most; those of contributions begin with the
// plugin's and a dot.
Result<Manifest> read_manifest(const std::filesystem::path& folder);
Result<Manifest> parse_manifest(std::string_view text, const std::string& document);

}  // namespace switchyard
