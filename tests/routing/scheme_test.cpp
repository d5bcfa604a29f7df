// Gating schemes: every routing case of specs/gating-checks.json, against an independent double computation on random
// logits, and the global invariants of gating.md section 2 for every scheme of the registry.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "engine/routing/block.h"
#include "engine/routing/decision.h"
#include "engine/routing/expert_kind.h"
#include "engine/routing/neighbours.h"
#include "engine/routing/router_states.h"
#include "engine/routing/scheme_file.h"
#include "engine/routing/slices.h"
#include "engine/routing/stages.h"
#include "tests/support/gating_checks.h"

namespace switchyard {
namespace {

using CheckJson = nlohmann::json;
using Floats = std::vector<float>;
constexpr float kInf = std::numeric_limits<float>::infinity();

RouterSpec spec_of(int experts, int k) {
  RouterSpec spec;
  spec.experts = experts;
  spec.experts_per_token = k;
  spec.renorm = Renorm::kSum;
  return spec;
}

LayerRecipe recipe_of(const std::string& name, std::map<std::string, SchemeValue> parameters = {}) {
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
std::vector<Token> run(const RouterSpec& spec, const LayerRecipe& recipe, const std::vector<Floats>& logits,
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

Token run_one(const RouterSpec& spec, const LayerRecipe& recipe, const Floats& logits, const RouterInput& rest = {}) {
  return run(spec, recipe, {logits}, rest).front();
}

Floats floats(const CheckJson& list) { return list.get<Floats>(); }
std::vector<Floats> rows(const CheckJson& list) { return list.get<std::vector<Floats>>(); }

void expect_near(double got, double want, const std::string& what) {
  EXPECT_NEAR(got, want, 2e-6 * std::max(1.0, std::abs(want))) << what;
}
void expect_near(const Floats& got, const CheckJson& want, const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (size_t i = 0; i < got.size(); ++i) expect_near(got[i], want[i].get<double>(), what + " [" + std::to_string(i) + "]");
}

// One case of gating-checks.json under the scheme that carries its name, or the one beside it.
class Case {
 public:
  explicit Case(const CheckJson& check)
      : check_(check), name_(check.at("scheme")), in_(check.at("inputs")), params_(check.at("params")),
        want_(check.at("expected")), id_(check.at("id")) {}

  bool known() const {
    static const std::set<std::string> kNames{"top_k", "top_p", "dynmole", "adamoe", "dense_to_sparse", "activation_d2s",
                                              "switch_route", "base_balanced", "hash", "expert_choice", "expert_choice_threshold",
                                              "prototype", "forced_slot", "expert_condenser", "steer", "sdm", "temperature_schedule",
                                              "switch_capacity", "tsallis_entropy", "renyi_entropy", "chain_of_experts",
                                              "hecto_gate", "uoe_batch_norm", "ffn_slices", "global_local_gate"};
    return kNames.contains(name_);
  }

  void check() {
    if (name_ == "temperature_schedule") return check_schedule();
    if (name_ == "switch_capacity") return check_capacity();
    if (name_ == "tsallis_entropy" || name_ == "renyi_entropy") return check_entropy();
    if (name_ == "switch_route" || name_ == "base_balanced" || name_ == "expert_choice") return check_block();
    if (name_ == "hash") return check_hash();
    if (name_ == "chain_of_experts") return check_chain();
    if (name_ == "hecto_gate") return check_hecto();
    if (name_ == "uoe_batch_norm") return check_slice_norms();
    if (name_ == "ffn_slices") return check_slices();
    if (name_ == "global_local_gate") return check_local_gate();
    if (name_ == "expert_choice_threshold") return check_thresholds();
    check_token();
  }

 private:
  double real(const char* key, double otherwise) const { return params_.contains(key) ? params_[key].get<double>() : otherwise; }
  bool flag(const char* key) const { return params_.value(key, false); }

  std::map<std::string, SchemeValue> parameters(int experts) const {
    std::map<std::string, SchemeValue> out;
    const auto copy = [&](std::initializer_list<const char*> keys) {
      for (const char* key : keys) {
        if (!params_.contains(key)) continue;
        const CheckJson& value = params_[key];
        if (value.is_boolean()) out[key] = value.get<bool>();
        else if (value.is_number()) out[key] = value.get<double>();
        else if (value.is_string()) out[key] = value.get<std::string>();
        else out[key] = value.get<std::vector<int>>();
      }
    };
    copy({"k", "mode", "p", "k_min", "renorm", "h", "q", "eps", "k_keep", "tau", "threshold", "hard", "activation", "c", "axis",
          "policy", "capacity_factor", "forced_count", "on", "off", "d"});
    if (params_.contains("k_max") && params_["k_max"].get<int>() < experts) copy({"k_max"});
    if (name_ == "forced_slot") out["expert"] = params_["forced"].get<double>();
    return out;
  }

  LayerRecipe recipe(int experts) const {
    auto given = parameters(experts);
    if (name_ == "adamoe") {
      given["nulls"] = double(in_["null_logits"].size());
      given["null_source"] = std::string("constant");
    }
    if (name_ == "activation_d2s") given["mode"] = std::string("raw"), given["k"] = double(experts);
    if (name_ == "steer") given.erase("k"), given["k"] = double(experts), given["mode"] = std::string("raw");
    if (name_ == "sdm") given["k"] = double(experts), given["mode"] = std::string("raw"), given.erase("q"), given.erase("d");
    return recipe_of(name_, given);
  }

  // A softmax weight of -inf logits as the checks write them.
  Floats masked_logits() const {
    Floats z = floats(in_["logits"]);
    if (params_.contains("masked"))
      for (const int id : params_["masked"]) z[id] = -kInf;
    return z;
  }

  void check_token() {
    RouterInput rest;
    Floats z = name_ == "prototype" ? Floats() : masked_logits(), router_bias, hidden, norms;
    if (name_ == "prototype") {  // the logits are the products with the prototypes
      hidden = floats(in_["hidden"]);
      for (const auto& row : rows(in_["prototypes"])) {
        z.push_back(std::inner_product(row.begin(), row.end(), hidden.begin(), 0.0f));
        norms.push_back(std::sqrt(std::inner_product(row.begin(), row.end(), row.begin(), 0.0f)));
      }
      rest.hidden = hidden, rest.row_norms = norms;
    }
    const int experts = int(z.size());
    LayerRecipe recipe = this->recipe(experts);
    RouterSpec spec = spec_of(experts, 1);
    spec.scale = float(real("scale", 1));
    if (name_ == "adamoe") return check_nulls(spec, recipe, z);
    if (name_ == "sdm") {
      recipe.scheme.stages.sdm_q = float(real("q", 0)), recipe.scheme.stages.sdm_d = float(real("d", 1));
    }
    if (name_ == "expert_condenser") recipe.logit_bias = floats(in_["bias"]);
    if (name_ == "activation_d2s" && in_.contains("bias")) {
      router_bias = floats(in_["bias"]);
      rest.router_bias = router_bias;
      for (int e = 0; e < experts; ++e) z[e] += router_bias[e];
    }
    if (name_ == "dense_to_sparse" && in_.contains("gumbel")) {
      const Floats noise = floats(in_["gumbel"]);  // the same as a bias before the temperature
      recipe.logit_bias = noise;
      if (std::all_of(noise.begin(), noise.end(), [](float v) { return v == 0; })) recipe.logit_bias.clear();
    }
    const Token got = run_one(spec, recipe, z, rest);
    if (name_ == "activation_d2s" || name_ == "steer" || name_ == "sdm") {
      Floats p(experts, 0);
      for (size_t i = 0; i < got.ids.size(); ++i) p[got.ids[i]] = got.weights[i];
      expect_near(p, want_[name_ == "sdm" ? "values" : "probabilities"], id_);
      if (name_ == "steer") {
        EXPECT_EQ(CheckJson(got.ids), want_["order"]) << id_;
      }
      return;
    }
    EXPECT_EQ(CheckJson(got.ids), want_["ids"]) << id_;
    expect_near(got.weights, want_["weights"], id_);
    if (want_.contains("count")) {
      EXPECT_EQ(got.ids.size(), want_["count"].get<size_t>()) << id_;
    }
  }

  void check_nulls(const RouterSpec& spec, LayerRecipe recipe, const Floats& z) {
    // The registry's null logits are copies or one constant; the cases have one each, so they go in as real experts
    // that carry no weight: the softmax is the same.
    const Floats nulls = floats(in_["null_logits"]);
    {  // as rows of a file, times an input of 1
      auto data = std::make_shared<SchemeData>();
      data->nulls = {int64_t(nulls.size()), 1, nulls};
      LayerRecipe by_file = recipe;
      by_file.scheme.stages.nulls = int(nulls.size());
      by_file.scheme.stages.null_source = NullSource::kFile;
      by_file.scheme.data = data;
      const Floats one{1};
      const Token got = run_one(spec, by_file, z, {.hidden = one});
      EXPECT_EQ(CheckJson(got.ids), want_["ids"]) << id_;
      expect_near(got.weights, want_["weights"], id_);
      EXPECT_EQ(got.decision.nulls, want_["nulls_picked"].get<int>()) << id_;
    }
    std::vector<std::pair<float, int>> all;
    for (size_t e = 0; e < z.size(); ++e) all.push_back({z[e], int(e)});
    const bool one_constant = std::all_of(nulls.begin(), nulls.end(), [&](float n) { return n == nulls[0]; });
    const bool copies = nulls.size() > 0 && [&] {
      for (size_t j = 0; j < nulls.size(); ++j)
        if (nulls[j] != z[j % z.size()]) return false;
      return true;
    }();
    if (!nulls.empty() && !one_constant && !copies) {
      // As four-stage data: the stage itself with its own null logits.
      LayerRecipe plain = recipe_of("adamoe", {{"nulls", 0.0}, {"k", params_["k"].get<double>()}});
      Floats joined = z;
      joined.insert(joined.end(), nulls.begin(), nulls.end());
      const Token got = run_one(spec_of(int(joined.size()), 1), plain, joined);
      std::vector<int> ids;
      double sum = 0;
      Floats weights;
      for (size_t i = 0; i < got.ids.size(); ++i)
        if (got.ids[i] < int(z.size())) ids.push_back(got.ids[i]), weights.push_back(got.weights[i]), sum += got.weights[i];
      for (float& w : weights) w = float(w / sum);
      EXPECT_EQ(CheckJson(got.ids), want_["picked"]) << id_;
      EXPECT_EQ(CheckJson(ids), want_["ids"]) << id_;
      expect_near(weights, want_["weights"], id_);
      return;
    }
    recipe.scheme.stages.nulls = int(nulls.size());
    recipe.scheme.stages.null_source = copies ? NullSource::kCopy : NullSource::kConstant;
    if (!nulls.empty()) recipe.scheme.stages.null_logit = nulls[0];
    const Token got = run_one(spec, recipe, z);
    EXPECT_EQ(CheckJson(got.ids), want_["ids"]) << id_;
    expect_near(got.weights, want_["weights"], id_);
    EXPECT_EQ(got.decision.nulls, want_["nulls_picked"].get<int>()) << id_;
  }

  void check_block() {
    const std::vector<Floats> logits = rows(in_[name_ == "base_balanced" ? "affinity" : "logits"]);
    const int experts = int(logits[0].size());
    const LayerRecipe recipe = this->recipe(experts);
    const RouterSpec spec = spec_of(experts, 1);
    if (name_ == "expert_choice") {
      if (logits.size() == 1) return;  // a token that runs alone has another rule
      const auto got = run(spec, recipe, logits);
      std::vector<std::vector<std::pair<float, int>>> by_expert(experts);
      for (size_t t = 0; t < got.size(); ++t)
        for (size_t i = 0; i < got[t].ids.size(); ++i) by_expert[got[t].ids[i]].push_back({got[t].weights[i], int(t)});
      std::vector<int> unserved;
      for (size_t t = 0; t < got.size(); ++t)
        if (got[t].ids.empty()) unserved.push_back(int(t));
      EXPECT_EQ(CheckJson(unserved), want_["unserved"]) << id_;
      for (int e = 0; e < experts; ++e) {
        std::stable_sort(by_expert[e].begin(), by_expert[e].end(), [](auto a, auto b) { return a.first > b.first; });
        ASSERT_EQ(by_expert[e].size(), want_["capacity"].get<size_t>()) << id_;
        for (size_t i = 0; i < by_expert[e].size(); ++i) {
          EXPECT_EQ(by_expert[e][i].second, want_["tokens"][e][i].get<int>()) << id_ << " expert " << e;
          expect_near(by_expert[e][i].first, want_["weights"][e][i].get<double>(), id_);
        }
      }
      return;
    }
    const auto got = run(spec, recipe, logits);
    double total = 0;
    for (size_t t = 0; t < got.size(); ++t) {
      ASSERT_EQ(got[t].ids.size(), 1u) << id_ << " token " << t;
      EXPECT_EQ(got[t].ids[0], want_["ids"][t].get<int>()) << id_ << " token " << t;
      if (name_ == "base_balanced") {
        expect_near(got[t].weights[0], want_["alpha"][t].get<double>(), id_);
        total += logits[t][got[t].ids[0]];
      } else {
        const bool dropped = want_["dropped"][t];
        EXPECT_EQ(got[t].kinds[0] == SlotKind::kDropped, dropped) << id_ << " token " << t;
        if (logits.size() > 1) expect_near(got[t].weights[0], dropped ? 0 : want_["weights"][t].get<double>(), id_);
      }
    }
    if (name_ == "base_balanced") expect_near(total, want_["total"].get<double>(), id_);
  }

  void check_hash() {
    LayerRecipe recipe = recipe_of("hash");
    int experts = params_.value("experts", 0);
    if (in_.contains("table")) {
      auto data = std::make_shared<SchemeData>();
      for (const int id : in_["table"]) data->table.push_back(ExpertId(id)), experts = std::max(experts, id + 1);
      data->columns = 1;
      recipe.scheme.data = data;
    }
    for (size_t i = 0; i < in_["token_ids"].size(); ++i) {
      const Token got = run_one(spec_of(experts, 1), recipe, Floats(experts, 0), {.token = in_["token_ids"][i].get<int>()});
      EXPECT_EQ(got.ids.at(0), want_["ids"][i].get<int>()) << id_;
      EXPECT_EQ(got.weights.at(0), 1) << id_;
    }
  }

  // The decisions of every pass; expert i makes factors[i] x, inner residual.
  void check_chain() {
    Floats x = floats(in_["x"]);
    const Floats factors = floats(in_["factors"]);
    LayerRecipe recipe = recipe_of("chain_of_experts", {{"iterations", double(in_["gates"].size())}, {"k", params_["k"].get<double>()},
                                                        {"mode", params_["weights"].get<std::string>()}});
    for (size_t pass = 0; pass < in_["gates"].size(); ++pass) {
      Floats z;
      for (const Floats& row : rows(in_["gates"][pass])) z.push_back(std::inner_product(row.begin(), row.end(), x.begin(), 0.0f));
      const Token got = run_one(spec_of(int(factors.size()), 1), recipe, z);
      EXPECT_EQ(CheckJson(got.ids), want_["ids"][pass]) << id_;
      expect_near(got.weights, want_["weights"][pass], id_);
      float by = 1;
      for (size_t slot = 0; slot < got.ids.size(); ++slot) by += got.weights[slot] * factors[got.ids[slot]];
      for (float& v : x) v *= by;
      expect_near(x, want_["states"][pass], id_);
    }
  }

  void check_local_gate() { EXPECT_EQ(is_local(in_["gate"].get<double>()), want_["local"].get<bool>()) << id_; }

  void check_slice_norms() {
    Floats g, out;
    std::vector<uint8_t> mask;
    for (const Floats& row : rows(in_["g"])) g.insert(g.end(), row.begin(), row.end());
    for (const auto& row : in_["mask"])
      for (const int mark : row) mask.push_back(uint8_t(mark));
    const int slices = int(in_["g"][0].size());
    out.resize(g.size());
    normalise_slices(g, mask, slices, real("cap", 1), out);
    for (size_t t = 0; t < in_["g"].size(); ++t)
      expect_near(Floats(out.begin() + long(t * slices), out.begin() + long((t + 1) * slices)), want_["normalised"][t], id_);
  }

  // The parts that slices make of the hidden units, where the slices are the runs that slice_begin() says.
  void check_slices() {
    const Floats x = floats(in_["x"]);
    const auto w1 = rows(in_["w1"]), w2 = rows(in_["w2"]);
    const auto slices = in_["slices"].get<std::vector<std::vector<int64_t>>>();
    std::vector<double> units;
    for (const Floats& row : w1) units.push_back(std::max(0.0, std::inner_product(row.begin(), row.end(), x.begin(), 0.0)));
    std::vector<double> dense(w2.size(), 0.0);
    for (size_t s = 0; s < slices.size(); ++s) {
      const int64_t begin = slice_begin(int(s), int(slices.size()), int64_t(w1.size())), end = slice_begin(int(s) + 1, int(slices.size()), int64_t(w1.size()));
      std::vector<int64_t> run;
      for (int64_t i = begin; i < end; ++i) run.push_back(i);
      const bool runs = slices[s] == run;  // some cases take every fourth unit: any partition adds up
      for (size_t r = 0; r < w2.size(); ++r) {
        double part = 0;
        for (const int64_t i : runs ? run : slices[s]) part += w2[r][size_t(i)] * units[size_t(i)];
        expect_near(part, want_["parts"][s][r].get<double>(), id_);
        dense[r] += part;
      }
    }
    for (size_t r = 0; r < dense.size(); ++r) expect_near(dense[r], want_["dense"][r].get<double>(), id_);
  }

  void check_hecto() {
    const Floats z = floats(in_["logits"]);
    const LayerRecipe recipe = recipe_of("hecto_gate", parameters(int(z.size())));
    const RouterSpec spec = spec_of(int(z.size()), 1);
    EXPECT_EQ(CheckJson(run_one(spec, recipe, z).ids), want_["ids"]) << id_;
    expect_near(explain(spec, &recipe, {.logits = z}).scores, want_["probabilities"], id_);
  }

  void check_thresholds() {
    const Floats z = floats(in_["logits"]);
    LayerRecipe recipe = recipe_of("expert_choice");
    auto data = std::make_shared<SchemeData>();
    data->thresholds = floats(in_["theta"]);
    recipe.scheme.data = data;
    const Token got = run_one(spec_of(int(z.size()), 1), recipe, z);
    std::map<int, float> by_id;
    for (size_t i = 0; i < got.ids.size(); ++i) by_id[got.ids[i]] = got.weights[i];
    std::vector<int> ids;
    Floats weights;
    for (const auto& [id, weight] : by_id) ids.push_back(id), weights.push_back(weight);
    EXPECT_EQ(CheckJson(ids), want_["ids"]) << id_;
    expect_near(weights, want_["weights"], id_);
  }

  void check_entropy() {
    const EntropyKind kind = name_ == "renyi_entropy" ? EntropyKind::kRenyi : EntropyKind::kTsallis;
    expect_near(stages::normalised_entropy(kind, real("q", 1), real("eps", 0), floats(in_["probabilities"])),
                want_["entropy"].get<double>(), id_);
  }

  void check_capacity() {
    EXPECT_EQ(switch_capacity(params_["capacity_factor"], in_["tokens"], params_["experts"]),
              want_["capacity"].get<int64_t>())
        << id_;
  }

  void check_schedule() {
    Stages stages;
    stages.schedule = params_["kind"] == "exp" ? TemperatureSchedule::kExponential : TemperatureSchedule::kLinear;
    stages.tau = float(real("tau_max", 1)), stages.tau_end = float(real("tau_min", 1)), stages.steps = params_["steps"];
    expect_near(temperature_at(stages, in_["n"]), want_["tau"].get<double>(), id_);
  }

  const CheckJson& check_;
  const std::string name_;
  const CheckJson &in_, &params_, &want_;
  const std::string id_;
};

TEST(GatingChecks, HoldForEveryRoutingCase) {
  std::ifstream file(SWITCHYARD_SOURCE_DIR "/tests/data/gating-checks.json");
  std::map<std::string, int> counts;
  for (const CheckJson& check : CheckJson::parse(file)) {
    if (!check.contains("inputs")) continue;
    Case one(check);
    if (!one.known()) continue;
    SCOPED_TRACE(check.at("id").get<std::string>());
    one.check();
    ++counts[check.at("scheme")];
  }
  EXPECT_EQ(counts["top_k"], 12);
  EXPECT_EQ(counts["top_p"], 13);
  EXPECT_EQ(counts["dynmole"], 9);
  EXPECT_EQ(counts["adamoe"], 7);
  EXPECT_EQ(counts["dense_to_sparse"], 11);
  EXPECT_EQ(counts["activation_d2s"], 6);
  EXPECT_EQ(counts["expert_choice"], 7);
  EXPECT_EQ(counts["base_balanced"], 4);
  EXPECT_EQ(counts["prototype"], 7);
  EXPECT_EQ(counts["sdm"], 8);
  EXPECT_EQ(counts["chain_of_experts"], 5);
  EXPECT_EQ(counts["hecto_gate"], 4);
  EXPECT_EQ(counts["uoe_batch_norm"], 5);
  EXPECT_EQ(counts["ffn_slices"], 4);
  EXPECT_EQ(counts["global_local_gate"], 4);
  EXPECT_EQ(counts["tsallis_entropy"], 9);
  EXPECT_EQ(counts["renyi_entropy"], 4);
}


SchemeMatrix matrix_of(const CheckJson& list) {
  SchemeMatrix out{int64_t(list.size()), int64_t(list.at(0).size()), {}};
  for (const Floats& row : rows(list)) out.values.insert(out.values.end(), row.begin(), row.end());
  return out;
}

// The state goes from layer to layer; u of the cases is W1 h with W1 = 1.
TEST(GatingChecks, HoldForTheRecurrentRouter) {
  const std::vector<CheckJson> checks = test::gating_checks("rmoe");
  ASSERT_EQ(checks.size(), 4u);
  for (const CheckJson& check : checks) {
    SCOPED_TRACE(check.at("id").get<std::string>());
    const CheckJson &in = check.at("inputs"), &cell = in.at("gru");
    auto file = std::make_shared<SchemeFile>();
    const std::array<const char*, 6> parts{"ir", "hr", "iz", "hz", "in", "hn"};
    for (size_t part = 0; part < parts.size(); ++part) {
      file->gru.weight[part] = matrix_of(cell.at(parts[part]));
      file->gru.bias[part] = floats(cell.at(std::string("b_") + parts[part]));
    }
    const auto width = size_t(file->gru.width());
    SchemeMatrix one{int64_t(width), int64_t(width), Floats(width * width)};
    for (size_t i = 0; i < width; ++i) one.values[i * width + i] = 1;
    for (size_t layer = 0; layer < in.at("u").size(); ++layer) {
      file->layers[int(layer)].to_state = one;
      file->layers[int(layer)].from_state = matrix_of(in.at("w2").at(layer));
    }
    Scheme scheme;
    scheme.choice.name = "recurrent";
    scheme.stages.source = LogitSource::kRecurrent;
    scheme.stages.k = check.at("params").at("k");
    scheme.stages.weights = WeightRule::kRenorm;
    scheme.file = file;
    RouterStates states;
    states.prepare(scheme, 1);
    for (size_t layer = 0; layer < in.at("u").size(); ++layer) {
      const CheckJson& want = check.at("expected").at("steps").at(layer);
      LayerRecipe recipe;
      recipe.scheme = scheme.of_layer(int(layer));
      const RouterSpec spec = spec_of(int(file->layers[int(layer)].from_state.rows), 1);
      const Floats hidden = floats(in.at("u").at(layer)), linear(size_t(spec.experts), 7);
      ASSERT_TRUE(check_scheme(recipe.scheme, spec, int64_t(width), 1).has_value());
      const auto one_decision = [&](const LayerRecipe& by, std::span<float> state) {
        std::vector<ExpertId> ids(size_t(slots_needed(spec, &by)));
        Floats weights(ids.size()), scratch(scratch_needed(spec, &by));
        std::vector<SlotKind> kinds(ids.size());
        DecisionSpans out{ids, weights, kinds};
        out.state = state;
        const Decision decision = route(spec, &by, {.logits = linear, .hidden = hidden}, scratch, out);
        EXPECT_EQ(decision.k_used, int(ids.size()));
        return std::pair(ids, weights);
      };
      LayerRecipe all = recipe;  // every expert with its probability
      all.scheme.stages.k = spec.experts;
      all.scheme.stages.weights = WeightRule::kRaw;
      Floats before(states.of(0).begin(), states.of(0).end()), p(size_t(spec.experts));
      const auto [every, shares] = one_decision(all, before);
      for (size_t i = 0; i < every.size(); ++i) p[every[i]] = shares[i];
      expect_near(p, want.at("probabilities"), "probabilities");
      const auto [ids, weights] = one_decision(recipe, states.of(0));
      expect_near(Floats(states.of(0).begin(), states.of(0).end()), want.at("state"), "state");
      EXPECT_EQ(CheckJson(ids), want.at("ids"));
      expect_near(weights, want.at("weights"), "weights");
    }
  }
}

// One sequence, token by token, as a backend does it.
TEST(GatingChecks, HoldForMixingWithNeighbours) {
  int cases = 0;
  for (const char* kind : {"attention", "similarity"})
    for (const CheckJson& check : test::gating_checks(std::string(kind) + "_mixing")) {
      SCOPED_TRACE(check.at("id").get<std::string>());
      ++cases;
      const CheckJson &in = check.at("inputs"), &params = check.at("params"), &want = check.at("expected");
      const bool likeness = in.contains("u");
      std::map<std::string, SchemeValue> parameters{{"lambda", params.at("lambda").get<double>()}, {"k", params.at("k").get<double>()}, {"mode", std::string("raw")}};
      if (likeness) parameters["tau"] = params.at("tau").get<double>();
      LayerRecipe recipe = recipe_of(kind, parameters);
      if (likeness) {
        auto file = std::make_shared<SchemeFile>();
        file->every.likeness = matrix_of(in.at("ws"));
        recipe.scheme.file = file;
        recipe.scheme = recipe.scheme.of_layer(0);
      }
      const std::vector<Floats> logits = rows(in.at("logits")), attention = likeness ? std::vector<Floats>() : rows(in.at("attention"));
      const size_t experts = logits[0].size();
      LayerRecipe all = recipe;  // every expert with its probability
      all.scheme.stages.k = int(experts);
      TokenMemory memory;
      NeighbourMix mix;
      for (size_t t = 0; t < logits.size(); ++t) {
        const Floats u = likeness ? floats(in.at("u").at(t)) : Floats();
        memory.prepare(0, t, 1, experts, u.size());
        token_probabilities(recipe, {.logits = logits[t]}, memory.write_probabilities(0, t));
        std::ranges::copy(u, memory.write_input(0, t).begin());
        Floats mixed(experts), back;
        for (size_t o = 0; !likeness && o <= t; ++o) back.push_back(attention[t][t - o]);
        if (likeness) mix.by_likeness(memory, 0, t, recipe.scheme, mixed);
        else mix.by_attention(memory, 0, t, recipe.scheme, back, mixed);
        const Token dense = run_one(spec_of(int(experts), 1), all, logits[t], {.mixed = mixed});
        Floats p(experts);
        for (size_t i = 0; i < dense.ids.size(); ++i) p[size_t(dense.ids[i])] = dense.weights[i];
        expect_near(p, want.at("mixed").at(t), "mixed");
        if (want.contains("entropy")) expect_near(dense.decision.stats.entropy, want.at("entropy").at(t).get<double>(), "entropy");
        const Token got = run_one(spec_of(int(experts), 1), recipe, logits[t], {.mixed = mixed});
        EXPECT_EQ(CheckJson(got.ids), want.at("ids").at(t));
        expect_near(got.weights, want.at("weights").at(t), "weights");
      }
    }
  EXPECT_EQ(cases, 8);
}

TEST(GatingChecks, HoldForTheBankOfExemplars) {
  int cases = 0;
  for (const CheckJson& check : test::gating_checks("sdm_run")) {
    SCOPED_TRACE(check.at("id").get<std::string>());
    ++cases;
    const CheckJson& in = check.at("inputs");
    SdmBank bank{.exemplars = matrix_of(in.at("exemplars")), .labels = in.at("labels").get<std::vector<ExpertId>>(),
                 .predictions = in.at("predictions").get<std::vector<ExpertId>>(), .classes = {}};
    Floats work(bank.labels.size());
    const auto prediction = check.at("params").at("prediction").get<ExpertId>();
    const stages::Trust trust = stages::trust_of(bank, floats(in.at("query")), prediction, work);
    EXPECT_EQ(trust.q, check.at("expected").at("q").get<int>());
    expect_near(trust.nearest, check.at("expected").at("nearest").get<double>(), "nearest");
  }
  for (const CheckJson& check : test::gating_checks("sdm_d")) {
    SCOPED_TRACE(check.at("id").get<std::string>());
    ++cases;
    std::vector<SdmClass> classes;
    for (const CheckJson& distances : check.at("inputs").at("distances")) {
      classes.push_back({ExpertId(classes.size()), floats(distances)});
      std::ranges::sort(classes.back().distances);
    }
    expect_near(stages::nearness(classes, check.at("inputs").at("nearest")), check.at("expected").at("d").get<double>(), "d");
  }
  EXPECT_EQ(cases, 8);
}

// By hand: inputs on a line, the token at 1 with experts 0 and 1.
TEST(Sdm, LooksUpItsNumbersForEveryToken) {
  auto file = std::make_shared<SchemeFile>();
  file->layers[0].bank = {.exemplars = {5, 1, {1, 1.5f, 0, 3, 9}}, .labels = {0, 0, 0, 1, 0}, .predictions = {0, 0, 0, 1, 0},
                          .classes = {{0, {0.25f, 0.5f, 0.75f, 1}}, {1, {0.5f, 0.75f}}}};
  LayerRecipe recipe = recipe_of("sdm", {{"k", 1.0}, {"mode", std::string("raw")}, {"if_out", std::string("all")}});
  recipe.scheme.stages.bank = true;
  recipe.scheme.file = file;
  recipe.scheme = recipe.scheme.of_layer(0);
  const Floats z{2, 1}, at_one{1}, at_half{0.5f}, far{100};
  // The exemplar at 1 is the token itself. 1.5 and 0 agree, 3 does not: q 2. Nearest 0.5: of {.25 .5 .75 1} one is
  // below, of {.5 .75} none: d 3/4. (2 + 2)^(3/4).
  const double base = std::pow(4, 0.75);
  Token got = run_one(spec_of(2, 1), recipe, z, {.hidden = at_one});
  ASSERT_EQ(got.ids, std::vector<int>{0});
  expect_near(got.weights[0], base / (base + 1), "q 2, d 3/4");
  // 0.5 lies between 0 and 1 at the same distance; both agree, 1.5 too, then 3: q 3, nearest 0.5.
  got = run_one(spec_of(2, 1), recipe, z, {.hidden = at_half});
  expect_near(got.weights[0], std::pow(5, 0.75) / (std::pow(5, 0.75) + 1), "q 3, d 3/4");
  // Expert 1 is the best: no exemplar near it agrees, q 0, out of distribution, both experts; nearest 0.5, d 3/4.
  got = run_one(spec_of(2, 1), recipe, {1, 2}, {.hidden = at_half});
  ASSERT_EQ(got.ids, (std::vector<int>{1, 0}));
  expect_near(got.weights[0], std::pow(2, 0.75) / (std::pow(2, 0.75) + 1), "q 0");
  // So far that all calibration points are nearer: d 0, uniform.
  got = run_one(spec_of(2, 1), recipe, z, {.hidden = far});
  expect_near(got.weights[0], 0.5, "d 0");
  // By p instead of all: 2^(3/4) / (1 + 2^(3/4)) = .627 exceeds .6.
  recipe.scheme.stages.out = OutRule::kTopP;
  recipe.scheme.stages.p = 0.6f;
  EXPECT_EQ(run_one(spec_of(2, 1), recipe, {1, 2}, {.hidden = at_half}).ids, std::vector<int>{1});
  recipe.scheme.stages.p = 0.63f;
  EXPECT_EQ(run_one(spec_of(2, 1), recipe, {1, 2}, {.hidden = at_half}).ids, (std::vector<int>{1, 0}));
}

TEST(SchemeFiles, OfABankAreReadBackAndFitTheModel) {
  SchemeFile file;
  file.layers[2].bank = {.exemplars = {3, 2, {1, 2, 3, 4, 5, 6}}, .labels = {0, 3, 0}, .predictions = {0, 3, 1}, .classes = {{0, {1, 2}}, {3, {0.5f}}}};
  const std::string path = ::testing::TempDir() + "/bank.safetensors";
  const auto write = [&] { std::ofstream(path, std::ios::binary) << scheme_file_bytes(file); };
  write();
  const auto scheme = make_scheme({"sdm", {{"file", path}}});
  ASSERT_TRUE(scheme.has_value()) << scheme.error().message();
  const SdmBank& bank = scheme->file->layers.at(2).bank;
  EXPECT_EQ(bank.exemplars.values, file.layers[2].bank.exemplars.values);
  EXPECT_EQ(bank.labels, file.layers[2].bank.labels);
  EXPECT_EQ(bank.predictions, file.layers[2].bank.predictions);
  ASSERT_EQ(bank.classes.size(), 2u);
  EXPECT_EQ(bank.classes[1].expert, 3);
  EXPECT_EQ(bank.classes[0].distances, (Floats{1, 2}));
  const auto refused = [&](int layer, int experts, int64_t width) {
    const auto fits = check_scheme(scheme->of_layer(layer), spec_of(experts, 1), width, 10);
    return fits ? std::string() : fits.error().message();
  };
  EXPECT_EQ(refused(2, 4, 2), "");
  EXPECT_EQ(refused(1, 4, 2), "scheme sdm: the file has no sdm.exemplars of this layer");
  EXPECT_EQ(refused(2, 4, 5), "scheme sdm: the file's sdm.exemplars of this layer is [3, 2], needed [3, 5]");
  EXPECT_EQ(refused(2, 3, 2), "scheme sdm: the file's exemplars name expert 3, the router has 3");
  file.layers[2].bank.labels.pop_back();
  write();
  const auto read = read_scheme_file(path);
  ASSERT_FALSE(read.has_value());
  EXPECT_THAT(read.error().message(), testing::HasSubstr("layers.2.sdm.labels is [2], needed [3]"));
}

// lambda 0 is the model's own router whatever it is: softmax or sigmoid, with a selection bias, groups and a scale.
TEST(Mixing, WithoutAShareOfTheNeighboursIsTheNativeDecisionBitForBit) {
  std::mt19937 random(43);
  std::vector<RouterSpec> specs(3, spec_of(16, 4));
  specs[1].renorm = Renorm::kNone;
  specs[2].score = ScoreFn::kSigmoid;
  specs[2].has_select_bias = true;
  specs[2].groups = 4, specs[2].groups_kept = 2;
  specs[2].scale = 2.5f;
  for (const RouterSpec& spec : specs)
    for (const char* name : {"similarity", "attention"})
      for (int trial = 0; trial < 50; ++trial) {
        Floats z(16), bias(16), mixed(16, 1.0f / 16);
        for (float& v : z) v = std::normal_distribution<float>(0, 2)(random);
        for (float& v : bias) v = std::normal_distribution<float>(0, 0.1f)(random);
        const RouterInput rest{.select_bias = bias, .mixed = mixed};
        const LayerRecipe off = recipe_of(name, {{"lambda", 0.0}}), none = recipe_of(name);
        Floats scratch(4 * 16), weights(4);
        std::vector<ExpertId> ids(4);
        std::vector<SlotKind> kinds(4);
        RouterInput native = rest;
        native.logits = z;
        route(spec, nullptr, native, scratch, {ids, weights, kinds});
        const Token got = run_one(spec, off, z, rest);
        ASSERT_EQ(got.ids, std::vector<int>(ids.begin(), ids.end()));
        ASSERT_EQ(got.weights, weights);
        ASSERT_EQ(got.decision.changed, 0);
        // A token without neighbours is its own.
        ASSERT_EQ(run_one(spec, none, z, {.select_bias = bias}).weights, weights);
      }
}

// Shares by hand: the window cuts, tokens that are not in the memory do not count, sums are made 1 again.
TEST(Mixing, CountsTheTokensOfTheWindowThatAreInTheMemory) {
  TokenMemory memory;
  const auto put = [&](uint64_t token, float p) {
    memory.prepare(2, token, 1, 2, 0);
    memory.write_probabilities(2, token)[0] = p;
    memory.write_probabilities(2, token)[1] = 1 - p;
  };
  put(0, 1), put(1, 0.5f), put(3, 0);  // 2 was routed under another scheme
  const Floats attention{0.25f, 0.25f, 0.125f, 0.375f};  // of token 3, by tokens back
  NeighbourMix mix;
  Floats mixed(2);
  LayerRecipe recipe = recipe_of("attention", {{"window", 3.0}});
  mix.by_attention(memory, 2, 3, recipe.scheme, attention, mixed);
  EXPECT_FLOAT_EQ(mixed[0], 0.5f * 0.125f / 0.375f);
  recipe = recipe_of("attention");
  mix.by_attention(memory, 2, 3, recipe.scheme, attention, mixed);
  EXPECT_FLOAT_EQ(mixed[0], (0.375f + 0.5f * 0.125f) / 0.75f);
  mix.by_attention(memory, 2, 3, recipe.scheme, Floats{0, 0, 0, 0}, mixed);  // all of it on a sink: the token's own
  EXPECT_EQ(mixed[0], 0);
}

TEST(TokenMemory, IsCutBackAndClonedLikeTheCache) {
  TokenMemory memory;
  const auto put = [](TokenMemory& to, uint64_t token, float value) {
    to.prepare(1, token, 1, 3, 2);
    std::ranges::fill(to.write_probabilities(1, token), value);
    std::ranges::fill(to.write_input(1, token), -value);
  };
  for (uint64_t token = 0; token < 100; ++token) put(memory, token, float(token));
  EXPECT_TRUE(memory.probabilities(0, 5).empty());
  EXPECT_TRUE(memory.probabilities(1, 100).empty());
  EXPECT_EQ(memory.bytes(), 2u * 64 * (3 + 2) * 4);
  TokenMemory branch = memory;
  put(branch, 70, 7);
  EXPECT_EQ(branch.probabilities(1, 70)[0], 7);
  EXPECT_EQ(memory.probabilities(1, 70)[0], 70);
  EXPECT_EQ(branch.input(1, 69)[1], -69);
  memory.truncate(65);
  EXPECT_EQ(memory.probabilities(1, 64)[2], 64);
  EXPECT_TRUE(memory.probabilities(1, 65).empty());
  memory.truncate(10);
  EXPECT_EQ(memory.bytes(), 64u * (3 + 2) * 4);
  memory.prepare(1, 12, 1, 3, 0);  // 10 and 11 were routed without the scheme, 12 under one that keeps no input
  EXPECT_TRUE(memory.probabilities(1, 10).empty());
  EXPECT_FALSE(memory.probabilities(1, 12).empty());
  EXPECT_TRUE(memory.input(1, 12).empty());
  EXPECT_EQ(branch.probabilities(1, 10)[0], 10);
}

// ---- Invariants of gating.md, section 2, for every scheme. ----

struct Rules {
  double low, high;         // of the sum of the weights of executed slots
  bool by_place = false;    // goes by expert ids, so a permutation of the experts is another scheme
};
const std::map<std::string, Rules>& rules() {
  static const std::map<std::string, Rules> table{
      {"top_k", {1, 1}},        {"top_p", {0, 1}},          {"dynmole", {0, 1}},      {"adamoe", {0, 1, true}},
      {"dense_to_sparse", {0, 1}}, {"activation_d2s", {1, 1}}, {"switch_route", {0, 1}}, {"base_balanced", {0, 1}},
      {"hash", {1, 1, true}},   {"stable_moe", {0, 1, true}}, {"expert_choice", {0, 1}}, {"random", {2, 2, true}},
      {"prototype", {-1, 1}},   {"forced_slot", {0, 1, true}}, {"expert_condenser", {0, 1}}, {"steer", {1, 1, true}},
      {"recurrent", {1, 1}}, {"similarity", {1, 1}},  {"attention", {1, 1}},
      {"sdm", {1, 1}},          {"pre_gate", {1, 1, true}}, {"min_p", {1, 1}},        {"ratio", {1, 1}},
      {"chain_of_experts", {1, 1}}, {"hecto_gate", {1, 1}}, {"union_of_experts", {1, 1}},
      {"replay", {0, 1, true}}};
  return table;
}

constexpr int kVocab = 50;

constexpr int kWidth = 16;  // of the router's input

SchemeMatrix any_matrix(int64_t rows, int64_t cols, std::mt19937& random) {
  SchemeMatrix out{rows, cols, Floats(size_t(rows * cols))};
  for (float& value : out.values) value = std::normal_distribution<float>(0, 1)(random);
  return out;
}

// A recurrent router of width 5 for one layer.
LayerRecipe any_recurrent(int experts, std::mt19937& random) {
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

// The same with expert e in the place order[e].
LayerRecipe with_experts_moved(const LayerRecipe& recipe, const std::vector<int>& order) {
  LayerRecipe moved = recipe;
  for (size_t e = 0; e < recipe.logit_bias.size(); ++e) moved.logit_bias[size_t(order[e])] = recipe.logit_bias[e];
  if (!has_state(recipe.scheme)) return moved;
  auto data = std::make_shared<SchemeData>(*recipe.scheme.data);
  for (size_t e = 0; e < order.size(); ++e)
    std::ranges::copy(recipe.scheme.data->from_state.row(e), data->from_state.values.begin() + order[e] * data->from_state.cols);
  moved.scheme.data = data;
  return moved;
}

LayerRecipe any_recipe(const std::string& name, int experts, std::mt19937& random) {
  std::map<std::string, SchemeValue> parameters;
  if (name == "recurrent") return any_recurrent(experts, random);
  if (name == "stable_moe") return [&] {
    LayerRecipe recipe = recipe_of("hash");
    recipe.scheme.choice = {"stable_moe", {}};
    recipe.scheme.stages.weights = WeightRule::kSigmoid;
    auto data = std::make_shared<SchemeData>();
    data->columns = 1;
    for (int i = 0; i < kVocab; ++i) data->table.push_back(ExpertId(random() % experts));
    recipe.scheme.data = data;
    return recipe;
  }();
  if (name == "replay") return [&] {
    LayerRecipe recipe;
    recipe.scheme.choice = {"replay", {}};
    recipe.scheme.stages.selector = Selector::kReplay;
    recipe.scheme.stages.weights = WeightRule::kNative;
    auto data = std::make_shared<SchemeData>();
    data->columns = std::min(3, experts);
    std::vector<ExpertId> ids(experts);
    std::iota(ids.begin(), ids.end(), ExpertId(0));
    for (int t = 0; t < kVocab; ++t) {
      data->tokens.push_back(t % 5 ? 7 : 8);  // every fifth is not the token that is run
      std::shuffle(ids.begin(), ids.end(), random);
      data->table.insert(data->table.end(), ids.begin(), ids.begin() + data->columns);
      for (int slot = 0; slot < data->columns; ++slot) data->weights.push_back(1.0f / float(data->columns));
    }
    recipe.scheme.data = data;
    return recipe;
  }();
  if (name == "steer") parameters["on"] = std::vector<int>{int(random() % experts)};
  if (name == "dense_to_sparse") parameters["gumbel"] = random() % 2 == 0;
  LayerRecipe recipe = recipe_of(name, parameters);
  if (name == "expert_condenser") {
    recipe.logit_bias.resize(experts);
    for (float& bias : recipe.logit_bias) bias = std::normal_distribution<float>(0, 0.1f)(random);
  }
  return recipe;
}

struct Inputs {
  std::vector<Floats> logits;
  Floats hidden, norms, mixed;
  RouterInput rest() const { return {.hidden = hidden, .row_norms = norms, .mixed = mixed, .token = 7, .index = 3, .row = 2}; }
};
Inputs any_inputs(int tokens, int experts, std::mt19937& random) {
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

TEST(SchemeInvariants, CoverTheRegistry) {
  for (const SchemeInfo& info : schemes())
    if (std::string(info.name) != "native") {
      EXPECT_TRUE(rules().contains(info.name)) << info.name;
    }
  EXPECT_EQ(rules().size() + 1, schemes().size());
}

TEST(SchemeInvariants, IdsAreValidWeightsAddUpAndMutedExpertsStayOut) {
  std::mt19937 random(20261129);
  for (const auto& [name, rule] : rules()) {
    SCOPED_TRACE(name);
    for (int trial = 0; trial < 200; ++trial) {
      const int experts = std::array{2, 5, 8, 64}[trial % 4], tokens = trial % 3 == 0 ? 1 : 1 + int(random() % 40);
      RouterSpec spec = spec_of(experts, std::min(2, experts));
      LayerRecipe recipe = any_recipe(name, experts, random);
      const int muted = trial % 2 ? int(random() % experts) : -1;
      if (muted >= 0) recipe.muted.assign(experts, 0), recipe.muted[muted] = 1;
      const Inputs in = any_inputs(tokens, experts, random);
      for (const Token& token : run(spec, recipe, in.logits, in.rest())) {
        const std::set<int> unique(token.ids.begin(), token.ids.end());
        ASSERT_EQ(unique.size(), token.ids.size());
        ASSERT_LE(int(token.ids.size()) + token.decision.nulls, slots_needed(spec, &recipe));
        for (const int id : token.ids) ASSERT_TRUE(id >= 0 && id < experts && id != muted) << id;
        for (const float weight : token.weights) ASSERT_TRUE(std::isfinite(weight));
        bool dropped = false;
        for (const SlotKind kind : token.kinds) dropped |= kind == SlotKind::kDropped;
        if (token.ids.empty() || dropped) continue;
        const bool alone_can_be_short = experts - (muted >= 0) < 2;  // one expert left: k 2 is 1
        if (name == "random" && alone_can_be_short) continue;
        ASSERT_GE(token.sum(), rule.low - 1e-5);
        ASSERT_LE(token.sum(), rule.high + 1e-5);
      }
    }
  }
}

TEST(SchemeInvariants, RoutedScaleMultipliesEveryWeight) {
  std::mt19937 random(7);
  for (const auto& [name, rule] : rules()) {
    if (name == "replay") continue;  // recorded weights are as applied, the scale in them
    SCOPED_TRACE(name);
    const LayerRecipe recipe = any_recipe(name, 8, random);
    const Inputs in = any_inputs(9, 8, random);
    RouterSpec spec = spec_of(8, 2), scaled = spec;
    scaled.scale = 2.5f;
    const auto once = run(spec, recipe, in.logits, in.rest()), more = run(scaled, recipe, in.logits, in.rest());
    for (size_t t = 0; t < once.size(); ++t) {
      ASSERT_EQ(once[t].ids, more[t].ids);
      for (size_t i = 0; i < once[t].weights.size(); ++i) ASSERT_EQ(once[t].weights[i] * 2.5f, more[t].weights[i]);
    }
  }
}

TEST(SchemeInvariants, PermutingTheExpertsPermutesTheIds) {
  std::mt19937 random(11);
  for (const auto& [name, rule] : rules()) {
    if (rule.by_place) continue;
    SCOPED_TRACE(name);
    for (int trial = 0; trial < 50; ++trial) {
      const int experts = 16;
      LayerRecipe recipe = any_recipe(name, experts, random);
      recipe.scheme.stages.gumbel = false;  // noise is keyed by id
      const Inputs in = any_inputs(1 + trial % 20, experts, random);
      std::vector<int> order(experts);  // new place of each expert
      std::iota(order.begin(), order.end(), 0);
      std::shuffle(order.begin(), order.end(), random);
      Inputs other = in;
      const LayerRecipe moved = with_experts_moved(recipe, order);
      for (int e = 0; e < experts; ++e) {
        for (size_t t = 0; t < in.logits.size(); ++t) other.logits[t][order[e]] = in.logits[t][e];
        other.norms[order[e]] = in.norms[e];
        other.mixed[order[e]] = in.mixed[e];
      }
      const auto a = run(spec_of(experts, 2), recipe, in.logits, in.rest()), b = run(spec_of(experts, 2), moved, other.logits, other.rest());
      for (size_t t = 0; t < a.size(); ++t) {
        ASSERT_EQ(a[t].ids.size(), b[t].ids.size());
        for (size_t i = 0; i < a[t].ids.size(); ++i) {
          ASSERT_EQ(order[a[t].ids[i]], b[t].ids[i]) << "token " << t;
          ASSERT_NEAR(a[t].weights[i], b[t].weights[i], 1e-6);
        }
      }
    }
  }
}

TEST(SchemeInvariants, ATokenIsRoutedAloneAsAmongOthersUnlessTheSchemeSaysOtherwise) {
  std::mt19937 random(13);
  for (const SchemeInfo& info : schemes()) {
    if (std::string(info.name) == "native" || info.batch_coupled) continue;
    SCOPED_TRACE(info.name);
    LayerRecipe recipe = any_recipe(info.name, 8, random);
    const Inputs in = any_inputs(12, 8, random);
    const auto all = run(spec_of(8, 2), recipe, in.logits, in.rest());
    for (size_t t = 0; t < all.size(); ++t) {
      RouterInput rest = in.rest();
      rest.index += t;
      const Token alone = run_one(spec_of(8, 2), recipe, in.logits[t], rest);
      ASSERT_EQ(alone.ids, all[t].ids);
      ASSERT_EQ(alone.weights, all[t].weights);
    }
  }
}

TEST(SchemeInvariants, TheSameSeedRepeatsAndAnotherDiffers) {
  std::mt19937 random(17);
  const Inputs in = any_inputs(200, 16, random);
  for (const SchemeInfo& info : schemes()) {
    if (!info.stochastic) continue;
    SCOPED_TRACE(info.name);
    std::map<std::string, SchemeValue> parameters;
    if (std::string(info.name) == "dense_to_sparse") parameters["gumbel"] = true;
    const LayerRecipe one = recipe_of(info.name, parameters);
    parameters["seed"] = 5.0;
    const LayerRecipe other = recipe_of(info.name, parameters);
    const auto ids = [&](const LayerRecipe& recipe) {
      std::vector<std::vector<int>> out;
      for (const Token& token : run(spec_of(16, 2), recipe, in.logits, in.rest())) out.push_back(token.ids);
      return out;
    };
    EXPECT_EQ(ids(one), ids(one));
    EXPECT_NE(ids(one), ids(other));
  }
  // Uniform: each of 16 experts in 2 of 16 draws, 2000 draws; 5 standard deviations.
  std::vector<int> counts(16);
  const LayerRecipe thor = recipe_of("random");
  for (int t = 0; t < 2000; ++t)
    for (const int id : run_one(spec_of(16, 2), thor, in.logits[0], {.index = uint64_t(t)}).ids) ++counts[id];
  for (const int count : counts) EXPECT_NEAR(count, 250, 5 * std::sqrt(2000 * 0.125 * 0.875));
}

// Every slice takes its share of the tokens, whatever they want; alone a token is taken by all.
TEST(Schemes, SlicesTakeTokensOrTokensSlices) {
  std::mt19937 random(37);
  std::normal_distribution<float> normal(0, 1);
  for (const int tokens : {1, 2, 7, 30}) {
    Floats logits(size_t(tokens) * 4);
    for (float& z : logits) z = normal(random);
    const auto chosen = [&](const char* selection, int on) {
      std::vector<uint8_t> marks(logits.size());
      choose_slices(recipe_of("union_of_experts", {{"selection", std::string(selection)}, {"on", double(on)}}).scheme.stages, logits, marks);
      return marks;
    };
    const auto count = [&](const std::vector<uint8_t>& marks, bool by_slice, int which) {
      int n = 0;
      for (int i = 0; i < (by_slice ? tokens : 4); ++i) n += marks[size_t(by_slice ? i * 4 + which : which * 4 + i)];
      return n;
    };
    const auto data = chosen("data", 2), token = chosen("token", 3), sequence = chosen("sequence", 1);
    for (int slice = 0; slice < 4; ++slice) {
      EXPECT_EQ(count(data, true, slice), std::max(1, tokens / 2));
      EXPECT_EQ(count(sequence, true, slice) % tokens, 0) << "all tokens or none";
    }
    for (int t = 0; t < tokens; ++t) {
      EXPECT_EQ(count(token, false, t), 3);
      EXPECT_EQ(count(sequence, false, t), 1);
      const auto row = std::span(logits).subspan(size_t(t) * 4, 4);
      EXPECT_FALSE(token[size_t(t) * 4 + size_t(std::min_element(row.begin(), row.end()) - row.begin())]);
    }
  }
  // Two tokens that want the same slices: the mask keeps g, the other slices go to the first token by position.
  std::vector<uint8_t> marks(8);
  const Floats same{4, 3, 0, 0, 3, 4, 0, 0};
  choose_slices(recipe_of("union_of_experts").scheme.stages, same, marks);
  EXPECT_EQ(marks, (std::vector<uint8_t>{1, 0, 1, 1, 0, 1, 0, 0}));
}

TEST(Schemes, TheModelsOwnTopKIsTheNativeDecisionBitForBit) {
  std::mt19937 random(19);
  for (int trial = 0; trial < 100; ++trial) {
    const Inputs in = any_inputs(1, 32, random);
    const RouterSpec spec = spec_of(32, 4);
    Floats scratch(4 * 32), weights(4);
    std::vector<ExpertId> ids(4);
    std::vector<SlotKind> kinds(4);
    route(spec, nullptr, {.logits = in.logits[0]}, scratch, {ids, weights, kinds});
    for (const LayerRecipe& recipe : {recipe_of("top_k"), recipe_of("adamoe", {{"nulls", 0.0}, {"k", 4.0}})}) {
      const Token got = run_one(spec, recipe, in.logits[0]);
      EXPECT_EQ(got.ids, std::vector<int>(ids.begin(), ids.end()));
      EXPECT_EQ(got.weights, weights);
      EXPECT_EQ(got.decision.changed, 0);
    }
  }
}

TEST(Schemes, TopPGrowsWithPAndItsSetsAreNested) {
  std::mt19937 random(23);
  for (int trial = 0; trial < 200; ++trial) {
    const Inputs in = any_inputs(1, 24, random);
    std::set<int> before;
    for (const double p : {0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 1.0}) {
      const Token got = run_one(spec_of(24, 2), recipe_of("top_p", {{"p", p}}), in.logits[0]);
      const std::set<int> now(got.ids.begin(), got.ids.end());
      ASSERT_TRUE(std::includes(now.begin(), now.end(), before.begin(), before.end()));
      ASSERT_TRUE(got.sum() > p - 1e-6 || now.size() == 24);
      before = now;
    }
    ASSERT_EQ(before.size(), 24u);
  }
}

// The selectors again in double, written from gating.md; where their own criterion is within 1e-5 they may differ.
TEST(Schemes, AgreeWithAnIndependentComputation) {
  std::mt19937 random(29);
  std::map<std::string, int> compared;
  for (int trial = 0; trial < 4000; ++trial) {
    const int experts = std::array{4, 8, 32, 128}[trial % 4];
    const Inputs in = any_inputs(1, experts, random);
    std::vector<double> p(in.logits[0].begin(), in.logits[0].end());
    const double max = *std::max_element(p.begin(), p.end());
    double sum = 0;
    for (double& v : p) sum += v = std::exp(v - max);
    for (double& v : p) v /= sum;
    std::vector<int> order(experts);
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](int a, int b) { return p[a] != p[b] ? p[a] > p[b] : a < b; });
    const double a = std::uniform_real_distribution<double>(0.05, 0.95)(random);
    const auto near = [](double x, double y) { return std::abs(x - y) < 1e-5; };

    struct Want { std::string name; std::map<std::string, SchemeValue> parameters; size_t n; bool close, renorm; };
    std::vector<Want> wants;
    {  // top-p
      double mass = 0;
      size_t n = 0;
      bool close = false;
      while (n < order.size() && !(mass > a)) mass += p[order[n++]], close |= near(mass, a);
      wants.push_back({"top_p", {{"p", a}}, n, close, false});
    }
    {  // min-p
      size_t n = 0;
      bool close = false;
      for (const int e : order) n += p[e] >= a * p[order[0]], close |= near(p[e], a * p[order[0]]);
      wants.push_back({"min_p", {{"m", a}}, n, close, true});
    }
    {  // ratio, k = 4
      size_t n = 1;
      bool close = false;
      for (; n < 4; ++n) {
        close |= near(p[order[n]], a * p[order[n - 1]]);
        if (p[order[n]] < a * p[order[n - 1]]) break;
      }
      wants.push_back({"ratio", {{"beta", a}, {"k", 4.0}}, n, close, true});
    }
    {  // dynmole
      double entropy = 0, mass = 0;
      for (const double v : p) entropy += std::pow(v + 1e-5, 1.1);
      entropy = ((1 - entropy) / 0.1) / ((1 - std::pow(experts, -0.1)) / 0.1);
      size_t n = 0;
      bool close = near(entropy, 0.6);
      for (; n < order.size(); ++n) {
        close |= near(mass + p[order[n]], a);
        if (mass + p[order[n]] > a) break;
        mass += p[order[n]];
      }
      n = entropy > 0.6 ? order.size() : std::max<size_t>(n, 2);
      wants.push_back({"dynmole", {{"p", a}, {"h", 0.6}}, n, close, false});
    }
    {  // dense to sparse
      std::vector<double> g(p.size());
      double total = 0;
      for (int e = 0; e < experts; ++e) total += g[e] = std::pow(p[e], 1 / 0.5);
      size_t n = 0;
      bool close = false;
      for (double& v : g) n += (v /= total) > 0.01, close |= near(v, 0.01);
      const Token got = run_one(spec_of(experts, 2), recipe_of("dense_to_sparse", {{"tau", 0.5}, {"threshold", 0.01}}), in.logits[0]);
      if (!close) {
        ASSERT_EQ(got.ids.size(), n);
        for (size_t i = 0; i < n; ++i) ASSERT_NEAR(got.weights[i], g[got.ids[i]], 1e-5);
        ++compared["dense_to_sparse"];
      }
    }
    for (const Want& want : wants) {
      if (want.close) continue;
      const Token got = run_one(spec_of(experts, 2), recipe_of(want.name, want.parameters), in.logits[0]);
      SCOPED_TRACE(want.name);
      ASSERT_EQ(got.ids, std::vector<int>(order.begin(), order.begin() + want.n));
      double mass = 0;
      for (size_t i = 0; i < want.n; ++i) mass += p[order[i]];
      for (size_t i = 0; i < want.n; ++i) ASSERT_NEAR(got.weights[i], p[order[i]] / (want.renorm ? mass : 1), 1e-5);
      ++compared[want.name];
    }
  }
  for (const auto& [name, count] : compared) EXPECT_GT(count, 3000) << name;
  EXPECT_EQ(compared.size(), 5u);
}

// The balanced assignment against every assignment there is.
TEST(Schemes, BalancedAssignmentIsTheBestOfAll) {
  std::mt19937 random(31);
  for (int trial = 0; trial < 300; ++trial) {
    const int experts = 2 + int(random() % 2), tokens = experts * (1 + int(random() % 3)) - int(random() % 2);
    const int room = (tokens + experts - 1) / experts;
    const Inputs in = any_inputs(tokens, experts, random);
    double best = -1e30;
    std::vector<int> choice(tokens), counts(experts);
    const auto search = [&](auto&& self, int token, double total) -> void {
      if (token == tokens) return void(best = std::max(best, total));
      for (int e = 0; e < experts; ++e) {
        if (counts[e] == room) continue;
        ++counts[e];
        self(self, token + 1, total + in.logits[token][e]);
        --counts[e];
      }
    };
    search(search, 0, 0);
    Floats flat;
    for (const Floats& row : in.logits) flat.insert(flat.end(), row.begin(), row.end());
    std::vector<ExpertId> ids(tokens);
    BlockScratch scratch;
    assign_balanced(flat, tokens, experts, experts, ids, scratch);
    double total = 0;
    for (int t = 0; t < tokens; ++t) {
      ASSERT_LT(ids[t], experts);
      total += in.logits[t][ids[t]];
      ++counts[ids[t]];
    }
    for (int& count : counts) {
      ASSERT_LE(count, room);
      count = 0;
    }
    ASSERT_NEAR(total, best, 1e-4);
  }
}

TEST(Schemes, EveryParameterIsCheckedAndNamed) {
  for (const SchemeInfo& info : schemes())
    for (const SchemeParameter& parameter : info.parameters) {
      SCOPED_TRACE(std::string(info.name) + "." + parameter.name);
      const bool numeric = parameter.type == SchemeParameter::Type::kReal || parameter.type == SchemeParameter::Type::kInteger;
      const auto refused = make_scheme({info.name, {{parameter.name, numeric ? SchemeValue(parameter.max + 1) : SchemeValue(1.5)}}});
      ASSERT_FALSE(refused.has_value());
      EXPECT_THAT(refused.error().message(), testing::HasSubstr(parameter.name));
      if (numeric) {
        EXPECT_GE(std::get<double>(parameter.standard), parameter.min);
        EXPECT_LE(std::get<double>(parameter.standard), parameter.max);
      }
    }
  EXPECT_FALSE(make_scheme({"nonsense", {}}).has_value());
  EXPECT_FALSE(make_scheme({"top_p", {{"m", 0.5}}}).has_value());
  EXPECT_FALSE(make_scheme({"hash", {{"file", std::string("no/such/file.safetensors")}}}).has_value());
  EXPECT_FALSE(make_scheme({"stable_moe", {}}).has_value());
}

TEST(SchemeFiles, OfARecurrentRouterAreWholeAndFitTheModel) {
  std::mt19937 random(37);
  const LayerRecipe recipe = any_recurrent(4, random);
  const std::string path = ::testing::TempDir() + "/recurrent.safetensors";
  const auto write = [&](const SchemeFile& file) { std::ofstream(path, std::ios::binary) << scheme_file_bytes(file); };
  write(*recipe.scheme.file);
  const auto scheme = make_scheme({"recurrent", {{"file", path}}});
  ASSERT_TRUE(scheme.has_value()) << scheme.error().message();
  for (size_t part = 0; part < 6; ++part) {
    EXPECT_EQ(scheme->file->gru.weight[part].values, recipe.scheme.file->gru.weight[part].values);
    EXPECT_EQ(scheme->file->gru.bias[part], recipe.scheme.file->gru.bias[part]);
  }
  EXPECT_EQ(scheme->file->layers.at(0).to_state.values, recipe.scheme.data->to_state.values);
  EXPECT_EQ(scheme->file->layers.at(0).from_state.values, recipe.scheme.data->from_state.values);
  const auto refused = [&](int layer, int experts, int64_t width) {
    const auto fits = check_scheme(scheme->of_layer(layer), spec_of(experts, 1), width, 10);
    return fits ? std::string() : fits.error().message();
  };
  EXPECT_EQ(refused(0, 4, kWidth), "");
  EXPECT_EQ(refused(1, 4, kWidth), "scheme recurrent: the file has no rmoe.w1 of this layer; needed [5, 16]");
  EXPECT_EQ(refused(0, 4, 32), "scheme recurrent: the file's rmoe.w1 of this layer is [5, 16], needed [5, 32]");
  EXPECT_EQ(refused(0, 6, kWidth), "scheme recurrent: the file's rmoe.w2 of this layer is [4, 5], needed [6, 5]");

  SchemeFile broken = *recipe.scheme.file;
  broken.gru.weight[kStateUpdate] = {};
  write(broken);
  auto read = read_scheme_file(path);
  ASSERT_FALSE(read.has_value());
  EXPECT_THAT(read.error().message(), testing::HasSubstr("rmoe.gru.hz.weight is [0, 0], needed [5, 5]"));
  broken = *recipe.scheme.file;
  broken.gru.bias[kInNew].pop_back();
  broken.layers.clear();
  write(broken);
  EXPECT_FALSE(read_scheme_file(path).has_value());
  write({});
  EXPECT_THAT(check_scheme(make_scheme({"recurrent", {{"file", path}}})->of_layer(0), spec_of(4, 1), kWidth, 10).error().message(),
              testing::HasSubstr("the file has no rmoe.gru"));
}

// Of one file they go on from layer to layer; a layer of another file begins at 0.
TEST(RouterStates, GoOnThroughTheLayersOfOneFile) {
  std::mt19937 random(41);
  Scheme a = any_recurrent(4, random).scheme, b = a;
  a.choice.parameters["file"] = std::string("a"), b.choice.parameters["file"] = std::string("b");
  RouterStates states;
  states.begin();
  states.prepare(a, 3);
  EXPECT_THAT(states.of(2), testing::ElementsAre(0, 0, 0, 0, 0));
  states.of(1)[4] = 7;
  states.prepare(a, 3);
  EXPECT_EQ(states.of(1)[4], 7);
  states.prepare(b, 3);
  EXPECT_EQ(states.of(1)[4], 0);
  states.of(1)[4] = 7;
  states.begin();
  states.prepare(b, 2);
  EXPECT_EQ(states.of(1)[4], 0);
}

// A record of two tokens of four experts, by hand: what it says is done, and nothing else but a mute has a say.
TEST(Replay, DoesWhatTheRecordSays) {
  auto data = std::make_shared<SchemeData>();
  data->columns = 2;
  data->tokens = {7, 9};
  data->table = {3, 1, 2, kNoExpert};
  data->weights = {0.75f, 0.125f, 0.5f, 0};
  data->kinds = {0, 3, 1, 2};  // routed, dropped; forced, null
  LayerRecipe recipe;
  recipe.scheme.choice = {"replay", {}};
  recipe.scheme.stages.selector = Selector::kReplay;
  recipe.scheme.stages.weights = WeightRule::kNative;
  recipe.scheme.data = data;
  const RouterSpec spec = spec_of(4, 1);
  const Floats z{2, 1, 0.5f, 0};
  EXPECT_EQ(slots_needed(spec, &recipe), 2);

  const auto at = [&](uint64_t index, TokenId token, const LayerRecipe& under) {
    return run_one(spec, under, z, {.token = token, .index = index});
  };
  const Token first = at(0, 7, recipe);
  EXPECT_EQ(first.ids, (std::vector<int>{3, 1}));
  EXPECT_EQ(first.weights, (Floats{0.75f, 0.125f}));
  EXPECT_EQ(first.kinds, (std::vector{SlotKind::kRouted, SlotKind::kDropped}));
  EXPECT_EQ(first.decision.changed, 2);
  const Token second = at(1, 9, recipe);
  EXPECT_EQ(second.ids, std::vector<int>{2});
  EXPECT_EQ(second.kinds, std::vector{SlotKind::kForced});
  EXPECT_EQ(second.decision.nulls, 1);

  // Another token at the index, or an index beyond the record: the model's own router, here top-1.
  EXPECT_EQ(at(0, 9, recipe).ids, std::vector<int>{0});
  EXPECT_EQ(at(2, 7, recipe).ids, std::vector<int>{0});
  // Edits of the decision: only a mute counts.
  LayerRecipe edited = recipe;
  edited.k = 4;
  edited.logit_bias = {0, 0, 9, 0};
  edited.forced = {0, 0, 1, 0};
  EXPECT_EQ(at(0, 7, edited).ids, (std::vector<int>{3, 1}));
  EXPECT_EQ(at(2, 7, edited).ids.size(), 4u);
  edited.muted = {0, 0, 0, 1};
  EXPECT_EQ(at(0, 7, edited).ids, std::vector<int>{1});

  // Without weights the model's own rule: softmax over the selected logits 0 and 1 (gating.md section 0, RENORM).
  auto ids_only = std::make_shared<SchemeData>(*data);
  ids_only->weights.clear();
  ids_only->kinds.clear();
  recipe.scheme.data = ids_only;
  const Token weighed = at(0, 7, recipe);
  EXPECT_NEAR(weighed.weights[0], 0.268941, 1e-6);
  EXPECT_NEAR(weighed.weights[1], 0.731059, 1e-6);
}

TEST(Replay, IsRefusedWhereItDoesNotFit) {
  auto file = std::make_shared<SchemeFile>();
  file->layers[2] = {.table = {0, 5}, .columns = 2, .tokens = {3}};
  Scheme scheme;
  scheme.choice = {"replay", {{"file", std::string("a.moetrace.h5")}}};
  scheme.stages.selector = Selector::kReplay;
  scheme.file = file;
  const auto refused = [&](int layer, int experts, int64_t vocab) {
    const auto fits = check_scheme(scheme.of_layer(layer), spec_of(experts, 1), 8, vocab);
    return fits ? std::string() : fits.error().message();
  };
  EXPECT_EQ(refused(2, 6, 4), "");
  EXPECT_THAT(refused(2, 4, 4), testing::HasSubstr("names expert 5, the router has 4"));
  EXPECT_THAT(refused(2, 1, 4), testing::HasSubstr("2 slots per token, the router 1 experts"));
  EXPECT_THAT(refused(2, 6, 3), testing::HasSubstr("token id 3, the model knows 0 to 2"));
  EXPECT_THAT(refused(1, 6, 4), testing::HasSubstr("no routes for this layer"));
  EXPECT_THAT(make_scheme({"replay", {}}).error().message(), testing::HasSubstr("needs a file"));
}

TEST(SchemeFiles, AreReadBackAsWrittenAndCheckedAgainstTheModel) {
  SchemeFile file;
  file.layers[3] = {.table = {1, 2, 0, 3}, .columns = 2, .prototypes = {1, 2, 3, 4, 5, 6}, .width = 3, .thresholds = {0.25f, 0.5f}};
  file.every.thresholds = {0.1f, 0.2f};
  const std::string path = ::testing::TempDir() + "/scheme.safetensors";
  std::ofstream(path, std::ios::binary) << scheme_file_bytes(file);
  const auto read = read_scheme_file(path);
  ASSERT_TRUE(read.has_value()) << read.error().message();
  const SchemeData& layer = (*read)->layers.at(3);
  EXPECT_EQ(layer.table, file.layers[3].table);
  EXPECT_EQ(layer.columns, 2);
  EXPECT_EQ(layer.prototypes, file.layers[3].prototypes);
  EXPECT_EQ(layer.width, 3);
  EXPECT_EQ(layer.thresholds, file.layers[3].thresholds);
  EXPECT_EQ((*read)->every.thresholds, file.every.thresholds);

  const auto refused = [&](const char* name, int layer_of, int experts, int64_t hidden, int64_t vocab) {
    const auto scheme = make_scheme({name, {{"file", path}}});
    EXPECT_TRUE(scheme.has_value());
    const auto fits = check_scheme(scheme->of_layer(layer_of), spec_of(experts, 1), hidden, vocab);
    return fits ? std::string() : fits.error().message();
  };
  EXPECT_EQ(refused("hash", 3, 4, 3, 2), "scheme hash: the file has 2 thresholds, the router 4 experts");
  EXPECT_THAT(refused("hash", 3, 4, 3, 5), testing::HasSubstr("has 2 token ids, the model 5"));
  EXPECT_THAT(refused("hash", 3, 3, 3, 2), testing::HasSubstr("names expert 3, the router has 3"));
  EXPECT_THAT(refused("hash", 4, 4, 3, 2), testing::HasSubstr("no table for this layer"));
  EXPECT_EQ(refused("prototype", 3, 2, 3, 2), "");
  EXPECT_THAT(refused("prototype", 3, 2, 4, 2), testing::HasSubstr("are [2, 3], needed [2, 4]"));

  for (const char* broken : {"", "short", "\xff\xff\xff\xff\xff\xff\xff\x7f{}"}) {
    std::ofstream(path, std::ios::binary) << broken;
    EXPECT_FALSE(read_scheme_file(path).has_value());
  }
}

}  // namespace
}  // namespace switchyard
