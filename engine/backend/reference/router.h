// A router: logits by ATen, decisions by route(), recorded into the frames. Engine thread.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "engine/model/quantised.h"
#include "engine/backend/reference/op.h"

namespace switchyard::reference {

// The rows that one expert works on, in token order, and the weight and slot of each.
struct Share {
  std::vector<int64_t> rows;
  std::vector<float> weights;
};

class Router {
 public:
  Router(const RoutedSpec& spec, const Loader& load);
  const RouterSpec& spec() const { return spec_; }

  // Routes every row of x [tokens, hidden] and records into step.frames; one share per expert.
  std::vector<Share> route_rows(const at::Tensor& x, const Step& step) const;

  // The weights of those decisions as a graph of step.biases and x: [tokens, E], 0 where an expert was not selected.
  // lens: takes the logits and the selection; may be null.
  at::Tensor weights(const at::Tensor& x, const Step& step, const std::vector<Share>& shares, LensRow* lens = nullptr) const;

 private:
  // The tokens into the memory, then what each takes from it: [tokens, E], see RouterInput::mixed; empty where lambda
  // is 0. logits: [tokens, E]; x: contiguous.
  std::vector<float> mix_neighbours(const at::Tensor& logits, const at::Tensor& x, const Step& step,
                                    const LayerRecipe& recipe) const;

  const RouterSpec spec_;
  // The weight with the rows that the recipe replaces.
  at::Tensor weight_under(const LayerRecipe& recipe) const;

  const at::Tensor weight_, bias_, select_bias_;
  const DType type_;  // of the weight, as stored
};

}  // namespace switchyard::reference
