// Every routing case of specs/gating-checks.json.
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

#include "engine/routing/expert_kind.h"
#include "engine/routing/neighbours.h"
#include "engine/routing/slices.h"
#include "engine/routing/scheme_stages.h"
#include "tests/routing/scheme_support.h"
#include "tests/support/gating_checks.h"

namespace switchyard {
namespace {

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

}  // namespace
}  // namespace switchyard
