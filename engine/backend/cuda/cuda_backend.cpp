// See cuda_backend.h.
#include "engine/backend/cuda/cuda_backend.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "engine/backend/cuda/executor.h"
#include "engine/backend/request.h"
#include "engine/base/text.h"
#include "engine/routing/block.h"

namespace switchyard::cuda {
namespace {

constexpr int kPieceTokens = 512, kRingTokens = 1024;
constexpr size_t kPieceBytes = size_t(256) << 20;  // of activations by slot

class OnDeviceBackend final : public CudaBackend {
 public:
  OnDeviceBackend(const ModelPlan& plan, DeviceInfo device, Stream stream, std::unique_ptr<ModelOnDevice> model)
      : plan_(plan),
        device_(std::move(device)),
        stream_(stream),
        model_(std::move(model)),
        pool_(std::make_shared<BlockPool>(std::max<size_t>(1, model_->block_bytes))) {}
  ~OnDeviceBackend() override {
    ring_.reset();
    close_stream(stream_);
  }
  // The executor launches on the backend's stream.
  Result<void> start(int positions) {
    positions_ = positions;
    SY_TRY(executor_, Executor::make(*model_, stream_, positions));
    return {};
  }

  BackendInfo info() const override {
    std::string detail = device_.name + ", keys and values " + (model_->key_type == Stored::kF32 ? "f32" : "bf16");
    if (model_->host_bytes > 0) detail += ", " + bytes_text(model_->host_bytes) + " of experts in host memory";
    return {"cuda", detail, ""};
  }
  std::unique_ptr<KvCache> new_cache(int capacity) const override {
    return std::make_unique<DeviceCache>(pool_, std::min(capacity, positions_));
  }
  void set_threads(int) override {}
  std::pair<uint64_t, uint64_t> weight_bytes() const override { return {model_->device_bytes, model_->host_bytes}; }

  Result<void> forward(const ForwardRequest& request) override {
    SY_CHECK(ready());
    SY_CHECK(check_request(plan_, request));
    SY_CHECK(check_here(request));
    SY_TRY(DeviceCache* const cache, own(*request.cache));
    const int length = cache->length();
    Result<void> done = run_pieces(request, *cache);
    if (!done) give_up(done.error(), *cache, length);
    return done;
  }

  Result<std::vector<TokenId>> decode(KvCache& any, const Recipe& recipe, TokenId token, int count,
                                      const Sampler& sampler, uint32_t sequence,
                                      std::span<RoutingFrame> frames) override {
    SY_CHECK(ready());
    SY_CHECK(check_request(plan_, {.tokens = {&token, 1}, .cache = &any, .recipe = &recipe, .rows = LogitRows::kNone}));
    SY_TRY(DeviceCache* const cache, own(any));
    const int length = cache->length();
    auto chosen = run_ahead(*cache, recipe, token, count, sampler, sequence, frames);
    if (!chosen) give_up(chosen.error(), *cache, length);
    return chosen;
  }

 private:
  Result<void> ready() const { return dead_.what.empty() ? Result<void>() : tl::unexpected(dead_); }

  // A device's error ends its context: every later call fails with it, while the program goes on.
  void give_up(const Error& error, DeviceCache& cache, int length) {
    if (ring_) ring_->abandon();
    cache.truncate(length);
    if (error.code == ErrorCode::kDevice) dead_ = error;
  }

  Result<DeviceCache*> own(KvCache& cache) const {
    auto* const found = dynamic_cast<DeviceCache*>(&cache);
    if (!found || found->pool() != pool_.get())
      return fail(ErrorCode::kInternal, "the cache belongs to another backend.");
    return found;
  }

  // What other backends do and this one does not.
  Result<void> check_here(const ForwardRequest& request) const {
    const auto refuse = [](const std::string& what) {
      return fail(ErrorCode::kUsage, "the cuda backend lacks " + what + ".", {}, "Use --backend cpu.");
    };
    const Recipe& recipe = *request.recipe;
    if (!recipe.adapters.empty()) return refuse("adapters");
    if (!recipe.path.native()) return refuse("layer paths");
    if (request.tap || request.units) return refuse("taps of inputs and hidden units");
    if (!request.hidden.empty() || request.first_layer != 0 || end_layer(plan_, request) != int(plan_.layers.size()))
      return refuse("parts of a model");
    if (!request.experts_off.empty()) return refuse("layers whose experts are off");
    for (const RoutingFrame& frame : request.frames)
      if ((frame.header().taps & (Taps::kOutNorm | Taps::kBlockCos)) != 0) return refuse("measurements of outputs");
    for (size_t row = 0; row < plan_.rows.size(); ++row) {
      const LayerRecipe* layer = recipe.layer(int(row));
      if (!layer) continue;
      if (std::string missing = missing_in_table(*layer); !missing.empty())
        return refuse(missing + " (" + plan_.row_name(int(row)) + ")");
      if (batch_coupled(layer->scheme) && request.tokens.size() > 1)
        return refuse("prompts under the scheme " + describe(layer->scheme.choice) +
                      ", which decides for many tokens together");
    }
    return {};
  }

  Result<void> run_pieces(const ForwardRequest& request, DeviceCache& cache) {
    StepShape shape;
    SY_CHECK(apply(*request.recipe, shape));
    SY_CHECK(shape_ring(request.frames, *request.recipe, shape));
    const size_t total = request.tokens.size(), vocab = size_t(plan_.vocab), piece = piece_tokens(shape);
    for (size_t first = 0; first < total; first += piece) {
      if (request.task && request.task->cancelled())
        return fail(ErrorCode::kCancelled, "stopped before token " + std::to_string(first) + ".");
      const size_t count = std::min(piece, total - first);
      shape.tokens = int(count);
      shape.all_logits = request.rows == LogitRows::kAll && count > 1;
      shape.logits = request.rows == LogitRows::kAll || (request.rows == LogitRows::kLast && first + count == total);
      SY_CHECK(cache.extend(stream_, int(count)));
      uint64_t record = 0;
      if (shape.ring.records) {
        record = ring_->next();
        ring_->expect(request.frames.subspan(first, count));
      }
      SY_CHECK(executor_->step(shape, request.tokens.subspan(first, count), cache, request.stream, record,
                               shape.ring.records ? ring_->done_word() : nullptr));
      if (shape.logits) {
        const size_t rows = shape.all_logits ? count : 1;
        float* const out = request.logits.data() + (request.rows == LogitRows::kAll ? first * vocab : 0);
        SY_CHECK(copy(stream_, out, executor_->logits(), rows * vocab * sizeof(float), "logits"));
      }
      SY_CHECK(wait(stream_, "tokens " + std::to_string(cache.length()) + " to " +
                                 std::to_string(cache.length() + int(count) - 1)));
      if (shape.ring.records) SY_CHECK(ring_->finish());
      cache.append(int(count));
    }
    return {};
  }

  Result<std::vector<TokenId>> run_ahead(DeviceCache& cache, const Recipe& recipe, TokenId token, int count,
                                         const Sampler& sampler, uint32_t sequence, std::span<RoutingFrame> frames) {
    StepShape shape;
    SY_CHECK(apply(recipe, shape));
    SY_CHECK(shape_ring(frames, recipe, shape));
    shape.picks = true;
    executor_->set_sampler(sampler);
    const int begin = cache.length();
    SY_CHECK(cache.extend(stream_, count));
    for (int done = 0; done < count;) {
      const int part = shape.ring.records ? std::min(count - done, ring_->tokens()) : count - done;
      uint64_t* word = nullptr;
      uint64_t record = 0;
      if (shape.ring.records) {
        record = ring_->next(), word = ring_->done_word();
        ring_->expect(frames.subspan(size_t(done), size_t(part)));
      }
      if (done == 0) {
        SY_CHECK(executor_->step(shape, {&token, 1}, cache, sequence, record, word));
        SY_CHECK(executor_->run_on(shape, part - 1, word));
      } else {
        SY_CHECK(executor_->run_on(shape, part, word));
      }
      SY_CHECK(wait(stream_, "tokens from " + std::to_string(begin + done)));
      if (shape.ring.records) SY_CHECK(ring_->finish());
      done += part;
    }
    std::vector<TokenId> out(static_cast<size_t>(count));
    SY_CHECK(copy(stream_, out.data(), executor_->chosen() + begin + 1, out.size() * sizeof(TokenId), "chosen tokens"));
    SY_CHECK(wait(stream_, "chosen tokens"));
    cache.append(count);
    return out;
  }

  // Brings the recipe's tables to the device, in the stream before the step that follows.
  Result<void> apply(const Recipe& recipe, StepShape& shape) {
    GatePage page;
    for (size_t row = 0; row < model_->rows.size(); ++row)
      page.add(model_->rows[row]->gate, recipe.layer(int(row)), recipe.epoch);
    for (const GateTable& table : page.tables()) {
      shape.slots = std::max(shape.slots, int(table.slots));
      shape.width = std::max(shape.width, int(table.experts) + table.nulls);
    }
    if (page.tables().empty()) return {};
    turn_ = 1 - turn_;
    Side& side = sides_[turn_];
    if (side.arrays.bytes() < page.arrays().size()) {
      SY_TRY(side.arrays, Buffer::make(page.arrays().size(), Place::kDevice, "arrays of a recipe"));
      SY_TRY(side.host_arrays, Buffer::make(page.arrays().size(), Place::kPinned, "arrays of a recipe"));
    }
    const size_t bytes = page.tables().size() * sizeof(GateTable);
    if (!side.page.bytes()) {
      SY_TRY(side.page, Buffer::make(bytes, Place::kPinned, "recipe tables"));
    }
    if (!page.arrays().empty()) {
      std::memcpy(side.host_arrays.as<>(), page.arrays().data(), page.arrays().size());
      SY_CHECK(copy(stream_, side.arrays.as<>(), side.host_arrays.as<>(), page.arrays().size(), "arrays of a recipe"));
    }
    page.place(side.arrays.as<>());
    std::memcpy(side.page.as<>(), page.tables().data(), bytes);
    SY_CHECK(copy(stream_, executor_->tables(), side.page.as<>(), bytes, "recipe tables"));
    return place_experts(recipe);
  }

  // What stands in the experts' places: other pointers for swaps and clones, masks for units that are off.
  Result<void> place_experts(const Recipe& recipe) {
    placed_.resize(model_->rows.size());
    for (size_t row = 0; row < model_->rows.size(); ++row) {
      const FeedForwardOnDevice& layer = *model_->rows[row];
      const LayerRecipe* edits = recipe.layer(int(row));
      std::vector<ExpertMix> mixes = edits ? edits->mixes : std::vector<ExpertMix>();
      std::vector<std::vector<int>> masks = edits ? edits->unit_masks : std::vector<std::vector<int>>();
      Placed& placed = placed_[row];
      if (placed.mixes == mixes && placed.masks == masks) continue;
      const auto width = size_t(layer.form.width);
      std::vector<Expert> table = layer.own;
      for (size_t e = 0; e < table.size(); ++e)
        if (edits && !edits->mix(e).empty()) table[e] = layer.own[edits->mix(e)[0].expert];
      std::vector<uint8_t> off;
      for (size_t e = 0; e < table.size(); ++e) {
        if (!edits || edits->unit_mask(e).empty()) continue;
        off.resize(off.size() + width);
        for (const int unit : edits->unit_mask(e)) off[off.size() - width + size_t(unit)] = 1;
      }
      if (!off.empty()) {
        SY_TRY(Buffer there, Buffer::make(off.size(), Place::kDevice, "masks of hidden units"));
        SY_CHECK(copy(stream_, there.as<>(), off.data(), off.size(), "masks of hidden units"));
        size_t at = 0;
        for (size_t e = 0; e < table.size(); ++e)
          if (edits && !edits->unit_mask(e).empty())
            table[e].units_off = there.as<uint8_t>() + std::exchange(at, at + width);
        SY_CHECK(wait(stream_, "masks of hidden units"));
        placed.units_off = std::move(there);
      }
      SY_CHECK(copy(stream_, layer.experts, table.data(), table.size() * sizeof(Expert), "the table of experts"));
      SY_CHECK(wait(stream_, "the table of experts"));
      placed.mixes = std::move(mixes), placed.masks = std::move(masks);
    }
    return {};
  }

  Result<void> shape_ring(std::span<RoutingFrame> frames, const Recipe&, StepShape& shape) {
    CaptureLevel level = CaptureLevel::kOff;
    for (const RoutingFrame& frame : frames) level = std::max(level, frame.header().capture);
    if (level == CaptureLevel::kOff || model_->rows.empty()) return {};
    std::vector<int> experts;
    for (const FeedForwardOnDevice* row : model_->rows) experts.push_back(row->gate.spec.experts);
    const RecordLayout layout =
        record_layout(int(experts.size()), *std::max_element(experts.begin(), experts.end()), shape.slots, level);
    if (!ring_ || ring_->layout().row_bytes != layout.row_bytes || ring_->layout().logits != layout.logits ||
        ring_->layout().slots < shape.slots) {
      ring_.reset();
      SY_TRY(ring_, CaptureRing::make(device_, kRingTokens, layout, std::move(experts)));
    }
    shape.ring = ring_->place();
    return {};
  }

  size_t piece_tokens(const StepShape& shape) const {
    size_t widest = size_t(plan_.hidden);
    for (const FeedForwardOnDevice* row : model_->rows) widest = std::max(widest, size_t(row->width()));
    const size_t by_slots = kPieceBytes / (2 * widest * sizeof(float) * size_t(std::max(1, shape.slots)));
    // Batch-coupled schemes count from a piece's first token, in blocks; so do random choices by step.
    return std::clamp<size_t>(by_slots / kBlockTokens * kBlockTokens, kBlockTokens, kPieceTokens);
  }

  struct Side {  // one of two, so that a page is not written while it is copied
    Buffer page, arrays, host_arrays;
  };
  struct Placed {
    std::vector<ExpertMix> mixes;
    std::vector<std::vector<int>> masks;
    Buffer units_off;
  };

  const ModelPlan plan_;
  DeviceInfo device_;
  Stream stream_;
  std::unique_ptr<ModelOnDevice> model_;
  std::unique_ptr<Executor> executor_;
  int positions_ = 0;  // of a cache at most
  std::shared_ptr<BlockPool> pool_;
  std::unique_ptr<CaptureRing> ring_;
  Side sides_[2];
  int turn_ = 0;
  std::vector<Placed> placed_;
  Error dead_;
};

}  // namespace

Result<CudaOptions> options_from_environment(const ModelPlan& plan) {
  CudaOptions out;
  out.keys = plan.dtype == DType::kF32 ? Stored::kF32 : Stored::kBF16;
  const char* const chosen = std::getenv("SWITCHYARD_CUDA_KV");
  if (!chosen || !*chosen) return out;
  if (std::strcmp(chosen, "f32") == 0)
    out.keys = Stored::kF32;
  else if (std::strcmp(chosen, "bf16") == 0)
    out.keys = Stored::kBF16;
  else
    return fail(ErrorCode::kUsage, "is " + quote(chosen) + ", needed f32 or bf16.", "SWITCHYARD_CUDA_KV");
  return out;
}

Result<std::unique_ptr<CudaBackend>> make_backend_on_device(const ModelPlan& plan,
                                                            std::shared_ptr<const WeightStore> weights,
                                                            const BackendOptions& options, const CudaOptions& how,
                                                            Task* task) {
  if (const std::string missing = missing_on_cuda(plan); !missing.empty())
    return fail(ErrorCode::kUsage, "the cuda backend lacks " + missing + ".", {}, "Use --backend cpu, or reference.");
  if (std::ranges::any_of(options.passes, [](uint8_t passes) { return passes != 1; }))
    return fail(ErrorCode::kUsage, "the cuda backend lacks layer paths.", {}, "Use --backend cpu.");
  try {
    SY_TRY(DeviceInfo device, open_device());
    const int context = options.context > 0 ? std::min(options.context, plan.context) : plan.context;
    const CardEstimate need = estimate_card(plan, context, device.memory);
    const uint64_t others = need.total() - need.experts;
    if (others > device.free)
      return fail(ErrorCode::kMemory, "needs " + card_text(need, device.free) + ".", device.name,
                  "Use a shorter context, or --backend cpu.");
    const uint64_t room = how.room > 0 ? how.room : device.free - (others - need.dense);
    SY_TRY(Stream stream, make_stream(device));
    SY_TRY(const cpu::Model model, cpu::load_model(plan, *weights, task));
    SY_TRY(auto on_device, load_on_device(model, how.keys, room, stream, task));
    SY_CHECK(weights->check_unchanged());
    auto out = std::make_unique<OnDeviceBackend>(plan, std::move(device), stream, std::move(on_device));
    SY_CHECK(out->start(std::max(plan.context, options.context)));
    return out;
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kMemory, "there is not enough host memory for the weights of this model.", {},
                "Close other programs or open a smaller model.");
  }
}

}  // namespace switchyard::cuda
