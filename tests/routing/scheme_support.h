// Tokens under a scheme, and recipes and inputs of random numbers, for the tests of schemes.
#pragma once

#include <limits>
#include <map>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "engine/routing/block.h"
#include "engine/routing/decision.h"
#include "engine/routing/router_states.h"
#include "engine/routing/scheme_file.h"

namespace switchyard {

using CheckJson = nlohmann::json;
using Floats = std::vector<float>;

inline constexpr float kInf = std::numeric_limits<float>::infinity();

inline RouterSpec spec_of(int experts, int k) {
  RouterSpec spec;
  spec.experts = experts;
  spec.experts_per_token = k;
  spec.renorm = Renorm::kSum;
  return spec;
}

inline LayerRecipe recipe_of(const std::string& name, std::map<std::string, SchemeValue> parameters = {}) {
  auto scheme = make_scheme({name, std::move(parameters)});
  EXPECT_TRUE(scheme.has_value()) << name << ": " << (scheme ? "" : scheme.error().message());
  LayerRecipe recipe;
  if (scheme) recipe.scheme = scheme->of_layer(0);
  return recipe;
}

struct Token {
  Decision decision;
  std::vector<int> ids;  // of experts, in order of selection
  Floats weights;
  std::vector<SlotKind> kinds;
  double sum() const {
    double total = 0;
    for (size_t slot = 0; slot < weights.size(); ++slot)
      if (kinds[slot] != SlotKind::kDropped) total += weights[slot];
    return total;
  }
};

// Tokens that run together, each [E].
inline std::vector<Token> run(const RouterSpec& spec, const LayerRecipe& recipe, const std::vector<Floats>& logits,
                       const RouterInput& rest = {}) {
  const int slots = slots_needed(spec, &recipe), tokens = int(logits.size());
  const size_t experts = size_t(spec.experts);
  std::vector<Decision> decisions(tokens);
  std::vector<ExpertId> ids(size_t(tokens) * slots);
  Floats weights(ids.size()), scratch(scratch_needed(spec, &recipe)), edited(tokens * 2 * experts);
  RouterStates states;
  if (has_state(recipe.scheme)) states.prepare(recipe.scheme, logits.size());
  std::vector<SlotKind> kinds(ids.size());
  for (int t = 0; t < tokens; ++t) {
    RouterInput in = rest;
    in.logits = logits[t];
    in.index = rest.index + t;
    in.first_index = rest.index;
    in.together = tokens;
    DecisionSpans out{std::span(ids).subspan(size_t(t) * slots, slots), std::span(weights).subspan(size_t(t) * slots, slots),
                      std::span(kinds).subspan(size_t(t) * slots, slots)};
    if (has_state(recipe.scheme)) out.state = states.of(size_t(t));
    if (waits_for_block(&recipe, in)) out.edited = std::span(edited).subspan(t * 2 * experts, 2 * experts);
    decisions[t] = route(spec, &recipe, in, scratch, out);
  }
  BlockScratch block;
  settle_block(spec, &recipe, {slots, decisions, ids, weights, kinds, edited}, block);
  std::vector<Token> out;
  for (int t = 0; t < tokens; ++t) {
    Token token{decisions[t], {}, {}, {}};
    for (int slot = 0; slot < decisions[t].k_used; ++slot) {
      token.ids.push_back(ids[size_t(t) * slots + slot]);
      token.weights.push_back(weights[size_t(t) * slots + slot]);
      token.kinds.push_back(kinds[size_t(t) * slots + slot]);
    }
    out.push_back(std::move(token));
  }
  return out;
}

inline Token run_one(const RouterSpec& spec, const LayerRecipe& recipe, const Floats& logits, const RouterInput& rest = {}) {
  return run(spec, recipe, {logits}, rest).front();
}

inline Floats floats(const CheckJson& list) { return list.get<Floats>(); }
inline std::vector<Floats> rows(const CheckJson& list) { return list.get<std::vector<Floats>>(); }

inline void expect_near(double got, double want, const std::string& what) {
  EXPECT_NEAR(got, want, 2e-6 * std::max(1.0, std::abs(want))) << what;
}

inline void expect_near(const Floats& got, const CheckJson& want, const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (size_t i = 0; i < got.size(); ++i) expect_near(got[i], want[i].get<double>(), what + " [" + std::to_string(i) + "]");
}

inline constexpr int kVocab = 50;

inline constexpr int kWidth = 16;  // of the router's input

inline SchemeMatrix any_matrix(int64_t rows, int64_t cols, std::mt19937& random) {
  SchemeMatrix out{rows, cols, Floats(size_t(rows * cols))};
  for (float& value : out.values) value = std::normal_distribution<float>(0, 1)(random);
  return out;
}

// A recurrent router of width 5 for one layer.
inline LayerRecipe any_recurrent(int experts, std::mt19937& random) {
  auto file = std::make_shared<SchemeFile>();
  for (size_t part = 0; part < 6; ++part) {
    file->gru.weight[part] = any_matrix(5, 5, random);
    file->gru.bias[part] = any_matrix(1, 5, random).values;
  }
  file->layers[0].to_state = any_matrix(5, kWidth, random);
  file->layers[0].from_state = any_matrix(experts, 5, random);
  LayerRecipe recipe = recipe_of("top_k");
  recipe.scheme.choice = {"recurrent", {}};
  recipe.scheme.stages.source = LogitSource::kRecurrent;
  recipe.scheme.file = file;
  recipe.scheme = recipe.scheme.of_layer(0);
  return recipe;
}

struct Inputs {
  std::vector<Floats> logits;
  Floats hidden, norms, mixed;
  RouterInput rest() const { return {.hidden = hidden, .row_norms = norms, .mixed = mixed, .token = 7, .index = 3, .row = 2}; }
};

inline Inputs any_inputs(int tokens, int experts, std::mt19937& random) {
  std::normal_distribution<float> normal(0, 2);
  Inputs out;
  out.logits.assign(tokens, Floats(experts));
  for (auto& row : out.logits)
    for (float& z : row) z = normal(random);
  out.hidden.assign(kWidth, 0);
  for (float& h : out.hidden) h = normal(random);
  out.norms.assign(experts, 0);
  for (float& norm : out.norms) norm = 3 + std::abs(normal(random));
  out.mixed.assign(experts, 0);
  float sum = 0;
  for (float& p : out.mixed) sum += p = std::exp(normal(random));
  for (float& p : out.mixed) p /= sum;
  return out;
}

}  // namespace switchyard
