// Grouped-query attention (AttentionSpec). Formulas: specs/families.md 1.0 and, option by option, the family
// that has it: sinks 1.7, position bias and cross-attention 1.12, L2 norm, chunks and temperature 1.15, norm after
// rope 1.18, output gate 1.23.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/softplus.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "engine/backend/reference/adapters.h"
#include "engine/backend/reference/math.h"
#include "engine/backend/reference/op.h"
#include "engine/model/linears.h"

namespace switchyard::reference {
namespace {

constexpr int64_t kQueryChunk = 256;  // bounds the score matrix: heads * 256 * keys floats

bool normed_after_rope(QkNorm kind) {
  return kind == QkNorm::kPerHeadPostRope || kind == QkNorm::kL2PostRope;
}

class Attention final : public Op {
 public:
  Attention(const AttentionSpec& spec, Loader& load)
      : spec_(spec),
        q_(load.matrix(spec.q)),
        k_(load.matrix(spec.k)),
        v_(load.matrix(spec.v)),
        o_(load.matrix(spec.o)),
        q_bias_(load.vector(spec.q_bias)),
        k_bias_(load.vector(spec.k_bias)),
        v_bias_(load.vector(spec.v_bias)),
        o_bias_(load.vector(spec.o_bias)),
        gate_(load.matrix(spec.gate)),
        gate_bias_(load.vector(spec.gate_bias)),
        sinks_(load.vector(spec.sinks)),
        position_bias_(load.matrix(spec.position_bias)),
        mask_a_(load.vector(spec.mask_a)),
        mask_dt_(load.matrix(spec.mask_dt)),
        mask_dt_bias_(load.vector(spec.mask_dt_bias)),
        q_norm_(load.norm(spec.q_norm)),
        k_norm_(load.norm(spec.k_norm)) {}

  at::Tensor run(const at::Tensor& x, OpState& state, const Step& step) const override {
    const int64_t tokens = x.size(0), past = step.past;
    at::Tensor q = place(split_heads(project(x, q_, q_bias_, Here{&step, step.place + kPlaceQ}), spec_.heads, &q_norm_), q_norm_, step, past);
    if (spec_.temperature_floor > 0) q = q * temperature(past, tokens);
    if (!spec_.cross)
      remember(x, past, state, step);
    else if (!state.keys.defined())  // the memory stays as it is
      remember(step.memory, 0, state, step);
    const int64_t known = spec_.cross ? step.memory.size(0) : past + tokens;

    std::vector<at::Tensor> parts;
    for (int64_t from = 0; from < tokens; from += kQueryChunk) {
      const at::Tensor queries = q.narrow(1, from, std::min(kQueryChunk, tokens - from));
      parts.push_back(attend(queries, state, past + from, known, step));
    }
    at::Tensor mixed = parts.size() == 1 ? parts[0] : at::cat(parts);
    if (gate_.defined()) mixed = mixed * project(x, gate_, gate_bias_, Here{&step, step.place + kPlaceGate}).sigmoid();
    return project(mixed, o_, o_bias_, Here{&step, step.place + kPlaceO});
  }

 private:
  // One projected input as heads: [tokens, heads * head_dim] -> [heads, tokens, head_dim].
  at::Tensor split_heads(at::Tensor x, int heads, const Norm* norm) const {
    if (norm && spec_.qk_norm == QkNorm::kFullVector) x = (*norm)(x);
    x = x.view({x.size(0), heads, spec_.head_dim});
    if (norm && spec_.qk_norm == QkNorm::kPerHead) x = (*norm)(x);
    if (spec_.clip_qkv > 0) x = x.clamp(-spec_.clip_qkv, spec_.clip_qkv);
    return x.transpose(0, 1);
  }

  // Heads [heads, tokens, head_dim] at positions from `past`, with what tells their place.
  at::Tensor place(const at::Tensor& x, const Norm& norm, const Step& step, int64_t past) const {
    const at::Tensor turned =
        spec_.rope.kind == RopeKind::kNone
            ? x
            : rotate(spec_.rope, rotation(spec_.rope, past, x.size(1), step.length), x);
    return normed_after_rope(spec_.qk_norm) ? norm(turned) : turned;
  }

  // Keys and values of x [tokens, hidden] behind the `past` that the state holds.
  void remember(const at::Tensor& x, int64_t past, OpState& state, const Step& step) const {
    const int64_t tokens = x.size(0);
    reserve(state.keys, spec_.kv_heads, spec_.head_dim, past, past + tokens);
    reserve(state.values, spec_.kv_heads, spec_.head_dim, past, past + tokens);
    state.keys.narrow(1, past, tokens)
        .copy_(place(split_heads(project(x, k_, k_bias_, Here{&step, step.place + kPlaceK}), spec_.kv_heads, &k_norm_), k_norm_, step, past));
    state.values.narrow(1, past, tokens).copy_(split_heads(project(x, v_, v_bias_, Here{&step, step.place + kPlaceV}), spec_.kv_heads, nullptr));
  }

  // What queries at [past, past + tokens) are multiplied by: [tokens, 1].
  at::Tensor temperature(int64_t past, int64_t tokens) const {
    const at::Tensor position = at::arange(past, past + tokens, at::TensorOptions().dtype(at::kFloat));
    const at::Tensor steps = ((position + 1) / spec_.temperature_floor).floor();
    return (steps.log1p() * spec_.temperature_scale + 1).unsqueeze(1);
  }

  // The first key that the query at this position sees.
  int64_t first_visible(int64_t position) const {
    if (spec_.chunk > 0) return position / spec_.chunk * spec_.chunk;
    return spec_.sliding_window > 0 ? std::max<int64_t>(0, position - spec_.sliding_window + 1) : 0;
  }

  // True where the query (row) at [first, last) does not see the key (column) at [begin, end).
  at::Tensor hidden(int64_t first, int64_t last, int64_t begin, int64_t end) const {
    const auto options = at::TensorOptions().dtype(at::kLong);
    const at::Tensor i = at::arange(first, last, options).unsqueeze(1), j = at::arange(begin, end, options);
    const at::Tensor later = j > i;
    if (spec_.chunk > 0) return later.logical_or(j < i.div(spec_.chunk, "floor") * spec_.chunk);
    return spec_.sliding_window > 0 ? later.logical_or(j <= i - spec_.sliding_window) : later;
  }

  // Bias of queries [first, last) (rows) on keys [begin, end): [heads, queries, keys]. Buckets: half of them hold one
  // distance each, the others grow in powers up to position_max_distance; in steps of transformers.
  at::Tensor position_bias(int64_t first, int64_t last, int64_t begin, int64_t end) const {
    const auto options = at::TensorOptions().dtype(at::kLong);
    at::Tensor distance = at::arange(begin, end, options) - at::arange(first, last, options).unsqueeze(1);
    int64_t buckets = spec_.position_buckets;
    at::Tensor bucket = at::zeros_like(distance);
    if (spec_.causal) {
      distance = (-distance).clamp_min(0);
    } else {
      buckets /= 2;
      bucket = (distance > 0).to(at::kLong) * buckets;
      distance = distance.abs();
    }
    const int64_t exact = buckets / 2;
    const double range = std::log(double(spec_.position_max_distance) / double(exact));
    const at::Tensor far =
        ((distance.clamp_min(1).to(at::kFloat) / double(exact)).log() / range * double(buckets - exact)).to(at::kLong);
    bucket = bucket + at::where(distance < exact, distance, (far + exact).clamp_max(buckets - 1));
    return position_bias_.index_select(0, bucket.flatten())
        .view({last - first, end - begin, spec_.heads})
        .permute({2, 0, 1});
  }

  // Softmax over the last dimension of [kv_heads, group, tokens, keys]; a sink takes its share and gives nothing.
  at::Tensor probabilities(const at::Tensor& scores) const {
    if (!sinks_.defined()) return at::softmax(scores, -1);
    const at::Tensor sink = sinks_.view({scores.size(0), scores.size(1), 1, 1}).expand({-1, -1, scores.size(2), -1});
    return at::softmax(at::cat({scores, sink}, -1), -1).narrow(-1, 0, scores.size(-1));
  }

  // doge: scores [kv_heads, group, tokens, keys] plus a number of the key's value, for the mask_keep largest of these
  // numbers among the keys that the query sees; no others.
  at::Tensor keep_strongest(const at::Tensor& scores, const at::Tensor& values) const {
    const int64_t keys = scores.size(-1);
    const at::Tensor flat = values.transpose(0, 1).reshape({keys, -1});
    const at::Tensor strength = (mask_a_ * at::softplus(project(flat, mask_dt_, mask_dt_bias_))).exp().t();
    constexpr float kNever = -std::numeric_limits<float>::infinity();
    at::Tensor mask = strength.unsqueeze(1).expand({-1, scores.size(2), -1}).masked_fill(
        scores.select(1, 0) == kNever, kNever);  // [kv_heads, tokens, keys]
    if (keys > spec_.mask_keep) {
      const auto [kept, where] = mask.topk(spec_.mask_keep, -1);
      mask = at::full_like(mask, kNever).scatter(-1, where, kept);
    }
    return scores + mask.unsqueeze(1);
  }

  // Queries [heads, tokens, head_dim] at positions from `first` against the keys they may see, of `known` keys:
  // [tokens, heads * head_dim].
  at::Tensor attend(const at::Tensor& q, const OpState& state, int64_t first, int64_t known, const Step& step) const {
    const int64_t tokens = q.size(1), group = spec_.heads / spec_.kv_heads;
    const int64_t begin = spec_.causal ? first_visible(first) : 0, end = spec_.causal ? first + tokens : known;
    const at::Tensor k = state.keys.narrow(1, begin, end - begin);
    const at::Tensor v = state.values.narrow(1, begin, end - begin);

    at::Tensor scores =
        q.reshape({spec_.kv_heads, group * tokens, spec_.head_dim}).bmm(k.transpose(1, 2)) * spec_.scale;
    scores = scores.view({spec_.kv_heads, group, tokens, end - begin});
    if (position_bias_.defined())
      scores = scores + position_bias(first, first + tokens, begin, end).reshape(scores.sizes());
    if (spec_.causal && tokens > 1)  // a single query sees all of [begin, end)
      scores = scores.masked_fill(hidden(first, end, begin, end), -std::numeric_limits<float>::infinity());
    if (mask_a_.defined()) scores = keep_strongest(scores, v);
    const at::Tensor shares = probabilities(scores).reshape({spec_.kv_heads, group * tokens, end - begin});
    if (step.attention && step.attention->window > 0)
      step.attention->take(shares.view({spec_.heads, tokens, end - begin}), first - step.past, first, begin);
    return shares
        .bmm(v)  // [kv_heads, group * tokens, head_dim]
        .view({spec_.heads, tokens, spec_.head_dim})
        .transpose(0, 1)
        .reshape({tokens, int64_t(spec_.heads) * spec_.head_dim});
  }

  const AttentionSpec spec_;
  const at::Tensor q_, k_, v_, o_, q_bias_, k_bias_, v_bias_, o_bias_, gate_, gate_bias_, sinks_, position_bias_, mask_a_,
      mask_dt_, mask_dt_bias_;
  const Norm q_norm_, k_norm_;
};

}  // namespace

std::unique_ptr<Op> make_attention(const AttentionSpec& spec, Loader& load) {
  return std::make_unique<Attention>(spec, load);
}

}  // namespace switchyard::reference
