// What stands in the experts' places on the device under a recipe: other pointers for swaps and clones, matrices merged
// from several experts, masks for hidden units that are off. Engine thread.
#pragma once

#include <map>
#include <vector>

#include "engine/backend/cuda/model.h"
#include "engine/routing/recipe.h"

namespace switchyard::cuda {

class PlacedExperts {
 public:
  // Makes the tables of experts those of the recipe. Merged matrices are made on the host when a recipe first lists
  // them and dropped with the next recipe that does not.
  Result<void> place(const ModelOnDevice& model, Stream& stream, const Recipe& recipe);

 private:
  struct Merged {
    Expert expert;
    std::vector<Buffer> memory;
  };
  struct Row {
    std::vector<ExpertMix> mixes;
    std::vector<std::vector<int>> masks;
    std::map<ExpertMix, Merged> merged;
    Buffer units_off;
  };
  static Result<Merged> merge(Stream& stream, const FeedForwardOnDevice& layer, int hidden, const ExpertMix& mix);

  std::vector<Row> rows_;
};

}  // namespace switchyard::cuda
