// The edit script of a command line, see edits_input.h.
#include "app/cli/edits_input.h"

#include "app/cli/text_input.h"

namespace switchyard {

void EditsInput::add_options(CLI::App& app) {
  app.add_option("--edits", file_, "An edit script (JSON); its entries may carry at_token")->type_name("FILE");
  app.add_option("--recipe", recipe_, "A recipe file (gating scheme)")->type_name("FILE");
}

Result<std::vector<EditCommand>> EditsInput::read(const ModelPlan& plan) const {
  if (!recipe_.empty()) return not_yet("--recipe", "gating schemes from recipe files", "Use --edits.");
  if (file_.empty()) return std::vector<EditCommand>{};
  SY_TRY(const std::string text, read_text(file_));
  auto script = parse_script(text, plan);
  if (!script) {
    Error error = std::move(script).error();
    error.where = error.where.empty() ? file_ : file_ + ": " + error.where;
    return tl::unexpected<Error>(std::move(error));
  }
  return script;
}

tl::unexpected<Error> not_yet(const std::string& option, const std::string& what, const std::string& instead) {
  return fail(ErrorCode::kUsage, "this version has no " + what + ".", option, instead);
}

}  // namespace switchyard
