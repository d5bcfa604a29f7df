// A teacher-forced pass, see forced_pass.h.
#include "engine/runtime/forced_pass.h"

#include <algorithm>
#include <limits>

#include "engine/runtime/path_planner.h"

namespace switchyard {

std::vector<RecipeSpan> recipe_spans(const std::vector<EditCommand>& script, const ModelPlan& plan) {
  std::vector<EditCommand> ordered = script;
  std::stable_sort(ordered.begin(), ordered.end(),
                   [](const auto& a, const auto& b) { return a.at_token.value_or(0) < b.at_token.value_or(0); });
  std::vector<RecipeSpan> spans = {{0, std::make_shared<Recipe>(), {}}};
  for (const EditCommand& command : ordered) {
    const uint64_t first = command.at_token.value_or(0);
    if (first != spans.back().first_token) {
      spans.push_back(spans.back());
      spans.back().first_token = first;
    }
    Recipe next = *spans.back().recipe;
    apply(command.edit, plan, next);
    next.epoch = static_cast<uint32_t>(spans.size() - 1);
    spans.back().recipe = std::make_shared<const Recipe>(std::move(next));
    spans.back().edits.push_back({command.edit, std::nullopt});
  }
  return spans;
}

Result<void> in_chunks(std::span<const TokenId> tokens, const ModelPlan& plan,
                       const std::function<Result<void>(std::span<const TokenId>, std::span<float>)>& take) {
  constexpr size_t kFloats = size_t{16} << 20, kMostTokens = 256;
  const auto width = static_cast<size_t>(plan.vocab);
  const size_t chunk =
      plan.couples_tokens() ? std::max(tokens.size(), size_t{1}) : std::clamp(kFloats / width, size_t{1}, kMostTokens);
  std::vector<float> logits(std::min(chunk, tokens.size()) * width);
  for (size_t from = 0; from < tokens.size(); from += chunk) {
    const size_t count = std::min(chunk, tokens.size() - from);
    SY_CHECK(take(tokens.subspan(from, count), std::span(logits).first(count * width)));
  }
  return {};
}

ForcedPass::ForcedPass(Backend& backend, const ModelPlan& plan, std::vector<RecipeSpan> spans, int capacity)
    : backend_(backend), plan_(plan), spans_(std::move(spans)), cache_(backend.new_cache(capacity)), chooser_(spans_.front().recipe->path.chooser) {}

void ForcedPass::begin(uint32_t sequence, std::span<const TokenId> text) {
  cache_->truncate(0);
  text_ = text;
  encoder_tokens_ = 0;
  sequence_ = sequence;
}

Result<void> ForcedPass::choose_path(std::span<const TokenId> tokens, const Task* task) {
  Recipe asking = *spans_.front().recipe;
  asking.path = {.passes = {}, .chooser = chooser_};
  SY_TRY(const auto decisions, decide_path(backend_, plan_, asking, *cache_, text_.empty() ? tokens : text_, sequence_, task));
  Recipe decided;
  apply(LayerPath{.passes = passes_of(decisions)}, plan_, decided);
  for (RecipeSpan& span : spans_) {
    auto recipe = std::make_shared<Recipe>(*span.recipe);
    recipe->path = decided.path;
    span.recipe = std::move(recipe);
    std::erase_if(span.edits, [](const EditCommand& command) { return std::holds_alternative<LayerPath>(command.edit); });
    span.edits.push_back({decided.path, std::nullopt});
  }
  return {};
}

const RecipeSpan& ForcedPass::span_at(uint64_t token, uint64_t& end) const {
  size_t at = 0;
  while (at + 1 < spans_.size() && spans_[at + 1].first_token <= token) ++at;
  end = at + 1 < spans_.size() ? spans_[at + 1].first_token : std::numeric_limits<uint64_t>::max();
  return spans_[at];
}

Result<void> ForcedPass::encode(std::span<const TokenId> tokens, CaptureLevel capture,
                                std::vector<RoutingFrame>& frames, const Task* task) {
  SY_CHECK(run(tokens, true, {}, capture, frames, task));
  encoder_tokens_ = tokens.size();
  return {};
}

Result<void> ForcedPass::forward(std::span<const TokenId> tokens, std::span<float> logits, CaptureLevel capture,
                                 std::vector<RoutingFrame>& frames, const Task* task) {
  return run(tokens, false, logits, capture, frames, task);
}

Result<void> ForcedPass::run(std::span<const TokenId> tokens, bool encode, std::span<float> logits,
                             CaptureLevel capture, std::vector<RoutingFrame>& frames, const Task* task) {
  frames.clear();
  if (chooser_ && cache_->length() == 0 && !tokens.empty()) SY_CHECK(choose_path(tokens, task));
  const bool one_piece = encode || plan_.couples_tokens();
  const auto vocab = static_cast<size_t>(plan_.vocab);
  for (size_t from = 0; from < tokens.size();) {
    const auto first = static_cast<uint64_t>(cache_->length());
    uint64_t end = 0;
    const RecipeSpan& span = span_at(first, end);
    const size_t count = one_piece ? tokens.size() : std::min<uint64_t>(tokens.size() - from, end - first);
    if (capture != CaptureLevel::kOff) frames.resize(from + count, make_frame(plan_, *span.recipe, capture, taps_));
    ForwardRequest request;
    request.tokens = tokens.subspan(from, count);
    request.encode = encode;
    request.cache = cache_.get();
    request.recipe = span.recipe.get();
    request.stream = sequence_;
    request.rows = logits.empty() ? LogitRows::kNone : LogitRows::kAll;
    if (!logits.empty()) request.logits = logits.subspan(from * vocab, count * vocab);
    if (capture != CaptureLevel::kOff) request.frames = std::span(frames).subspan(from, count);
    request.task = task;
    if (ahead_) ahead_->begin(request.frames, tap_);
    request.tap = ahead_ ? ahead_ : tap_;
    request.units = units_;
    SY_CHECK(backend_.forward(request));
    for (size_t i = 0; i < request.frames.size(); ++i) {
      FrameHeader& header = request.frames[i].header();
      header.token_index = first + i;
      header.token_id = tokens[from + i];
      header.position = static_cast<uint32_t>(first + i - encoder_tokens_);
      header.sequence = sequence_;
      header.recipe_epoch = span.recipe->epoch;
      header.phase = Phase::kPrefill;
    }
    from += count;
  }
  return {};
}

}  // namespace switchyard
