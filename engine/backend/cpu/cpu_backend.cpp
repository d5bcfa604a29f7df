// The backend "cpu": own kernels on the mapped weights, no LibTorch, no OpenMP.
// make_cpu_backend() runs on the opening thread, forward() on the engine thread.
#include <algorithm>
#include <new>

#include "engine/backend/backend.h"
#include "engine/backend/cpu/executor.h"
#include "engine/backend/cpu/isa.h"
#include "engine/backend/request.h"

namespace switchyard {
namespace cpu {
namespace {

class CpuBackend final : public Backend {
 public:
  CpuBackend(const ModelPlan& plan, Model model, std::shared_ptr<const WeightStore> weights, Isa isa, int threads)
      : plan_(plan),
        weights_(std::move(weights)),
        model_(std::move(model)),
        isa_(isa),
        threads_(threads),
        pool_(threads),
        layout_(std::make_shared<KvLayout>(model_.caches)),
        executor_(model_, kernels(isa), pool_) {}

  BackendInfo info() const override {
    const int threads = threads_ > 0 ? threads_ : available_cores();
    return {"cpu", std::string(name(isa_)) + ", " + std::to_string(threads) + (threads == 1 ? " thread" : " threads"),
            ""};
  }

  std::unique_ptr<KvCache> new_cache(int capacity) const override {
    return std::make_unique<BlockCache>(layout_, capacity);
  }

  void set_threads(int threads) override { threads_ = threads; }

  Result<void> forward(const ForwardRequest& request) override {
    SY_CHECK(check_request(plan_, request));
    auto* cache = dynamic_cast<BlockCache*>(request.cache);
    if (!cache || cache->native() != layout_.get())
      return fail(ErrorCode::kInternal, "the cache belongs to another backend.");
    const int length = cache->length();
    Result<void> done;
    try {
      pool_.resize(threads_);
      follow_path(*request.recipe, *cache);
      done = run_chunks(request, *cache);
      if (done) done = weights_->check_unchanged();  // pages that could not be read came back as zeros
    } catch (const std::bad_alloc&) {
      done = fail(ErrorCode::kMemory,
                  "there is not enough memory for " + std::to_string(request.tokens.size()) + " more tokens.", {},
                  "Use a shorter prompt or a smaller model.");
    }
    if (!done) cache->truncate(length);
    if (done) flag_partial(plan_, request);
    return done;
  }

 private:
  void follow_path(const Recipe& recipe, BlockCache& cache) {
    if (cache.length() > 0 || std::ranges::equal(cache.path(), recipe.path.passes)) return;
    std::vector<int> passes(model_.caches.size(), 1);
    for (size_t layer = 0; layer < model_.layers.size(); ++layer)
      for (const Sublayer& sublayer : model_.layers[layer].sublayers)
        if (const KeyShape* keys = sublayer.keys()) passes[size_t(keys->cache)] = recipe.passes_of(int(layer));
    cache.lay_out(recipe.path.passes.empty() ? layout_ : std::make_shared<const KvLayout>(model_.caches, passes), recipe.path.passes);
  }

  Result<void> run_chunks(const ForwardRequest& request, BlockCache& cache) {
    const size_t total = request.tokens.size();
    const int length = cache.length() + static_cast<int>(total);
    std::vector<AdapterRow> adapters;
    if (!request.frames.empty()) adapters = adapter_rows(plan_, *request.recipe);
    for (size_t first = 0; first < total; first += kChunkTokens) {
      const size_t count = std::min<size_t>(kChunkTokens, total - first);
      Chunk chunk{.tokens = request.tokens.subspan(first, count),
                  .cache = &cache,
                  .recipe = request.recipe,
                  .task = request.task,
                  .length = std::max(request.sequence, length),
                  .prompt = static_cast<uint64_t>(request.prompt),
                  .adapter_log = request.adapter_log,
                  .adapter_rows = adapters,
                  .stream = request.stream,
                  .tap = request.tap,
                  .units = request.units,
                  .first = first,
                  .routers = int(plan_.rows.size()),
                  .first_layer = request.first_layer,
                  .end_layer = end_layer(plan_, request),
                  .hidden = request.hidden.empty() ? nullptr : request.hidden.data() + first * size_t(plan_.hidden),
                  .experts_off = request.experts_off};
      if (!request.frames.empty()) chunk.frames = request.frames.subspan(first, count);
      if (request.rows == LogitRows::kAll) {
        chunk.rows = LogitRows::kAll;
        chunk.logits = request.logits.data() + first * plan_.vocab;
      } else if (request.rows == LogitRows::kLast && first + count == total) {
        chunk.rows = LogitRows::kLast;
        chunk.logits = request.logits.data();
      }
      cache.extend(static_cast<int>(count));
      SY_CHECK(executor_.run(chunk));
      cache.append(static_cast<int>(count));
    }
    return {};
  }

  ModelPlan plan_;
  std::shared_ptr<const WeightStore> weights_;  // keeps the mapping that model_ points into
  Model model_;
  Isa isa_;
  int threads_;
  ThreadPool pool_;
  std::shared_ptr<const KvLayout> layout_;
  Executor executor_;
};

}  // namespace
}  // namespace cpu

Result<std::unique_ptr<Backend>> make_cpu_backend(const ModelPlan& plan, std::shared_ptr<const WeightStore> weights,
                                                  const BackendOptions& options, Task* task) {
  if (const std::string missing = cpu::missing_kind(plan); !missing.empty())
    return fail(ErrorCode::kUsage, "the cpu backend lacks " + missing + ".", {}, "Use --backend reference.");
  SY_TRY(const cpu::Isa isa, cpu::choose_isa());
  try {
    SY_TRY(cpu::Model model, cpu::load_model(plan, *weights, task));
    return std::make_unique<cpu::CpuBackend>(plan, std::move(model), std::move(weights), isa, options.threads);
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kMemory, "there is not enough memory for the decoded weights of this model.", {},
                "Close other programs or open a smaller model.");
  }
}

}  // namespace switchyard
