// A checkpoint on two backends side by side: the device (or what stands for it) and the cpu backend.
#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "engine/backend/cuda/cuda_backend.h"
#include "engine/model/checkpoint.h"
#include "tests/cuda_on_cpu/on_device.h"

namespace switchyard::cuda::testing {

// What a run of tokens gave.
struct Pass {
  std::vector<float> logits;  // [tokens, vocab]
  std::vector<RoutingFrame> frames;
};

struct OpenModel {
  Checkpoint checkpoint;
  std::shared_ptr<const WeightStore> weights;
  std::unique_ptr<Backend> cpu;

  // name: "demo" or a folder of tests/goldens.
  static OpenModel open(const std::string& name) {
    OpenModel out;
    const std::string root = SWITCHYARD_SOURCE_DIR;
    out.checkpoint =
        value_of(open_checkpoint(name == "demo" ? root + "/assets/models/demo" : root + "/tests/goldens/" + name));
    out.weights = value_of(WeightStore::open(out.checkpoint));
    out.cpu = value_of(make_cpu_backend(out.checkpoint.plan, out.weights, {.threads = 1}, nullptr));
    return out;
  }
  std::unique_ptr<CudaBackend> device(const CudaOptions& how = {}, int context = 256) const {
    return value_of(make_backend_on_device(checkpoint.plan, weights, {.context = context}, how, nullptr));
  }
  const ModelPlan& plan() const { return checkpoint.plan; }

  Pass forward(Backend& backend, KvCache& cache, std::span<const TokenId> tokens, const Recipe& recipe = {},
               CaptureLevel level = CaptureLevel::kLogits, LogitRows rows = LogitRows::kAll) const {
    Pass out;
    out.logits.resize((rows == LogitRows::kAll ? tokens.size() : 1) * size_t(plan().vocab));
    out.frames.assign(tokens.size(), make_frame(plan(), recipe, level));
    value_of(backend.forward({.tokens = tokens,
                              .cache = &cache,
                              .recipe = &recipe,
                              .rows = rows,
                              .logits = out.logits,
                              .frames = out.frames}));
    return out;
  }
  Pass one_by_one(Backend& backend, KvCache& cache, std::span<const TokenId> tokens, const Recipe& recipe = {}) const {
    Pass out;
    for (size_t i = 0; i < tokens.size(); ++i) {
      Pass one = forward(backend, cache, tokens.subspan(i, 1), recipe);
      out.logits.insert(out.logits.end(), one.logits.begin(), one.logits.end());
      out.frames.push_back(std::move(one.frames[0]));
    }
    return out;
  }
};

// What differs: the largest difference of logits and of weights, and tokens whose experts differ though no rule is
// within 1e-5 of another choice (engine.md section 7).
struct Difference {
  double logits = 0, weights = 0, router_logits = 0;
  int decisions = 0, ties = 0, sets = 0;
};
inline Difference compare(const Pass& a, const Pass& b) {
  Difference out;
  EXPECT_EQ(a.logits.size(), b.logits.size());
  for (size_t i = 0; i < a.logits.size(); ++i) {
    const double difference = std::abs(double(a.logits[i]) - double(b.logits[i]));
    if (!(difference <= out.logits)) out.logits = std::isnan(difference) ? INFINITY : difference;
  }
  EXPECT_EQ(a.frames.size(), b.frames.size());
  for (size_t t = 0; t < a.frames.size(); ++t)
    for (int row = 0; row < a.frames[t].rows(); ++row) {
      ++out.decisions;
      for (size_t e = 0; e < a.frames[t].logits(row).size(); ++e)
        out.router_logits = std::max(out.router_logits,
                                     std::abs(double(a.frames[t].logits(row)[e]) - double(b.frames[t].logits(row)[e])));
      std::vector<ExpertId> first(a.frames[t].used_ids(row).begin(), a.frames[t].used_ids(row).end());
      std::vector<ExpertId> second(b.frames[t].used_ids(row).begin(), b.frames[t].used_ids(row).end());
      std::sort(first.begin(), first.end()), std::sort(second.begin(), second.end());
      if (first != second) {
        ++(std::abs(a.frames[t].layer(row).stats.margin) < 1e-5f ? out.ties : out.sets);
        continue;
      }
      for (size_t slot = 0; slot < a.frames[t].used_ids(row).size(); ++slot)
        if (a.frames[t].ids(row)[slot] == b.frames[t].ids(row)[slot])
          out.weights = std::max(
              out.weights, std::abs(double(a.frames[t].weights(row)[slot]) - double(b.frames[t].weights(row)[slot])));
    }
  return out;
}
inline std::ostream& operator<<(std::ostream& out, const Difference& d) {
  return out << "logits " << d.logits << ", router logits " << d.router_logits << ", weights " << d.weights << ", "
             << d.sets << " of " << d.decisions << " sets, " << d.ties << " ties";
}

}  // namespace switchyard::cuda::testing
