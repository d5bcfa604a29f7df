// The registry of gating schemes: what each is, its parameters, and the stages that it stands for.
// Formulas and sources: specs/gating.md, section 1.
#include <algorithm>
#include <cmath>
#include <functional>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "engine/base/text.h"
#include "engine/routing/scheme.h"
#include "engine/routing/scheme_file.h"
#include "engine/routing/scheme_stages.h"

namespace switchyard {
namespace {

using Type = SchemeParameter::Type;

// The parameters in force: what was given, else the default. Names and types were checked.
class Values {
 public:
  Values(const SchemeInfo& info, const SchemeChoice& choice) : info_(info), choice_(choice) {}

  double real(std::string_view name) const { return std::get<double>(value(name)); }
  float number(std::string_view name) const { return static_cast<float>(real(name)); }
  int integer(std::string_view name) const { return static_cast<int>(real(name)); }
  bool flag(std::string_view name) const { return std::get<bool>(value(name)); }
  const std::string& text(std::string_view name) const { return std::get<std::string>(value(name)); }
  const std::vector<int>& list(std::string_view name) const { return std::get<std::vector<int>>(value(name)); }
  // Place of a choice in its list, as an enumerator.
  template <class Enum>
  Enum choice(std::string_view name) const {
    const SchemeParameter& parameter = find(name);
    const auto& choices = parameter.choices;
    const auto at = std::find(choices.begin(), choices.end(), text(name)) - choices.begin();
    return static_cast<Enum>(at);
  }

 private:
  const SchemeParameter& find(std::string_view name) const {
    return *std::find_if(info_.parameters.begin(), info_.parameters.end(), [&](const auto& p) { return name == p.name; });
  }
  const SchemeValue& value(std::string_view name) const {
    const auto given = choice_.parameters.find(std::string(name));
    return given == choice_.parameters.end() ? find(name).standard : given->second;
  }

  const SchemeInfo& info_;
  const SchemeChoice& choice_;
};

struct Preset {
  SchemeInfo info;
  void (*build)(const Values&, Stages&);
};

SchemeParameter real(const char* name, double standard, double min, double max, const char* meaning) {
  return {name, Type::kReal, standard, min, max, {}, meaning};
}
SchemeParameter integer(const char* name, int standard, int min, int max, const char* meaning) {
  return {name, Type::kInteger, double(standard), double(min), double(max), {}, meaning};
}
SchemeParameter boolean(const char* name, bool standard, const char* meaning) {
  return {name, Type::kBoolean, standard, 0, 0, {}, meaning};
}
SchemeParameter choice(const char* name, std::vector<const char*> choices, const char* meaning) {
  return {name, Type::kChoice, std::string(choices.front()), 0, 0, std::move(choices), meaning};
}
SchemeParameter experts(const char* name, const char* meaning) {
  return {name, Type::kExperts, std::vector<int>{}, 0, 0, {}, meaning};
}
SchemeParameter file(const char* meaning) { return {"file", Type::kFile, std::string(), 0, 0, {}, meaning}; }

constexpr int kMost = 65534;
SchemeParameter k_parameter(int standard = 0) {
  return integer("k", standard, standard > 0 ? 1 : 0, kMost,
                 standard > 0 ? "experts per token" : "experts per token; 0: the model's own, or the layer's top_k edit");
}
SchemeParameter seed_parameter() {
  return integer("seed", 0, 0, 2147483647, "of the random numbers; a run with the same seed repeats");
}
SchemeParameter mode_parameter(std::vector<const char*> order) {
  return choice("mode", std::move(order), "weights: raw probability; divided by their sum; sigmoid of the logit over their sum; all 1");
}
WeightRule mode_of(const Values& v) {
  const std::string& mode = v.text("mode");
  return mode == "renorm"    ? WeightRule::kRenorm
         : mode == "sigmoid" ? WeightRule::kSigmoidNorm
         : mode == "unit"    ? WeightRule::kUnit
                             : WeightRule::kRaw;
}
SchemeParameter lambda_parameter() { return real("lambda", 0.5, 0, 1, "share of the neighbours; 0: the token's own probabilities"); }
SchemeParameter window_parameter() {
  return integer("window", 256, 1, 4096, "tokens that count: the token itself and those before it, where the scheme was in force");
}
SchemeParameter mixed_mode_parameter() {
  return choice("mode", {"native", "raw", "renorm"}, "score, selection and weights of the model; raw probability; divided by their sum");
}
WeightRule mixed_mode_of(const Values& v) {
  const std::string& mode = v.text("mode");
  return mode == "native" ? WeightRule::kNative : mode == "renorm" ? WeightRule::kRenorm : WeightRule::kRaw;
}
WeightRule renorm_if(bool renorm) { return renorm ? WeightRule::kRenorm : WeightRule::kRaw; }

const std::vector<Preset>& presets() {
  static const std::vector<Preset> list = {
      {{.name = "native", .title = "The model's own router", .source = "the checkpoint", .exact = true,
        .formula = "as the family routes (inspect MODEL)"},
       [](const Values&, Stages&) {}},

      {{.name = "top_k", .title = "Top-k", .source = "the checkpoints' own modes", .exact = true,
        .formula = "T = the k largest z; w = p, p / sum_T p, sigmoid(z) / sum_T sigmoid(z), or 1",
        .parameters = {k_parameter(), mode_parameter({"renorm", "raw", "sigmoid", "unit"})}},
       [](const Values& v, Stages& s) { s.k = v.integer("k"), s.weights = mode_of(v); }},

      {{.name = "top_p", .title = "Top-p (harder tasks need more experts)", .source = "arXiv 2403.07652", .exact = true,
        .formula = "n = the fewest of the sorted p that add up to more than P; w = p",
        .parameters = {real("p", 0.4, 0, 1, "mass to exceed; 1: all experts"), integer("k_min", 1, 1, kMost, "experts at least"),
                       integer("k_max", 0, 0, kMost, "experts at most; 0: all"), boolean("renorm", false, "weights divided by their sum")}},
       [](const Values& v, Stages& s) {
         s.selector = Selector::kTopP, s.p = v.number("p"), s.k_min = v.integer("k_min"), s.k_max = v.integer("k_max");
         s.weights = renorm_if(v.flag("renorm"));
       }},

      {{.name = "dynmole", .title = "DynMoLE entropy hybrid", .source = "arXiv 2504.00661", .exact = true,
        .formula = "S = normalised Tsallis entropy of p; S > h: all experts; else those with cumulative p <= P, at least k_keep; w = p",
        .parameters = {real("p", 0.75, 0, 1, "mass not to exceed"), real("h", 0.9, 0, 2, "entropy above which all experts run; 1 or more: never"),
                       real("q", 1.1, 0, 10, "order of the entropy; 0: no entropy rule"), real("eps", 1e-5, 0, 0.1, "added to each p"),
                       integer("k_keep", 2, 1, kMost, "experts at least"), choice("entropy", {"tsallis", "renyi"}, "kind of entropy")}},
       [](const Values& v, Stages& s) {
         s.selector = Selector::kHybrid, s.p = v.number("p"), s.h = v.number("h"), s.q = v.number("q"), s.eps = v.number("eps");
         s.k_min = v.integer("k_keep"), s.entropy = v.choice<EntropyKind>("entropy");
       }},

      {{.name = "adamoe", .title = "AdaMoE null experts", .source = "arXiv 2406.13233", .exact = false,
        .formula = "p = softmax([z ; z_null]); the k' largest; nulls dropped; w = p / sum over the real ones",
        .parameters = {integer("nulls", 4, 0, 1024, "null experts m"), integer("k", 4, 1, kMost, "slots k' over real and null experts"),
                       choice("null_source", {"copy", "constant"}, "null logits: copies of the experts' (null j of expert j mod E), or a constant"),
                       real("null_logit", 0, -1000, 1000, "the constant"),
                       file("safetensors with layers.{layer}.gate.null.weight [m, d]: the null experts' router rows, in the place of null_source")}},
       [](const Values& v, Stages& s) {
         s.nulls = v.integer("nulls"), s.k = v.integer("k"), s.null_source = v.choice<NullSource>("null_source");
         s.null_logit = v.number("null_logit"), s.weights = WeightRule::kRenorm;
         if (!v.text("file").empty()) s.null_source = NullSource::kFile;
       }},

      {{.name = "dense_to_sparse", .title = "Dense-to-sparse temperature (EvoMoE)", .source = "arXiv 2112.14397", .exact = true,
        .formula = "g = softmax((z + gumbel) / tau); experts with g > threshold (nobody: the best); w = g",
        .parameters = {real("tau", 1, 0.01, 100, "temperature at the first token"), choice("schedule", {"none", "exp", "linear"}, "of tau over the tokens"),
                       real("tau_end", 0.3, 0.01, 100, "temperature after `steps` tokens"), integer("steps", 256, 1, 1000000000, "tokens until tau_end"),
                       real("threshold", 0.001, 0, 1, "an expert below it does not run"), boolean("hard", false, "the best expert alone"),
                       boolean("gumbel", false, "noise as in training"), seed_parameter()},
        .stochastic = true},
       [](const Values& v, Stages& s) {
         s.tau = v.number("tau"), s.schedule = v.choice<TemperatureSchedule>("schedule"), s.tau_end = v.number("tau_end");
         s.steps = v.integer("steps"), s.threshold = v.number("threshold"), s.gumbel = v.flag("gumbel"), s.seed = uint64_t(v.real("seed"));
         s.selector = v.flag("hard") ? Selector::kBest : Selector::kThreshold;
       }},

      {{.name = "activation_d2s", .title = "Activation gate", .source = "arXiv 2401.13875", .exact = false,
        .formula = "p = softmax((act(W h) + b) / tau); top-k of it",
        .parameters = {choice("activation", {"sigmoid", "tanh", "gelu", "none"}, "of the logit without its bias"), real("tau", 1, 0.01, 100, "temperature"),
                       k_parameter(), mode_parameter({"renorm", "raw", "sigmoid", "unit"})}},
       [](const Values& v, Stages& s) {
         const std::string& act = v.text("activation");
         s.activation = act == "sigmoid" ? LogitActivation::kSigmoid : act == "tanh" ? LogitActivation::kTanh
                        : act == "gelu"  ? LogitActivation::kGelu : LogitActivation::kNone;
         s.tau = v.number("tau"), s.k = v.integer("k"), s.weights = mode_of(v);
       }},

      {{.name = "switch_route", .title = "Switch: top-1 with capacity", .source = "arXiv 2101.03961", .exact = true,
        .formula = "the best expert, w = p; C = int(cf ceil(T / E)) tokens per expert in order, the rest dropped or given to the next best",
        .parameters = {real("capacity_factor", 1.25, 0, 64, "cf"), choice("policy", {"drop", "next-best"}, "of tokens without room")},
        .batch_coupled = true},
       [](const Values& v, Stages& s) {
         s.selector = Selector::kSwitch, s.capacity_factor = v.number("capacity_factor"), s.overflow = v.choice<Overflow>("policy");
       }},

      {{.name = "base_balanced", .title = "BASE: balanced assignment", .source = "arXiv 2103.16716", .exact = false,
        .formula = "tokens that run together: the assignment of largest total z with equal numbers of tokens; alone: the best; w = sigmoid(z)",
        .causal = false, .batch_coupled = true},
       [](const Values&, Stages& s) { s.selector = Selector::kBalanced, s.weights = WeightRule::kSigmoid; }},

      {{.name = "hash", .title = "Hash layer", .source = "arXiv 2106.04426", .exact = true,
        .formula = "expert = table[token id], else token id mod E; k tables with w = 1/k each",
        .parameters = {k_parameter(1), file("safetensors with table.{layer} or table [vocab] or [vocab, k], int32; none: id mod E")},
        .token_only = true},
       [](const Values& v, Stages& s) { s.selector = Selector::kTable, s.k = v.integer("k"), s.weights = WeightRule::kShare; }},

      {{.name = "stable_moe", .title = "StableMoE: frozen token router", .source = "ACL 2022, 2204.08396", .exact = false,
        .formula = "expert = table[token id], distilled from a trace; w = sigmoid(z of it)",
        .parameters = {{"file", Type::kFile, std::string(), 0, 0, {}, "safetensors with table.{layer} [vocab], int32 (recipe distil TRACE MODEL)"}},
        .needs = {"file"}},
       [](const Values&, Stages& s) { s.selector = Selector::kTable, s.k = 1, s.weights = WeightRule::kSigmoid; }},

      {{.name = "expert_choice", .title = "Expert choice", .source = "arXiv 2202.09368", .exact = false,
        .formula = "S = softmax of z over experts or tokens; every expert takes its C = min(n, max(1, int(n c / E))) best tokens; "
                   "a token that runs alone: the experts with S >= theta; w = S",
        .parameters = {real("c", 2, 0.01, 64, "experts per token on average"), choice("axis", {"experts", "tokens"}, "of the softmax"),
                       real("theta", 0.1, 0, 1, "threshold of a token that runs alone, where the file gives none"),
                       file("safetensors with threshold.{layer} [E]: thresholds by expert")},
        .causal = false, .batch_coupled = true},
       [](const Values& v, Stages& s) {
         s.selector = Selector::kExpertChoice, s.capacity_factor = v.number("c"), s.axis = v.choice<ChoiceAxis>("axis"), s.threshold = v.number("theta");
       }},

      {{.name = "random", .title = "THOR: random experts", .source = "arXiv 2110.04260", .exact = true,
        .formula = "k different experts, uniformly; w = 1, 1/k or p",
        .parameters = {k_parameter(), choice("granularity", {"token", "step", "sequence"}, "drawn anew for every token, for all tokens that run together, or once"),
                       choice("weights", {"unit", "share", "p"}, "1; 1/k; the probability"), seed_parameter()},
        .stochastic = true},
       [](const Values& v, Stages& s) {
         s.selector = Selector::kRandom, s.k = v.integer("k"), s.granularity = v.choice<Granularity>("granularity"), s.seed = uint64_t(v.real("seed"));
         const std::string& weights = v.text("weights");
         s.weights = weights == "unit" ? WeightRule::kUnit : weights == "share" ? WeightRule::kShare : WeightRule::kRaw;
       }},

      {{.name = "prototype", .title = "Prototypes (ProMoE): cosine", .source = "arXiv 2510.24711", .exact = true,
        .formula = "s_e = cos(h, c_e), c_e = router row e or a prototype; the k largest; w = s, its softmax or its sigmoid",
        .parameters = {k_parameter(1), choice("mode", {"identity", "softmax", "sigmoid"}, "of the cosine"),
                       file("safetensors with layers.{layer}.gate.proto [E, d]; none: the router's own rows"),
                       boolean("renorm", false, "weights divided by their sum")},
        .needs = {"router input"}},
       [](const Values& v, Stages& s) {
         s.source = LogitSource::kCosine, s.k = v.integer("k"), s.weights = renorm_if(v.flag("renorm"));
         const std::string& mode = v.text("mode");
         s.score = mode == "softmax" ? SchemeScore::kSoftmax : mode == "sigmoid" ? SchemeScore::kSigmoid : SchemeScore::kIdentity;
       }},

      {{.name = "recurrent", .title = "Recurrent router (RMoE)", .source = "arXiv 2408.06793", .exact = true,
        .formula = "u = W1 h; s = GRU(u, s of the layer before), one GRU for all layers; z = W2 s; top-k of softmax z; w = p / sum_T p",
        .parameters = {{"file", Type::kFile, std::string(), 0, 0, {},
                        "safetensors with layers.{layer}.rmoe.w1 [p, d] and .w2 [E, p], rmoe.gru.{ir,hr,iz,hz,in,hn}.weight [p, p] and .bias [p]"},
                       k_parameter(), mode_parameter({"renorm", "raw", "sigmoid", "unit"})},
        .needs = {"file", "router input"}},
       [](const Values& v, Stages& s) { s.source = LogitSource::kRecurrent, s.k = v.integer("k"), s.weights = mode_of(v); }},

      {{.name = "similarity", .title = "Similarity-aware (Graph of Tokens)", .source = "arXiv 2505.00792", .exact = false,
        .formula = "S = softmax over the earlier tokens j and i itself of u_i' W u_j / tau, u the router's inputs; "
                   "p = (1 - lambda) p_i + lambda sum_j S_ij p_j; then the model's own top-k and weights, or w = p",
        .parameters = {lambda_parameter(), real("tau", 0, 0, 1000000, "temperature of the likeness; 0: the root of the input's width"),
                       window_parameter(), k_parameter(), mixed_mode_parameter(),
                       file("safetensors with layers.{layer}.gate.similarity or, for all, gate.similarity [d, d]: W; none: 1")},
        .needs = {"router input", "earlier tokens"}},
       [](const Values& v, Stages& s) {
         s.mixing = Mixing::kLikeness, s.lambda = v.number("lambda"), s.likeness_tau = v.number("tau"), s.window = v.integer("window");
         s.k = v.integer("k"), s.weights = mixed_mode_of(v);
       }},

      {{.name = "attention", .title = "Attention-aware (Graph of Tokens)", .source = "arXiv 2505.00792", .exact = false,
        .formula = "A = attention of the same block, the mean over its heads, over its sum in the window; "
                   "p = (1 - lambda) p_i + lambda sum_j A_ij p_j; then the model's own top-k and weights, or w = p",
        .parameters = {lambda_parameter(), window_parameter(), k_parameter(), mixed_mode_parameter()},
        .needs = {"attention", "earlier tokens"}},
       [](const Values& v, Stages& s) {
         s.mixing = Mixing::kAttention, s.lambda = v.number("lambda"), s.window = v.integer("window");
         s.k = v.integer("k"), s.weights = mixed_mode_of(v);
       }},

      {{.name = "forced_slot", .title = "Guaranteed expert (Post-MoE)", .source = "arXiv 2410.10626", .exact = true,
        .formula = "top-k; if the expert is not among them it replaces the last; w = p",
        .parameters = {k_parameter(), integer("expert", 0, 0, kMost, "the guaranteed one")}},
       [](const Values& v, Stages& s) { s.k = v.integer("k"), s.guaranteed = v.integer("expert"); }},

      {{.name = "expert_condenser", .title = "ExpertCondenser", .source = "arXiv 2604.23036", .exact = true,
        .formula = "p = softmax(z + b), b = the layer's bias edits; top-k of p and the r experts of lowest b; w = p or p / sum",
        .parameters = {k_parameter(), integer("forced_count", 2, 0, kMost, "r; none while all biases are 0"), mode_parameter({"raw", "renorm"})}},
       [](const Values& v, Stages& s) { s.k = v.integer("k"), s.forced_low = v.integer("forced_count"), s.weights = mode_of(v); }},

      {{.name = "steer", .title = "Steering (SteerMoE)", .source = "arXiv 2509.09660", .exact = true,
        .formula = "s = log softmax(z); on: max s + eps; off: min s - eps; top-k of softmax(s)",
        .parameters = {experts("on", "experts lifted over all others"), experts("off", "experts put under all others"),
                       real("eps", 0.01, 0, 10, "margin"), k_parameter(), mode_parameter({"renorm", "raw", "sigmoid", "unit"})}},
       [](const Values& v, Stages& s) { s.steer_margin = v.number("eps"), s.k = v.integer("k"), s.weights = mode_of(v); }},

      {{.name = "sdm", .title = "SDM trust", .source = "arXiv 2502.20167", .exact = false,
        .formula = "p = (2 + q)^(d (z - max z)) normalised, q = how many nearest exemplars in a row were routed like the token, d = how near they are; "
                   "floor(min(q, (2 + q)^max p)) = 0: out of distribution",
        .parameters = {file("safetensors with layers.{layer}.sdm.exemplars and more (calibrate bank): q and d of each token; none: those below"),
                       integer("q", 10, 0, 1000000, "without a file: the same for all tokens"),
                       real("d", 1, 0, 1, "without a file: the same for all tokens"),
                       choice("if_out", {"same", "all", "top_p"}, "what runs for a token that is out of distribution: as ever, all experts, or by p"),
                       real("p", 0.9, 0, 1, "mass to exceed, of if_out top_p"), k_parameter(),
                       mode_parameter({"renorm", "raw", "sigmoid", "unit"})}},
       [](const Values& v, Stages& s) {
         s.score = SchemeScore::kSdm, s.sdm_q = v.number("q"), s.sdm_d = v.number("d"), s.out = v.choice<OutRule>("if_out"), s.p = v.number("p");
         s.bank = !v.text("file").empty(), s.k = v.integer("k"), s.weights = mode_of(v);
       }},

      {{.name = "pre_gate", .title = "Global pre-gate (Read-ME)", .source = "arXiv 2410.19123", .exact = false,
        .formula = "one expert for all tokens and layers, chosen beforehand; w = 1",
        .parameters = {integer("expert", 0, 0, kMost, "cluster, the same in every layer")}, .token_only = true},
       [](const Values& v, Stages& s) { s.k = 1, s.guaranteed = v.integer("expert"), s.weights = WeightRule::kUnit; }},

      {{.name = "chain_of_experts", .title = "Chain-of-Experts: iterations in a layer", .source = "arXiv 2506.18945", .exact = true,
        .formula = "x_0 = norm(h); y_t = FFN(x_{t-1}) by the gate of pass t; sum: x_t = x_{t-1} + y_t, h + y_1 + ... + y_C; "
                   "inner (as the code): x_t = x_{t-1} + y_t, x_C replaces h; outer: x_t = y_t, h + y_C",
        .parameters = {integer("iterations", 2, 1, kMostPasses, "passes C"),
                       integer("k", 0, 0, kMost, "experts per token and pass; 0: the model's own, or the layer's top_k edit, over C"),
                       choice("residual", {"sum", "inner", "outer"}, "what the passes make of the residual stream"),
                       choice("mode", {"native", "raw", "renorm", "sigmoid", "unit"}, "the model's own rule; or top-k with weights as in top_k"),
                       file("safetensors with layers.{layer}.coe.{pass}.weight [E, d], passes from 0; none: the router's own in all of them")}},
       [](const Values& v, Stages& s) {
         s.passes = v.integer("iterations"), s.k = v.integer("k"), s.residual = v.choice<PassResidual>("residual");
         s.weights = v.text("mode") == "native" ? WeightRule::kNative : mode_of(v);
       }},

      {{.name = "union_of_experts", .title = "Union-of-Experts: slices of experts", .source = "arXiv 2503.02495", .exact = false,
        .formula = "the experts that the model's router selects, their hidden units in S equal slices; g = softmax of the slice gate; "
                   "data: m = the n best of g, g m / (sum over tokens of g m + 1e-6) int(cap B), each slice takes its max(1, B / 2) best tokens; "
                   "token: each token its n best; sequence: the n best of the mean logits; a slice that is on counts 1",
        .parameters = {integer("slices", 4, 2, 64, "S; the width of an expert is a multiple of it"), integer("on", 2, 1, 64, "n"),
                       choice("selection", {"data", "token", "sequence"}, "who decides: slices over the tokens that run together, each token, the sequence once"),
                       real("cap", 1, 0.01, 64, "capacity of the normalisation"),
                       file("safetensors with layers.{layer}.uoe.weight [S, d] and .uoe.bias [S]; none: g by the norms of the slices' activations")},
        .causal = false, .batch_coupled = true},
       [](const Values& v, Stages& s) {
         s.weights = WeightRule::kNative, s.slices = v.integer("slices"), s.slices_on = v.integer("on");
         s.slice_choice = v.choice<SliceChoice>("selection"), s.slice_capacity = v.number("cap");
       }},

      {{.name = "hecto_gate", .title = "Hecto gate", .source = "arXiv 2506.22919", .exact = false,
        .formula = "p = softmax(z / tau); the best expert alone, w = 1",
        .parameters = {real("tau", 1.5, 0.01, 100, "temperature of p, as shown; the choice does not depend on it")}},
       [](const Values& v, Stages& s) { s.tau = v.number("tau"), s.selector = Selector::kBest, s.weights = WeightRule::kUnit; }},

      {{.name = "min_p", .title = "Min-p", .source = "Switchyard", .exact = true, .formula = "experts with p >= m max p; w = p / sum or p",
        .parameters = {real("m", 0.3, 0, 1, "share of the best"), integer("k_min", 1, 1, kMost, "experts at least"),
                       integer("k_max", 0, 0, kMost, "experts at most; 0: all"), mode_parameter({"renorm", "raw"})}},
       [](const Values& v, Stages& s) {
         s.selector = Selector::kMinP, s.threshold = v.number("m"), s.k_min = v.integer("k_min"), s.k_max = v.integer("k_max"), s.weights = mode_of(v);
       }},

      {{.name = "ratio", .title = "Ratio threshold", .source = "analyses.md A2 (k = 2)", .exact = true,
        .formula = "top-k; from the first expert with p < beta times the one before it, the rest is dropped; w = p / sum or p",
        .parameters = {real("beta", 0.5, 0, 1, "share of the rank before"), k_parameter(), mode_parameter({"renorm", "raw"})}},
       [](const Values& v, Stages& s) {
         s.selector = Selector::kRatio, s.threshold = v.number("beta"), s.k = v.integer("k"), s.weights = mode_of(v);
       }},

      {{.name = "replay", .title = "Replay of a trace", .source = "Switchyard", .exact = true,
        .formula = "experts and weights as recorded for the token of the same index and id; other tokens: the model's own router",
        .parameters = {{"file", Type::kFile, std::string(), 0, 0, {}, "*.moetrace.h5 of the same layers and experts"},
                       integer("sequence", 0, 0, 1000000000, "of the trace, from 0")},
        .needs = {"file"}},
       [](const Values&, Stages& s) { s.selector = Selector::kReplay, s.weights = WeightRule::kNative; }},
  };
  return list;
}

// Errors name the tensor and the shape that the model needs.
Result<void> check_matrix(const SchemeMatrix& matrix, const std::string& name, int64_t rows, int64_t cols) {
  if (!matrix) return fail(ErrorCode::kUsage, fmt::format("the file has no {}; needed [{}, {}]", name, rows, cols));
  if (matrix.rows != rows || matrix.cols != cols)
    return fail(ErrorCode::kUsage, fmt::format("the file's {} is [{}, {}], needed [{}, {}]", name, matrix.rows, matrix.cols, rows, cols));
  return {};
}

Result<void> check_recurrent(const Scheme& scheme, const RouterSpec& spec, int64_t hidden) {
  const int64_t p = scheme.file ? scheme.file->gru.width() : 0;
  if (p == 0) return fail(ErrorCode::kUsage, "the file has no rmoe.gru");
  SY_CHECK(check_matrix(scheme.data->to_state, "rmoe.w1 of this layer", p, hidden));
  return check_matrix(scheme.data->from_state, "rmoe.w2 of this layer", spec.experts, p);
}

Result<void> check_bank(const SdmBank& bank, const RouterSpec& spec, int64_t hidden) {
  if (!bank) return fail(ErrorCode::kUsage, "the file has no sdm.exemplars of this layer");
  if (bank.exemplars.cols != hidden)
    return fail(ErrorCode::kUsage, fmt::format("the file's sdm.exemplars of this layer is [{}, {}], needed [{}, {}]", bank.exemplars.rows,
                                               bank.exemplars.cols, bank.exemplars.rows, hidden));
  for (const auto* ids : {&bank.labels, &bank.predictions})
    for (const ExpertId id : *ids)
      if (id >= spec.experts) return fail(ErrorCode::kUsage, fmt::format("the file's exemplars name expert {}, the router has {}", id, spec.experts));
  return {};
}

const Preset* find_preset(std::string_view name) {
  for (const Preset& preset : presets())
    if (name == preset.info.name) return &preset;
  return nullptr;
}

const char* type_name(Type type) {
  switch (type) {
    case Type::kReal: return "a number";
    case Type::kInteger: return "an integer";
    case Type::kBoolean: return "true or false";
    case Type::kChoice: return "a word";
    case Type::kExperts: return "a list of expert ids";
    case Type::kFile: return "a file name";
  }
  return "";
}

Result<void> check_parameter(const SchemeParameter& p, const SchemeValue& value) {
  const auto wrong = [&](std::string what) {
    return fail(ErrorCode::kMalformed, fmt::format("{} {}", p.name, std::move(what)));
  };
  if (p.standard.index() != value.index()) return wrong(fmt::format("needs {}", type_name(p.type)));
  if (const auto* number = std::get_if<double>(&value)) {
    if (!std::isfinite(*number) || *number < p.min || *number > p.max) return wrong(fmt::format("is {}, needs {} to {}", *number, p.min, p.max));
    if (p.type == Type::kInteger && *number != std::floor(*number)) return wrong(fmt::format("is {}, needs an integer", *number));
  }
  if (p.type == Type::kChoice) {
    const auto& text = std::get<std::string>(value);
    if (std::find(p.choices.begin(), p.choices.end(), text) == p.choices.end())
      return wrong(fmt::format("is {}, needs one of {}", quote(text), fmt::join(p.choices, ", ")));
  }
  if (const auto* ids = std::get_if<std::vector<int>>(&value))
    for (const int id : *ids)
      if (id < 0 || id > kMost) return wrong(fmt::format("names expert {}", id));
  return {};
}

std::string value_text(const SchemeValue& value) {
  return std::visit(
      []<class T>(const T& v) {
        if constexpr (std::is_same_v<T, bool>) return std::string(v ? "yes" : "no");
        else if constexpr (std::is_same_v<T, double>) return fmt::format("{:g}", v);
        else if constexpr (std::is_same_v<T, std::string>) return v;
        else return fmt::format("{}", fmt::join(v, ","));
      },
      value);
}

std::vector<SchemeInfo>& all_schemes() {
  static std::vector<SchemeInfo> list = [] {
    std::vector<SchemeInfo> infos;
    for (const Preset& preset : presets()) infos.push_back(preset.info);
    return infos;
  }();
  return list;
}

}  // namespace

const std::vector<SchemeInfo>& schemes() { return all_schemes(); }

void add_schemes(std::vector<SchemeInfo> more) {
  for (SchemeInfo& info : more) all_schemes().push_back(std::move(info));
}

const SchemeInfo* find_scheme(std::string_view name) {
  for (const SchemeInfo& info : all_schemes())
    if (info.name == name) return &info;
  return nullptr;
}

Result<Scheme> make_scheme(const SchemeChoice& choice) {
  if (choice.name.empty()) return Scheme{};
  const SchemeInfo* const found = find_scheme(choice.name);
  if (!found)
    return fail(ErrorCode::kMalformed, fmt::format("there is no gating scheme {}", quote(choice.name)), {}, "See switchyard recipe list.");
  const SchemeInfo& info = *found;
  Scheme scheme;
  if (choice.name == "native") {
    if (!choice.parameters.empty()) return fail(ErrorCode::kMalformed, "the scheme native has no parameters");
    return scheme;
  }
  scheme.choice.name = choice.name;
  for (const auto& [name, value] : choice.parameters) {
    const auto parameter = std::find_if(info.parameters.begin(), info.parameters.end(), [&](const auto& p) { return name == p.name; });
    if (parameter == info.parameters.end()) return fail(ErrorCode::kMalformed, fmt::format("the scheme {} has no parameter {}", info.name, quote(name)));
    SY_CHECK(check_parameter(*parameter, value));
    if (value != parameter->standard) scheme.choice.parameters.emplace(name, value);
  }
  if (info.origin) {
    scheme.stages.selector = Selector::kCode;
    SY_TRY(scheme.code, info.origin->make(info, scheme.choice));
    return scheme;
  }
  const Values values(info, scheme.choice);
  find_preset(choice.name)->build(values, scheme.stages);

  const bool has_file = std::any_of(info.parameters.begin(), info.parameters.end(), [](const auto& p) { return p.type == Type::kFile; });
  const std::string path = has_file ? values.text("file") : "";
  const bool needs_file = std::find_if(info.needs.begin(), info.needs.end(), [](const char* need) { return std::string_view(need) == "file"; }) != info.needs.end();
  if (needs_file && path.empty()) return fail(ErrorCode::kUsage, fmt::format("the scheme {} needs a file", info.name), {}, "Give its parameter \"file\".");
  if (!path.empty()) {
    SY_TRY(scheme.file, scheme.stages.selector == Selector::kReplay ? read_recorded_routes(path, values.integer("sequence")) : read_scheme_file(path));
  } else if (choice.name == "steer") {
    auto lists = std::make_shared<SchemeFile>();
    for (const int id : values.list("on")) lists->every.on.push_back(static_cast<ExpertId>(id));
    for (const int id : values.list("off")) lists->every.off.push_back(static_cast<ExpertId>(id));
    scheme.file = std::move(lists);
  }
  return scheme;
}

const std::string& Scheme::file_name() const {
  static const std::string kNone;
  const auto found = choice.parameters.find("file");
  return found == choice.parameters.end() ? kNone : std::get<std::string>(found->second);
}

Scheme Scheme::of_layer(int layer) const {
  Scheme out = *this;
  out.layer = layer;
  if (!file) return out;
  const auto found = file->layers.find(layer);
  out.data = std::shared_ptr<const SchemeData>(file, found == file->layers.end() ? &file->every : &found->second);
  return out;
}

Result<void> check_scheme(const Scheme& scheme, const RouterSpec& spec, int64_t hidden, int64_t vocab) {
  if (!scheme) return {};
  const Stages& s = scheme.stages;
  const auto refuse = [&](std::string what) { return fail(ErrorCode::kUsage, fmt::format("scheme {}: {}", scheme.choice.name, std::move(what))); };
  if (spec.product_key && s.source == LogitSource::kCosine) return refuse("the model's router has no row per expert");
  if (s.k > spec.experts + s.nulls) return refuse(fmt::format("k is {}, the router has {} experts", s.k, spec.experts + s.nulls));
  if (s.guaranteed >= spec.experts) return refuse(fmt::format("there is no expert {}; the router has {}", s.guaranteed, spec.experts));
  if (s.nulls > 0 && spec.experts + s.nulls >= kNoExpert) return refuse("too many null experts");
  if (s.slices > spec.experts) return refuse(fmt::format("{} slices, a row of the frame has room for the router's {} experts", s.slices, spec.experts));
  if (s.slices > 0 && s.slices_on > s.slices) return refuse(fmt::format("{} slices on of {}", s.slices_on, s.slices));
  const auto reason = [&](const Result<void>& checked) { return checked ? Result<void>() : refuse(checked.error().what); };
  if (s.mixing == Mixing::kLikeness && scheme.file) {
    const SchemeMatrix& own = scheme.data->likeness ? scheme.data->likeness : scheme.file->every.likeness;
    SY_CHECK(reason(check_matrix(own, "gate.similarity of this layer", hidden, hidden)));
  }
  if (is_recurrent(scheme)) SY_CHECK(reason(check_recurrent(scheme, spec, hidden)));
  const SchemeData* data = scheme.data.get();
  if (!data) return {};
  for (const auto* ids : {&data->on, &data->off})
    for (const ExpertId id : *ids)
      if (id >= spec.experts) return refuse(fmt::format("there is no expert {}; the router has {}", id, spec.experts));
  if (s.selector == Selector::kTable && scheme.choice.parameters.contains("file")) {
    if (data->columns == 0) return refuse("the file has no table for this layer");
    if (int64_t(data->table.size()) != vocab * data->columns)
      return refuse(fmt::format("the file's table has {} token ids, the model {}", data->table.size() / data->columns, vocab));
    if (s.k > data->columns) return refuse(fmt::format("k is {}, the file's table has {} columns", s.k, data->columns));
    for (const ExpertId id : data->table)
      if (id >= spec.experts) return refuse(fmt::format("the file's table names expert {}, the router has {}", id, spec.experts));
  }
  if (s.selector == Selector::kReplay) {
    if (data->columns == 0) return refuse("the trace has no routes for this layer");
    if (data->columns > spec.experts) return refuse(fmt::format("the trace has {} slots per token, the router {} experts", data->columns, spec.experts));
    for (const ExpertId id : data->table)
      if (id != kNoExpert && id >= spec.experts) return refuse(fmt::format("the trace names expert {}, the router has {}", id, spec.experts));
    for (const TokenId token : data->tokens)
      if (token < 0 || token >= vocab) return refuse(fmt::format("the trace has token id {}, the model knows 0 to {}", token, vocab - 1));
  }
  if (s.source == LogitSource::kCosine && scheme.choice.parameters.contains("file")) {
    if (data->prototypes.empty()) return refuse("the file has no prototypes for this layer");
    if (data->width != hidden || int64_t(data->prototypes.size()) != int64_t(spec.experts) * hidden)
      return refuse(fmt::format("the file's prototypes are [{}, {}], needed [{}, {}]", data->prototypes.size() / std::max(1, data->width), data->width, spec.experts, hidden));
  }
  if (s.null_source == NullSource::kFile) SY_CHECK(reason(check_matrix(data->nulls, "gate.null.weight of this layer", s.nulls, hidden)));
  if (s.bank) SY_CHECK(reason(check_bank(data->bank, spec, hidden)));
  if (s.slices > 0 && scheme.choice.parameters.contains("file")) {
    if (data->slice_gate.empty()) return refuse("the file has no gate of slices for this layer");
    if (data->slice_width != hidden || int64_t(data->slice_gate.size()) != int64_t(s.slices) * hidden)
      return refuse(fmt::format("the file's gate of slices is [{}, {}], needed [{}, {}]", data->slice_gate.size() / std::max(1, data->slice_width), data->slice_width, s.slices, hidden));
    if (!data->slice_bias.empty() && int(data->slice_bias.size()) != s.slices)
      return refuse(fmt::format("the file's bias of slices has {} numbers, needed {}", data->slice_bias.size(), s.slices));
  }
  if (s.passes > 1 && scheme.choice.parameters.contains("file")) {
    if (data->gates.empty()) return refuse("the file has no gates for this layer");
    if (int(data->gates.size()) != s.passes)
      return refuse(fmt::format("the file has gates for the passes 0 to {}, needed are 0 to {}", data->gates.size() - 1, s.passes - 1));
    if (spec.product_key) return refuse("the model's router has no row per expert");
    for (size_t pass = 0; pass < data->gates.size(); ++pass) {
      const auto& gate = data->gates[pass];
      if (gate.empty() && pass == 0) continue;
      if (data->gate_width != hidden || int64_t(gate.size()) != int64_t(spec.experts) * hidden)
        return refuse(fmt::format("the file's gate of pass {} is [{}, {}], needed [{}, {}]", pass, gate.size() / std::max(1, data->gate_width), data->gate_width, spec.experts, hidden));
    }
  }
  if (!data->thresholds.empty() && int(data->thresholds.size()) != spec.experts)
    return refuse(fmt::format("the file has {} thresholds, the router {} experts", data->thresholds.size(), spec.experts));
  return {};
}

std::string describe(const SchemeChoice& choice) {
  std::string text = choice.name.empty() ? "native" : choice.name, details;
  for (const auto& [name, value] : choice.parameters) details += fmt::format("{}{} {}", details.empty() ? "" : ", ", name, value_text(value));
  return details.empty() ? text : text + " (" + details + ")";
}

float temperature_at(const Stages& stages, uint64_t n) { return stages::scheduled_tau(stages, n); }

}  // namespace switchyard
