#include "app/session/text_effect.h"

#include <cmath>

#include <fmt/format.h>

#include "engine/backend/backend.h"
#include "engine/runtime/effect_run.h"

namespace switchyard {

Result<TextEffect> text_effect(const Checkpoint& checkpoint, const std::string& backend, const std::vector<TokenId>& tokens, const Recipe& recipe, Task& task) {
  task.report(-1, "opening a second backend");
  SY_TRY(std::shared_ptr<const WeightStore> weights, WeightStore::open(checkpoint, &task));
  // Two caches: without the edits and with them.
  SY_TRY(const auto own, make_backend(backend, checkpoint, weights, {.context = 2 * int(tokens.size()), .passes = recipe.path.passes}, &task));
  SY_TRY(EditEffect effect, edit_effect(*own, checkpoint.plan, tokens, recipe, task));
  return TextEffect{recipe, std::move(effect)};
}

std::array<std::string, 4> effect_summary(const EditEffect& effect) {
  const double before = effect.mean(&PositionEffect::nll_base), after = effect.mean(&PositionEffect::nll_edited);
  return {fmt::format("PPL {:.4f} → {:.4f}, × {:.4f}", perplexity(before), perplexity(after), std::exp(after - before)),
          fmt::format("NLL {:.4f} → {:.4f}, {:+.4f} nat", before, after, after - before),
          fmt::format("KL {:.4g} nat, 95 % < {:.4g}", effect.mean(&PositionEffect::kl), effect.kl_percentile(95)),
          fmt::format("flips {:.1f} % of {} first choices", 100 * effect.top1_flip_rate(), effect.positions().size())};
}

std::string effect_sentence(const PositionEffect& effect) {
  return fmt::format("KL {:.3g} nat, NLL {:.4f} before, {:.4f} after ({:+.4f}){}", effect.kl, effect.nll_base, effect.nll_edited,
                     effect.nll_edited - effect.nll_base, effect.top1_flip ? ", flips the first choice" : "");
}

TableData effect_table(const TextEffect& effect, const std::vector<std::string>& texts) {
  TableData table;
  table.columns = {{"position", "index of the token that is predicted", 0}, {"token", "", 0}, {"KL", "nats, before to after", 4}, {"JS", "nats", 4},
                   {"NLL before", "nats", 4}, {"NLL after", "nats", 4}, {"difference", "nats, after - before", 4}, {"flip", "1: another first choice", 0}};
  for (size_t token = 1; token < effect.tokens(); ++token) {
    const PositionEffect& one = *effect.at(token);
    table.cells.insert(table.cells.end(), {int64_t(token), token < texts.size() ? texts[token] : std::string(), one.kl, one.js, one.nll_base, one.nll_edited,
                                           one.nll_edited - one.nll_base, int64_t(one.top1_flip)});
  }
  return table;
}

}  // namespace switchyard
