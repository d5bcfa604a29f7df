// Chat templates through llama.cpp's template engine, see chat_template.h. The engine throws and recurses as it
// likes: it is only called in the guarded child.
#include "engine/tokenizer/chat_template.h"

#include <clocale>

#include <jinja/lexer.h>
#include <jinja/parser.h>
#include <jinja/runtime.h>
#include <json.h>

#include "engine/base/folder.h"
#include "engine/base/json.h"
#include "engine/base/text.h"
#include "engine/tokenizer/guarded.h"
#include "engine/tokenizer/tokenizer_config.h"
#include "engine/tokenizer/utf8.h"

namespace switchyard {
namespace {

constexpr size_t kMaxTemplate = size_t{1} << 20;
constexpr size_t kMaxVariables = size_t{32} << 20;
constexpr const char* kFile = "chat_template.jinja";
constexpr const char* kMoreFolder = "additional_chat_templates";
constexpr const char* kConfig = "tokenizer_config.json";

struct Source {
  std::string text, where;
};

Error none_in(const std::filesystem::path& folder, std::string_view name) {
  return {ErrorCode::kNotFound,
          name.empty() ? "the checkpoint has no chat template."
                       : "the checkpoint has no chat template named " + quote(name) + ".",
          folder.string(), "Write the markers of the model into the prompt."};
}

Result<Source> from_file(const Folder& folder, const std::string& name) {
  SY_TRY(std::string text, folder.read_text(name, kMaxTemplate));
  return Source{std::move(text), (folder.path() / name).string()};
}

// "chat_template": a text, or a list of {name, template}.
Result<Source> from_config(const Folder& folder, std::string_view name) {
  if (!folder.has(kConfig)) return tl::unexpected<Error>(none_in(folder.path(), name));
  SY_TRY(const std::string text, folder.read_text(kConfig, JsonLimits{}.bytes));
  const std::string path = (folder.path() / kConfig).string();
  SY_TRY(const Json json, parse_json(text, path));
  const auto member = JsonView(json, path).find("chat_template");
  if (!member) return tl::unexpected<Error>(none_in(folder.path(), name));
  if (member->json().is_string() && name.empty()) {
    SY_TRY(std::string source, member->as_text());
    return Source{std::move(source), path + ": /chat_template"};
  }
  if (member->json().is_array()) {
    SY_TRY(const auto list, member->as_array());
    for (const JsonView& entry : list) {
      SY_TRY(const std::string entry_name, entry.text("name"));
      if (entry_name != (name.empty() ? "default" : name)) continue;
      SY_TRY(std::string source, entry.text("template"));
      return Source{std::move(source), path + ": " + entry.path()};
    }
  } else if (!member->json().is_string()) {
    return member->fail("needs to be a text or a list of {name, template}.");
  }
  return tl::unexpected<Error>(none_in(folder.path(), name));
}

Result<Source> find_source(const Folder& folder, std::string_view name) {
  if (name.empty() && folder.has(kFile)) return from_file(folder, kFile);
  if (!name.empty() && folder.has(kMoreFolder)) {
    const std::string file = std::string(name) + ".jinja";
    if (!is_file_name(file)) return fail(ErrorCode::kUsage, quote(name) + " is no name of a chat template.");
    SY_TRY(const Folder more, Folder::open(folder.path() / kMoreFolder));
    if (more.has(file)) return from_file(more, file);
  }
  return from_config(folder, name);
}

// Jinja reads every line end as \n.
std::string with_plain_line_ends(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\r' && i + 1 < text.size() && text[i + 1] == '\n') continue;
    out += text[i] == '\r' ? '\n' : text[i];
  }
  return out;
}

// In the child.
std::string rendered(const std::string& source, const std::string& variables) {
  std::setlocale(LC_ALL, "C");
  jinja::lexer lexer;
  const jinja::program program = jinja::parse_from_tokens(lexer.tokenize(source));
  jinja::context context(source);
  jinja::global_from_json(context, common_json::parse(variables), false);
  jinja::runtime runtime(context);
  return jinja::runtime::gather_string_parts(runtime.execute(program))->as_string().str();
}

}  // namespace

Result<ChatTemplate> ChatTemplate::load(const std::filesystem::path& path, std::string_view name) {
  SY_TRY(const Folder folder, Folder::open(path));
  SY_TRY(const Source source, find_source(folder, name));
  if (source.text.size() > kMaxTemplate)
    return fail(ErrorCode::kMalformed,
                "has " + std::to_string(source.text.size()) + " bytes; the limit of a chat template is 1 MiB.", source.where);
  if (lossy_utf8(source.text) != source.text) return fail(ErrorCode::kMalformed, "is not valid UTF-8.", source.where);
  SY_TRY(const TokenizerConfig config, TokenizerConfig::read(folder));
  ChatTemplate made;
  made.source_ = with_plain_line_ends(source.text);
  made.where_ = source.where;
  made.special_tokens_ = config.special_tokens;
  return made;
}

Result<std::string> ChatTemplate::render(std::string_view variables) const {
  if (variables.size() > kMaxVariables)
    return fail(ErrorCode::kUsage, "the conversation has more than 32 MiB.", where_);
  nlohmann::ordered_json all = nlohmann::ordered_json::parse(variables, nullptr, false);
  if (!all.is_object()) return fail(ErrorCode::kUsage, "the conversation needs to be a JSON object.", where_);
  for (const auto& [role, token] : special_tokens_)
    if (!all.contains(role)) all[role] = token;
  for (const char* key : {"tools", "documents"})
    if (!all.contains(key)) all[key] = nullptr;
  if (!all.contains("add_generation_prompt")) all["add_generation_prompt"] = false;
  const std::string text = all.dump();
  SY_TRY(std::string out, run_guarded("the chat template", where_, GuardLimits{}, [&]() -> Result<std::string> {
           return rendered(source_, text);
         }));
  return out;
}

Result<std::string> ChatTemplate::render_prompt(std::string_view prompt) const {
  const nlohmann::ordered_json variables = {{"messages", {{{"role", "user"}, {"content", lossy_utf8(prompt)}}}},
                                            {"add_generation_prompt", true}};
  return render(variables.dump());
}

}  // namespace switchyard
