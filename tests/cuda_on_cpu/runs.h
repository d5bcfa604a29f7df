// Models by name on the device and on the cpu backend, opened once, and what tests of whole runs compare.
#pragma once

#include <cstring>
#include <map>

#include "tests/cuda_on_cpu/model_on_device.h"

namespace switchyard::cuda::testing {

inline const OpenModel& model(const std::string& name) {
  static std::map<std::string, OpenModel> open;
  if (!open.contains(name)) open.emplace(name, OpenModel::open(name));
  return open.at(name);
}
inline CudaBackend& device(const std::string& name) {
  static const DeviceInfo before_all = value_of(open_device());  // what it keeps outlives the backends
  static std::map<std::string, std::unique_ptr<CudaBackend>> made;
  if (!made[name]) made[name] = model(name).device({}, 128);
  return *made[name];
}
inline std::vector<TokenId> text(const ModelPlan& plan, int count) {
  std::vector<TokenId> out;
  for (int i = 0; i < count; ++i) out.push_back(TokenId((i * 29 + 3) % plan.vocab));
  return out;
}
inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}
inline void append(Pass& to, Pass from) {
  to.logits.insert(to.logits.end(), from.logits.begin(), from.logits.end());
  for (RoutingFrame& frame : from.frames) to.frames.push_back(std::move(frame));
}
// A prompt and then token by token.
inline Pass run(const OpenModel& on, Backend& backend, const Recipe& recipe, int prompt = 7, int decoded = 3) {
  const auto ids = text(on.plan(), prompt + decoded);
  const auto cache = backend.new_cache(64);
  Pass out = on.forward(backend, *cache, std::span(ids).first(size_t(prompt)), recipe);
  append(out, on.one_by_one(backend, *cache, std::span(ids).subspan(size_t(prompt)), recipe));
  return out;
}

// All rows of two frames: the sets outside of ties, kinds, flags, and what passed which row.
inline void expect_alike(const Pass& a, const Pass& b, const std::string& what, double tolerance = 2e-4) {
  SCOPED_TRACE(what);
  const Difference difference = compare(a, b);
  EXPECT_EQ(difference.sets, 0) << difference;
  EXPECT_LT(difference.logits, tolerance) << difference;
  EXPECT_LT(difference.weights, 1e-4) << difference;
  EXPECT_LT(difference.router_logits, 1e-3) << difference;
  ASSERT_EQ(a.frames.size(), b.frames.size());
  for (size_t t = 0; t < a.frames.size(); ++t) {
    EXPECT_EQ(a.frames[t].header().flags, b.frames[t].header().flags);
    for (int row = 0; row < a.frames[t].rows(); ++row) {
      ASSERT_EQ(a.frames[t].passed(row), b.frames[t].passed(row)) << "token " << t << " row " << row;
      EXPECT_EQ(a.frames[t].layer(row).nulls, b.frames[t].layer(row).nulls);
      if (difference.ties > 0) continue;
      EXPECT_TRUE(std::ranges::equal(a.frames[t].kinds(row), b.frames[t].kinds(row)))
          << "token " << t << " row " << row;
      EXPECT_EQ(a.frames[t].layer(row).changed, b.frames[t].layer(row).changed) << "token " << t << " row " << row;
    }
  }
}

inline Recipe empty_recipe(const ModelPlan& plan) {
  Recipe recipe;
  recipe.epoch = 2;
  recipe.layers.resize(plan.moe_layers.size());
  return recipe;
}
inline Recipe with_scheme(const ModelPlan& plan, const Scheme& scheme, int only = -1) {
  Recipe recipe = empty_recipe(plan);
  for (size_t row = 0; row < recipe.layers.size(); ++row)
    if (only < 0 || only == int(row)) recipe.layers[row].scheme = scheme.of_layer(plan.moe_layers[row]);
  return recipe;
}

}  // namespace switchyard::cuda::testing
