// The edit script of a command line, see edits_input.h.
#include "app/cli/edits_input.h"

#include <iterator>

#include <fmt/format.h>

#include "app/cli/text_input.h"

namespace switchyard {

void EditsInput::add_options(CLI::App& app) {
  app.add_option("--edits", file_, "An edit script (JSON); its entries may carry at_token")->type_name("FILE");
  app.add_option("--recipe", recipe_, "A recipe: an edit script that applies before --edits (gating schemes: recipe list)")->type_name("FILE");
}

Result<std::vector<EditCommand>> read_script(const std::string& file, const ModelPlan& plan) {
  SY_TRY(const std::string text, read_text(file));
  auto script = parse_script(text, plan);
  if (!script) {
    Error error = std::move(script).error();
    error.where = error.where.empty() ? file : file + ": " + error.where;
    return tl::unexpected<Error>(std::move(error));
  }
  return script;
}

Result<std::vector<EditCommand>> EditsInput::read(const ModelPlan& plan) const {
  std::vector<EditCommand> all;
  for (const std::string& file : {recipe_, file_}) {
    if (file.empty()) continue;
    SY_TRY(std::vector<EditCommand> script, read_script(file, plan));
    all.insert(all.end(), std::make_move_iterator(script.begin()), std::make_move_iterator(script.end()));
  }
  if (recipe_.empty() || file_.empty()) return all;
  auto together = parse_script(to_json_script(all), plan);  // each fits alone
  if (!together) {
    Error error = std::move(together).error();
    error.where = fmt::format("{} and {} together: {}", recipe_, file_, error.where);
    return tl::unexpected<Error>(std::move(error));
  }
  return all;
}

}  // namespace switchyard
