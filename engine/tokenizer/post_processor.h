// Post-processors of tokenizer.json: the ids put around an encoded text (begin and end of text). Only the
// template for one text is kept; offsets, pairs and type ids play no part here. Immutable; any thread.
#pragma once

#include <optional>
#include <vector>

#include "engine/base/ids.h"
#include "engine/base/json.h"
#include "engine/base/result.h"

namespace switchyard {

class PostProcessor {
 public:
  // spec: the file's "post_processor", or nullptr. Kinds: TemplateProcessing, BertProcessing, RobertaProcessing,
  // ByteLevel (changes offsets only), Sequence; others are refused by name. Ids must be below end_id.
  static Result<PostProcessor> make(const JsonView* spec, TokenId end_id);
  // Puts these ids around a text.
  static PostProcessor around(std::optional<TokenId> before, std::optional<TokenId> after);

  bool empty() const { return templates_.empty(); }  // adds nothing
  // add_special: with the ids around it; without them the text alone, if the template names it.
  std::vector<TokenId> apply(std::vector<TokenId> ids, bool add_special) const;

 private:
  using Item = std::optional<TokenId>;  // nullopt: the text itself
  using Template = std::vector<Item>;
  Result<void> add(const JsonView& spec, TokenId end_id);
  Result<void> add_template(const JsonView& spec, TokenId end_id);

  std::vector<Template> templates_;
};

}  // namespace switchyard
