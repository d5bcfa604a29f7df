// Frames whose every value is a function of its token, layer and slot, so that a test can say what a file
// must hold after any interruption without keeping it.
#pragma once

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <unistd.h>

#include "engine/routing/frame.h"
#include "engine/trace/trace.h"

namespace switchyard::testing {

struct SyntheticShape {
  int layers = 3, experts = 16, k = 4;
  CaptureLevel capture = CaptureLevel::kLogits;
  uint32_t sequence_tokens = 1000;  // a new sequence every so many tokens
  uint32_t epoch_tokens = 300;      // a new epoch every so many tokens
  uint8_t taps = Taps::kOutNorm | Taps::kBlockCos | Taps::kPredGate;
};

// k of the token: the model's own, but for a stretch in which a recipe chose more and one in which it chose less.
inline int synthetic_k(const SyntheticShape& shape, uint64_t token) {
  if (token >= 5000 && token < 5200) return std::min(shape.k + 2, shape.experts);
  return token % 97 == 5 ? std::max(shape.k - 1, 1) : shape.k;
}
inline ExpertId synthetic_id(const SyntheticShape& shape, uint64_t token, int layer, int slot) {
  return static_cast<ExpertId>((token * 7 + layer * 3 + slot) % shape.experts);
}
inline float synthetic_weight(uint64_t token, int layer, int slot) {
  return 1.0f / (1.0f + slot) + static_cast<float>((token + layer) % 8) / 1024;
}
inline SlotKind synthetic_kind(uint64_t token, int slot) { return token % 11 == 3 && slot == 0 ? SlotKind::kForced : SlotKind::kRouted; }
inline float synthetic_logit(uint64_t token, int layer, int expert) {
  return static_cast<float>((token * 31 + layer * 17 + expert * 13) % 257) / 16 - 8;
}
inline float synthetic_norm(uint64_t token, int layer, int slot) { return static_cast<float>((token + layer * 5 + slot) % 61) / 4 + 1; }
inline float synthetic_cosine(uint64_t token, int layer) { return static_cast<float>((token + layer) % 128) / 128; }
inline ExpertId synthetic_guess(const SyntheticShape& shape, uint64_t token, int layer, int slot) { return synthetic_id(shape, token + 1, layer, slot); }
inline DecisionStats synthetic_stats(uint64_t token, int layer) {
  const float t = static_cast<float>(token % 4096), l = static_cast<float>(layer);
  return {t / 4096 + l, t / 8192, l + 0.25f, t + 100 * l};
}

inline TraceHeader synthetic_header(const SyntheticShape& shape) {
  TraceHeader header;
  for (int row = 0; row < shape.layers; ++row) header.moe_layers.push_back(row * 2 + 1);
  header.experts = shape.experts;
  header.experts_per_token = shape.k;
  header.router.experts = shape.experts;
  header.router.experts_per_token = shape.k;
  header.router.renorm = Renorm::kSum;
  header.capture = shape.capture;
  header.taps = shape.taps;
  header.model_config_json = R"({"name":"synthetic"})";
  header.edits_json = R"({"schema":1,"edits":[]})";
  header.run_json = R"({"seed":7})";
  return header;
}

inline RoutingFrame synthetic_frame(const SyntheticShape& shape, uint64_t token) {
  const int k = synthetic_k(shape, token);
  RoutingFrame frame(shape.layers, shape.experts, std::max(k, shape.k), shape.capture, 1, shape.taps);
  FrameHeader& header = frame.header();
  header.sequence = static_cast<uint32_t>(token / shape.sequence_tokens);
  header.token_index = token % shape.sequence_tokens;
  header.position = static_cast<uint32_t>(header.token_index);
  header.token_id = static_cast<TokenId>(token * 5 % 50'000);
  header.phase = header.token_index < 20 ? Phase::kPrefill : Phase::kDecode;
  header.recipe_epoch = static_cast<uint32_t>(token / shape.epoch_tokens);
  std::vector<ExpertId> ids(k);
  std::vector<float> weights(k), logits(shape.experts);
  std::vector<SlotKind> kinds(k);
  for (int row = 0; row < shape.layers; ++row) {
    for (int slot = 0; slot < k; ++slot) {
      ids[slot] = synthetic_id(shape, token, row, slot);
      weights[slot] = synthetic_weight(token, row, slot);
      kinds[slot] = synthetic_kind(token, slot);
    }
    for (int e = 0; e < shape.experts; ++e) logits[e] = synthetic_logit(token, row, e);
    Decision decision;
    decision.k_used = k;
    decision.stats = synthetic_stats(token, row);
    frame.record(row, decision, ids, weights, kinds, logits);
    for (int slot = 0; slot < k; ++slot) frame.note_out_norm(row, frame.ids(row)[slot], synthetic_norm(token, row, slot));
    frame.note_block_cos(row, synthetic_cosine(token, row));
    for (int slot = 0; slot < k; ++slot) ids[slot] = synthetic_guess(shape, token, row, slot);
    if (row > 0) frame.note_guess(row, ids);
  }
  return frame;
}

// Starts sequences and epochs as synthetic_frame() numbers them, then appends the frame.
inline Result<void> append_synthetic(TraceSink& sink, const SyntheticShape& shape, uint64_t token) {
  if (token % shape.sequence_tokens == 0) SY_CHECK(sink.begin_sequence(uint32_t(token / shape.sequence_tokens), 20));
  if (token % shape.epoch_tokens == 0) {
    const auto epoch = static_cast<uint32_t>(token / shape.epoch_tokens);
    SY_CHECK(sink.begin_epoch(epoch, token, R"({"schema":1,"edits":[{"kind":"mute","layer":1,"expert":)" + std::to_string(epoch % shape.experts) + "}]}"));
  }
  return sink.append(synthetic_frame(shape, token));
}

// Compares every committed value with what synthetic_frame() made; the first difference, or "".
inline std::string synthetic_difference(const TraceReader& reader, const SyntheticShape& shape) {
  const TraceInfo& info = reader.info();
  const auto at = [](uint64_t token, int row, const char* what) {
    return std::string(what) + " of token " + std::to_string(token) + ", row " + std::to_string(row);
  };
  constexpr uint64_t kStep = 500;
  for (uint64_t first = 0; first < info.tokens; first += kStep) {
    const uint64_t n = std::min(kStep, info.tokens - first);
    const auto token_ids = reader.token_ids(first, n);
    const auto position = reader.token_column("position", first, n), phase = reader.token_column("phase", first, n),
               epoch = reader.token_column("recipe_epoch", first, n);
    if (!token_ids || !position || !phase || !epoch) return "a token column could not be read";
    for (uint64_t t = 0; t < n; ++t) {
      const uint64_t token = first + t;
      if ((*token_ids)[t] != TokenId(token * 5 % 50'000)) return at(token, 0, "token id");
      if ((*position)[t] != token % shape.sequence_tokens) return at(token, 0, "position");
      if ((*phase)[t] != (token % shape.sequence_tokens < 20 ? 0u : 1u)) return at(token, 0, "phase");
      if ((*epoch)[t] != token / shape.epoch_tokens) return at(token, 0, "epoch");
    }
    for (int row = 0; row < info.layers; ++row) {
      const auto ids = reader.expert_ids(row, first, n);
      if (!ids) return ids.error().message();
      for (uint64_t t = 0; t < n; ++t) {
        for (int slot = 0; slot < info.top_k; ++slot) {
          const bool used = slot < synthetic_k(shape, first + t);
          if ((*ids)[t * info.top_k + slot] != (used ? synthetic_id(shape, first + t, row, slot) : kNoExpert))
            return at(first + t, row, "expert id");
        }
      }
      if (shape.taps & Taps::kPredGate && row > 0) {
        const auto guesses = reader.guessed_ids(row, first, n);
        if (!guesses) return guesses.error().message();
        for (uint64_t t = 0; t < n; ++t)
          for (int slot = 0; slot < info.top_k; ++slot)
            if ((*guesses)[t * info.top_k + slot] != (slot < synthetic_k(shape, first + t) ? synthetic_guess(shape, first + t, row, slot) : kNoExpert))
              return at(first + t, row, "guess");
      }
      if (shape.taps & Taps::kOutNorm) {
        const auto norms = reader.out_norms(row, first, n);
        const auto cosines = reader.scalar("block_cos", row, first, n);
        if (!norms || !cosines) return "a tap could not be read";
        for (uint64_t t = 0; t < n; ++t) {
          if ((*cosines)[t] != synthetic_cosine(first + t, row)) return at(first + t, row, "cosine");
          for (int slot = 0; slot < synthetic_k(shape, first + t); ++slot)
            if ((*norms)[t * info.top_k + slot] != synthetic_norm(first + t, row, slot)) return at(first + t, row, "norm");
        }
      }
      if (shape.capture < CaptureLevel::kWeights) continue;
      const auto weights = reader.weights(row, first, n);
      if (!weights) return weights.error().message();
      for (uint64_t t = 0; t < n; ++t) {
        for (int slot = 0; slot < info.top_k; ++slot) {
          const bool used = slot < synthetic_k(shape, first + t);
          if ((*weights)[t * info.top_k + slot] != (used ? synthetic_weight(first + t, row, slot) : 0)) return at(first + t, row, "weight");
        }
      }
      const auto entropy = reader.scalar("entropy", row, first, n), mass = reader.scalar("topk_mass", row, first, n),
                 margin = reader.scalar("margin", row, first, n), lse = reader.scalar("lse", row, first, n);
      if (!entropy || !mass || !margin || !lse) return "a scalar could not be read";
      for (uint64_t t = 0; t < n; ++t) {
        const DecisionStats want = synthetic_stats(first + t, row);
        if ((*entropy)[t] != want.entropy || (*mass)[t] != want.topk_mass || (*margin)[t] != want.margin || (*lse)[t] != want.lse)
          return at(first + t, row, "scalars");
      }
      if (shape.capture < CaptureLevel::kLogits) continue;
      const auto logits = reader.router_logits(row, first, n);
      if (!logits) return logits.error().message();
      for (uint64_t t = 0; t < n; ++t) {
        for (int e = 0; e < shape.experts; ++e)
          if ((*logits)[t * shape.experts + e] != synthetic_logit(first + t, row, e)) return at(first + t, row, "logit");
      }
    }
  }
  const auto offsets = reader.sequence_offsets();
  if (!offsets) return offsets.error().message();
  for (size_t s = 0; s + 1 < offsets->size(); ++s)
    if ((*offsets)[s] != int64_t(s * shape.sequence_tokens)) return "sequence " + std::to_string(s);
  if (info.tokens > 0 && offsets->size() != (info.tokens + shape.sequence_tokens - 1) / shape.sequence_tokens + 1) return "number of sequences";
  const auto epochs = reader.epochs();
  if (!epochs) return epochs.error().message();
  for (size_t p = 0; p < epochs->size(); ++p)
    if ((*epochs)[p].first_token != p * shape.epoch_tokens) return "epoch " + std::to_string(p);
  if (info.tokens > 0 && epochs->size() != (info.tokens + shape.epoch_tokens - 1) / shape.epoch_tokens) return "number of epochs";
  return "";
}

// A folder of its own for each test, removed afterwards.
class Folder {
 public:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "switchyard-trace-XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// Records `tokens` tokens and closes.
inline void record_synthetic(const std::filesystem::path& path, const SyntheticShape& shape, uint64_t tokens, RecorderOptions options = {}) {
  auto recorder = TraceRecorder::create(path, synthetic_header(shape), options);
  ASSERT_TRUE(recorder) << recorder.error().message();
  for (uint64_t token = 0; token < tokens; ++token) {
    const auto appended = append_synthetic(**recorder, shape, token);
    ASSERT_TRUE(appended) << appended.error().message();
  }
  const auto closed = (*recorder)->close();
  ASSERT_TRUE(closed) << closed.error().message();
  EXPECT_EQ((*recorder)->committed_tokens(), tokens);
  EXPECT_EQ((*recorder)->dropped(), 0u);
}

}  // namespace switchyard::testing
