// The native router of one MoE layer, as data: the smallest policy that covers the families of
// specs/families.md, section 2. A family file fills it in, engine/routing executes it.
#pragma once

#include <cstdint>

namespace switchyard {

enum class ScoreFn : uint8_t { kSoftmaxAll, kSoftmaxTopK, kSigmoid, kSigmoidTopK, kSparseMixer, kNone };
enum class GroupScore : uint8_t { kMax, kTop2Sum };
enum class GroupFill : uint8_t { kZero, kMinusInfinity };
enum class Renorm : uint8_t { kNone, kSum, kSumEps20, kSumEps6, kMaxSum, kPNorm };
enum class ApplyTo : uint8_t { kOutput, kInput };
// How many tokens an expert takes, counted over the tokens that run together (families.md 1.12 to 1.14).
enum class Capacity : uint8_t {
  kNone,
  kPerSequence,  // switch: capacity_value tokens of a sequence, first come first served
  kFraction,     // nllb: ceil(capacity_value * tokens), at least capacity_min
  kFactor,       // openmoe: floor(k * capacity_value * tokens / experts), made even, at least capacity_min
};

struct RouterSpec {
  int experts = 0;            // E, logits per token
  int experts_per_token = 0;  // k
  ScoreFn score = ScoreFn::kSoftmaxAll;
  bool has_logit_bias = false;   // a tensor added to the logits
  bool has_select_bias = false;  // a tensor added for the selection only
  int groups = 1;                // 1: no group limit
  int groups_kept = 1;
  GroupScore group_score = GroupScore::kMax;
  GroupFill group_fill = GroupFill::kZero;
  Renorm renorm = Renorm::kNone;
  float renorm_floor = 0;  // m of kMaxSum, p of kPNorm
  float scale = 1;         // routed scaling factor
  ApplyTo apply = ApplyTo::kOutput;
  float jitter = 0;          // epsilon of kSparseMixer
  bool product_key = false;  // doge: logits[i * K + j] = x_i + y_j of the router's 2 K outputs, K = sqrt(experts)
  Capacity capacity = Capacity::kNone;
  double capacity_value = 0;  // double: the product with a number of tokens is rounded
  int capacity_min = 0;
  bool batch_prioritised = false;       // nllb: ranks by falling first probability, not by position
  bool renorm_before_capacity = false;  // nllb: weights are renormalised before, not after dropping
  float post_scale = 1;                 // nllb: multiplies the experts' sum, 1 - moe_token_dropout

  bool operator==(const RouterSpec&) const = default;
};

}  // namespace switchyard
