// See edited_text.h.
#include "app/cli/edited_text.h"

#include <fmt/format.h>

#include "engine/runtime/forced_pass.h"
#include "engine/tokenizer/tokenizer.h"

namespace switchyard {

Result<std::vector<TokenId>> read_ids(const SequenceInput& input, const Checkpoint& checkpoint, size_t least) {
  if (!input.given())
    return fail(ErrorCode::kUsage, "no text given.", {}, "Give --text-file FILE (- is stdin), --text T or --token-ids 1,2,3.");
  const auto tokenizer = Tokenizer::load(checkpoint);
  if (!tokenizer && tokenizer.error().code != ErrorCode::kNotFound) return tl::unexpected<Error>(tokenizer.error());
  SY_TRY(std::vector<TokenId> ids, input.ids(tokenizer ? tokenizer->get() : nullptr, checkpoint.plan.vocab));
  if (ids.size() < least)
    return fail(ErrorCode::kUsage, fmt::format("the text has {} tokens, needs at least {}.", ids.size(), least));
  if (ids.size() > size_t(checkpoint.plan.context))
    return fail(ErrorCode::kUsage, fmt::format("the text has {} tokens, the model's context is {}.", ids.size(), checkpoint.plan.context));
  return ids;
}

void EditedTextInput::add_options(CLI::App& command) {
  command.add_option("MODEL", model, "A folder, org/name of the HF cache, or demo")->required();
  input.add_options(command, "--text", "--text-file");
  backend.add_options(command);
  edits.add_options(command);
}

Result<EditedText> EditedTextInput::read(size_t least) const {
  EditedText text;
  SY_TRY(text.checkpoint, open_checkpoint(model));
  const ModelPlan& plan = text.checkpoint.plan;
  if (plan.encoder_layers > 0)
    return fail(ErrorCode::kUsage, "is an encoder-decoder; this needs a model that reads one text.", text.checkpoint.name);
  SY_TRY(text.edits, edits.read(plan));
  for (const EditCommand& command : text.edits)
    if (command.at_token.value_or(0) > 0)
      return fail(ErrorCode::kUsage, "an edit begins within the text.", "--edits", "Leave out at_token.");
  text.recipe = *recipe_spans(text.edits, plan).front().recipe;
  SY_TRY(text.ids, read_ids(input, text.checkpoint, least));
  return text;
}

Result<std::unique_ptr<Backend>> EditedTextInput::open(const EditedText& text, Task& task) const {
  return backend.open(text.checkpoint, task, int64_t(text.ids.size()), text.edits);
}

}  // namespace switchyard
