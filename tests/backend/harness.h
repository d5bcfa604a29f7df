// What the backend tests share: opened models, feeding tokens, comparing what came out.
// Each model and backend is opened once per test program.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "engine/backend/backend.h"
#include "engine/model/checkpoint.h"
#include "engine/routing/frame.h"

namespace switchyard::testing {

// "reference" (where it is built) and "cpu".
std::vector<std::string> backend_names();

// tests/goldens, or SWITCHYARD_GOLDENS where it is set (tests/goldens/unseen.py).
std::filesystem::path goldens_folder();

// "demo" or a folder of goldens_folder().
const Checkpoint& checkpoint(const std::string& model);
Backend& backend(const std::string& model, const std::string& name);
nlohmann::json expected(const std::string& model);  // expected.json beside the checkpoint

// The goldens of mixtral, olmoe and qwen3_moe, sorted; tests/families runs all families.
std::vector<std::string> goldens();

// What a run of tokens gave.
struct Output {
  std::vector<float> logits;         // [tokens, vocab]
  std::vector<RoutingFrame> frames;  // [tokens]
};

// One sequence on one backend under one recipe.
class Sequence {
 public:
  Sequence(const std::string& model, const std::string& backend_name, Recipe recipe = {});
  Sequence(const Sequence& other);  // clones the cache

  // All tokens in one forward(); throws std::runtime_error with the message of an error.
  Output feed(std::span<const TokenId> tokens);
  // The encoder's tokens of an encoder-decoder, before anything else; no logits.
  Output encode(std::span<const TokenId> tokens);
  // Feeds the most likely next token `count` times, starting from `last`, the output before it.
  std::vector<TokenId> greedy(const Output& last, int count, Output* outputs = nullptr);
  KvCache& cache() { return *cache_; }
  void set_recipe(Recipe recipe) { recipe_ = std::move(recipe); }

 private:
  const ModelPlan& plan_;
  Backend& backend_;
  Recipe recipe_;
  std::unique_ptr<KvCache> cache_;
};

// Frames for `tokens` tokens of this plan under this recipe.
std::vector<RoutingFrame> blank_frames(const ModelPlan& plan, const Recipe& recipe, size_t tokens);

// Largest absolute differences between two outputs of the same tokens.
struct Difference {
  double logits = 0, router_logits = 0, weights = 0;
  int decisions = 0;       // (token, MoE layer) pairs seen
  int ties = 0;            // of these, decided by less than kTie: the sets may differ
  int sets_differing = 0;  // other pairs with different selected sets
  void include(const Difference& other);
};
inline constexpr float kTie = 1e-4f;  // router logits of rank k and k + 1
Difference compare(const Output& a, const Output& b);
std::ostream& operator<<(std::ostream& out, const Difference& difference);

double largest_difference(std::span<const float> a, std::span<const float> b);
std::span<const float> last_row(const Output& output, int vocab);
TokenId most_likely(std::span<const float> logits);

// Same logits and same frames, bit for bit.
bool identical(const Output& a, const Output& b);

// Prompts of the model as ids: those of expected.json.
std::vector<std::vector<TokenId>> prompts(const std::string& model);

}  // namespace switchyard::testing
