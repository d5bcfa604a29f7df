// Routed low-rank adapters on any linear layer of a model (specs/gating.md 1.7): y = c W x + sum_e s_e w_e B_e A_e x,
// one router per adapted linear. The registry of routers, adapters made ready for a model, and the decision of one
// token at one linear: a pure function, the same on every backend. Values are immutable and shared; any thread.
#pragma once

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
#include "engine/routing/scheme.h"

namespace switchyard {

struct ModelPlan;
struct BlendNet;  // engine/routing/adapter_files.h

enum class AdapterRouter : uint8_t {
  kFixed,      // given weights
  kPhatgoose,  // LN(x) . LN(v_e) / sqrt(d), top-k of the softmax; Glider adds lambda * cos
  kArrow,      // |v_e . x| / 10, v_e the input direction that B_e A_e amplifies most
  kPoly,       // alpha of task logits; A and B are mixed separately, block by block (MHR)
  kDynMole,    // softmax of a gate, entropy hybrid
  kLoraMixer,  // softmax of a gate, top-k; or one expert by label
  kFlyLora,    // the k largest of one adapter's ranks
  kMogu,       // two adapters and the base blended by two small networks
};

using AdapterValue = std::variant<bool, double, std::string, std::vector<double>>;

// Files, router and the parameters that differ from their defaults. No files: no adapters.
struct AdapterChoice {
  std::vector<std::string> files;  // PEFT folders, safetensors files of ours
  std::string router = "fixed";
  std::map<std::string, AdapterValue> parameters;
  bool operator==(const AdapterChoice&) const = default;
};

struct AdapterParameter {
  enum class Type : uint8_t { kReal, kInteger, kBoolean, kChoice, kReals };
  const char* name;
  Type type;
  AdapterValue standard;
  double min = 0, max = 0;           // of numbers, of each of several too; both included
  std::vector<const char*> choices;  // of kChoice
  const char* meaning = "";
};

struct AdapterRouterInfo {
  const char *name, *title, *source;
  bool exact;  // follows the authors' code; false: inspired by it
  const char* formula;
  const char* needs;  // beside the adapters; "" nothing
  std::vector<AdapterParameter> parameters;
};
const std::vector<AdapterRouterInfo>& adapter_routers();
const AdapterRouterInfo* find_adapter_router(std::string_view name);

// The numbers of a choice.
struct AdapterRule {
  AdapterRouter router = AdapterRouter::kFixed;
  float scale = 1;  // multiplies every adapter
  float alpha = 0;  // s = alpha / r of adapters whose file does not say; 0: s = 1
  int k = 0;
  bool renorm = true;          // kLoraMixer
  std::vector<float> weights;  // kFixed; empty: all 1
  std::vector<float> cosines;  // Glider: of the instruction and each expert
  float lambda = 0;
  Stages hybrid;                          // kDynMole
  int task = 0;                           // kPoly
  bool uniform = false;                   // kPoly: MHR-mu
  int label = -1;                         // kLoraMixer
  bool by_magnitude = true;               // kFlyLora
  float blend_alpha = 1, blend_beta = 0;  // kMogu without networks in the file
  int tokens = 0;                         // kMogu: generated tokens that it serves; 0: all tokens
};

// Adapters on one linear, ready to run.
struct AdaptedLinear {
  int in = 0, out = 0;
  int rank = 0;                    // of all experts together
  std::vector<float> a;            // [rank, in], experts one below the other
  std::vector<float> b;            // [out, rank]
  std::vector<int> ends;           // [experts]: expert e has the ranks [ends[e - 1], ends[e])
  std::vector<float> scales;       // [experts], the rule's scale in it
  std::vector<float> gate;         // [experts, in], as the router takes it; may be empty
  std::vector<float> offsets;      // [experts] added to the scores; may be empty
  std::vector<float> weights;      // [choices] of routers that do not look at the input; else empty
  std::vector<float> bias;         // [rank] of FlyLoRA
  std::vector<std::string> names;  // [choices] for people
  std::string label;               // of the linear, short: "q_proj"
  std::shared_ptr<const BlendNet> alpha, beta;
  int experts() const { return static_cast<int>(ends.size()); }
  // What a decision is about: experts; of FlyLoRA ranks.
  int choices() const { return static_cast<int>(names.size()); }
};

struct AdapterSet {
  AdapterChoice choice;
  AdapterRule rule;
  std::map<int, AdaptedLinear> linears;  // by place, see engine/model/linears.h
  bool operator==(const AdapterSet& other) const { return choice == other.choice; }
};

// Reads and checks the files and makes what the router needs, for the linears of these layers (empty: all) whose module
// one of `modules` names (empty: all that the files have). kMalformed, kNotFound, kUsage; see read_adapter_files().
Result<std::shared_ptr<const AdapterSet>> make_adapters(const AdapterChoice& choice, const std::vector<int>& layers,
                                                        const std::vector<std::string>& modules, const ModelPlan& plan);

// Whether what the adapters do depends on the token.
bool looks_at_input(const AdapterRule& rule);

// "arrow (k 2) of 3 adapters", "adapter chemistry".
std::string describe(const AdapterChoice& choice);

// Whether the adapters serve a token: MoGU's only until `tokens` tokens are generated. index: of the token in its
// sequence; prompt: tokens of the prompt, 0: all are.
bool serves(const AdapterRule& rule, uint64_t index, uint64_t prompt);

// What one token brings to an adapted linear.
struct AdapterInput {
  std::span<const float> x;    // [in]
  std::span<const float> low;  // [rank] A x
  bool served = true;          // see serves()
};

// Buffers of the caller, of one thread; they grow once.
struct AdapterScratch {
  std::vector<float> scores, probabilities, hidden;
  std::vector<ExpertId> ids;
};

// weights [choices]: of each, 0 where not selected; scratch.scores [choices] what they were selected by, of routers that
// look at the input. coefficients [rank]: what multiplies A x before B. Returns c, what
// multiplies the base product.
float route_adapters(const AdapterRule& rule, const AdaptedLinear& linear, const AdapterInput& in,
                     AdapterScratch& scratch, std::span<float> weights, std::span<float> coefficients);

// What the routers of a sequence decided, by place.
struct AdapterTally {
  uint64_t tokens = 0;           // that came by
  std::vector<float> last;       // [choices] weights of the newest
  std::vector<double> sums;      // [choices] of the weights
  std::vector<uint64_t> chosen;  // [choices] tokens whose weight was not 0
};
struct AdapterLog {
  std::map<int, AdapterTally> linears;
  void take(int place, std::span<const float> weights);
  void add(const AdapterLog& later);
};

// The unit vector that B A [out, rank] x [rank, in] amplifies most (top right singular vector), in double; of a zero
// product zeros. Its sign is that of its largest entry.
std::vector<float> amplified_direction(std::span<const float> a, std::span<const float> b, int rank, int in, int out);

}  // namespace switchyard
