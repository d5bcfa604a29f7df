#include "app/session/gradient_lens.h"

#include <numeric>

#include <fmt/format.h>

namespace switchyard {

Result<GradientLens> gradient_lens(const Checkpoint& checkpoint, std::vector<TokenId> tokens, const Recipe& recipe, Task& task) {
  task.report(-1, "opening the reference backend");
  SY_TRY(std::shared_ptr<const WeightStore> weights, WeightStore::open(checkpoint, &task));
  SY_TRY(const auto backend, make_backend("reference", checkpoint, weights, {.context = int(tokens.size())}, &task));
  auto* differentiable = dynamic_cast<Differentiable*>(backend.get());
  if (!differentiable) return fail(ErrorCode::kInternal, "the reference backend has no gradients.");
  task.report(-1, "taking the gradient");
  SY_TRY(const std::vector<GateTerms> terms, differentiable->gate_terms(tokens, recipe, &task));
  GradientLens out;
  for (size_t row = 0; row < terms.size(); ++row)
    out.rows.push_back(gate_lens(terms[row], checkpoint.plan.routed(int(row)).router.experts));
  out.tokens = std::move(tokens);
  return out;
}

TableData gradient_table(const GradientLens& lens, int row, const std::vector<std::string>& texts) {
  TableData table;
  table.columns = {{"token", "index", 0}, {"text", "", 0}, {"wants expert", "that did not run", 0},
                   {"dense", "dL/dz, all experts", 6}, {"sparse", "dL/dz, those that ran", 6}};
  const auto& tokens = lens.rows[size_t(row)].tokens;
  for (size_t t = 0; t < tokens.size(); ++t) {
    if (tokens[t].expert == kNoExpert) continue;
    table.cells.insert(table.cells.end(), {int64_t(t), t < texts.size() ? texts[t] : std::string(), int64_t(tokens[t].expert), tokens[t].dense, tokens[t].sparse});
  }
  return table;
}

std::string gradient_summary(const GradientLens& lens, int row) {
  const GateLens& one = lens.rows[size_t(row)];
  std::string most;
  for (const int expert : most_wanted(one, 3)) most += fmt::format("{}{} ({})", most.empty() ? ": " : ", ", expert, one.wanted[size_t(expert)]);
  return fmt::format("{} of {} tokens want an idle expert{}; cosine of dense and sparse {:.3f}",
                     std::accumulate(one.wanted.begin(), one.wanted.end(), uint64_t(0)), one.tokens.size(), most, one.cosine);
}

}  // namespace switchyard
