// See model.h.
#include "engine/backend/cuda/model.h"

#include <algorithm>
#include <cstring>

#include "engine/backend/cpu/isa.h"
#include "engine/base/text.h"
#include "engine/model/quantised.h"

namespace switchyard::cuda {
namespace {

constexpr size_t kStaging = size_t(64) << 20, kArena = size_t(256) << 20, kAlignment = 256;

Stored stored(cpu::Stored plain) {
  return plain == cpu::Stored::kF32 ? Stored::kF32 : plain == cpu::Stored::kBF16 ? Stored::kBF16 : Stored::kF16;
}

FfnForm form_of(const cpu::FfnForm& form) {
  const Form kind = form.kind == FfnKind::kGluOss ? Form::kGluOss
                    : form.kind == FfnKind::kMlp  ? Form::kMlp
                                                  : Form::kGlu;
  return {kind, Unit(int(form.unit)), form.width, form.limit, form.alpha};
}
static_assert(int(Unit::kRelu) == int(cpu::Unit::kRelu));

std::vector<unsigned char> decode(const cpu::Matrix& from, cpu::Stored type) {
  const int64_t row_bytes = cpu::plain_bytes(type, from.cols);
  std::vector<unsigned char> out(size_t(row_bytes * from.rows));
  std::vector<float> row(static_cast<size_t>(from.cols));
  for (int64_t r = 0; r < from.rows; ++r) {
    cpu::kernels(cpu::Isa::kPortable).load_row(from, r, row.data());
    unsigned char* const to = out.data() + r * row_bytes;
    if (type == cpu::Stored::kF32) std::memcpy(to, row.data(), size_t(row_bytes));
    for (int64_t c = 0; c < from.cols && type != cpu::Stored::kF32; ++c) {
      const uint16_t half = type == cpu::Stored::kBF16 ? exact_bf16(row[size_t(c)]) : exact_f16(row[size_t(c)]);
      std::memcpy(to + 2 * c, &half, sizeof(half));
    }
  }
  return out;
}

// Takes memory piece by piece from large buffers and fills it through a pinned one.
class Uploader {
 public:
  Uploader(ModelOnDevice& model, Stream& stream, uint64_t room) : model_(model), stream_(stream), room_(room) {}

  // name: an address that stands for the data, which are uploaded once.
  Result<const unsigned char*> upload(const void* data, const void* name, size_t bytes, bool expert) {
    if (bytes == 0) return nullptr;
    if (const auto found = uploaded_.find(name); found != uploaded_.end() && found->second.bytes == bytes)
      return found->second.at;
    const bool host = expert && model_.device_bytes + bytes > room_;
    SY_TRY(unsigned char* const at, take(bytes, host));
    (host ? model_.host_bytes : model_.device_bytes) += bytes;
    if (host)
      std::memcpy(at, data, bytes);
    else
      SY_CHECK(send(at, static_cast<const unsigned char*>(data), bytes));
    uploaded_[name] = {at, bytes};
    return static_cast<const unsigned char*>(at);
  }
  // Blocks of quantised numbers are decoded to the narrowest plain type that holds them.
  Result<void> matrix(const cpu::Matrix& from, Matrix& to, bool expert = false) {
    const cpu::Stored type = cpu::plain(from.type);
    const auto bytes = size_t(cpu::plain_bytes(type, from.rows * from.cols));
    std::vector<unsigned char> decoded;
    if (type != from.type || cpu::row_bytes(from) != cpu::plain_bytes(type, from.cols)) decoded = decode(from, type);
    SY_TRY(const unsigned char* const at, upload(decoded.empty() ? from.data : decoded.data(), from.data, bytes, expert));
    to = {at, int(from.rows), int(from.cols), stored(type)};
    return {};
  }
  // Vectors of the loader live as long as it does, so that equal addresses are equal vectors.
  Result<void> vector(const std::vector<float>& from, const float*& to) {
    SY_TRY(const unsigned char* const at, upload(from.data(), from.data(), from.size() * sizeof(float), false));
    to = reinterpret_cast<const float*>(at);
    return {};
  }
  Result<void> norm(const cpu::Norm& from, Norm& to) {
    to.eps = from.eps, to.centred = from.kind == cpu::Norm::Kind::kLayer;
    if (from.kind == cpu::Norm::Kind::kNone) return {};
    SY_CHECK(vector(from.weight, to.weight));
    return vector(from.bias, to.bias);
  }
  template <class T>
  Result<T*> table(const std::vector<T>& values) {
    SY_TRY(unsigned char* const at, take(values.size() * sizeof(T), false));
    SY_CHECK(send(at, reinterpret_cast<const unsigned char*>(values.data()), values.size() * sizeof(T)));
    return reinterpret_cast<T*>(at);
  }
  Result<void> finish() { return wait(stream_, "weights"); }

 private:
  struct Arena {
    unsigned char* at = nullptr;
    size_t left = 0;
  };
  struct Piece {
    const unsigned char* at = nullptr;
    size_t bytes = 0;
  };

  Result<unsigned char*> take(size_t bytes, bool host) {
    bytes = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    Arena& arena = arenas_[host];
    if (bytes > arena.left) {
      // The last arena is no larger than the room.
      const uint64_t left = model_.device_bytes < room_ ? room_ - model_.device_bytes : 0;
      const size_t size = std::max(bytes, size_t(host ? kArena : std::min<uint64_t>(kArena, left)));
      SY_TRY(Buffer made,
             Buffer::make(size, host ? Place::kPinned : Place::kDevice, host ? "experts in host memory" : "weights"));
      const Arena next{made.as<>(), made.bytes()};
      model_.memory.push_back(std::move(made));
      if (next.left - bytes <= arena.left) return next.at;  // the old one has more left
      arena = next;
    }
    arena.left -= bytes;
    return std::exchange(arena.at, arena.at + bytes);
  }

  // Small pieces share the staging buffer; once it is full its copies are waited for.
  Result<void> send(unsigned char* to, const unsigned char* from, size_t bytes) {
    if (!staging_.bytes()) {
      SY_TRY(staging_, Buffer::make(kStaging, Place::kPinned, "staging of weights"));
    }
    for (size_t done = 0; done < bytes;) {
      if (filled_ == kStaging) {
        SY_CHECK(wait(stream_, "weights"));
        filled_ = 0;
      }
      const size_t part = std::min(kStaging - filled_, bytes - done);
      unsigned char* const at = staging_.as<>() + filled_;
      std::memcpy(at, from + done, part);
      SY_CHECK(copy(stream_, to + done, at, part, "weights"));
      filled_ += part, done += part;
    }
    return {};
  }

  ModelOnDevice& model_;
  Stream& stream_;
  uint64_t room_;
  Arena arenas_[2];
  Buffer staging_;
  size_t filled_ = 0;
  std::map<const void*, Piece> uploaded_;
};

class Builder {
 public:
  Builder(ModelOnDevice& out, Uploader& upload) : out_(out), upload_(upload) {}

  Result<void> head(const cpu::Model& model) {
    out_.hidden = model.hidden, out_.vocab = model.vocab;
    out_.embedding_scale = model.embedding_scale, out_.logit_scale = model.logit_scale, out_.ropes = model.ropes;
    SY_CHECK(upload_.matrix(model.embedding, out_.embedding));
    SY_CHECK(upload_.matrix(model.lm_head, out_.lm_head));
    SY_CHECK(upload_.vector(model.lm_head_bias, out_.lm_head_bias));
    SY_CHECK(upload_.vector(model.lm_head_column, out_.lm_head_columns));
    return upload_.norm(model.final_norm, out_.final_norm);
  }

  // All but the experts, which come last, when it is known what room they have.
  Result<void> sublayer(const cpu::Sublayer& from, int layer) {
    SublayerOnDevice& to = out_.sublayers.emplace_back();
    to.layer = layer, to.factor = from.scale;
    SY_CHECK(upload_.norm(from.norm, to.norm));
    if (const auto* attention = std::get_if<cpu::Attention>(&from.op))
      return build(*attention, to.op.emplace<AttentionOnDevice>());
    if (const auto* latent = std::get_if<cpu::LatentAttention>(&from.op))
      return build(*latent, to.op.emplace<LatentOnDevice>());
    return build(std::get<cpu::FeedForward>(from.op), to.op.emplace<FeedForwardOnDevice>());
  }
  Result<void> experts(const cpu::FeedForward& from, FeedForwardOnDevice& to) {
    for (const cpu::Expert& expert : from.experts) SY_CHECK(build(expert, to.own.emplace_back(), true));
    if (!from.experts.empty()) to.bias_type = from.experts[0].bias_type;
    to.bf16_units = std::ranges::all_of(to.own, [](const Expert& e) { return e.type == Stored::kBF16; });
    to.bf16_down = std::ranges::all_of(to.own, [](const Expert& e) { return e.down_type == Stored::kBF16; });
    if (!to.own.empty()) {
      SY_TRY(to.experts, upload_.table(to.own));
    }
    return {};
  }

 private:
  Result<void> build(const cpu::Attention& from, AttentionOnDevice& to) {
    to.heads = from.keys.heads, to.rope = from.rope, to.scale = from.keys.scale, to.window = from.keys.window,
    to.chunk = from.keys.chunk;
    to.qk_norm = from.qk_norm, to.clip = from.clip;
    to.temperature_floor = from.temperature_floor, to.temperature_scale = from.temperature_scale;
    place(from.keys, to.place);
    SY_CHECK(upload_.matrix(from.q, to.q));
    SY_CHECK(upload_.matrix(from.k, to.k));
    SY_CHECK(upload_.matrix(from.v, to.v));
    SY_CHECK(upload_.matrix(from.o, to.o));
    SY_CHECK(upload_.vector(from.q_bias, to.q_bias));
    SY_CHECK(upload_.vector(from.k_bias, to.k_bias));
    SY_CHECK(upload_.vector(from.v_bias, to.v_bias));
    SY_CHECK(upload_.vector(from.o_bias, to.o_bias));
    SY_CHECK(upload_.vector(from.keys.sinks, to.sinks));
    SY_CHECK(upload_.norm(from.q_norm, to.q_norm));
    return upload_.norm(from.k_norm, to.k_norm);
  }

  Result<void> build(const cpu::LatentAttention& from, LatentOnDevice& to) {
    to.heads = from.keys.heads, to.rope = from.rope, to.scale = from.keys.scale, to.nope = from.nope_dim,
    to.rope_dims = from.rope_dim;
    to.value_dim = from.value_dim, to.query_scale = from.q_scale, to.latent_scale = from.latent_scale;
    place(from.keys, to.place);
    SY_CHECK(upload_.matrix(from.q_a, to.q_a));
    SY_CHECK(upload_.matrix(from.q, to.q));
    SY_CHECK(upload_.matrix(from.kv_a, to.kv_a));
    SY_CHECK(upload_.matrix(from.absorb, to.absorb));
    SY_CHECK(upload_.matrix(from.kv_b, to.kv_b));
    SY_CHECK(upload_.matrix(from.o, to.o));
    SY_CHECK(upload_.vector(from.q_a_bias, to.q_a_bias));
    SY_CHECK(upload_.vector(from.kv_a_bias, to.kv_a_bias));
    SY_CHECK(upload_.vector(from.o_bias, to.o_bias));
    SY_CHECK(upload_.norm(from.q_a_norm, to.q_a_norm));
    return upload_.norm(from.kv_a_norm, to.kv_a_norm);
  }

  Result<void> build(const cpu::FeedForward& from, FeedForwardOnDevice& to) {
    to.row = from.row, to.form = form_of(from.form), to.shared_form = form_of(from.shared_form),
    to.gate.spec = from.router;
    SY_CHECK(upload_.matrix(from.router_weight, to.router));
    SY_CHECK(upload_.matrix(from.shared_gate, to.shared_gate));
    SY_CHECK(upload_.vector(from.router_bias, to.gate.router_bias));
    SY_CHECK(upload_.vector(from.select_bias, to.gate.select_bias));
    SY_CHECK(upload_.vector(from.output_bias, to.output_bias));
    if (!from.shared) return {};
    Expert shared;
    SY_CHECK(build(*from.shared, shared, false));
    to.shared_bf16_units = shared.type == Stored::kBF16, to.shared_bf16_down = shared.down_type == Stored::kBF16;
    SY_TRY(to.shared, upload_.table(std::vector<Expert>{shared}));
    return {};
  }

  Result<void> build(const cpu::Expert& from, Expert& to, bool expert) {
    Matrix gate, up, down;
    SY_CHECK(upload_.matrix(from.gate, gate, expert));
    SY_CHECK(upload_.matrix(from.up, up, expert));
    SY_CHECK(upload_.matrix(from.down, down, expert));
    if (gate.data && gate.type != up.type)
      return fail(ErrorCode::kUsage, "the cuda backend lacks gate and up matrices of different types.", {},
                  "Use --backend cpu.");
    to.gate = gate.data, to.up = up.data, to.down = down.data, to.type = up.type, to.down_type = down.type;
    SY_CHECK(upload_.vector(from.gate_bias, to.gate_bias));
    SY_CHECK(upload_.vector(from.up_bias, to.up_bias));
    return upload_.vector(from.down_bias, to.down_bias);
  }

  void place(const cpu::KeyShape& keys, KeyPlace& to) {
    const size_t bytes = size_t(stored_bytes(out_.key_type)) * kKeyBlock * size_t(keys.kv_heads);
    to = {out_.block_bytes, out_.block_bytes, keys.kv_heads, keys.head_dim, keys.value_dim(), out_.key_type};
    out_.block_bytes += bytes * size_t(keys.head_dim);
    if (keys.latent > 0) return;
    to.values = out_.block_bytes;
    out_.block_bytes += bytes * size_t(keys.head_dim);
  }

  ModelOnDevice& out_;
  Uploader& upload_;
};

std::string missing_of(const Sublayer& sublayer) {
  if (sublayer.post_norm.kind != NormKind::kNone) return "norms behind a sublayer";
  if (sublayer.base_scale != 1 || sublayer.base_weight || sublayer.base_is_normed || sublayer.deferred)
    return "scaled or deferred residuals";
  if (const auto* a = std::get_if<AttentionSpec>(&sublayer.op)) {
    if (a->gate) return "gated attention";
    if (a->head_dim > kMostKeyDims) return "heads of more than " + std::to_string(kMostKeyDims) + " dimensions";
    if (a->rope.growth != RopeGrowth::kNone) return "a rope that grows with the sequence";
    if (a->rope.dims % 2 != 0) return "an odd number of rotated dimensions";
  }
  if (const auto* a = std::get_if<LatentAttentionSpec>(&sublayer.op)) {
    if (a->kv_rank + a->rope_dim > kMostKeyDims)
      return "latents of more than " + std::to_string(kMostKeyDims) + " dimensions";
    if (a->rope.growth != RopeGrowth::kNone) return "a rope that grows with the sequence";
  }
  if (const auto* moe = std::get_if<MoeSpec>(&sublayer.op)) {
    if (moe->identity_experts > 0) return "experts that are the identity";
    if (moe->router.product_key) return "product key routing";
  }
  return {};
}

}  // namespace

std::string missing_on_cuda(const ModelPlan& plan) {
  if (std::string missing = cpu::missing_kind(plan); !missing.empty()) return missing;
  for (size_t i = 0; i < plan.layers.size(); ++i)
    for (const Sublayer& sublayer : plan.layers[i].sublayers)
      if (std::string missing = missing_of(sublayer); !missing.empty())
        return missing + " (layer " + std::to_string(i) + ")";
  return {};
}

CardEstimate estimate_card(const ModelPlan& plan, int context, uint64_t card_bytes, std::span<const uint8_t> passes) {
  CardEstimate need;
  const auto bytes_of = [](const TensorRef& ref) {
    return ref ? uint64_t(ref.elements()) * uint64_t(bits(exact_dtype(ref))) / 8 : 0;
  };
  for_each_weight(plan, [&](const TensorRef& ref) { need.dense += bytes_of(ref); });
  for (const LayerPlan& layer : plan.layers)
    for (const Sublayer& sublayer : layer.sublayers)
      if (const auto* moe = std::get_if<MoeSpec>(&sublayer.op))
        for (const FfnWeights& expert : moe->experts)
          need.experts += bytes_of(expert.gate) + bytes_of(expert.up) + bytes_of(expert.down);
  need.dense -= std::min(need.dense, need.experts);
  uint64_t numbers = 0;  // of keys and values, for one token
  for (size_t layer = 0; layer < plan.layers.size(); ++layer)
    for (const Sublayer& sublayer : plan.layers[layer].sublayers) {
      const uint64_t times = passes.empty() ? 1 : passes[layer];
      if (const auto* a = std::get_if<AttentionSpec>(&sublayer.op))
        numbers += times * 2 * uint64_t(a->kv_heads) * uint64_t(a->head_dim);
      if (const auto* a = std::get_if<LatentAttentionSpec>(&sublayer.op))
        numbers += times * (uint64_t(a->kv_rank) + uint64_t(a->rope_dim));
    }
  need.keys = numbers * uint64_t(context) * (plan.dtype == DType::kF32 ? 4 : 2);
  // The activations of a piece of a prompt, the ring of records, logits.
  need.workspace = (uint64_t(512) << 20) + uint64_t(plan.vocab) * sizeof(float);
  need.reserve = std::max(uint64_t(2) << 30, card_bytes / 25 * 2);
  return need;
}

std::string card_text(const CardEstimate& need, uint64_t free) {
  std::string text = bytes_text(need.total()) + " on the card (weights " + bytes_text(need.dense + need.experts) +
                     ", keys and values " + bytes_text(need.keys) + ", workspace " + bytes_text(need.workspace) +
                     ", reserve " + bytes_text(need.reserve) + "), of which " + bytes_text(free) + " are free";
  const uint64_t others = need.total() - need.experts, room = free > others ? free - others : 0;
  if (room < need.experts) text += "; " + bytes_text(need.experts - room) + " of experts would stay in host memory";
  return text;
}

Result<std::unique_ptr<ModelOnDevice>> load_on_device(const cpu::Model& model, Stored key_type, uint64_t room,
                                                      Stream& stream, Task* task) {
  auto out = std::make_unique<ModelOnDevice>();
  out->key_type = key_type;
  Uploader upload(*out, stream, room);
  Builder builder(*out, upload);
  SY_CHECK(builder.head(model));
  for (size_t layer = 0; layer < model.layers.size(); ++layer)
    for (const cpu::Sublayer& sublayer : model.layers[layer].sublayers)
      SY_CHECK(builder.sublayer(sublayer, int(layer)));
  size_t at = 0;
  for (size_t layer = 0; layer < model.layers.size(); ++layer) {
    if (task && task->cancelled()) return fail(ErrorCode::kCancelled, "loading onto the device was stopped.");
    if (task) task->report(double(layer) / double(model.layers.size()), "Copying weights to the device");
    for (const cpu::Sublayer& sublayer : model.layers[layer].sublayers) {
      SublayerOnDevice& own = out->sublayers[at++];
      if (auto* ffn = std::get_if<FeedForwardOnDevice>(&own.op))
        SY_CHECK(builder.experts(std::get<cpu::FeedForward>(sublayer.op), *ffn));
    }
  }
  for (const SublayerOnDevice& sublayer : out->sublayers)
    if (const auto* ffn = std::get_if<FeedForwardOnDevice>(&sublayer.op); ffn && ffn->row >= 0)
      out->rows.push_back(ffn);
  SY_CHECK(upload.finish());
  return out;
}

}  // namespace switchyard::cuda
