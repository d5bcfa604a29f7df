// The judge: any plan in LibTorch, fp32. This file is the module's entry and the loop over the layers.
// forward() runs on the engine thread; ATen's own threads work inside.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/linear.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <new>
#include <string>
#include <thread>

#include "engine/backend/reference/entry.h"
#include "engine/backend/reference/layers.h"
#include "engine/backend/reference/tensors.h"
#include "engine/backend/request.h"
#include "engine/routing/decision.h"

namespace switchyard::reference {
namespace {

constexpr int64_t kLogitChunk = 256;  // rows of the head at a time

// Exceptions of LibTorch and of allocation end here.
template <class Work>
auto guarded(Work&& work) -> decltype(work()) {
  try {
    return work();
  } catch (const c10::Error& error) {
    const std::string what = error.what_without_backtrace();
    if (what.find("allocate memory") != std::string::npos) {
      return fail(ErrorCode::kMemory, "not enough memory: " + what, {}, "Use a smaller context or the cpu backend.");
    }
    return fail(ErrorCode::kInternal, "LibTorch: " + what);
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kMemory, "not enough memory.", {}, "Use a smaller context or the cpu backend.");
  } catch (const std::exception& error) {
    return fail(ErrorCode::kInternal, error.what());
  }
}

// Grows on demand, so that a large context costs nothing until it is used.
class ReferenceCache final : public KvCache {
 public:
  ReferenceCache(const ModelPlan& plan, int capacity)
      : plan_(&plan), capacity_(capacity), layers_(plan.layers.size()) {}

  int length() const override { return length_; }
  int capacity() const override { return capacity_; }
  void truncate(int length) override { length_ = std::clamp(length, 0, length_); }

  // nullptr: not enough memory.
  std::unique_ptr<KvCache> clone() const override {
    try {
      const c10::InferenceMode mode;
      auto copy = std::make_unique<ReferenceCache>(*this);
      for (KvLayer& layer : copy->layers_) {
        if (!layer.k.defined()) continue;
        layer = {layer.k.narrow(1, 0, length_).clone(at::MemoryFormat::Contiguous),
                 layer.v.narrow(1, 0, length_).clone(at::MemoryFormat::Contiguous)};
      }
      copy->room_ = room_ > 0 ? length_ : 0;
      return copy;
    } catch (const std::exception&) {
      return nullptr;
    }
  }

  uint64_t bytes() const override {
    uint64_t total = 0;
    for (const KvLayer& layer : layers_) total += layer.k.defined() ? layer.k.nbytes() + layer.v.nbytes() : 0;
    return total;
  }

  // Room for `tokens` in every layer; the filled part is kept.
  void reserve(int tokens) {
    if (tokens <= room_) return;
    const int room = std::min(capacity_, std::max({tokens, 2 * room_, 64}));
    std::vector<KvLayer> grown(layers_.size());
    for (size_t i = 0; i < layers_.size(); ++i) {
      const AttentionSpec& spec = plan_->layers[i].attention;
      grown[i] = {at::empty({spec.kv_heads, room, spec.head_dim}), at::empty({spec.kv_heads, room, spec.head_dim})};
      if (length_ == 0) continue;
      grown[i].k.narrow(1, 0, length_).copy_(layers_[i].k.narrow(1, 0, length_));
      grown[i].v.narrow(1, 0, length_).copy_(layers_[i].v.narrow(1, 0, length_));
    }
    layers_ = std::move(grown);
    room_ = room;
  }

  bool is_of(const ModelPlan& plan) const { return plan_ == &plan; }
  KvLayer& layer(size_t index) { return layers_[index]; }
  void advance(int tokens) { length_ += tokens; }

 private:
  const ModelPlan* plan_;
  int length_ = 0, capacity_ = 0, room_ = 0;
  std::vector<KvLayer> layers_;
};

class ReferenceBackend final : public Backend {
 public:
  ReferenceBackend(ModelPlan plan, ModelTensors tensors, int threads)
      : plan_(std::move(plan)), tensors_(std::move(tensors)) {
    set_threads(threads);
  }

  BackendInfo info() const override {
    const int threads = threads_;
    return {"reference", "LibTorch fp32, " + std::to_string(threads) + (threads == 1 ? " thread" : " threads"), {}};
  }

  std::unique_ptr<KvCache> new_cache(int capacity) const override {
    return std::make_unique<ReferenceCache>(plan_, capacity);
  }

  void set_threads(int threads) override {
    threads_ = threads > 0 ? threads : std::max(1, int(std::thread::hardware_concurrency()));
  }

  Result<void> forward(const ForwardRequest& request) override {
    SY_CHECK(check_request(plan_, request));
    auto* cache = dynamic_cast<ReferenceCache*>(request.cache);
    if (!cache || !cache->is_of(plan_)) return fail(ErrorCode::kInternal, "the cache belongs to another backend.");
    return guarded([&]() -> Result<void> { return run(request, *cache); });
  }

 private:
  Result<void> run(const ForwardRequest& request, ReferenceCache& cache) {
    const c10::InferenceMode mode;
    at::set_num_threads(threads_);
    const auto tokens = int64_t(request.tokens.size());
    const int64_t past = cache.length();
    cache.reserve(int(past + tokens));

    const at::Tensor ids =
        at::from_blob(const_cast<TokenId*>(request.tokens.data()), {tokens}, at::TensorOptions().dtype(at::kInt));
    at::Tensor x = tensors_.embedding.index_select(0, ids);
    int moe_layer = 0;
    for (size_t i = 0; i < plan_.layers.size(); ++i) {
      if (request.task && request.task->cancelled()) {
        return fail(ErrorCode::kCancelled, "stopped before layer " + std::to_string(i) + ".");
      }
      const LayerPlan& spec = plan_.layers[i];
      const LayerTensors& weights = tensors_.layers[i];
      x = x + attention(spec.attention, weights.attention, norm(spec.attention_norm, weights.attention_norm, x),
                        cache.layer(i), past);
      const at::Tensor in = norm(spec.ffn_norm, weights.ffn_norm, x);
      if (const MoeSpec* experts = spec.moe()) {
        x = x + moe(*experts, std::get<MoeTensors>(weights.ffn), in, moe_layer, request.recipe->layer(moe_layer),
                    request.frames);
        ++moe_layer;
      } else {
        x = x + glu(std::get<GluSpec>(spec.ffn).activation, std::get<GluTensors>(weights.ffn), in);
      }
    }
    write_logits(request, x);
    cache.advance(int(tokens));
    return {};
  }

  void write_logits(const ForwardRequest& request, const at::Tensor& x) const {
    if (request.rows == LogitRows::kNone) return;
    const int64_t end = x.size(0), begin = request.rows == LogitRows::kLast ? end - 1 : 0;
    float* out = request.logits.data();
    for (int64_t from = begin; from < end; from += kLogitChunk) {
      const at::Tensor rows =
          norm(plan_.final_norm, tensors_.final_norm, x.narrow(0, from, std::min(kLogitChunk, end - from)));
      const at::Tensor logits = at::linear(rows, tensors_.lm_head).contiguous();
      std::memcpy(out, logits.const_data_ptr<float>(), logits.nbytes());
      out += logits.numel();
    }
  }

  const ModelPlan plan_;
  const ModelTensors tensors_;
  std::atomic<int> threads_{1};
};

}  // namespace

extern "C" [[gnu::visibility("default")]] uint64_t switchyard_reference_open(ReferenceOpen* open) {
  if (open->layout != kReferenceLayout) return kReferenceLayout;
  open->backend = guarded([&]() -> Result<std::unique_ptr<Backend>> {
    for (const int layer : open->plan->moe_layers) {
      const std::string missing = unroutable(open->plan->layers[layer].moe()->router);
      if (!missing.empty())
        return fail(ErrorCode::kUsage, "no backend runs " + missing + ".", "layer " + std::to_string(layer));
    }
    const c10::InferenceMode mode;
    SY_TRY(ModelTensors tensors, load_tensors(*open->plan, *open->weights, open->task));
    return std::make_unique<ReferenceBackend>(*open->plan, std::move(tensors), open->options.threads);
  });
  return kReferenceLayout;
}

}  // namespace switchyard::reference
