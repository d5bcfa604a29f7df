// Merged experts of one layer, made when first needed and kept while recipes list them. Owned by a backend's layer;
// engine thread.
#pragma once

#include <algorithm>
#include <iterator>
#include <map>
#include <utility>

#include "engine/routing/recipe.h"

namespace switchyard {

template <class Expert>
class MergedCache {
 public:
  // Before a run of the layer: forgets what no recipe of the last kKept runs listed, so that two runs in turn (edited
  // and not) keep theirs and an undo frees the memory soon.
  void tidy(const LayerRecipe* recipe) {
    for (auto it = kept_.begin(); it != kept_.end();) {
      const bool listed = recipe && std::find(recipe->mixes.begin(), recipe->mixes.end(), it->first) != recipe->mixes.end();
      it->second.idle = listed ? 0 : it->second.idle + 1;
      it = it->second.idle > kKept ? kept_.erase(it) : std::next(it);
    }
  }

  // make() gives the expert of this mix.
  template <class Make>
  const Expert& get(const ExpertMix& mix, const Make& make) {
    const auto found = kept_.find(mix);
    return found != kept_.end() ? found->second.expert : kept_.emplace(mix, Kept{make(), 0}).first->second.expert;
  }

 private:
  static constexpr int kKept = 64;
  struct Kept {
    Expert expert;
    int idle = 0;
  };
  std::map<ExpertMix, Kept> kept_;
};

// The mix is one expert of the checkpoint, used where it lies.
inline bool is_one(const ExpertMix& mix) {
  return mix.size() == 1 && mix[0].weight == 1;
}

}  // namespace switchyard
