// A reading of the text so far, taken by a job on a backend of its own beside the run: what the docks of the logit lens, of
// the router gradients and of the edit effects share. GUI thread.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include <QString>

#include "app/session/edits_in_force.h"
#include "app/session/jobs.h"
#include "app/session/run_model.h"

namespace switchyard {

template <class Reading>
class TextProbe {
 public:
  TextProbe(RunModel& model, Jobs& jobs) : model_(model), jobs_(jobs) {}

  std::shared_ptr<const Reading> reading() const { return reading_; }
  bool running() const { return job_ != 0; }
  void cancel() { jobs_.cancel(job_); }

  // work(checkpoint, tokens, recipe, task) on the pool, of all tokens and under the edits in force; then changed(), here,
  // whether there is a reading or not. Errors go to RunModel::failed().
  template <class Work>
  void start(const QString& tag, const QString& title, Work work, std::function<void()> changed) {
    std::vector<TokenId> tokens = text();
    const Recipe* recipe = recipe_in_force(*model_.snapshot());
    job_ = jobs_.start(
        tag, title,
        [checkpoint = *model_.checkpoint(), tokens, recipe = recipe ? *recipe : Recipe{}, work](Task& task) { return work(checkpoint, tokens, recipe, task); },
        [this, checkpoint = model_.checkpoint(), tokens, changed = std::move(changed)](Result<Reading> reading) {
          job_ = 0;
          if (checkpoint == model_.checkpoint()) {
            if (reading) {
              reading_ = std::make_shared<const Reading>(std::move(*reading));
              tokens_ = tokens;
            } else if (reading.error().code != ErrorCode::kCancelled) {
              Q_EMIT model_.failed(reading.error());
            }
          }
          changed();
        });
  }

  // Forgets a reading whose tokens are not how the text begins now: another run, another branch. True: it did.
  bool drop_of_other_text() {
    if (!reading_) return false;
    const std::vector<TokenId> now = text();
    if (tokens_.size() <= now.size() && std::equal(tokens_.begin(), tokens_.end(), now.begin())) return false;
    reading_.reset();
    return true;
  }

 private:
  std::vector<TokenId> text() const {
    std::vector<TokenId> tokens;
    if (!model_.has_session() || !model_.snapshot()) return tokens;
    const SessionSnapshot& s = *model_.snapshot();
    tokens = s.prompt_ids;
    tokens.insert(tokens.end(), s.generated_ids.begin(), s.generated_ids.end());
    return tokens;
  }

  RunModel& model_;
  Jobs& jobs_;
  std::shared_ptr<const Reading> reading_;
  std::vector<TokenId> tokens_;  // that reading_ is of
  Jobs::Id job_ = 0;  // 0: none runs
};

}  // namespace switchyard
