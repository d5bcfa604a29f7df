// Duo-LLM's question without its training (specs/gating.md 1.6): for one token, in which layers do the routed experts
// pay? In each layer with routed experts the token skips that branch, runs its first expert alone, or all it is routed
// to; the pattern of lowest loss at the next token is looked for under every budget of experts. Caller's thread.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/base/result.h"
#include "engine/base/task.h"

namespace switchyard {

enum class ExpertUse : uint8_t { kSkip, kOne, kAll };
using UsePattern = std::vector<ExpertUse>;  // of each layer with routed experts, in order

struct OracleOptions {
  int exhaustive_layers =
      8;         // all 3^n patterns up to so many layers; else a beam over one step less at a time, from all
  int beam = 4;  // patterns kept at each step
};

struct OracleToken {
  std::vector<double> best;  // [most experts + 1]: lowest loss with at most so many experts, nats; never rises
  UsePattern pattern;        // of lowest loss; of equal ones the one with fewest experts
  int experts = 0;           // that it runs
  double all = 0, one = 0;   // loss of kAll and of kOne everywhere
  uint64_t tried = 0;        // patterns
  double difficulty() const { return one - best.back(); }
};

class ExpertOracle {
 public:
  // recipe: edits in force in all patterns; no scheme and no layer path. kUsage: a model whose tokens depend on each
  // other in other ways than by their keys (recurrent, coupled by capacity), an encoder-decoder, or one without routed
  // experts.
  static Result<ExpertOracle> create(Backend& backend, const ModelPlan& plan, Recipe recipe, int capacity,
                                     const OracleOptions& options);

  const std::vector<int>& layers() const { return layers_; }  // with routed experts
  int cost(const UsePattern& pattern) const;                  // experts that it runs
  int most() const { return cost(UsePattern(layers_.size(), ExpertUse::kAll)); }
  bool exhaustive() const { return int(layers_.size()) <= options_.exhaustive_layers; }

  // The loss of `target` after `token` under a pattern; tokens before it were run in full, and nothing is kept.
  Result<double> loss(TokenId token, TokenId target, const UsePattern& pattern, const Task* task);
  // Every pattern, or those of the beam; then the token is run in full.
  Result<OracleToken> next(TokenId token, TokenId target, const Task* task);

 private:
  ExpertOracle(Backend& backend, const ModelPlan& plan, Recipe recipe, int capacity, const OracleOptions& options);
  Result<void> all_patterns(TokenId token, TokenId target, size_t depth, std::span<const float> hidden,
                            UsePattern& pattern, const Task* task, OracleToken& out);
  Result<void> beam(TokenId token, TokenId target, const Task* task, OracleToken& out);
  Result<double> head(TokenId token, TokenId target, std::span<float> hidden, const Task* task);
  void note(const UsePattern& pattern, double loss, OracleToken& out) const;
  Result<void> run(const ForwardRequest& request);  // and forgets the token

  Backend* backend_;
  const ModelPlan* plan_;
  OracleOptions options_;
  std::vector<int> layers_, rows_;
  std::vector<int> all_cost_;  // experts of kAll, by layer of layers_
  Recipe recipe_;
  std::vector<Recipe> one_;  // recipe_ with one expert in layers_[i]
  std::unique_ptr<KvCache> cache_;
  std::vector<float> logits_;
};

}  // namespace switchyard
