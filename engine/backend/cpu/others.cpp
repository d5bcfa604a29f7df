// Experts of other kinds in the places of the model's own (engine/routing/expert_kind.h): which of them are feed-forward
// blocks that the gathered groups run, and what runs at once. See feed_forward.h.
#include <algorithm>
#include <cmath>

#include "engine/backend/cpu/feed_forward.h"

namespace switchyard::cpu {
namespace {

float dot(std::span<const float> a, const float* b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += double(a[i]) * b[i];
  return static_cast<float>(sum);
}

float sigmoid(float x) { return 1 / (1 + std::exp(-x)); }

}  // namespace

// Whether the expert is run by a group of slots; the identities of a model come behind the experts that have weights.
bool FeedForwardRun::runs_here(const FeedForward& spec, const LayerRecipe* recipe, size_t id) const {
  if (id >= spec.experts.size()) return false;
  if (!recipe) return true;
  switch (recipe->other(id).kind) {
    case ExpertKind::kGru:
    case ExpertKind::kIdentity:
    case ExpertKind::kNull:
    case ExpertKind::kConstant: return false;
    default: return true;
  }
}

// The group that runs the expert for this input: its own, or that of the local expert.
size_t FeedForwardRun::group_of(const FeedForward& spec, const LayerRecipe* recipe, size_t id, const float* in) const {
  if (!recipe || recipe->other(id).kind != ExpertKind::kLocal) return id;
  const ExpertTensors& tensors = *recipe->other(id).tensors;
  const double z = double(dot(tensors.gn.values, in)) + (tensors.gn_bias ? tensors.gn_bias.values[0] : 0.0f);
  return is_local(1 / (1 + std::exp(-z))) ? spec.experts.size() + id : id;
}

// weight: of the output; input_weight: of the input.
void FeedForwardRun::add_at_once(const Step& step, const FeedForward& spec, const LayerRecipe* recipe, size_t id, int token,
                                 float weight, float input_weight, const float* in, const Sum& sum) {
  float* out = sum.rows[token];
  const OtherExpert other = recipe && id < spec.experts.size() ? recipe->other(id) : OtherExpert{ExpertKind::kIdentity, {}, nullptr};
  switch (other.kind) {
    case ExpertKind::kNull: return;
    case ExpertKind::kConstant:
      for (size_t i = 0; i < other.tensors->constant.values.size(); ++i) out[i] += weight * other.tensors->constant.values[i];
      return;
    case ExpertKind::kGru:
      return run_gru(step, edited_weights_.other(spec.row, id, other), weight, input_weight, in, out);
    default: break;
  }
  const float factor = weight * input_weight;
  for (int64_t i = 0; i < spec.router_weight.cols; ++i) out[i] += factor * in[i];
}

// One step from the state 0: h = (1 - zeta) n.
void FeedForwardRun::run_gru(const Step& step, const OtherNetwork& gru, float weight, float input_weight, const float* in, float* out) {
  const int width = gru.form.width;
  const int64_t hidden = gru.expert.down.rows;
  gru_in_.assign(in, in + hidden);
  for (float& x : gru_in_) x *= input_weight;
  gru_.resize(3 * size_t(width));
  float *r = gru_.data(), *zeta = r + width, *n = zeta + width;
  const float* x = gru_in_.data();
  step.dot_rows(gru.reset, 0, width, {1, &x, &r, nullptr});
  step.dot_rows(gru.expert.gate, 0, width, {1, &x, &zeta, nullptr});
  step.dot_rows(gru.expert.up, 0, width, {1, &x, &n, nullptr});
  const auto bias = [](const std::vector<float>& values, int i) { return values.empty() ? 0.0f : values[size_t(i)]; };
  for (int i = 0; i < width; ++i) {
    const float reset = sigmoid(r[i] + bias(gru.reset_bias, i)), update = sigmoid(zeta[i] + bias(gru.expert.gate_bias, i));
    r[i] = (1 - update) * std::tanh(n[i] + bias(gru.expert.up_bias, i) + reset * bias(gru.state_bias, i));
  }
  const float* state = r;
  step.dot_rows(gru.expert.down, 0, hidden, {1, &state, &out, &weight});
  for (size_t i = 0; i < gru.expert.down_bias.size(); ++i) out[i] += weight * gru.expert.down_bias[i];
}

}  // namespace switchyard::cpu
