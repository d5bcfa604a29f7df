// Chat templates: a conversation as the text the model was trained on (families.md, section 3.3). The template
// comes with the checkpoint and is hostile: it runs in a child process with limits on time, memory and output
// (reliability.md, section 4). Immutable after load; any thread, but render() may take seconds.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>

#include "engine/base/result.h"

namespace switchyard {

class ChatTemplate {
 public:
  // folder: of the checkpoint. name: of one of several templates; empty: the default. Sources in order:
  // chat_template.jinja, additional_chat_templates/NAME.jinja, "chat_template" of tokenizer_config.json (a text or
  // a list of {name, template}). kNotFound, saying so, where the checkpoint has none.
  static Result<ChatTemplate> load(const std::filesystem::path& folder, std::string_view name = {});

  // variables: a JSON object with messages, and perhaps tools, documents, add_generation_prompt and whatever else
  // the template reads; the special tokens of the checkpoint are added. Key order counts.
  Result<std::string> render(std::string_view variables) const;
  // One message of the user, and the opening of the answer.
  Result<std::string> render_prompt(std::string_view prompt) const;

  const std::string& source() const { return source_; }
  const std::string& where() const { return where_; }  // file and key

 private:
  std::string source_, where_;
  std::map<std::string, std::string> special_tokens_;
};

}  // namespace switchyard
