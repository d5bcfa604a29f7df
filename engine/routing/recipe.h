// The edit state in force for one token: an immutable snapshot that the engine thread builds at a
// token boundary and shares by pointer. The identity recipe has no layer edits at all.
// Maths: specs/gating.md; kinds and their meaning: specs/cli.md.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/base/ids.h"
#include "engine/routing/adapters.h"
#include "engine/routing/expert_kind.h"
#include "engine/routing/scheme.h"

namespace switchyard {

// What runs in the place of an expert: experts of the checkpoint by weight, ascending ids. Empty: its own. One with
// weight 1 is used where it lies; any other mix is the weighted sum of their matrices and biases.
struct ExpertShare {
  ExpertId expert = kNoExpert;
  float weight = 1;
  auto operator<=>(const ExpertShare&) const = default;
};
using ExpertMix = std::vector<ExpertShare>;

// What stands in a row of the router's weight; the experts named are rows of the checkpoint. The row's entry of the
// router's own bias stays.
struct RowSource {
  enum class Kind : uint8_t { kOwn, kCopy, kRotate, kValues } kind = Kind::kOwn;
  ExpertId expert = kNoExpert;                        // copied, or rotated towards
  float degrees = 0;                                  // of kRotate; the row's length stays
  std::shared_ptr<const std::vector<float>> values;   // of kValues: [hidden]
  bool operator==(const RowSource& other) const;
  bool operator<(const RowSource& other) const;
};

// Edits of one routing row. An empty vector means "none"; a non-empty one has E entries.
// Order of application: logit * row_scale -> + bias -> / temperature -> muted = -inf -> score
// -> + select_bias (selection only) -> top-k -> forced -> weights (native renormalisation, scale).
struct LayerRecipe {
  int k = 0;                 // experts per token; 0: the model's own
  float temperature = 1.0f;
  std::vector<float> row_scale;    // router weight row multiplied; the router's own bias is not
  std::vector<float> logit_bias;
  std::vector<float> select_bias;
  std::vector<float> expert_scale; // multiplies the expert's output, not the recorded weight
  std::vector<uint8_t> muted;
  std::vector<uint8_t> forced;
  Scheme scheme;  // takes the place of the model's own score, selection and weights; the edits above hold under it
  // Of the weights themselves; the checkpoint's stay as they are.
  std::vector<ExpertMix> mixes;
  std::vector<std::vector<int>> unit_masks;  // hidden units of what runs in the expert's place that are off, ascending
  std::vector<RowSource> router_rows;        // before row_scale; raw logits are those of the rows as replaced
  std::vector<OtherExpert> others;           // in an expert's place; a place has this, or a mix or a unit mask

  // Of an expert by id; own or empty where nothing is set.
  const ExpertMix& mix(size_t expert) const;
  const std::vector<int>& unit_mask(size_t expert) const;
  const OtherExpert& other(size_t expert) const;

  bool is_identity() const;  // exactly native, whatever vectors are allocated
  bool operator==(const LayerRecipe&) const = default;
};

// The adapters on one linear: a set that has it. Null: none. Equal where the choice is.
struct AdapterRef {
  std::shared_ptr<const AdapterSet> set;
  bool operator==(const AdapterRef& other) const { return set == other.set || (set && other.set && *set == *other.set); }
  explicit operator bool() const { return set != nullptr; }
};

struct PathRouters;  // engine/routing/path_router.h

// Routers that choose the layer path from the prompt, once for a sequence.
struct PathChooser {
  std::string file;
  double budget = -0.5;  // -1 to 1: from as few layers as it can to as many; -0.5: the routers alone
  std::shared_ptr<const PathRouters> routers;  // null: none

  explicit operator bool() const { return routers != nullptr; }
  bool operator==(const PathChooser& other) const { return file == other.file && budget == other.budget; }
};

// How often each layer of the model runs, one pass right behind the other: 0 skips it. The same for all tokens of a
// sequence; every pass has its own keys, values and state.
struct LayerPath {
  std::vector<uint8_t> passes = {};  // [model layers], or empty: once each
  PathChooser chooser = {};          // decides the passes at the prefill; then they are empty here

  bool native() const { return passes.empty() && !chooser; }
  int passes_of(int layer) const { return passes.empty() ? 1 : passes[size_t(layer)]; }
  bool operator==(const LayerPath&) const = default;
};

struct Recipe {
  uint32_t epoch = 0;
  std::vector<LayerRecipe> layers;  // [moe_layers], or empty: identity
  std::vector<AdapterRef> adapters; // [places] (engine/model/linears.h), or empty: none
  LayerPath path = {};              // what backends run has no chooser any more

  // nullptr where the layer is native: backends take the untouched path.
  const LayerRecipe* layer(int moe_layer) const {
    return layers.empty() || layers[moe_layer].is_identity() ? nullptr : &layers[moe_layer];
  }
  // nullptr: no adapters stand there.
  const AdapterSet* adapters_at(int place) const { return adapters.empty() ? nullptr : adapters[size_t(place)].set.get(); }
  int passes_of(int layer) const { return path.passes_of(layer); }
  bool routes_natively() const;  // whatever adapters and path there are
  bool is_identity() const { return adapters.empty() && path.native() && routes_natively(); }
};

}  // namespace switchyard
