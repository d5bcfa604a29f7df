// One text under a model and start edits: what commands share that ask a model about a text. Main thread.
#pragma once

#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "app/cli/edits_input.h"
#include "app/cli/forced.h"
#include "app/cli/text_input.h"
#include "engine/model/checkpoint.h"
#include "engine/routing/recipe.h"

namespace switchyard {

struct EditedText {
  Checkpoint checkpoint;
  std::vector<EditCommand> edits;  // all from the first token on
  Recipe recipe;                   // of the edits
  std::vector<TokenId> ids;        // within the model's context
};

struct EditedTextInput {
  std::string model;
  SequenceInput input;
  BackendChoice backend;
  EditsInput edits;

  // MODEL, --text, --text-file, --token-ids, --backend, --threads, --recipe, --edits.
  void add_options(CLI::App& command);
  // least: tokens of the text. kUsage: fewer or too many, an edit that begins within the text, an encoder-decoder.
  Result<EditedText> read(size_t least) const;
  // With room for the text and for the edits' layer path.
  Result<std::unique_ptr<Backend>> open(const EditedText& text, Task& task) const;
};

// The one text that was given. least: tokens of it; kUsage: fewer, or more than the model's context.
Result<std::vector<TokenId>> read_ids(const SequenceInput& input, const Checkpoint& checkpoint, size_t least);

}  // namespace switchyard
