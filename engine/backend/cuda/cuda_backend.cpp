// See cuda_backend.h.
#include "engine/backend/cuda/cuda_backend.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <new>

#include "engine/backend/cuda/executor.h"
#include "engine/backend/cuda/host_walk.h"
#include "engine/backend/cuda/placed_experts.h"
#include "engine/backend/cuda/way.h"
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
        pool_(std::make_shared<BlockPool>(key_layout(*model_, {}))) {}
  ~OnDeviceBackend() override {
    ring_.reset();
    close_stream(stream_);
  }
  // The executor launches on the backend's stream.
  Result<void> start(int positions) {
    positions_ = positions;
    SY_TRY(executor_, Executor::make(*model_, stream_, positions));
    host_ = std::make_unique<HostWalk>(*model_, *executor_, stream_);
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
    follow_path(*request.recipe, *cache);
    Result<void> done = with_memory([&] { return run_pieces(request, *cache); });
    if (!done) give_up(done.error(), *cache, length);
    if (done) flag_partial(plan_, request);
    return done;
  }

  Result<std::vector<TokenId>> decode(KvCache& any, const Recipe& recipe, TokenId token, int count,
                                      const Sampler& sampler, uint32_t sequence,
                                      std::span<RoutingFrame> frames) override {
    SY_CHECK(ready());
    const ForwardRequest request{
        .tokens = {&token, 1}, .cache = &any, .recipe = &recipe, .stream = sequence, .rows = LogitRows::kNone};
    SY_CHECK(check_request(plan_, request));
    SY_CHECK(check_here(request));
    SY_TRY(DeviceCache* const cache, own(any));
    const int length = cache->length();
    follow_path(recipe, *cache);
    auto chosen = with_memory([&] { return run_ahead(request, *cache, count, sampler, frames); });
    if (!chosen) give_up(chosen.error(), *cache, length);
    return chosen;
  }

 private:
  Result<void> ready() const { return dead_.what.empty() ? Result<void>() : tl::unexpected(dead_); }

  // What the host does in a step takes memory of its own.
  template <class Run>
  static auto with_memory(const Run& run) -> decltype(run()) {
    try {
      return run();
    } catch (const std::bad_alloc&) {
      return fail(ErrorCode::kMemory, "there is not enough host memory for these tokens.", {},
                  "Close other programs or use a shorter prompt.");
    }
  }

  // A device's error ends its context: every later call fails with it, while the program goes on.
  void give_up(const Error& error, DeviceCache& cache, int length) {
    if (ring_) ring_->abandon();
    cache.truncate(length);
    if (error.code == ErrorCode::kDevice) dead_ = error;
  }

  Result<DeviceCache*> own(KvCache& cache) const {
    auto* const found = dynamic_cast<DeviceCache*>(&cache);
    if (!found || found->native() != pool_.get())
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
    for (size_t row = 0; row < plan_.rows.size(); ++row)
      if (const LayerRecipe* layer = recipe.layer(int(row)))
        if (std::ranges::any_of(layer->others, [](const OtherExpert& other) { return bool(other); }))
          return refuse("experts of another kind (" + plan_.row_name(int(row)) + ")");
    return {};
  }

  // The layer path of a sequence is that of its first tokens.
  void follow_path(const Recipe& recipe, DeviceCache& cache) {
    if (cache.length() > 0 || std::ranges::equal(cache.path(), recipe.path.passes)) return;
    if (recipe.path.passes.empty()) return cache.lay_out(pool_);
    std::shared_ptr<BlockPool> pool = pools_[recipe.path.passes].lock();
    if (!pool) pools_[recipe.path.passes] = pool = std::make_shared<BlockPool>(key_layout(*model_, recipe.path.passes));
    cache.lay_out(std::move(pool));
  }

  Result<void> run_pieces(const ForwardRequest& request, DeviceCache& cache) {
    StepShape shape;
    SY_CHECK(apply(request, shape));
    Way way = way_of(*model_, request, end_layer(plan_, request), cache.layout());
    shape.way = std::move(way.visits);
    shape.embeds = request.first_layer == 0;
    SY_CHECK(shape_ring(request.frames, shape));
    const size_t total = request.tokens.size(), vocab = size_t(plan_.vocab), hidden = size_t(plan_.hidden),
                 piece = piece_tokens(shape);
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
        ring_->expect(request.frames.subspan(first, count), way.unwritten);
      }
      if (!shape.way.empty()) host_->begin(task_of(request, cache, first, count));
      if (!shape.embeds) {
        SY_CHECK(executor_->prepare(shape));
        SY_CHECK(copy(stream_, executor_->hidden(), request.hidden.data() + first * hidden,
                      count * hidden * sizeof(float), "hidden states"));
      }
      SY_CHECK(executor_->step(shape, request.tokens.subspan(first, count), cache, request.stream, record,
                               shape.ring.records ? ring_->done_word() : nullptr, host_.get()));
      if (!request.hidden.empty())
        SY_CHECK(copy(stream_, request.hidden.data() + first * hidden, executor_->hidden(),
                      count * hidden * sizeof(float), "hidden states"));
      if (shape.logits) {
        const size_t rows = shape.all_logits ? count : 1;
        float* const out = request.logits.data() + (request.rows == LogitRows::kAll ? first * vocab : 0);
        SY_CHECK(copy(stream_, out, executor_->logits(), rows * vocab * sizeof(float), "logits"));
      }
      SY_CHECK(wait(stream_, "tokens " + std::to_string(cache.length()) + " to " +
                                 std::to_string(cache.length() + int(count) - 1)));
      if (shape.ring.records) SY_CHECK(ring_->finish());
      if (!shape.way.empty())
        host_->finish(request.frames.empty() ? request.frames : request.frames.subspan(first, count));
      cache.append(int(count));
    }
    return {};
  }

  HostTask task_of(const ForwardRequest& request, DeviceCache& cache, size_t first, size_t count) const {
    constexpr uint8_t kMeasured = Taps::kOutNorm | Taps::kBlockCos;
    return {.tokens = request.tokens.subspan(first, count),
            .first = first,
            .cache = &cache,
            .recipe = request.recipe,
            .sequence = request.stream,
            .tap = request.tap,
            .units = request.units,
            .taps = request.frames.empty() ? uint8_t(0) : uint8_t(request.frames[0].header().taps & kMeasured),
            .records = !request.frames.empty(),
            .together = request.tokens.size() > 1};
  }

  Result<std::vector<TokenId>> run_ahead(const ForwardRequest& request, DeviceCache& cache, int count,
                                         const Sampler& sampler, std::span<RoutingFrame> frames) {
    StepShape shape;
    SY_CHECK(apply(request, shape));
    ForwardRequest one = request;
    one.frames = frames;
    const Way way = way_of(*model_, one, end_layer(plan_, request), cache.layout());
    shape.way = way.visits;
    SY_CHECK(shape_ring(frames, shape));
    shape.picks = true;
    executor_->set_sampler(sampler);
    if (!shape.way.empty()) return step_ahead(one, cache, count, shape, way);
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
        SY_CHECK(executor_->step(shape, request.tokens, cache, request.stream, record, word));
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

  // Where the host takes part: a token at a time.
  Result<std::vector<TokenId>> step_ahead(const ForwardRequest& request, DeviceCache& cache, int count,
                                          const StepShape& shape, const Way& way) {
    std::vector<TokenId> out;
    TokenId token = request.tokens[0];
    ForwardRequest one = request;
    for (int done = 0; done < count; ++done) {
      one.tokens = {&token, 1};
      if (!request.frames.empty()) one.frames = request.frames.subspan(size_t(done), 1);
      SY_CHECK(cache.extend(stream_, 1));
      const bool records = shape.ring.records != nullptr;
      const uint64_t record = records ? ring_->next() : 0;
      if (records) ring_->expect(one.frames, way.unwritten);
      host_->begin(task_of(one, cache, 0, 1));
      SY_CHECK(executor_->step(shape, one.tokens, cache, request.stream, record, records ? ring_->done_word() : nullptr,
                               host_.get()));
      TokenId next = 0;
      SY_CHECK(copy(stream_, &next, executor_->chosen() + cache.length() + 1, sizeof(next), "the chosen token"));
      SY_CHECK(wait(stream_, "the chosen token"));
      if (records) SY_CHECK(ring_->finish());
      host_->finish(one.frames);
      cache.append(1);
      out.push_back(token = next);
    }
    return out;
  }

  // Brings the recipe's tables to the device, in the stream before the step that follows.
  Result<void> apply(const ForwardRequest& request, StepShape& shape) {
    const Recipe& recipe = *request.recipe;
    GatePage page;
    for (size_t row = 0; row < model_->rows.size(); ++row) {
      const LayerRecipe* const layer = recipe.layer(int(row));
      const int passes = recipe.passes_of(plan_.moe_layers[row]);
      const bool on_host = host_decides(recipe, int(row), request.tokens.size(), passes);
      LayerRecipe own;  // where the host or a plugin's code decides, this one is what stands in
      own.k = layer ? layer->k : 0;
      page.add(model_->rows[row]->gate, on_host ? &own : layer, recipe.epoch);
      shape.slots = std::max(shape.slots, slots_needed(model_->rows[row]->gate.spec, layer));
    }
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
    return placed_.place(*model_, stream_, recipe);
  }

  Result<void> shape_ring(std::span<RoutingFrame> frames, StepShape& shape) {
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

  const ModelPlan plan_;
  DeviceInfo device_;
  Stream stream_;
  std::unique_ptr<ModelOnDevice> model_;
  std::unique_ptr<Executor> executor_;
  int positions_ = 0;  // of a cache at most
  std::unique_ptr<HostWalk> host_;
  std::shared_ptr<BlockPool> pool_;                                 // of one pass through every layer
  std::map<std::vector<uint8_t>, std::weak_ptr<BlockPool>> pools_;  // of other paths
  std::unique_ptr<CaptureRing> ring_;
  Side sides_[2];
  int turn_ = 0;
  PlacedExperts placed_;
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
  try {
    SY_TRY(DeviceInfo device, open_device());
    const int context = options.context > 0 ? std::min(options.context, plan.context) : plan.context;
    const CardEstimate need = estimate_card(plan, context, device.memory, options.passes);
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
