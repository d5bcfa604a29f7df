// switchyard tokenize and detokenize: text to ids and back with the model's own tokenizer.json.
#include <fmt/format.h>

#include "app/cli/cli.h"
#include "app/cli/text_input.h"
#include "engine/model/checkpoint.h"
#include "engine/tokenizer/tokenizer.h"

namespace switchyard {
namespace {

struct TokenizeOptions {
  std::string model, text, file;
  bool no_special = false;
  CLI::Option *text_given = nullptr, *file_given = nullptr;
};

Result<std::shared_ptr<const Tokenizer>> open_tokenizer(const std::string& model) {
  SY_TRY(const Checkpoint checkpoint, open_checkpoint(model));
  return Tokenizer::load(checkpoint);
}

Result<int> tokenize(Cli& cli, const TokenizeOptions& options) {
  if (options.text_given->count() + options.file_given->count() == 0)
    return fail(ErrorCode::kUsage, "no text given.", {}, "Give --text TEXT or --text-file FILE (- is stdin).");
  std::string text = options.text;
  if (options.file_given->count() > 0) {
    SY_TRY(text, read_text(options.file));
  }
  SY_TRY(const auto tokenizer, open_tokenizer(options.model));
  SY_TRY(const std::vector<TokenId> ids, tokenizer->encode(text, !options.no_special));
  if (!cli.output.json()) {
    cli.output.data(fmt::format("{}\n", fmt::join(ids, ",")));
    return 0;
  }
  std::vector<std::string> pieces;
  for (const TokenId id : ids) pieces.push_back(tokenizer->piece(id));
  cli.output.json(Document{{"schema", kSchema}, {"ids", ids}, {"pieces", pieces}});
  return 0;
}

struct DetokenizeOptions {
  std::string model, ids;
  bool skip_special = false;
};

Result<int> detokenize(Cli& cli, const DetokenizeOptions& options) {
  SY_TRY(const std::vector<TokenId> ids, parse_ids(options.ids, "--ids"));
  SY_TRY(const auto tokenizer, open_tokenizer(options.model));
  const std::string text = tokenizer->decode(ids, options.skip_special);
  if (cli.output.json())
    cli.output.json(Document{{"schema", kSchema}, {"text", text}});
  else
    cli.output.stream(cli.output.data_to_terminal() ? text + "\n" : text);
  return 0;
}

}  // namespace

void add_tokenize(CLI::App& app, Cli& cli) {
  auto* encode = add_command(app, "tokenize", "Text to token ids.",
                             "  switchyard tokenize demo --text \"The router\"\n"
                             "  cat notes.txt | switchyard tokenize demo --text-file - --json");
  const auto to_ids = std::make_shared<TokenizeOptions>();
  encode->add_option("MODEL", to_ids->model, "A folder, org/name of the HF cache, or demo")->required();
  to_ids->text_given = encode->add_option("--text", to_ids->text, "The text itself")->type_name("TEXT");
  to_ids->file_given =
      encode->add_option("--text-file", to_ids->file, "A file with the text, byte for byte; - is stdin")
          ->type_name("FILE")
          ->excludes(to_ids->text_given);
  encode->add_flag("--no-special", to_ids->no_special, "Leave out what the tokenizer's template adds");
  encode->callback([&cli, to_ids] { cli.action = [&cli, to_ids] { return tokenize(cli, *to_ids); }; });

  auto* decode = add_command(app, "detokenize", "Token ids to text.",
                             "  switchyard detokenize demo --ids 299,41,7\n"
                             "  switchyard detokenize demo --ids 0,299 --skip-special --json");
  const auto to_text = std::make_shared<DetokenizeOptions>();
  decode->add_option("MODEL", to_text->model, "A folder, org/name of the HF cache, or demo")->required();
  decode->add_option("--ids", to_text->ids, "Token ids joined by commas")->required()->type_name("IDS");
  decode->add_flag("--skip-special", to_text->skip_special, "Leave out special tokens");
  decode->callback([&cli, to_text] { cli.action = [&cli, to_text] { return detokenize(cli, *to_text); }; });
}

}  // namespace switchyard
