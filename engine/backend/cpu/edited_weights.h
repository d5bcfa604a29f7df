// Weights that edits make: merged experts, and router rows that stand in for the checkpoint's. Made when first needed.
// Owned by FeedForwardRun; engine thread.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "engine/backend/cpu/model.h"
#include "engine/backend/merged_cache.h"

namespace switchyard::cpu {

struct ReplacedRows {
  std::vector<RowSource> sources;  // those of the recipe that made it
  std::vector<ExpertId> experts;   // whose rows are replaced
  Matrix matrix;                   // [experts, hidden], in `data`
  std::vector<unsigned char> data;
  std::vector<float> lengths;      // L2 norms of the rows of the matrix
  std::vector<float> norms;        // [E] of all rows, see set_norms()
};

// An expert of another kind, made ready for the kernels; its matrices point into `tensors`.
struct OtherNetwork {
  std::shared_ptr<const ExpertTensors> tensors;
  FfnForm form;
  Expert expert;  // gru: gate is W_iz, up W_in, with the biases of both sides; the rest below
  Matrix reset;   // W_ir
  std::vector<float> reset_bias, state_bias;  // b_ir + b_hr, b_hn; empty: none
};

class EditedWeights {
 public:
  // The network of a place; only of kinds that have tensors.
  const OtherNetwork& other(int row, size_t id, const OtherExpert& other);
  // What runs in the place of an expert that has weights.
  const Expert& expert(const Kernels& kernels, const FeedForward& spec, const LayerRecipe& recipe, size_t id);
  // Only where the recipe replaces rows.
  const ReplacedRows& rows(const Kernels& kernels, const FeedForward& spec, const LayerRecipe& recipe);
  // Norms of the router's rows as replaced, from those of the checkpoint's; after rows().
  void set_norms(int row, std::span<const float> own);
  std::span<const float> norms(int row) const { return rows_.at(row).norms; }
  // Before the experts of a layer run; recipe: null where the layer is native.
  void tidy(int row, const LayerRecipe* recipe);

 private:
  struct Merged {
    Expert expert;
    std::vector<std::unique_ptr<unsigned char[]>> data;
  };
  std::map<int, MergedCache<Merged>> merged_;  // by routing row
  std::map<int, ReplacedRows> rows_;
  std::map<std::pair<int, size_t>, OtherNetwork> others_;  // by routing row and expert
};

}  // namespace switchyard::cpu
