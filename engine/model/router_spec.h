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

struct RouterSpec {
  int experts = 0;             // E, logits per token
  int experts_per_token = 0;   // k
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

  bool operator==(const RouterSpec&) const = default;
};

}  // namespace switchyard
