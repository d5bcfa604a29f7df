// See neighbours.h.
#include "engine/routing/neighbours.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <variant>

#include "engine/routing/scheme_stages.h"

namespace switchyard {

void token_probabilities(const LayerRecipe& recipe, const RouterInput& in, std::span<float> p) {
  stages::copy_clean(in.logits.first(p.size()), p);
  stages::edit_logits(recipe, in.router_bias, p);
  const stages::SoftmaxSums sums = stages::softmax_sums(p, p.data());
  const float sum = sums.empty() ? 0 : static_cast<float>(sums.sum);
  for (float& value : p) value = sums.empty() ? 0 : value / sum;
}

void NeighbourMix::by_likeness(const TokenMemory& memory, int row, uint64_t token, const Scheme& scheme,
                               std::span<float> mixed) {
  const std::span<const float> own = memory.input(row, token);
  const SchemeMatrix* likeness = scheme.data && scheme.data->likeness         ? &scheme.data->likeness
                                 : scheme.file && scheme.file->every.likeness ? &scheme.file->every.likeness
                                                                              : nullptr;
  std::span<const float> query = own;
  if (likeness) {
    sums_.assign(own.size(), 0);
    for (size_t r = 0; r < own.size(); ++r) {
      const std::span<const float> from = likeness->row(r);
      for (size_t c = 0; c < own.size(); ++c) sums_[c] += double(own[r]) * from[c];
    }
    query_.assign(sums_.begin(), sums_.end());
    query = query_;
  }
  const Stages& s = scheme.stages;
  const double tau = s.likeness_tau > 0 ? s.likeness_tau : std::sqrt(double(own.size()));
  const uint64_t back = std::min<uint64_t>(uint64_t(s.window), token + 1);
  shares_.assign(back, -1);
  double highest = -std::numeric_limits<double>::infinity();
  for (uint64_t o = 0; o < back; ++o) {
    const std::span<const float> other = memory.input(row, token - o);
    shares_[o] = other.empty() ? -std::numeric_limits<double>::infinity() : stages::dot(query, other) / tau;
    highest = std::max(highest, shares_[o]);
  }
  for (double& share : shares_) share = std::exp(share - highest);
  mix(memory, row, token, mixed);
}

void NeighbourMix::by_attention(const TokenMemory& memory, int row, uint64_t token, const Scheme& scheme,
                                std::span<const float> attention, std::span<float> mixed) {
  const size_t back = std::min<uint64_t>({uint64_t(scheme.stages.window), token + 1, attention.size()});
  shares_.assign(std::max<size_t>(back, 1), 0);
  for (size_t o = 0; o < back; ++o)
    if (!memory.probabilities(row, token - o).empty()) shares_[o] = attention[o];
  mix(memory, row, token, mixed);
}

// Nobody counts: the token's own.
void NeighbourMix::mix(const TokenMemory& memory, int row, uint64_t token, std::span<float> mixed) {
  double total = 0;
  for (const double share : shares_) total += share;
  if (!(total > 0)) shares_[0] = total = 1;
  sums_.assign(mixed.size(), 0);
  for (size_t o = shares_.size(); o-- > 0;) {
    if (shares_[o] == 0) continue;
    const std::span<const float> p = memory.probabilities(row, token - o);
    for (size_t e = 0; e < p.size(); ++e) sums_[e] += shares_[o] * p[e];
  }
  for (size_t e = 0; e < mixed.size(); ++e) mixed[e] = static_cast<float>(sums_[e] / total);
}

const Sublayer* mixer_before(const ModelPlan& plan, int row) {
  const RoutingRow& at = plan.rows[size_t(row)];
  const auto& sublayers = plan.layers[size_t(at.layer)].sublayers;
  for (int i = at.sublayer - 1; i >= 0; --i) {
    const SublayerOp& op = sublayers[size_t(i)].op;
    if (!std::holds_alternative<FfnSpec>(op) && !std::holds_alternative<MoeSpec>(op)) return &sublayers[size_t(i)];
  }
  return nullptr;
}

std::string cannot_mix(const Scheme& scheme, const ModelPlan& plan, int row) {
  if (!mixes_tokens(scheme)) return {};
  if (plan.encoder_layers > 0) return "the model is an encoder-decoder; mixing goes back over one sequence of tokens";
  if (scheme.stages.mixing != Mixing::kAttention) return {};
  const Sublayer* mixer = mixer_before(plan, row);
  if (!mixer) return plan.row_name(row) + " has no attention before its router";
  if (std::holds_alternative<AttentionSpec>(mixer->op) || std::holds_alternative<LatentAttentionSpec>(mixer->op))
    return {};
  if (std::holds_alternative<MixtureAttentionSpec>(mixer->op))
    return "the attention of " + plan.row_name(row) + " is itself routed: every expert attends for its own tokens";
  return plan.row_name(row) + " mixes tokens without a softmax over them, so it has no attention to follow";
}

}  // namespace switchyard
