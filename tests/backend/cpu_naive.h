// Small random models in memory, and their forward pass written from the definitions of plan.h and
// specs/families.md in double precision over the whole sequence, without cache, chunks or threads.
// For the tests of the cpu backend; one thread.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "engine/model/checkpoint.h"
#include "engine/model/plan.h"
#include "engine/routing/recipe.h"

namespace switchyard::testing {

using Vec = std::vector<double>;

// Random tensors in memory, at odd addresses.
class MemoryWeights final : public WeightStore {
 public:
  explicit MemoryWeights(unsigned seed) : random_(seed) {}

  // Normal values, by default of deviation 1 / sqrt(cols). fp32, bf16 or fp16.
  TensorRef add(const std::string& name, int64_t rows, int64_t cols, DType dtype, float mean = 0, float deviation = -1);
  // [rows * cols], the strides and the offset of `ref` undone.
  Vec values(const TensorRef& ref) const;

  Result<TensorView> view(const TensorRef& ref) const override;
  Result<void> check_unchanged() const override { return {}; }
  uint64_t bytes() const override { return 0; }

 private:
  struct Stored {
    DType dtype = DType::kF32;
    std::vector<std::byte> bytes;
    Vec values;
  };
  std::map<std::string, Stored> tensors_;
  std::mt19937 random_;
};

// Logits [tokens][vocab] of a model.
class NaiveModel {
 public:
  NaiveModel(const ModelPlan& plan, const MemoryWeights& weights, const Recipe& recipe)
      : plan_(plan), weights_(weights), recipe_(recipe) {}

  std::vector<Vec> logits(std::span<const TokenId> tokens);

  // Of the last logits(): [routing row][token], rising ids.
  const std::vector<std::vector<std::vector<ExpertId>>>& ids() const { return ids_; }

 private:
  using Sequence = std::vector<Vec>;  // [token]

  Vec times(const TensorRef& weight, const TensorRef& bias, const Vec& x) const;
  Vec norm(const NormSpec& spec, const Vec& x) const;
  void norm_parts(const NormSpec& spec, size_t width, Vec& x) const;
  void rotate(const RopeSpec& rope, size_t position, double* head) const;
  void run_sublayer(const Sublayer& sublayer, int row, Sequence& hidden, Sequence& later);
  Sequence run_op(const Sublayer& sublayer, int row, const Sequence& in);
  Sequence attend(const AttentionSpec& spec, const Sequence& in) const;
  Vec heads(const AttentionSpec& spec, const TensorRef& weight, const TensorRef& bias, const NormSpec* norm_spec,
            size_t position, const Vec& x) const;
  Sequence attend(const LatentAttentionSpec& spec, const Sequence& in) const;
  Vec feed(const FfnShape& shape, const FfnWeights& weights, const Vec& x) const;
  Vec mixture(const MoeSpec& spec, int row, const Vec& x);

  const ModelPlan& plan_;
  const MemoryWeights& weights_;
  const Recipe& recipe_;
  std::vector<std::vector<std::vector<ExpertId>>> ids_;
};

}  // namespace switchyard::testing
