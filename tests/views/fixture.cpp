#include "tests/views/fixture.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "engine/routing/decision.h"
#include "engine/runtime/shadow_meter.h"

namespace switchyard {

Fixture::Fixture(FixtureShape s) : shape(s) {
  plan.family = "made by hand";
  plan.vocab = 4096;
  plan.hidden = 64;
  plan.context = 4096;
  const int stride = s.sparse ? 2 : 1;
  plan.layers.resize(size_t(s.first_layer + s.layers * stride));
  for (int row = 0; row < s.layers; ++row) {
    const int layer = s.first_layer + row * stride;
    MoeSpec moe;
    moe.router.experts = s.experts;
    moe.router.experts_per_token = s.k;
    moe.router.renorm = Renorm::kSum;
    plan.layers[size_t(layer)].sublayers.push_back({.op = moe});
  }
  number_rows(plan);
  load_all_ = std::make_unique<Load>(s.layers, s.experts);
  load_window_ = std::make_unique<Load>(s.layers, s.experts);
  affinity_ = std::make_unique<Affinity>(s.layers, s.experts);
  for (int i = 0; i < s.layers * s.experts; ++i) tilt_.push_back(1.1f * (next() + next() + next() - 1.5f));

  snapshot_->epochs.push_back({0, 0, 0, "Native router", {}, std::make_shared<Recipe>(recipe_)});
  data.plan = &plan;
  data.snapshot = snapshot_;
  data.prompt_tokens = uint64_t(s.prompt);
  data.load_all = load_all_.get();
  data.load_window = load_window_.get();
  data.affinity = affinity_.get();

  commands.select = [this](const Selection& to) {
    selections.push_back(to);
    if (obey) selection = to;
  };
  commands.set_cursor = [this](const TimeCursor& to) {
    cursors.push_back(to);
    if (obey) cursor = to;
  };
  commands.edit = [this](EditCommand edit) { edits.push_back(std::move(edit)); };
  commands.edit_all = [this](std::vector<EditCommand> batch) { batches.push_back(std::move(batch)); };
  commands.remove_shadow = [this](size_t index) { removed_shadows.push_back(index); };
  commands.run_action = [this](std::string_view id) { actions.emplace_back(id); };
}

float Fixture::next() {  // xorshift64*
  state_ ^= state_ >> 12, state_ ^= state_ << 25, state_ ^= state_ >> 27;
  return float((state_ * 0x2545F4914F6CDD1Dull) >> 40) / float(1 << 24);
}

void Fixture::edit(const Edit& edit) {
  if (const auto valid = validate(edit, plan); !valid) throw std::runtime_error(valid.error().message());
  apply(edit, plan, recipe_);
  ++recipe_.epoch;
  auto& epochs = snapshot_->epochs;
  std::vector<EditCommand> in_force = epochs.back().edits;
  in_force.push_back({edit, std::nullopt});
  epochs.push_back({recipe_.epoch, 0, data.tokens(), describe(edit), in_force, std::make_shared<Recipe>(recipe_)});
  serial();
}

void Fixture::shadow(std::vector<ShadowRecipe> recipes) {
  ShadowMeter meter(plan);
  if (const auto set = meter.set(std::move(recipes), [] { return std::vector<RouterTensors>(); }); !set)
    throw std::runtime_error(set.error().message());
  for (const auto& frame : data.frames) {
    auto epoch = snapshot_->epochs.rbegin();
    while (epoch->first_token > frame->header().token_index) ++epoch;
    meter.feed(frame, epoch->recipe);
  }
  snapshot_->shadows = meter.state(true);
  serial();
}

void Fixture::add_token(const std::vector<std::vector<float>>& logits) {
  static const char* kPieces[] = {"And", " the", " king",    " said", " unto", " not",
                                  ",",   " def", " forward", "(self", "):",    "\\n"};
  const uint64_t token = data.tokens();
  int slots = std::max(shape.k, 1);
  for (int row = 0; row < shape.layers; ++row)
    slots = std::max(slots, slots_needed(plan.routed(row).router, recipe_.layer(row)));
  auto frame = std::make_shared<RoutingFrame>(shape.layers, shape.experts, slots, CaptureLevel::kLogits);
  FrameHeader& header = frame->header();
  header.token_index = token;
  header.token_id = TokenId(token % 4096);
  header.position = uint32_t(token);
  header.recipe_epoch = recipe_.epoch;
  header.phase = int(token) < shape.prompt ? Phase::kPrefill : Phase::kDecode;
  for (int row = 0; row < shape.layers; ++row) {
    std::vector<ExpertId> ids(static_cast<size_t>(slots));
    std::vector<float> weights(ids.size()), scratch(size_t(shape.experts) * 4);
    std::vector<SlotKind> kinds(ids.size());
    const auto& row_logits = logits[size_t(row)];
    const Decision decision =
        route(plan.routed(row).router, recipe_.layer(row), {.logits = row_logits}, scratch, {ids, weights, kinds});
    frame->record(row, decision, ids, weights, kinds, row_logits);
  }
  data.frames.push_back(std::move(frame));
  data.pieces.emplace_back(kPieces[token % std::size(kPieces)]);
  data.token_ids.push_back(header.token_id);
}

void Fixture::add_tokens(int count) {
  for (int i = 0; i < count; ++i) {
    std::vector<std::vector<float>> logits(size_t(shape.layers), std::vector<float>(size_t(shape.experts)));
    for (int row = 0; row < shape.layers; ++row) {
      const float sharp = 1.2f + next() * 1.8f;
      for (int e = 0; e < shape.experts; ++e)
        logits[size_t(row)][size_t(e)] =
            tilt_[size_t(row) * shape.experts + e] + sharp * (next() + next() + next() + next() - 2.0f);
    }
    add_token(logits);
  }
  recount();
}

void Fixture::recount() {
  load_all_->clear(), load_window_->clear(), affinity_->clear();
  const uint64_t tokens = data.tokens(), from = tokens > uint64_t(data.window) ? tokens - uint64_t(data.window) : 0;
  for (uint64_t t = 0; t < tokens; ++t) {
    const RoutingFrame& frame = *data.frames[t];
    for (int row = 0; row < shape.layers; ++row) {
      if (!load_all_->feed(row, frame.ids(row), frame.header().slots)) throw std::runtime_error("ids out of range");
      if (t >= from && !load_window_->feed(row, frame.ids(row), frame.header().slots))
        throw std::runtime_error("ids out of range");
      if (row + 1 < shape.layers && !affinity_->feed(row, frame.ids(row), frame.ids(row + 1)))
        throw std::runtime_error("ids out of range");
    }
  }
  serial();
}

ViewSource Fixture::source() {
  return {&data, &selection, &cursor, &commands, theme, 1.0f};
}

std::unique_ptr<Fixture> Fixture::mt1() {
  static const char* kDigits[3][16] = {{"4538", "7649", "3245", "3546", "5346", "4257", "3426", "5376", "9827", "8634",
                                        "5734", "7645", "7824", "7825", "7534", "5827"},
                                       {"2837", "3857", "1643", "3925", "4938", "2736", "4627", "1476", "7483", "6453",
                                        "7695", "5473", "5643", "6783", "7463", "4756"},
                                       {"4325", "6457", "5463", "4327", "7648", "8465", "7426", "7163", "5463", "5674",
                                        "6583", "5763", "5473", "5683", "4365", "7465"}};
  auto fixture = std::make_unique<Fixture>(
      FixtureShape{.layers = 3, .experts = 4, .k = 2, .first_layer = 1, .sparse = true, .prompt = 8});
  for (int t = 0; t < 16; ++t) {
    std::vector<std::vector<float>> logits(3, std::vector<float>(4));
    for (int row = 0; row < 3; ++row)
      for (int e = 0; e < 4; ++e) logits[size_t(row)][size_t(e)] = float(kDigits[row][t][e] - '0') / 2;
    fixture->add_token(logits);
  }
  fixture->recount();
  return fixture;
}

std::unique_ptr<Fixture> Fixture::with_edits(FixtureShape s) {
  auto fixture = std::make_unique<Fixture>(s);
  const auto layer = [&](int row) { return LayerSet{{fixture->plan.moe_layers[size_t(std::min(row, s.layers - 1))]}}; };
  fixture->add_tokens(53);
  fixture->edit(Mute{layer(5), {ExpertId(11 % s.experts)}});
  fixture->add_tokens(5);
  fixture->edit(Bias{layer(3), {ExpertId(22 % s.experts)}, 0.8f});
  fixture->add_tokens(6);
  fixture->edit(TopK{layer(6), std::max(1, s.k / 2)});
  fixture->add_tokens(11);
  fixture->shadow({{"native router", {}},
                   {"top-k 2, warmer", {{TopK{{}, std::max(1, s.k / 2)}, {}}, {Temperature{layer(2), 2.0f}, {}}, {Mute{layer(4), {ExpertId(3 % s.experts)}}, {}}}}});
  fixture->selection.moe_layer = std::min(5, s.layers - 1);
  return fixture;
}

}  // namespace switchyard
