// The stages of gating schemes as pure functions, beside the native ones of stages.h and under the same rules. Formulas:
// specs/gating.md, section 1.
#pragma once

#include "engine/routing/stages.h"

namespace switchyard::stages {

SWITCHYARD_STAGE float activated(LogitActivation activation, float x) {
  switch (activation) {
    case LogitActivation::kSigmoid: return sigmoid(x);
    case LogitActivation::kTanh: return std::tanh(x);
    case LogitActivation::kGelu: return 0.5f * x * (1.0f + std::erf(x * 0.70710678118654752f));
    case LogitActivation::kNone: break;
  }
  return x;
}

SWITCHYARD_STAGE double norm(std::span<const float> x) {
  double sum = 0;
  for (const float value : x) sum += double(value) * value;
  return std::sqrt(sum);
}

// Cosine of the input and each prototype [E, d], or router row, whose product the logits hold. A zero vector: 0.
SWITCHYARD_STAGE void to_cosines(const RouterInput& in, std::span<const float> prototypes, std::span<float> z) {
  const double own = norm(in.hidden);
  const size_t width = in.hidden.size();
  for (size_t e = 0; e < z.size(); ++e) {
    double product = 0, length = 0;
    if (prototypes.empty()) {
      product = double(z[e]) - (in.router_bias.empty() ? 0.0f : in.router_bias[e]);
      length = in.row_norms[e];
    } else {
      const auto prototype = prototypes.subspan(e * width, width);
      for (size_t i = 0; i < width; ++i) product += double(in.hidden[i]) * prototype[i];
      length = norm(prototype);
    }
    z[e] = own > 0 && length > 0 ? static_cast<float>(std::clamp(product / (own * length), -1.0, 1.0)) : 0.0f;
  }
}

SWITCHYARD_STAGE double dot(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += double(a[i]) * b[i];
  return sum;
}

// RMoE: u = W1 h, s' = GRU(u, s), z = W2 s'. state: [p] s, then s'. work: [2 p].
//   r = sigmoid(W_ir u + b_ir + W_hr s + b_hr), zeta = sigmoid(W_iz u + b_iz + W_hz s + b_hz),
//   n = tanh(W_in u + b_in + r * (W_hn s + b_hn)), s' = (1 - zeta) * n + zeta * s.
SWITCHYARD_STAGE void recur(const Gru& gru, const SchemeData& data, std::span<const float> hidden, std::span<float> state,
                            std::span<float> work, std::span<float> z) {
  const size_t p = state.size();
  const std::span<float> u = work.first(p), next = work.subspan(p, p);
  for (size_t i = 0; i < p; ++i) u[i] = static_cast<float>(dot(data.to_state.row(i), hidden));
  const auto term = [&](GruPart part, std::span<const float> x, size_t i) {
    return dot(gru.weight[part].row(i), x) + gru.bias[part][i];
  };
  for (size_t i = 0; i < p; ++i) {
    const double reset = 1 / (1 + std::exp(-(term(kInReset, u, i) + term(kStateReset, state, i))));
    const double update = 1 / (1 + std::exp(-(term(kInUpdate, u, i) + term(kStateUpdate, state, i))));
    const double fresh = std::tanh(term(kInNew, u, i) + reset * term(kStateNew, state, i));
    next[i] = static_cast<float>((1 - update) * fresh + update * state[i]);
  }
  std::copy(next.begin(), next.end(), state.begin());
  for (size_t e = 0; e < z.size(); ++e) z[e] = static_cast<float>(dot(data.from_state.row(e), state));
}

// Word `which` of the random numbers of one (seed, sequence, token, row). The sampler's counters end in 0, these do not.
SWITCHYARD_STAGE double random_at(uint64_t seed, const RouterInput& in, uint64_t index, uint32_t which) {
  const uint32_t place = 0x80000000u | uint32_t(in.row) << 14 | which / 4;
  return unit_interval(philox4x32({uint32_t(index), uint32_t(index >> 32), in.sequence, place},
                                  {uint32_t(seed), uint32_t(seed >> 32)})[which % 4]);
}

SWITCHYARD_STAGE float gumbel(uint64_t seed, const RouterInput& in, uint32_t expert) {
  return static_cast<float>(-std::log(-std::log(random_at(seed, in, in.index, expert))));
}

SWITCHYARD_STAGE float scheduled_tau(const Stages& s, uint64_t n) {
  const double a = s.tau, b = s.tau_end, share = double(n) / s.steps;
  switch (s.schedule) {
    case TemperatureSchedule::kExponential: return static_cast<float>(std::max(a * std::exp(std::log(b / a) * share), b));
    case TemperatureSchedule::kLinear: return static_cast<float>(std::max(a - (a - b) * share, b));
    case TemperatureSchedule::kNone: break;
  }
  return s.tau;
}

// Stage 2 of a scheme for one expert, after the layer's own logit edits. tau: of scheduled_tau().
SWITCHYARD_STAGE float scheme_logit(const Stages& s, const RouterInput& in, float tau, size_t e, float z) {
  if (z == kNever) return z;
  if (s.activation != LogitActivation::kNone) {
    const float own = in.router_bias.empty() ? 0.0f : in.router_bias[e];
    z = activated(s.activation, z - own) + own;
  }
  if (s.gumbel) z += gumbel(s.seed, in, uint32_t(e));
  return tau != 1.0f ? kept_finite(z / tau) : z;
}

// The experts `on` above all others, those `off` below, by the log-probabilities of z.
SWITCHYARD_STAGE void steer(float margin, std::span<const ExpertId> on, std::span<const ExpertId> off, const SoftmaxSums& sums,
                            std::span<float> z) {
  if (sums.empty()) return;
  const auto lse = static_cast<float>(sums.lse());
  float highest = kNever, lowest = kLargest;
  for (float& logit : z) {
    if (logit == kNever) continue;
    logit -= lse;
    highest = std::max(highest, logit);
    lowest = std::min(lowest, logit);
  }
  for (const ExpertId e : on)
    if (z[e] != kNever) z[e] = highest + margin;
  for (const ExpertId e : off)
    if (z[e] != kNever) z[e] = lowest - margin;
}

// z: [E + nulls].
inline void edit_by_scheme(const Stages& s, const SchemeData* data, const RouterInput& in, std::span<float> z) {
  const size_t experts = z.size() - s.nulls;
  const float tau = scheduled_tau(s, in.index);
  for (size_t e = 0; e < experts; ++e) z[e] = scheme_logit(s, in, tau, e, z[e]);
  for (int j = 0; j < s.nulls; ++j)
    z[experts + j] = s.null_source == NullSource::kCopy   ? z[j % experts]
                     : s.null_source == NullSource::kFile ? static_cast<float>(dot(data->nulls.row(j), in.hidden))
                                                          : s.null_logit;
  if (!data || (data->on.empty() && data->off.empty())) return;
  steer(s.steer_margin, data->on, data->off, softmax_sums(z, nullptr), z);
}

// z = lse + ln((1 - lambda) p + lambda mixed), p = softmax(z). The sum of exponentials stays, so that scores which are
// no softmax keep their scale. Without neighbours nothing is touched.
SWITCHYARD_STAGE void mix_in(float lambda, std::span<const float> mixed, std::span<float> z) {
  if (lambda == 0 || mixed.empty()) return;
  const SoftmaxSums sums = softmax_sums(z, nullptr);
  if (sums.empty()) return;
  const double lse = sums.lse();
  for (size_t e = 0; e < z.size(); ++e) {
    if (z[e] == kNever) continue;
    const double p = (1.0 - double(lambda)) * std::exp(double(z[e]) - lse) + double(lambda) * mixed[e];
    z[e] = static_cast<float>(lse + std::log(std::max(p, double(std::numeric_limits<float>::min()))));
  }
}

// What a bank says of one input.
struct Trust {
  int q = 0;          // exemplars in a row, nearest first (L2, ties: the earlier one), whose label and prediction are
                      // the prediction; the first one at distance 0 is the input itself and left out
  double nearest = 0; // distance of the nearest exemplar; infinite: there is none
  double d = 0;       // least over the classes of 1 - share of its calibration distances below `nearest`
};

// 1 - the share of distances < nearest; 0 for a class without points. The least over the classes; 0 without classes.
SWITCHYARD_STAGE double nearness(std::span<const SdmClass> classes, double nearest) {
  double least = classes.empty() ? 0 : 1;
  for (const SdmClass& one : classes) {
    const auto below = std::lower_bound(one.distances.begin(), one.distances.end(), nearest) - one.distances.begin();
    least = std::min(least, one.distances.empty() ? 0.0 : 1 - double(below) / double(one.distances.size()));
  }
  return least;
}

// work: [N]
SWITCHYARD_STAGE Trust trust_of(const SdmBank& bank, std::span<const float> input, ExpertId prediction, std::span<float> work) {
  const size_t count = bank.labels.size();
  size_t itself = count;
  for (size_t i = 0; i < count; ++i) {
    const std::span<const float> exemplar = bank.exemplars.row(i);
    double sum = 0;
    for (size_t k = 0; k < input.size(); ++k) {
      const double difference = double(input[k]) - exemplar[k];
      sum += difference * difference;
    }
    work[i] = static_cast<float>(std::sqrt(sum));
    if (sum == 0 && itself == count) itself = i;
  }
  const auto agrees = [&](size_t i) { return bank.labels[i] == prediction && bank.predictions[i] == prediction; };
  Trust out{.nearest = std::numeric_limits<double>::infinity()};
  size_t other = count;  // the nearest that does not agree
  for (size_t i = 0; i < count; ++i) {
    if (i == itself) continue;
    out.nearest = std::min(out.nearest, double(work[i]));
    if (!agrees(i) && (other == count || work[i] < work[other])) other = i;
  }
  for (size_t i = 0; i < count; ++i)
    if (i != itself && agrees(i) && (other == count || work[i] < work[other] || (work[i] == work[other] && i < other))) ++out.q;
  out.d = nearness(bank.classes, out.nearest);
  return out;
}

// (2 + q)^(d (z - max)).
SWITCHYARD_STAGE float sdm_exponential(const Stages& s, float z, float max) {
  return z == kNever ? 0.0f : static_cast<float>(std::exp((double(z) - max) * (s.sdm_d * std::log(2.0 + s.sdm_q))));
}

// exponential: of the scores that are shares of a sum of exponentials, `total`.
SWITCHYARD_STAGE float scheme_score(SchemeScore kind, float z, float exponential, float total) {
  switch (kind) {
    case SchemeScore::kSoftmax:
    case SchemeScore::kSdm: return exponential / total;
    case SchemeScore::kSigmoid: return sigmoid(z);
    case SchemeScore::kIdentity: break;
  }
  return z == kNever ? 0.0f : z;
}

// Stage 3. Returns the softmax sums of z.
SWITCHYARD_STAGE SoftmaxSums score_by_scheme(const Stages& s, std::span<const float> z, std::span<float> scores) {
  const bool softmax = s.score == SchemeScore::kSoftmax;
  const SoftmaxSums sums = softmax_sums(z, softmax ? scores.data() : nullptr);
  if (sums.empty()) {
    for (float& score : scores) score = 0;
    return sums;
  }
  double total = sums.sum;
  if (s.score == SchemeScore::kSdm) {
    total = 0;
    for (size_t e = 0; e < z.size(); ++e) total += scores[e] = sdm_exponential(s, z[e], sums.max);
  }
  for (size_t e = 0; e < z.size(); ++e) scores[e] = scheme_score(s.score, z[e], scores[e], static_cast<float>(total));
  return sums;
}

// Tsallis or Renyi entropy over its maximum; not clamped (eps moves it past the ends).
SWITCHYARD_STAGE double normalised_entropy(EntropyKind kind, double q, double eps, std::span<const float> p) {
  const auto experts = double(p.size());
  if (p.size() < 2) return 0;
  double sum = 0;
  if (kind == EntropyKind::kRenyi) eps = 0;
  for (const float share : p) {
    const double x = share + eps;
    sum += q == 1 ? (x > 0 ? -x * std::log(x) : 0) : x > 0 ? std::pow(x, q) : 0;
  }
  if (q == 1) return sum / std::log(experts);
  if (kind == EntropyKind::kRenyi) return std::log(sum) / (1 - q) / std::log(experts);
  return (1 - sum) / (1 - std::pow(experts, 1 - q));
}

// Stage 5 of the selectors that go by score: how many of the ids, which stand in falling order of their keys, stay.
SWITCHYARD_STAGE int kept(const Stages& s, std::span<const float> scores, std::span<const ExpertId> ids, double entropy) {
  const int used = static_cast<int>(ids.size());
  if (used == 0) return 0;
  const auto at = [&](int slot) { return scores[ids[slot]]; };
  int n = 0;
  double sum = 0;
  switch (s.selector) {
    case Selector::kTopP:
      while (n < used && !(n > 0 && s.p < 1 && sum > s.p)) sum += at(n++);
      return std::max(n, std::min(s.k_min, used));
    case Selector::kHybrid:
      if (s.h < 1 && s.q > 0 && entropy > s.h) return used;
      while (n < used && sum + at(n) <= s.p) sum += at(n++);
      return std::max(n, std::min(s.k_min, used));
    case Selector::kThreshold:
      while (n < used && at(n) > s.threshold) ++n;
      return std::max(n, 1);
    case Selector::kMinP:
      while (n < used && at(n) >= s.threshold * at(0)) ++n;
      return std::max(n, std::min(s.k_min, used));
    case Selector::kRatio:
      for (n = 1; n < used && !(at(n) < s.threshold * at(n - 1));) ++n;
      return n;
    default: return used;
  }
}

// Selects the experts of one token from the tables of tokens [vocab, columns], or by token id where there are none; a muted
// expert gives way to the next one that is not.
SWITCHYARD_STAGE int select_from_table(std::span<const ExpertId> table, int columns, const Stages& s, TokenId token, int k,
                                       std::span<const float> z, std::span<ExpertId> ids) {
  const auto experts = static_cast<uint32_t>(z.size());
  int used = 0;
  for (int slot = 0; slot < k; ++slot) {
    uint32_t e = columns > 0
                     ? table[size_t(token) * columns + std::min(slot, columns - 1)]
                     : (uint32_t(token) + uint32_t(slot) + uint32_t(s.seed % experts)) % experts;
    const auto taken = [&] {
      return z[e] == kNever || std::find(ids.begin(), ids.begin() + used, ExpertId(e)) != ids.begin() + used;
    };
    for (uint32_t turn = 0; turn < experts && taken(); ++turn) e = (e + 1) % experts;
    if (!taken()) ids[used++] = static_cast<ExpertId>(e);
  }
  return used;
}

// Stage 6. scores: of all experts; z: the logits they are of.
SWITCHYARD_STAGE void weigh_by_rule(WeightRule rule, float scale, std::span<const float> z, std::span<const float> scores,
                                    std::span<const ExpertId> ids, std::span<float> weights) {
  float sum = 0;
  for (size_t slot = 0; slot < ids.size(); ++slot) {
    float& weight = weights[slot];
    switch (rule) {
      case WeightRule::kRaw:
      case WeightRule::kNative:  // not here: weigh()
      case WeightRule::kRenorm: weight = scores[ids[slot]]; break;
      case WeightRule::kSigmoidNorm:
      case WeightRule::kSigmoid: weight = sigmoid(z[ids[slot]]); break;
      case WeightRule::kUnit: weight = 1; break;
      case WeightRule::kShare: weight = 1.0f / static_cast<float>(ids.size()); break;
    }
    sum += weight;
  }
  if (rule == WeightRule::kRenorm || rule == WeightRule::kSigmoidNorm) {
    if (sum < std::numeric_limits<float>::min()) softmax_selected(z, ids, weights);
    else
      for (float& weight : weights) weight /= sum;
  }
  for (float& weight : weights) weight *= scale;
}

// Post-MoE: a guaranteed expert replaces the last slot. ExpertCondenser: the experts of lowest bias are appended.
// logit_bias: [E] or empty.
SWITCHYARD_STAGE int add_by_scheme(const Stages& s, std::span<const float> logit_bias, std::span<const float> z, int used,
                                   const DecisionSpans& out) {
  const auto selected = [&](int e) { return std::find(out.ids.begin(), out.ids.begin() + used, e) != out.ids.begin() + used; };
  if (s.guaranteed >= 0 && used > 0 && z[s.guaranteed] != kNever && !selected(s.guaranteed)) {
    out.ids[used - 1] = static_cast<ExpertId>(s.guaranteed);
    out.kinds[used - 1] = SlotKind::kForced;
  }
  if (s.forced_low == 0 || !any_nonzero(logit_bias)) return used;
  // The r lowest biases, one after the other: by (bias, id).
  int last = -1;
  for (int turn = 0; turn < s.forced_low; ++turn) {
    int next = -1;
    for (int e = 0; e < int(z.size()); ++e) {
      const bool after = last < 0 || logit_bias[e] > logit_bias[last] || (logit_bias[e] == logit_bias[last] && e > last);
      if (after && (next < 0 || logit_bias[e] < logit_bias[next])) next = e;
    }
    if (next < 0) break;
    last = next;
    if (z[next] == kNever || selected(next)) continue;
    out.ids[used] = static_cast<ExpertId>(next);
    out.kinds[used++] = SlotKind::kForced;
  }
  return used;
}

// Moves the null slots behind the real ones, order kept otherwise; returns how many are real.
SWITCHYARD_STAGE int nulls_last(size_t experts, std::span<ExpertId> ids) {
  size_t real = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= experts) continue;
    const ExpertId id = ids[i];
    for (size_t at = i; at > real; --at) ids[at] = ids[at - 1];
    ids[real++] = id;
  }
  return static_cast<int>(real);
}

// The experts whose score reaches their threshold, order kept. thresholds: [E], or empty: one for all.
SWITCHYARD_STAGE int over_thresholds(std::span<const float> thresholds, float one, std::span<const float> scores,
                                     std::span<ExpertId> ids) {
  int stay = 0;
  for (size_t slot = 0; slot < ids.size(); ++slot)
    if (scores[ids[slot]] >= (thresholds.empty() ? one : thresholds[ids[slot]])) ids[stay++] = ids[slot];
  return stay;
}

// SDM: floor(min(q, (2 + q)^best)) = 0, of the best score.
SWITCHYARD_STAGE bool out_of_distribution(const Stages& s, double best) {
  return std::floor(std::min<double>(s.sdm_q, std::pow(2.0 + s.sdm_q, best))) == 0;
}

}  // namespace switchyard::stages
