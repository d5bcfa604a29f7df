// See harness.h.
#include "tests/backend/harness.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <ostream>
#include <set>
#include <stdexcept>

#include "engine/routing/frame.h"

namespace switchyard::testing {
namespace {

const std::filesystem::path kGoldens = goldens_folder();
constexpr int kContext = 128;

template <class T>
T value_of(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().message());
  return std::move(*result);
}

struct Opened {
  Checkpoint checkpoint;
  std::shared_ptr<const WeightStore> weights;
  std::map<std::string, std::unique_ptr<Backend>> backends;
};

Opened& opened(const std::string& model) {
  static std::map<std::string, Opened> all;
  const auto found = all.find(model);
  if (found != all.end()) return found->second;
  Opened made;
  made.checkpoint = value_of(open_checkpoint(model == "demo" ? model : (kGoldens / model).string()));
  made.weights = value_of(WeightStore::open(made.checkpoint));
  return all.emplace(model, std::move(made)).first->second;
}

std::set<ExpertId> selected(const RoutingFrame& frame, int moe_layer) {
  const auto ids = frame.used_ids(moe_layer);
  return {ids.begin(), ids.end()};
}

}  // namespace

std::vector<std::string> backend_names() {
#ifdef SWITCHYARD_WITH_REFERENCE
  return {"reference", "cpu"};
#else
  return {"cpu"};
#endif
}

const Checkpoint& checkpoint(const std::string& model) {
  return opened(model).checkpoint;
}

Backend& backend(const std::string& model, const std::string& name) {
  Opened& from = opened(model);
  std::unique_ptr<Backend>& made = from.backends[name];
  if (!made) made = value_of(make_backend(name, from.checkpoint, from.weights, {.threads = 2}));
  return *made;
}

nlohmann::json expected(const std::string& model) {
  std::ifstream file(checkpoint(model).folder / "expected.json");
  return nlohmann::json::parse(file);
}

std::filesystem::path goldens_folder() {
  const char* other = std::getenv("SWITCHYARD_GOLDENS");
  return other ? std::filesystem::path(other) : std::filesystem::path(SWITCHYARD_SOURCE_DIR) / "tests/goldens";
}

std::vector<std::string> goldens() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(kGoldens)) {
    const std::string name = entry.path().filename().string();
    if (entry.is_directory() && (name.starts_with("mixtral") || name.starts_with("olmoe") || name.starts_with("qwen3_moe")) &&
        name.find("_dynamic") == name.npos)
      names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

Sequence::Sequence(const std::string& model, const std::string& backend_name, Recipe recipe)
    : plan_(checkpoint(model).plan),
      backend_(backend(model, backend_name)),
      recipe_(std::move(recipe)),
      cache_(backend_.new_cache(kContext)) {}

Sequence::Sequence(const Sequence& other)
    : plan_(other.plan_), backend_(other.backend_), recipe_(other.recipe_), cache_(other.cache_->clone()) {}

Output Sequence::feed(std::span<const TokenId> tokens) {
  Output out;
  out.logits.resize(tokens.size() * size_t(plan_.vocab));
  out.frames = blank_frames(plan_, recipe_, tokens.size());
  const auto done = backend_.forward({.tokens = tokens,
                                      .cache = cache_.get(),
                                      .recipe = &recipe_,
                                      .rows = LogitRows::kAll,
                                      .logits = out.logits,
                                      .frames = out.frames});
  if (!done) throw std::runtime_error(done.error().message());
  return out;
}

Output Sequence::encode(std::span<const TokenId> tokens) {
  Output out{.logits = {}, .frames = blank_frames(plan_, recipe_, tokens.size())};
  const auto done = backend_.forward({.tokens = tokens,
                                      .encode = true,
                                      .cache = cache_.get(),
                                      .recipe = &recipe_,
                                      .rows = LogitRows::kNone,
                                      .frames = out.frames});
  if (!done) throw std::runtime_error(done.error().message());
  return out;
}

std::vector<TokenId> Sequence::greedy(const Output& last, int count, Output* outputs) {
  std::vector<TokenId> ids{most_likely(last_row(last, plan_.vocab))};
  while (int(ids.size()) <= count) {
    Output step = feed({&ids.back(), 1});
    ids.push_back(most_likely(step.logits));
    if (!outputs) continue;
    outputs->logits.insert(outputs->logits.end(), step.logits.begin(), step.logits.end());
    outputs->frames.push_back(std::move(step.frames[0]));
  }
  ids.pop_back();
  return ids;
}

std::vector<RoutingFrame> blank_frames(const ModelPlan& plan, const Recipe& recipe, size_t tokens) {
  return std::vector<RoutingFrame>(tokens, make_frame(plan, recipe, CaptureLevel::kLogits));
}

void Difference::include(const Difference& other) {
  logits = std::max(logits, other.logits);
  router_logits = std::max(router_logits, other.router_logits);
  weights = std::max(weights, other.weights);
  decisions += other.decisions;
  ties += other.ties;
  sets_differing += other.sets_differing;
}

std::ostream& operator<<(std::ostream& out, const Difference& d) {
  return out << "logits " << d.logits << ", router logits " << d.router_logits << ", weights " << d.weights << ", "
             << d.sets_differing << " of " << d.decisions << " sets differ (" << d.ties << " ties left out)";
}

double largest_difference(std::span<const float> a, std::span<const float> b) {
  if (a.size() != b.size()) return INFINITY;
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = std::fabs(double(a[i]) - double(b[i]));
    if (!(difference <= largest)) largest = std::isnan(difference) ? INFINITY : difference;
  }
  return largest;
}

Difference compare(const Output& a, const Output& b) {
  Difference d;
  d.logits = largest_difference(a.logits, b.logits);
  for (size_t t = 0; t < a.frames.size(); ++t) {
    for (int layer = 0; layer < a.frames[t].header().moe_layers; ++layer) {
      const RoutingFrame &fa = a.frames[t], &fb = b.frames[t];
      ++d.decisions;
      d.router_logits = std::max(d.router_logits, largest_difference(fa.logits(layer), fb.logits(layer)));
      const bool whole = fa.layer(layer).k_used == fa.header().experts;
      if (!whole && std::fabs(fa.layer(layer).stats.margin) < kTie) {
        ++d.ties;
      } else if (selected(fa, layer) != selected(fb, layer)) {
        ++d.sets_differing;
      } else {
        d.weights = std::max(d.weights, largest_difference(fa.weights(layer), fb.weights(layer)));
      }
    }
  }
  return d;
}

std::span<const float> last_row(const Output& output, int vocab) {
  return std::span<const float>(output.logits).last(size_t(vocab));
}

TokenId most_likely(std::span<const float> logits) {
  return TokenId(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

bool identical(const Output& a, const Output& b) {
  if (a.logits.size() != b.logits.size() || a.frames.size() != b.frames.size()) return false;
  if (std::memcmp(a.logits.data(), b.logits.data(), a.logits.size() * sizeof(float)) != 0) return false;
  for (size_t t = 0; t < a.frames.size(); ++t) {
    if (!std::ranges::equal(a.frames[t].arena(), b.frames[t].arena())) return false;
  }
  return true;
}

std::vector<std::vector<TokenId>> prompts(const std::string& model) {
  std::vector<std::vector<TokenId>> all;
  const auto want = expected(model);
  for (const auto& prompt : want.at("prompts")) all.push_back(prompt.at("ids").get<std::vector<TokenId>>());
  return all;
}

}  // namespace switchyard::testing
