// Gating schemes (specs/gating.md): the seven stages from router logits to a decision, as one choice per stage, and the
// registry of named presets. A scheme is data: route() and settle_block() execute it, on every backend alike.
// Values; any thread.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "engine/base/ids.h"
#include "engine/base/result.h"
#include "engine/model/router_spec.h"

namespace switchyard {

// 1. Where the logits come from. Cosine: of the router's input and the expert's router row, or its prototype. Recurrent:
// of a state that runs through the layers.
enum class LogitSource : uint8_t { kLinear, kCosine, kRecurrent };
// 2. Logit edits, in this order: activation of the logit without its bias, Gumbel noise, temperature (with a schedule
// over the tokens of the sequence), forced to the top or bottom of the log-probabilities.
enum class LogitActivation : uint8_t { kNone, kSigmoid, kTanh, kGelu };
enum class TemperatureSchedule : uint8_t { kNone, kExponential, kLinear };
// Then mixed with the probabilities of earlier tokens: z = lse + ln((1 - lambda) p + lambda sum_j share_j p_j), shares by
// the likeness of the routers' inputs or by the attention of the same block.
enum class Mixing : uint8_t { kNone, kLikeness, kAttention };
// 3. Scores. Sdm: (2 + q)^(d (z - max z)), normalised.
enum class SchemeScore : uint8_t { kSoftmax, kSigmoid, kIdentity, kSdm };
// 5. Who is selected.
enum class Selector : uint8_t {
  kTopK,
  kTopP,          // the fewest experts whose scores add up to more than p
  kHybrid,        // DynMoLE: top-p that stops before p, at least k_keep; all where the entropy exceeds h
  kThreshold,     // score > threshold; nobody: the best
  kBest,          // the best alone
  kMinP,          // score >= threshold * best score
  kRatio,         // of the top k, those before the first with weight < threshold * the weight before it
  kTable,         // by token id
  kRandom,        // k different experts, uniformly
  kSwitch,        // the best, if its capacity allows
  kExpertChoice,  // every expert takes its C best tokens; a token that runs alone: experts with score >= threshold
  kBalanced,      // the assignment of largest total logit with equal numbers of tokens; a token that runs alone: the best
  kReplay,        // the recorded routes of the token; a token that the record has not: the model's own router
  kCode,          // SchemeCode; where it fails, the model's own router
};
// 6. Weights of the selected. SigmoidNorm: sigmoid(z) over their sum. Share: 1 / number of selected. Sigmoid: of the
// logit. Native: the model's own score, selection bias, groups and weights, on the logits of stage 2.
enum class WeightRule : uint8_t { kRaw, kRenorm, kSigmoidNorm, kUnit, kShare, kSigmoid, kNative };
enum class NullSource : uint8_t { kCopy, kConstant, kFile };
enum class EntropyKind : uint8_t { kTsallis, kRenyi };
enum class ChoiceAxis : uint8_t { kExperts, kTokens };
enum class Overflow : uint8_t { kDrop, kNextBest };
// SDM: what runs for a token whose router's input is out of distribution. TopP: the fewest experts with more than p.
enum class OutRule : uint8_t { kSame, kAll, kTopP };
enum class Granularity : uint8_t { kToken, kStep, kSequence };
// How the passes y_t = FFN(x_{t-1}) of a layer, x_0 = norm(h), make its output.
inline constexpr int kMostPasses = 16;
enum class PassResidual : uint8_t {
  kSum,    // x_t = x_{t-1} + y_t; h + y_1 + ... + y_C
  kInner,  // x_t = x_{t-1} + y_t; x_C, the residual stream is replaced
  kOuter,  // x_t = y_t; h + y_C
};

// Who decides which slices of the selected experts' hidden units a token uses: see choose_slices().
enum class SliceChoice : uint8_t { kData, kToken, kSequence };

// One choice per stage with its numbers; trivially copyable, so that a device can hold it.
// Stage 4 is the layer's selection bias (SelectBias edits); a scheme does without the model's own score, bias, groups
// and renormalisation, but keeps its routed scale.
struct Stages {
  int passes = 1;    // through the layer, each with a decision of its own
  PassResidual residual = PassResidual::kSum;
  int slices = 0;    // of the selected experts' hidden units, switched by a gate of their own; 0: whole experts
  int slices_on = 2;
  SliceChoice slice_choice = SliceChoice::kData;
  float slice_capacity = 1;

  LogitSource source = LogitSource::kLinear;

  LogitActivation activation = LogitActivation::kNone;
  TemperatureSchedule schedule = TemperatureSchedule::kNone;
  float tau = 1, tau_end = 1;  // tau_end: reached after `steps` tokens of the sequence
  int steps = 1;
  bool gumbel = false;
  float steer_margin = 0.01f;
  int nulls = 0;  // null experts after the real ones
  NullSource null_source = NullSource::kCopy;
  float null_logit = 0;

  Mixing mixing = Mixing::kNone;
  float lambda = 0;
  int window = 1;          // tokens that count: the token itself and those before it
  float likeness_tau = 0;  // 0: the root of the input's width

  SchemeScore score = SchemeScore::kSoftmax;
  float sdm_q = 0, sdm_d = 1;
  bool bank = false;  // q and d of each token from the layer's SdmBank
  OutRule out = OutRule::kSame;  // where floor(min(q, (2 + q)^score of the best)) = 0

  Selector selector = Selector::kTopK;
  int k = 0;      // 0: the model's own, or the layer's top_k edit
  int k_min = 1;
  int k_max = 0;  // 0: all experts
  float p = 0;
  float threshold = 0;
  EntropyKind entropy = EntropyKind::kTsallis;
  float h = 0, q = 1, eps = 0;
  ChoiceAxis axis = ChoiceAxis::kExperts;
  float capacity_factor = 1;
  Overflow overflow = Overflow::kDrop;
  Granularity granularity = Granularity::kToken;

  WeightRule weights = WeightRule::kRaw;

  int forced_low = 0;      // ExpertCondenser: the r experts of lowest logit bias are appended
  int guaranteed = -1;     // Post-MoE: replaces the last slot if not selected
  uint64_t seed = 0;

  bool operator==(const Stages&) const = default;
};

// Of a scheme's file; row-major.
struct SchemeMatrix {
  int64_t rows = 0, cols = 0;
  std::vector<float> values;
  explicit operator bool() const { return rows > 0; }
  constexpr std::span<const float> row(size_t r) const { return std::span(values).subspan(r * size_t(cols), size_t(cols)); }
};

// The recurrent cell that all layers of a recurrent router share: matrices [p, p] and biases [p].
enum GruPart : uint8_t { kInReset, kStateReset, kInUpdate, kStateUpdate, kInNew, kStateNew };
struct Gru {
  std::array<SchemeMatrix, 6> weight;     // by GruPart
  std::array<std::vector<float>, 6> bias;
  int64_t width() const { return weight[kInReset].rows; }  // p; 0: there is none
};

// Exemplars of one router (specs/gating.md 1.5, SDM): inputs with the class that is right for them and the one that the
// router gave them; classes are experts.
struct SdmClass {
  ExpertId expert = 0;
  std::vector<float> distances;  // of its calibration points to their nearest exemplar, ascending
};
struct SdmBank {
  SchemeMatrix exemplars;                     // [N, d]
  std::vector<ExpertId> labels, predictions;  // [N]
  std::vector<SdmClass> classes;              // of the labels and of the calibration points, ascending
  explicit operator bool() const { return bool(exemplars); }
};

// What a scheme reads in one layer besides the model.
struct SchemeData {
  std::vector<ExpertId> table;    // [vocab, columns]
  int columns = 0;
  std::vector<float> prototypes;  // [E, width]
  int width = 0;
  std::vector<float> thresholds;  // [E]
  SchemeMatrix nulls;             // [m, d] router rows of null experts
  SchemeMatrix likeness;          // W [d, d] of u_i' W u_j; none: that of every layer, else 1
  SchemeMatrix to_state, from_state;  // W1 [p, width of the router's input] and W2 [E, p] of a recurrent router
  std::vector<ExpertId> on, off;  // SteerMoE
  SdmBank bank;
  std::vector<std::vector<float>> gates;  // [passes] of [E, gate_width]: router weights; an empty one is the model's own
  int gate_width = 0;
  std::vector<float> slice_gate, slice_bias;  // [slices, slice_width], [slices] or empty
  int slice_width = 0;
  // Of a replay: tokens [T] of the record by index, their experts in `table` [T, columns] (kNoExpert: no more), and what
  // was applied; no weights: the model's own rule weighs the experts.
  std::vector<TokenId> tokens;
  std::vector<float> weights;   // [T, columns] or empty
  std::vector<uint8_t> kinds;   // [T, columns] of SlotKind, or empty: all routed
};
// Of all layers: shared, immutable.
struct SchemeFile {
  Gru gru;
  SchemeData every;                 // of layers that are not named
  std::map<int, SchemeData> layers;  // by model layer
};

using SchemeValue = std::variant<bool, double, std::string, std::vector<int>>;

// A scheme by name with the parameters that differ from their defaults; "" is the model's own router.
struct SchemeChoice {
  std::string name;
  std::map<std::string, SchemeValue> parameters;
  bool operator==(const SchemeChoice&) const = default;
};

struct RouterInput;    // engine/routing/decision.h
struct DecisionSpans;

// What a scheme from outside the engine is asked. logits: [E] after the layer's edits, muted ones -inf; k: in force.
struct CodeCall {
  const RouterInput& in;
  int layer = 0, k = 0;
  std::span<const float> logits;
  std::span<float> state;  // [state_floats()] as DecisionSpans::state
};

// A scheme whose decision is code from outside the engine (a plugin), behind whatever guards it. Any thread; it sees to it
// that calls do not overlap.
class SchemeCode {
 public:
  virtual ~SchemeCode() = default;
  virtual bool edits_logits() const = 0;  // and leaves the decision to the model's own router
  virtual bool reads_input() const = 0;
  virtual int state_floats() const = 0;   // handed from layer to layer, 0 at the first; 0: none
  virtual int slots(int experts, int k) const = 0;
  // Fills ids, weights (without the model's routed scale) and kinds of `used` slots. False: it failed and nothing of what
  // it wrote is to be used.
  virtual bool decide(const CodeCall& call, const DecisionSpans& out, int& used) const = 0;
  virtual bool edit(const CodeCall& call, std::span<float> logits) const = 0;
};

// A scheme ready to run.
struct Scheme {
  SchemeChoice choice;
  Stages stages;                           // of the choice
  std::shared_ptr<const SchemeCode> code;  // of kCode
  int layer = 0;                           // the model's; of_layer()
  std::shared_ptr<const SchemeFile> file;  // of the choice; null where it needs none
  std::shared_ptr<const SchemeData> data;  // in a recipe: the layer's part of the file

  explicit operator bool() const { return !choice.name.empty(); }
  bool operator==(const Scheme& other) const { return choice == other.choice; }
  Scheme of_layer(int layer) const;
  const std::string& file_name() const;  // as the choice has it; empty: none
};

struct SchemeParameter {
  enum class Type : uint8_t { kReal, kInteger, kBoolean, kChoice, kExperts, kFile };
  const char* name;
  Type type;
  SchemeValue standard;
  double min = 0, max = 0;           // of numbers, both included
  std::vector<const char*> choices;  // of kChoice
  const char* meaning = "";
};

struct SchemeInfo;

// Where the code of a scheme comes from. Any thread.
class SchemeOrigin {
 public:
  virtual ~SchemeOrigin() = default;
  virtual std::string why_not() const = 0;  // it cannot be used now, in words; empty: it can
  // Loads it when it is first asked for. choice: checked, what differs from the defaults.
  virtual Result<std::shared_ptr<const SchemeCode>> make(const SchemeInfo& info, const SchemeChoice& choice) const = 0;
};

struct SchemeInfo {
  const char *name, *title;
  const char* source;   // paper
  bool exact;           // follows the authors' code; false: inspired by it
  const char* formula;
  std::vector<SchemeParameter> parameters;
  bool causal = true;         // a token's decision depends on no later token
  bool batch_coupled = false; // on the tokens that run with it
  bool stochastic = false;    // on the seed
  bool token_only = false;    // on the token id alone: known before the layer runs
  std::vector<const char*> needs;  // "router input", "file"
  std::shared_ptr<const SchemeOrigin> origin = nullptr;  // null: the engine itself
};

// All schemes, "native" first, those of add_schemes() last.
const std::vector<SchemeInfo>& schemes();
// Schemes with an origin; texts they point to live as long as the program. Once, before threads start.
void add_schemes(std::vector<SchemeInfo> more);
const SchemeInfo* find_scheme(std::string_view name);

// Checks names, types and ranges, leaves out parameters at their defaults, reads files. kMalformed for nonsense,
// kNotFound or kMalformed for files. "native" gives an empty scheme.
Result<Scheme> make_scheme(const SchemeChoice& choice);

// Whether a router with `spec` that reads `hidden` numbers, of a model with `vocab` token ids, can run it; kUsage with
// the reason. scheme: of_layer().
Result<void> check_scheme(const Scheme& scheme, const RouterSpec& spec, int64_t hidden, int64_t vocab);

// Whether its decision waits for all tokens that run together.
inline bool batch_coupled(const Scheme& scheme) {
  return scheme && (scheme.stages.selector == Selector::kSwitch || scheme.stages.selector == Selector::kExpertChoice ||
                    scheme.stages.selector == Selector::kBalanced);
}
// Whether the layer's output is more than the sum of what one decision selects.
inline bool runs_in_passes(const Scheme& scheme) {
  return scheme && (scheme.stages.passes > 1 || scheme.stages.residual == PassResidual::kInner);
}
// Whether a second decision switches slices of what the first selects.
inline bool cuts_experts(const Scheme& scheme) { return scheme && scheme.stages.slices > 0; }
// The router's weight [E, hidden] in this pass; empty: the model's own.
inline std::span<const float> gate_of(const Scheme& scheme, int pass) {
  return scheme.data && size_t(pass) < scheme.data->gates.size() ? std::span<const float>(scheme.data->gates[size_t(pass)])
                                                                 : std::span<const float>();
}
// Whether this token's route is taken from a record. index: of the token in its sequence.
inline bool replayed(const Scheme& scheme, uint64_t index, TokenId token) {
  return scheme.stages.selector == Selector::kReplay && scheme.data && index < scheme.data->tokens.size() &&
         scheme.data->tokens[index] == token;
}
// Whether it reads the router's input.
inline bool reads_input(const Scheme& scheme) {
  const Stages& s = scheme.stages;
  return scheme && (s.source != LogitSource::kLinear || s.bank || s.null_source == NullSource::kFile || (scheme.code && scheme.code->reads_input()));
}
// Floats of state per token that it hands from layer to layer; 0: none.
inline int state_width(const Scheme& scheme) {
  if (scheme.code) return scheme.code->state_floats();
  return scheme && scheme.stages.source == LogitSource::kRecurrent ? int(scheme.file->gru.width()) : 0;
}
inline bool is_recurrent(const Scheme& scheme) { return scheme && scheme.stages.source == LogitSource::kRecurrent; }
inline bool has_state(const Scheme& scheme) { return is_recurrent(scheme) || (scheme.code && scheme.code->state_floats() > 0); }

// Whether it mixes a token's probabilities with those of earlier tokens.
inline bool mixes_tokens(const Scheme& scheme) { return scheme && scheme.stages.mixing != Mixing::kNone; }
// Whether one token's logits tell all that it reads.
inline bool reads_logits_alone(const Scheme& scheme) {
  return !reads_input(scheme) && !mixes_tokens(scheme) && !(scheme.code && scheme.code->state_floats() > 0);
}
// Whether it takes the place of the model's own score, selection and weights.
inline bool replaces_router(const Scheme& scheme) { return scheme && !scheme.code && scheme.stages.weights != WeightRule::kNative; }

// "top_p (p 0.6, renorm)".
std::string describe(const SchemeChoice& choice);

// tau of token n under a schedule: exp: max(a exp(ln(b / a) n / N), b); linear: max(a - n (a - b) / N, b).
float temperature_at(const Stages& stages, uint64_t n);

}  // namespace switchyard
