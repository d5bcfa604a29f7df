// Post-processors of tokenizer.json, see post_processor.h. Any thread.
#include "engine/tokenizer/post_processor.h"

#include <algorithm>

#include "engine/base/text.h"

namespace switchyard {
namespace {

constexpr size_t kMaxItems = 1024;

// The ids of one special token of a template, from its own table.
Result<std::vector<TokenId>> special_ids(const JsonView& spec, const JsonView& special, TokenId end_id) {
  SY_TRY(const std::string name, special.text("id"));
  SY_TRY(const JsonView table, spec.at("special_tokens"));
  SY_TRY(const JsonView entry, table.at(name));
  SY_TRY(const auto listed, entry.array("ids"));
  std::vector<TokenId> ids;
  for (const JsonView& id : listed) {
    SY_TRY(const int64_t value, id.as_integer(0, int64_t{end_id} - 1));
    ids.push_back(static_cast<TokenId>(value));
  }
  return ids;
}

// ["</s>", 2], as BertProcessing and RobertaProcessing name their tokens.
Result<TokenId> named_id(const JsonView& spec, const char* key, TokenId end_id) {
  SY_TRY(const auto pair, spec.array(key));
  if (pair.size() != 2) return spec.fail("needs " + std::string(key) + " as [token, id].");
  SY_CHECK(pair[0].as_text());
  SY_TRY(const int64_t id, pair[1].as_integer(0, int64_t{end_id} - 1));
  return static_cast<TokenId>(id);
}

}  // namespace

Result<PostProcessor> PostProcessor::make(const JsonView* spec, TokenId end_id) {
  PostProcessor made;
  if (spec) SY_CHECK(made.add(*spec, end_id));
  return made;
}

PostProcessor PostProcessor::around(std::optional<TokenId> before, std::optional<TokenId> after) {
  PostProcessor made;
  Template items;
  if (before) items.push_back(before);
  items.push_back(std::nullopt);
  if (after) items.push_back(after);
  made.templates_.push_back(std::move(items));
  return made;
}

Result<void> PostProcessor::add(const JsonView& spec, TokenId end_id) {
  SY_TRY(const std::string type, spec.text("type"));
  if (type == "ByteLevel") return {};
  if (type == "TemplateProcessing") return add_template(spec, end_id);
  if (type == "BertProcessing" || type == "RobertaProcessing") {
    SY_TRY(const TokenId begin, named_id(spec, "cls", end_id));
    SY_TRY(const TokenId end, named_id(spec, "sep", end_id));
    templates_.push_back({begin, std::nullopt, end});
    return {};
  }
  if (type == "Sequence") {
    SY_TRY(const auto steps, spec.array("processors"));
    for (const JsonView& step : steps) SY_CHECK(add(step, end_id));
    return {};
  }
  return spec.fail("is of type " + quote(type) +
                   ", which this reader does not support (TemplateProcessing, BertProcessing, RobertaProcessing, "
                   "ByteLevel, Sequence).");
}

Result<void> PostProcessor::add_template(const JsonView& spec, TokenId end_id) {
  SY_TRY(const auto items, spec.array("single"));
  Template made;
  for (const JsonView& item : items) {
    if (const auto special = item.find("SpecialToken")) {
      SY_TRY(const auto ids, special_ids(spec, *special, end_id));
      made.insert(made.end(), ids.begin(), ids.end());
    } else if (const auto sequence = item.find("Sequence")) {
      SY_TRY(const std::string which, sequence->text("id"));
      if (which != "A")
        return sequence->fail("names the text " + quote(which) + "; a template for one text has only \"A\".");
      made.push_back(std::nullopt);
    } else {
      return item.fail("needs a \"SpecialToken\" or a \"Sequence\".");
    }
    if (made.size() > kMaxItems) return spec.fail("has a template of more than " + std::to_string(kMaxItems) + " ids.");
  }
  if (std::count(made.begin(), made.end(), Item()) > 1)
    return spec.fail("names the text more than once.");
  templates_.push_back(std::move(made));
  return {};
}

std::vector<TokenId> PostProcessor::apply(std::vector<TokenId> ids, bool add_special) const {
  for (const Template& items : templates_) {
    std::vector<TokenId> out;
    for (const Item& item : items) {
      if (!item)
        out.insert(out.end(), ids.begin(), ids.end());
      else if (add_special)
        out.push_back(*item);
    }
    ids = std::move(out);
  }
  return ids;
}

}  // namespace switchyard
