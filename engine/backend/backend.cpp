// The registry: which backend runs a plan, what it will take, and loading the reference module.
// Called by Session::open() and the command line on the opening thread.
#include "engine/backend/backend.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <optional>

#include "engine/backend/cpu/model.h"
#include "engine/backend/differentiable.h"
#include "engine/backend/reference/entry.h"
#include "engine/routing/decision.h"

namespace switchyard {
namespace {

constexpr const char* kReferenceFile = "libswitchyard_reference.so";

// LibTorch computes with OpenMP, whose threads spin while they wait: on shared cores that costs up to
// a hundred times the work itself. Its runtime reads these when the module is loaded; set before main(),
// while there is one thread, and only where the user has not chosen.
[[gnu::constructor]] void let_openmp_threads_sleep() {
  setenv("OMP_WAIT_POLICY", "passive", 0);
  setenv("GOMP_SPINCOUNT", "0", 0);
}

std::vector<std::filesystem::path> reference_candidates() {
  if (const char* chosen = std::getenv("SWITCHYARD_REFERENCE_LIB"); chosen && *chosen) return {chosen};
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
  return {program / kReferenceFile, program.parent_path() / "lib" / kReferenceFile,
          program.parent_path() / "lib" / "switchyard" / kReferenceFile};
}

constexpr const char* kReferenceHint =
    "Build it (packaging/setup.sh, then ninja switchyard_reference), set SWITCHYARD_REFERENCE_LIB to its path, or use "
    "--backend cpu.";

Result<ReferenceEntry> load_reference() {
  std::string tried;
  for (const auto& path : reference_candidates()) {
    tried += (tried.empty() ? "" : ", ") + path.string();
    std::error_code error;
    if (!std::filesystem::exists(path, error)) continue;
    // Never unloaded: LibTorch registers things that outlive any one backend.
    void* module = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!module)
      return fail(ErrorCode::kNotFound, std::string("the reference backend cannot be loaded: ") + dlerror() + ".", path,
                  kReferenceHint);
    auto* entry = reinterpret_cast<ReferenceEntry>(dlsym(module, kReferenceEntry));
    if (!entry)
      return fail(ErrorCode::kNotFound, std::string("has no symbol ") + kReferenceEntry + ".", path, kReferenceHint);
    return entry;
  }
  return fail(ErrorCode::kNotFound, "the reference backend is not there; tried " + tried + ".", kReferenceFile,
              kReferenceHint);
}

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
  SY_TRY(const ReferenceEntry entry, load_reference());
  ReferenceOpen open{.plan = &plan, .weights = std::move(weights), .options = options, .task = task};
  if (entry(&open) != kReferenceLayout) {
    return fail(ErrorCode::kUsage, "the reference module was built from another version of the program.",
                kReferenceFile, kReferenceHint);
  }
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
    SY_CHECK(check_fits(estimate_memory(name, plan, checkpoint, options.context), available_memory(), checkpoint.name));
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
  if (name == "cuda") {
    return fail(ErrorCode::kDevice, "this build has no CUDA backend: its kernels are not written yet.",
                "--backend cuda", "Use --backend auto, cpu or reference.");
  }
  return fail(ErrorCode::kUsage, "there is no backend \"" + std::string(name) + "\".", "--backend",
              "Choose auto, cpu or reference.");
}

}  // namespace switchyard
