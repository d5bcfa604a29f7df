// Decode and prefill of the cpu backend and of llama.cpp on the same tensors, in one process, in turn. Made by
// against_llama_cpp.py, by hand; no test needs it.
//   against_llama_cpp FOLDER ROUNDS NEW_TOKENS THREADS PROMPT…
// FOLDER: what make_olmoe.py wrote. Ids are fixed and the same for both; llama.cpp runs BF16 with flash attention and a
// physical batch of 512. Prints one JSON document: speeds of every round, and how far the logits are apart.
#include <llama.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "engine/backend/backend.h"
#include "engine/model/checkpoint.h"
#include "engine/runtime/bench.h"
#include "engine/runtime/other_load.h"

using namespace switchyard;

namespace {

constexpr int kContext = 4096, kDecodeContext = 128;

[[noreturn]] void stop(const std::string& why) {
  std::fprintf(stderr, "%s\n", why.c_str());
  std::exit(1);
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Either engine: forgets everything, or takes the next ids and leaves the logits of the last one.
struct Engine {
  virtual ~Engine() = default;
  virtual void clear() = 0;
  virtual void feed(std::span<const TokenId> ids) = 0;
  virtual std::span<const float> logits() = 0;
};

struct Ours final : Engine {
  Ours(const std::string& folder, int threads) : checkpoint(must(open_checkpoint(folder))) {
    backend = must(make_backend("cpu", checkpoint, must(WeightStore::open(checkpoint)), {threads, kContext}, nullptr));
    values.resize(size_t(checkpoint.plan.vocab));
    clear();
  }
  template <class T>
  static T must(Result<T> result) {
    if (!result) stop(result.error().message());
    return std::move(*result);
  }
  void clear() override { cache = backend->new_cache(kContext); }
  void feed(std::span<const TokenId> ids) override {
    const auto done = backend->forward(
        {.tokens = ids, .cache = cache.get(), .recipe = &native, .rows = LogitRows::kLast, .logits = values});
    if (!done) stop(done.error().message());
  }
  std::span<const float> logits() override { return values; }

  const Checkpoint checkpoint;
  const Recipe native;
  std::unique_ptr<Backend> backend;
  std::unique_ptr<KvCache> cache;
  std::vector<float> values;
};

struct Theirs final : Engine {
  Theirs(const std::string& folder, int threads) {
    llama_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
    llama_backend_init();
    model = llama_model_load_from_file((folder + "/model-bf16.gguf").c_str(), llama_model_default_params());
    if (!model) stop("llama.cpp does not open model-bf16.gguf");
    llama_context_params wanted = llama_context_default_params();
    wanted.n_ctx = kContext;
    wanted.n_batch = 2048;
    wanted.n_ubatch = 512;
    wanted.n_threads = wanted.n_threads_batch = threads;
    wanted.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    context = llama_init_from_model(model, wanted);
    if (!context) stop("llama.cpp makes no context");
    vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
  }
  ~Theirs() override {
    llama_free(context);
    llama_model_free(model);
  }
  void clear() override { llama_memory_clear(llama_get_memory(context), true); }
  void feed(std::span<const TokenId> ids) override {
    std::vector<llama_token> own(ids.begin(), ids.end());
    if (llama_decode(context, llama_batch_get_one(own.data(), int32_t(own.size()))) != 0) stop("llama_decode fails");
  }
  std::span<const float> logits() override { return {llama_get_logits_ith(context, -1), size_t(vocab)}; }

  llama_model* model = nullptr;
  llama_context* context = nullptr;
  int vocab = 0;
};

std::vector<TokenId> ids(int first, int count, int vocab) {
  std::vector<TokenId> out;
  for (int i = first; i < first + count; ++i) out.push_back(TokenId((uint64_t(i) * 7919 + 17) % uint64_t(vocab)));
  return out;
}

double prefill(Engine& engine, int count, int vocab) {
  engine.clear();
  const auto prompt = ids(0, count, vocab);
  const auto start = std::chrono::steady_clock::now();
  engine.feed(prompt);
  engine.logits();
  return count / seconds_since(start);
}

double decode(Engine& engine, int count, int vocab) {
  engine.clear();
  engine.feed(ids(0, kDecodeContext, vocab));
  engine.logits();
  const auto next = ids(kDecodeContext, count, vocab);
  const auto start = std::chrono::steady_clock::now();
  for (const TokenId& id : next) {
    engine.feed({&id, 1});
    engine.logits();
  }
  return count / seconds_since(start);
}

// After the same prompt: largest difference over the spread of the logits, and whether the first choice is the same.
nlohmann::json agreement(Engine& ours, Engine& theirs, int vocab) {
  for (Engine* engine : {&ours, &theirs}) {
    engine->clear();
    engine->feed(ids(0, 64, vocab));
  }
  const auto a = ours.logits(), b = theirs.logits();
  double apart = 0, square = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    apart = std::max(apart, double(std::abs(a[i] - b[i])));
    square += double(a[i]) * a[i];
  }
  const auto best = [](std::span<const float> of) { return std::max_element(of.begin(), of.end()) - of.begin(); };
  return {{"largest_difference", apart}, {"rms_logit", std::sqrt(square / double(a.size()))}, {"same_first_choice", best(a) == best(b)}};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 6) stop("usage: against_llama_cpp FOLDER ROUNDS NEW_TOKENS THREADS PROMPT…");
  const std::string folder = argv[1];
  const int rounds = std::atoi(argv[2]), new_tokens = std::atoi(argv[3]), threads = std::atoi(argv[4]);
  Ours ours(folder, threads);
  Theirs theirs(folder, threads);
  const int vocab = ours.checkpoint.plan.vocab;

  const std::map<std::string, Engine*> engines{{"switchyard", &ours}, {"llama.cpp", &theirs}};
  nlohmann::json speeds;
  const auto round = [&](bool counted, bool reverse) {
    std::vector<std::pair<std::string, Engine*>> order(engines.begin(), engines.end());
    if (reverse) std::reverse(order.begin(), order.end());
    const auto take = [&](const std::string& what, auto&& measure) {
      for (const auto& [name, engine] : order) {
        const double speed = measure(*engine);
        if (counted) speeds[what][name].push_back(speed);
      }
    };
    take("decode", [&](Engine& engine) { return decode(engine, new_tokens, vocab); });
    for (int i = 5; i < argc; ++i) {
      const int count = std::atoi(argv[i]);
      take("prefill_" + std::to_string(count), [&](Engine& engine) { return prefill(engine, count, vocab); });
    }
  };
  const nlohmann::json near = agreement(ours, theirs, vocab);
  round(false, false);
  const bool quiet = wait_for_quiet(60);
  const ReadCeiling ceiling = read_ceiling(uint64_t(1) << 30, threads);
  const OtherLoad other;
  for (int i = 0; i < rounds; ++i) round(true, i % 2 == 1);
  const Machine machine = this_machine();
  const uint64_t bytes = weight_bytes_per_token(ours.checkpoint.plan);
  std::printf("%s\n", nlohmann::json{{"machine", {{"processor", machine.processor}, {"cores", machine.cores}, {"kernel", machine.kernel}, {"compiler", machine.compiler}}},
                                     {"switchyard", ours.backend->info().detail},
                                     {"llama.cpp", llama_print_system_info()},
                                     {"threads", threads},
                                     {"rounds", rounds},
                                     {"new_tokens", new_tokens},
                                     {"agreement", near},
                                     {"read_gb_per_s", ceiling.gb_per_s},
                                     {"bytes_per_token", bytes},
                                     {"speeds", speeds},
                                     {"quiet_before", quiet},
                                     {"other_load", other.share()}}
                          .dump()
                          .c_str());
}
