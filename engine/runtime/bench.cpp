// See bench.h.
#include "engine/runtime/bench.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <fstream>
#include <numeric>
#include <random>
#include <sstream>

#include <sys/utsname.h>
#include <unistd.h>

#include "engine/backend/cpu/loader.h"
#include "engine/base/thread_pool.h"
#include "engine/runtime/other_load.h"
#include "engine/runtime/sampler.h"

namespace switchyard {
namespace {

constexpr double kGiga = 1e9;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Adds 64-byte lines of eight places at once: processors fetch several streams ahead, one alone is slower (by a third
// on one machine).
uint64_t read_all(const uint64_t* data, size_t words) {
  constexpr size_t kStreams = 8, kLine = 8;
  typedef uint64_t Line __attribute__((vector_size(64), aligned(8)));
  Line sums[kStreams] = {};
  const size_t apart = words / kStreams / kLine * kLine;
  for (size_t i = 0; i < apart; i += kLine)
    for (size_t stream = 0; stream < kStreams; ++stream)
      sums[stream] += *reinterpret_cast<const Line*>(data + stream * apart + i);
  for (size_t stream = 1; stream < kStreams; ++stream) sums[0] += sums[stream];
  uint64_t sum = 0;
  for (size_t lane = 0; lane < kLine; ++lane) sum += sums[0][lane];
  return sum;
}

double read_speed(uint64_t bytes, ThreadPool& pool) {
  std::vector<uint64_t> buffer(bytes / sizeof(uint64_t), 1);
  std::vector<uint64_t> sums(pool.threads());
  double best = 0;
  double spent = 0;
  for (int pass = 0; pass < 3 || (spent < 0.1 && pass < 1000); ++pass) {
    const auto start = std::chrono::steady_clock::now();
    pool.run(pool.threads(), [&](int part, int) {
      const RowRange words = split_rows(int64_t(buffer.size()), pool.threads(), part, 64);
      sums[part] += read_all(buffer.data() + words.begin, size_t(words.end - words.begin));
    });
    const double seconds = seconds_since(start);
    spent += seconds;
    best = std::max(best, double(buffer.size() * sizeof(uint64_t)) / seconds / kGiga);
  }
  uint64_t sum = 0;
  for (const uint64_t part : sums) sum += part;
  return sum > 0 ? best : 0;  // uses the sums, so that the reads are not optimised away
}

struct Setting {
  const char* level;
  CaptureLevel capture;
  const Recipe* recipe;
};

double median_of(std::vector<double> values) {
  const auto middle = values.begin() + values.size() / 2;
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2) return *middle;
  return (*middle + *std::max_element(values.begin(), middle)) / 2;
}

// Spread over the vocabulary, so that decoding chooses other experts for every token: what a model of random weights
// writes by itself soon repeats, and its experts then come from the last-level cache.
TokenId spread_id(int i, int vocab) {
  return TokenId((uint64_t(i) * 7919 + 17) % uint64_t(vocab));
}

// One model and its buffers through all rounds.
class Bench {
 public:
  Bench(const Checkpoint& checkpoint, Backend& backend, const BenchOptions& options, Task* task)
      : plan_(checkpoint.plan), backend_(backend), options_(options), task_(task), logits_(plan_.vocab) {
    for (int i = 0; i < options.prompt_tokens; ++i) prompt_.push_back(spread_id(i, plan_.vocab));
    settings_ = {{"off", CaptureLevel::kOff, &native_}, {"ids", CaptureLevel::kIds, &native_}, {"logits", CaptureLevel::kLogits, &native_}};
    if (options.edited) settings_.push_back({"edited", CaptureLevel::kLogits, &*options.edited});
    speeds_.resize(settings_.size());
    times_.resize(settings_.size());
  }

  Result<void> run() {
    SY_CHECK(round(false));  // warm-up
    for (int i = 0; i < options_.repeat; ++i) {
      if (task_) task_->report(double(i) / options_.repeat, "Measuring");
      SY_CHECK(round(true));
    }
    return {};
  }

  void fill(BenchResult& out) const {
    out.prefill_tokens_per_s = spread_of(prefill_);
    for (size_t i = 0; i < settings_.size(); ++i) {
      const bool edited = settings_[i].recipe != &native_;
      Watched one{settings_[i].level, spread_of(speeds_[i]), {}};
      if (i > 0) one.cost = paired_cost(times_[edited ? kLogits : kOff], times_[i]);
      if (edited) out.edited = std::move(one);
      else out.capture.push_back(std::move(one));
    }
    out.decode_tokens_per_s = out.capture[kLogits].tokens_per_s;
    if (options_.sink) {
      const Spread recorded = spread_of(recorded_);
      out.capture.push_back({"recorded", recorded, {1 - recorded.median / out.capture[kOff].tokens_per_s.median, {}, {}}});
    }
    out.layers_per_s = spread_of(layers_);
  }

 private:
  enum Place : size_t { kOff = 0, kLogits = 2 };  // in settings_

  RoutingFrame new_frame(uint64_t index, TokenId id, Phase phase, CaptureLevel level, const Recipe& recipe) const {
    RoutingFrame frame = make_frame(plan_, recipe, level);
    frame.header().token_index = index;
    frame.header().position = uint32_t(index);
    frame.header().sequence = sequence_;
    frame.header().token_id = id;
    frame.header().phase = phase;
    return frame;
  }

  // The prompt; of an encoder-decoder the encoder's, then the first token of the decoder.
  Result<void> prefill(KvCache& cache, std::span<RoutingFrame> frames) {
    if (plan_.encoder_layers == 0) return forward(cache, native_, prompt_, frames);
    SY_CHECK(backend_.forward({.tokens = prompt_,
                               .encode = true,
                               .cache = &cache,
                               .recipe = &native_,
                               .rows = LogitRows::kNone,
                               .frames = frames,
                               .task = task_}));
    return forward(cache, native_, {&plan_.decoder_start, 1}, {});
  }

  Result<void> forward(KvCache& cache, const Recipe& recipe, std::span<const TokenId> tokens, std::span<RoutingFrame> frames) {
    return backend_.forward({.tokens = tokens,
                             .cache = &cache,
                             .recipe = &recipe,
                             .rows = LogitRows::kLast,
                             .logits = logits_,
                             .frames = frames,
                             .task = task_});
  }

  // Tokens a second through the layers alone, without the logits.
  Result<double> layers(KvCache& cache) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < options_.new_tokens; ++i) {
      const TokenId next = spread_id(options_.prompt_tokens + i, plan_.vocab);
      SY_CHECK(backend_.forward({.tokens = {&next, 1}, .cache = &cache, .recipe = &native_, .rows = LogitRows::kNone, .task = task_}));
    }
    return options_.new_tokens / seconds_since(start);
  }

  Result<void> round(bool counted) {
    const auto cache = backend_.new_cache(options_.prompt_tokens + 1 + options_.new_tokens);
    std::vector<RoutingFrame> frames;
    for (size_t i = 0; i < prompt_.size(); ++i) frames.push_back(new_frame(i, prompt_[i], Phase::kPrefill, CaptureLevel::kLogits, native_));
    const auto start = std::chrono::steady_clock::now();
    SY_CHECK(prefill(*cache, frames));
    if (counted) prefill_.push_back(double(prompt_.size()) / seconds_since(start));
    SY_CHECK(decode(*cache, counted));
    if (options_.sink) {
      SY_TRY(const double speed, record(*cache->clone()));
      if (counted) recorded_.push_back(speed);
    }
    SY_TRY(const double speed, layers(*cache->clone()));
    if (counted) layers_.push_back(speed);
    return {};
  }

  // Every setting on a branch of its own, in another order for every token.
  Result<void> decode(const KvCache& cache, bool counted) {
    std::vector<std::unique_ptr<KvCache>> branches;
    for (size_t i = 0; i < settings_.size(); ++i) branches.push_back(cache.clone());
    std::vector<size_t> order(settings_.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::vector<double> spent(settings_.size());
    for (int i = 0; i < options_.new_tokens; ++i) {
      std::shuffle(order.begin(), order.end(), orders_);
      for (const size_t setting : order) {
        const auto start = std::chrono::steady_clock::now();
        SY_CHECK(step(*branches[setting], settings_[setting], i, nullptr));
        const double seconds = seconds_since(start);
        spent[setting] += seconds;
        if (counted) times_[setting].push_back(seconds);
      }
    }
    for (size_t i = 0; counted && i < settings_.size(); ++i) speeds_[i].push_back(options_.new_tokens / spent[i]);
    return {};
  }

  Result<double> record(KvCache& cache) {
    SY_CHECK(options_.sink->begin_sequence(sequence_, 0));
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < options_.new_tokens; ++i) SY_CHECK(step(cache, settings_[kLogits], i, options_.sink.get()));
    ++sequence_;
    return options_.new_tokens / seconds_since(start);
  }

  Result<void> step(KvCache& cache, const Setting& setting, int i, TraceSink* sink) {
    sample(logits_, greedy_, sequence_, uint64_t(i));  // its cost; what it says is not what comes next
    const TokenId next = spread_id(options_.prompt_tokens + i, plan_.vocab);
    if (setting.capture == CaptureLevel::kOff) return forward(cache, *setting.recipe, {&next, 1}, {});
    RoutingFrame frame = new_frame(uint64_t(i), next, Phase::kDecode, setting.capture, *setting.recipe);
    SY_CHECK(forward(cache, *setting.recipe, {&next, 1}, {&frame, 1}));
    return sink ? sink->append(frame) : Result<void>();
  }

  const ModelPlan& plan_;
  Backend& backend_;
  const BenchOptions& options_;
  Task* task_;
  const Recipe native_;
  const Sampling greedy_{.greedy = true};
  std::vector<Setting> settings_;
  std::vector<TokenId> prompt_;
  std::vector<float> logits_;
  std::mt19937_64 orders_{1};
  uint32_t sequence_ = 0;
  std::vector<double> prefill_, layers_, recorded_;  // tokens a second of every round
  std::vector<std::vector<double>> speeds_, times_;  // per setting: the same; seconds of every token
};

std::string first_line_of(const char* path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(key)) return line.substr(std::min(line.size(), line.find(':') + 2));
  return {};
}

}  // namespace

Spread spread_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return {median_of(values), values.front(), values.back()};
}

Cost paired_cost(const std::vector<double>& other, const std::vector<double>& times) {
  std::vector<double> shares;
  for (size_t i = 0; i < times.size(); ++i) shares.push_back(1 - other[i] / times[i]);
  constexpr int kResamples = 1000;
  std::mt19937_64 chance(1);
  std::uniform_int_distribution<size_t> any(0, shares.size() - 1);
  std::vector<double> medians, drawn(shares.size());
  for (int i = 0; i < kResamples; ++i) {
    for (double& one : drawn) one = shares[any(chance)];
    medians.push_back(median_of(drawn));
  }
  std::sort(medians.begin(), medians.end());
  return {median_of(shares), medians[kResamples / 40], medians[kResamples - 1 - kResamples / 40]};
}

Machine this_machine() {
  Machine machine;
  machine.processor = first_line_of("/proc/cpuinfo", "model name");
  machine.cores = available_cores();
  machine.memory_bytes = uint64_t(sysconf(_SC_PHYS_PAGES)) * uint64_t(sysconf(_SC_PAGESIZE));
  utsname system{};
  if (uname(&system) == 0) machine.kernel = std::string(system.sysname) + " " + system.release + " " + system.machine;
#if defined(__clang__)
  machine.compiler = __VERSION__;
#else
  machine.compiler = "g++ " __VERSION__;
#endif
  return machine;
}

ReadCeiling read_ceiling(uint64_t bytes, int threads) {
  ThreadPool pool(threads);
  ReadCeiling ceiling;
  ceiling.bytes = std::clamp<uint64_t>(bytes, uint64_t(1) << 20, uint64_t(1) << 30);
  ceiling.gb_per_s = read_speed(ceiling.bytes, pool);
  ceiling.memory_gb_per_s = read_speed(uint64_t(512) << 20, pool);
  return ceiling;
}

uint64_t weight_bytes_per_token(const ModelPlan& plan) {
  uint64_t bytes = 0;
  for_each_weight(plan, [&](const TensorRef& ref) { bytes += cpu::held_bytes(ref); });
  for (const LayerPlan& layer : plan.layers)
    for (const Sublayer& sublayer : layer.sublayers) {
      const RoutedSpec* routed = sublayer.routed();
      if (!routed) continue;
      uint64_t experts = 0, stored = 0;
      if (const auto* moe = std::get_if<MoeSpec>(&sublayer.op)) {
        stored = moe->experts.size();
        for (const FfnWeights& expert : moe->experts)
          for (const TensorRef* ref : {&expert.gate, &expert.up, &expert.down}) experts += *ref ? cpu::held_bytes(*ref) : 0;
      } else if (const auto* mixture = std::get_if<MixtureAttentionSpec>(&sublayer.op)) {
        stored = mixture->q_experts.size();
        for (const auto* each : {&mixture->q_experts, &mixture->o_experts})
          for (const TensorRef& ref : *each) experts += cpu::held_bytes(ref);
      }
      const uint64_t chosen = std::min<uint64_t>(stored, uint64_t(std::max(routed->router.experts_per_token, 0)));
      if (stored > 0) bytes -= experts / stored * (stored - chosen);
    }
  // An untied embedding is read one row at a time.
  const uint64_t embedding = cpu::held_bytes(plan.embedding);
  return plan.tied || plan.embedding.rows == 0 ? bytes : bytes - embedding / uint64_t(plan.embedding.rows) * uint64_t(plan.embedding.rows - 1);
}

Result<BenchResult> bench(const Checkpoint& checkpoint, Backend& backend, const BenchOptions& options, Task* task) {
  const ModelPlan& plan = checkpoint.plan;
  if (options.prompt_tokens < 1 || options.new_tokens < 1 || options.repeat < 1)
    return fail(ErrorCode::kUsage, "prompt tokens, new tokens and repeats must be at least 1.");
  if (int64_t(options.prompt_tokens) + options.new_tokens > plan.context)
    return fail(ErrorCode::kUsage,
                std::to_string(options.prompt_tokens) + " prompt and " + std::to_string(options.new_tokens) +
                    " new tokens exceed the context of " + std::to_string(plan.context) + ".",
                checkpoint.name, "Ask for fewer.");

  BenchResult result;
  result.machine = this_machine();
  result.backend = backend.info();
  result.threads = options.threads > 0 ? options.threads : available_cores();
  result.prompt_tokens = options.prompt_tokens;
  result.new_tokens = options.new_tokens;
  result.repeat = options.repeat;
  const OtherLoad other;
  if (task) task->report(0, "Reading memory");
  result.ceiling = read_ceiling(checkpoint.weight_bytes(), options.threads);
  Bench rounds(checkpoint, backend, options, task);
  SY_CHECK(rounds.run());
  if (options.sink) SY_CHECK(options.sink->close());
  rounds.fill(result);
  result.bytes_per_token = weight_bytes_per_token(plan);
  result.share_of_ceiling =
      double(result.bytes_per_token) * result.decode_tokens_per_s.median / (result.ceiling.gb_per_s * kGiga);
  const uint64_t head = cpu::held_bytes(plan.tied ? plan.embedding : plan.lm_head);
  result.layer_bytes_per_token = result.bytes_per_token - std::min(result.bytes_per_token, head);
  result.layers_share_of_ceiling = double(result.layer_bytes_per_token) * result.layers_per_s.median / (result.ceiling.gb_per_s * kGiga);
  result.other_load = other.share();
  result.noisy = result.other_load > kNoise;
  return result;
}

}  // namespace switchyard
