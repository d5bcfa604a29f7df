#include "app/session/logit_lens.h"

#include "engine/backend/backend.h"
#include "engine/runtime/lens_run.h"

namespace switchyard {

Result<LogitLens> logit_lens_of(const Checkpoint& checkpoint, const std::vector<TokenId>& tokens, const Recipe& recipe, size_t last, Task& task) {
  task.report(-1, "opening the reference backend");
  SY_TRY(std::shared_ptr<const WeightStore> weights, WeightStore::open(checkpoint, &task));
  SY_TRY(const auto backend, make_backend("reference", checkpoint, weights, {.context = int(tokens.size())}, &task));
  task.report(-1, "reading the layers");
  LogitLens out;
  SY_TRY(out.places, logit_lens(*backend, checkpoint.plan, tokens, recipe, last, &task));
  for (const LensPlace& place : out.places) out.behind.push_back(place_name(place, checkpoint.plan));
  if (!out.places.empty()) out.first_token = tokens.size() - out.places[0].tokens.size();
  return out;
}

ResultTable lens_cells(const LogitLens& lens) {
  ResultTable table{"lens", {"layer", "index", "KL", "rank", "probability"}, {}};
  for (size_t p = 0; p < lens.places.size(); ++p)
    for (size_t t = 0; t < lens.places[p].tokens.size(); ++t) {
      const LensReading& one = lens.places[p].tokens[t];
      table.rows.push_back({lens.behind[p], lens.first_token + t, one.kl, one.rank, one.probability});
    }
  return table;
}

TableData lens_table(const LogitLens& lens, const std::vector<std::string>& texts, const std::function<std::string(TokenId)>& piece) {
  TableData table;
  table.columns = {{"behind", "layer", 0}, {"token", "index", 0}, {"text", "", 0}, {"KL", "nats, model to lens", 4},
                   {"first choice", "of the lens", 0}, {"rank", "of the model's, from 0", 0}, {"probability", "of the model's", 4}};
  for (size_t p = 0; p < lens.places.size(); ++p)
    for (size_t t = 0; t < lens.places[p].tokens.size(); ++t) {
      const LensReading& one = lens.places[p].tokens[t];
      const size_t token = lens.first_token + t;
      table.cells.insert(table.cells.end(), {lens.behind[p], int64_t(token), token < texts.size() ? texts[token] : std::string(), one.kl, piece(one.first),
                                             int64_t(one.rank), one.probability});
    }
  return table;
}

}  // namespace switchyard
