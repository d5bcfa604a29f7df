// The registry: which backend runs a plan, what it will take, and loading the reference module.
// Called by Session::open() and the command line on the opening thread.
#include "engine/backend/backend.h"

#include <algorithm>
#include <cstdlib>
#include <optional>

#include "engine/backend/available.h"
#include "engine/backend/cpu/isa.h"
#include "engine/backend/cpu/model.h"
#include "engine/backend/cuda/entry.h"
#include "engine/backend/differentiable.h"
#include "engine/backend/reference/entry.h"
#include "engine/base/module.h"
#include "engine/routing/decision.h"

namespace switchyard {
namespace {

// LibTorch computes with OpenMP, whose threads spin while they wait: on shared cores that costs up to
// a hundred times the work itself. Its runtime reads these when the module is loaded; set before main(),
// while there is one thread, and only where the user has not chosen.
[[gnu::constructor]] void let_openmp_threads_sleep() {
  setenv("OMP_WAIT_POLICY", "passive", 0);
  setenv("GOMP_SPINCOUNT", "0", 0);
}

constexpr ModuleName kReference{.file = "libswitchyard_reference.so", .variable = "SWITCHYARD_REFERENCE_LIB", .symbol = kReferenceEntry,
                                .what = "the reference backend",
                                .hint = "Install the package switchyard-torch (from source: ninja switchyard_reference), set SWITCHYARD_REFERENCE_LIB to its "
                                        "path, or use --backend cpu."};

constexpr ModuleName kCuda{.file = "libswitchyard_cuda.so", .variable = "SWITCHYARD_CUDA_LIB", .symbol = kCudaEntry, .what = "the cuda backend",
                           .hint = "Install the package switchyard-cuda (from source, where there is a CUDA compiler: packaging/setup.sh, then ninja "
                                   "switchyard_cuda), set SWITCHYARD_CUDA_LIB to its path, or use --backend cpu."};

// The backend under a note that says what it stands in for.
class NotedBackend : public Backend {
 public:
  NotedBackend(std::unique_ptr<Backend> backend, std::string note)
      : backend_(std::move(backend)), note_(std::move(note)) {}

  BackendInfo info() const override {
    BackendInfo info = backend_->info();
    info.note = note_;
    return info;
  }
  std::unique_ptr<KvCache> new_cache(int capacity) const override { return backend_->new_cache(capacity); }
  Result<void> forward(const ForwardRequest& request) override { return backend_->forward(request); }
  void set_threads(int threads) override { backend_->set_threads(threads); }

 private:
  std::unique_ptr<Backend> backend_;
  std::string note_;
};

// And where the backend has gradients, they stay in reach.
class NotedDifferentiable final : public NotedBackend, public Differentiable {
 public:
  NotedDifferentiable(std::unique_ptr<Backend> backend, Differentiable& inner, std::string note)
      : NotedBackend(std::move(backend), std::move(note)), inner_(inner) {}
  Result<BiasGradient> bias_gradient(std::span<const TokenId> tokens, const Recipe& recipe, int loss_tokens, const Task* task) override {
    return inner_.bias_gradient(tokens, recipe, loss_tokens, task);
  }
  Result<std::vector<GateTerms>> gate_terms(std::span<const TokenId> tokens, const Recipe& recipe, const Task* task) override {
    return inner_.gate_terms(tokens, recipe, task);
  }

 private:
  Differentiable& inner_;
};

std::unique_ptr<Backend> with_note(std::unique_ptr<Backend> backend, std::string note) {
  if (auto* inner = dynamic_cast<Differentiable*>(backend.get()))
    return std::make_unique<NotedDifferentiable>(std::move(backend), *inner, std::move(note));
  return std::make_unique<NotedBackend>(std::move(backend), std::move(note));
}

}  // namespace

std::string missing_on_cpu(const ModelPlan& plan) {
  return cpu::missing_kind(plan);
}

Result<std::unique_ptr<Backend>> make_reference_backend(const ModelPlan& plan,
                                                        std::shared_ptr<const WeightStore> weights,
                                                        const BackendOptions& options, Task* task) {
  if (task) task->report(-1, "Loading LibTorch");
  SY_TRY(void* const entry, load_module(kReference));
  ReferenceOpen open{.plan = &plan, .weights = std::move(weights), .options = options, .task = task};
  if (reinterpret_cast<ReferenceEntry>(entry)(&open) != kReferenceLayout)
    return fail(ErrorCode::kUsage, "the reference module was built from another version of the program.", kReference.file, kReference.hint);
  return std::move(open.backend);
}

std::vector<BackendState> backend_states() {
  const auto isa = cpu::choose_isa();
  const auto reference = find_module(kReference), cuda = find_module(kCuda);
  return {{"cpu", isa.has_value(), isa ? "own kernels, " + std::string(cpu::name(*isa)) : isa.error().message()},
          {"reference", reference.has_value(), reference ? "LibTorch in fp32, loaded when first used" : reference.error().message()},
          {"cuda", cuda.has_value(), cuda ? "own kernels on an NVIDIA GPU, loaded when first used" : cuda.error().message()}};
}

// Loads libswitchyard_cuda.so (SWITCHYARD_CUDA_LIB, else as the reference module); kDevice where there is none, no driver or no device.
Result<std::unique_ptr<Backend>> make_cuda_backend(const ModelPlan& plan, std::shared_ptr<const WeightStore> weights, const BackendOptions& options,
                                                   Task* task) {
  auto entry = load_module(kCuda);
  if (!entry) return fail(ErrorCode::kDevice, entry.error().what, entry.error().where, entry.error().hint);
  CudaOpen open{.plan = &plan, .weights = std::move(weights), .options = options, .task = task};
  if (reinterpret_cast<CudaEntry>(*entry)(&open) != kCudaLayout)
    return fail(ErrorCode::kUsage, "the cuda module was built from another version of the program.", kCuda.file, kCuda.hint);
  return std::move(open.backend);
}

Result<std::unique_ptr<Backend>> make_backend(std::string_view name, const Checkpoint& checkpoint,
                                              std::shared_ptr<const WeightStore> weights, const BackendOptions& options,
                                              Task* task) {
  const ModelPlan& plan = checkpoint.plan;
  for (int row = 0; row < int(plan.rows.size()); ++row)
    if (const std::string what = unroutable(plan.routed(row).router); !what.empty())
      return fail(ErrorCode::kUsage,
                  "the router of " + plan.row_name(row) + " has " + what + ", which this version does not execute.",
                  checkpoint.name);
  const std::string missing = missing_on_cpu(plan);
  if (name == "auto" || name == "cpu" || name == "reference")
    SY_CHECK(check_fits(estimate_memory(name, plan, checkpoint, options.context, options.passes), available_memory(), checkpoint.name));
  if (name == "reference") return make_reference_backend(plan, std::move(weights), options, task);
  if (name == "cpu" || (name == "auto" && missing.empty())) {
    if (!missing.empty()) {
      return fail(ErrorCode::kUsage, "the cpu backend lacks " + missing + ".", checkpoint.name,
                  "Use --backend reference.");
    }
    return make_cpu_backend(plan, std::move(weights), options, task);
  }
  if (name == "auto") {
    SY_TRY(auto backend, make_reference_backend(plan, std::move(weights), options, task));
    return with_note(std::move(backend), "reference, because the cpu backend lacks " + missing);
  }
  if (name == "cuda") return make_cuda_backend(plan, std::move(weights), options, task);
  return fail(ErrorCode::kUsage, "there is no backend \"" + std::string(name) + "\".", "--backend",
              "Choose auto, cpu, reference or cuda.");
}

}  // namespace switchyard
