// Settings of Metaspace, see metaspace.h. Any thread.
#include "engine/tokenizer/metaspace.h"

#include "engine/base/text.h"
#include "engine/tokenizer/utf8.h"

namespace switchyard {
namespace {

Result<PrependScheme> read_scheme(const JsonView& spec) {
  SY_TRY(const std::string name, spec.text_or("prepend_scheme", "always"));
  if (name == "always") return PrependScheme::kAlways;
  if (name == "first") return PrependScheme::kFirst;
  if (name == "never") return PrependScheme::kNever;
  SY_TRY(const JsonView scheme, spec.at("prepend_scheme"));
  return scheme.fail("is " + quote(name) + ", needs always, first or never.");
}

}  // namespace

Result<MetaspaceSettings> read_metaspace(const JsonView& spec) {
  MetaspaceSettings settings;
  SY_TRY(const JsonView replacement, spec.at("replacement"));
  SY_TRY(settings.replacement, replacement.as_text());
  if (settings.replacement.empty() || character_length(settings.replacement) != settings.replacement.size())
    return replacement.fail("is " + quote(settings.replacement) + ", needs one character.");
  SY_TRY(settings.scheme, read_scheme(spec));
  SY_TRY(settings.split, spec.boolean_or("split", true));
  // Old files say add_prefix_space alone; with both, the `tokenizers` package refuses a contradiction.
  SY_TRY(const bool add_prefix_space, spec.boolean_or("add_prefix_space", true));
  if (!add_prefix_space) {
    if (spec.has("prepend_scheme") && settings.scheme != PrependScheme::kNever)
      return spec.fail("has add_prefix_space false, which its prepend_scheme contradicts.");
    settings.scheme = PrependScheme::kNever;
  }
  return settings;
}

}  // namespace switchyard
