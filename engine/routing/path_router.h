// Routers of layers (Dr.LLM, specs/gating.md 1.6): from what a layer reads they decide whether it is skipped, run or
// repeated, once for a sequence. Pure functions on values; reading a file: any thread.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/base/result.h"

namespace switchyard {

// d -> width -> 3, GELU (tanh) between.
struct PathRouter {
  int width = 0;
  std::vector<float> l1, l1_bias;  // [width, d], [width]
  std::vector<float> l2, l2_bias;  // [3, width], [3]: skip, run, repeat
};
struct PathRouters {
  int hidden = 0;                    // d
  std::map<int, PathRouter> layers;  // by model layer; a layer without one runs
};

// The shipped file of seeded routers for the demo, in assets/paths.
inline constexpr const char* kExampleRouters = "layer_routers.safetensors";
// layers.{l}.drllm.l1.weight [width, d], .l1.bias, .l2.weight [3, width], .l2.bias, F32, BF16 or F16; nothing else.
// A name without a folder that is not here is looked for in assets/paths. kNotFound, kMalformed.
Result<std::shared_ptr<const PathRouters>> read_path_routers(const std::string& path);

using PathProbabilities = std::array<double, 3>;  // skip, run, repeat

// Budget p in [-1, 1]: -1 skips all it can, -0.5 is the router alone, 0.5 runs all, 1 repeats all.
PathProbabilities at_budget(const PathProbabilities& probabilities, double budget);

// How often the layer runs: the largest, of equal ones the lowest.
int passes_of(const PathProbabilities& mixed);

// min(8, tokens) windows of as many tokens each; the remainder is left out.
struct PathWindows {
  int count = 0, size = 0;
  int used() const { return count * size; }
};
PathWindows windows_of(int tokens);

// hidden: [tokens, d]. Means of the windows [count, d].
std::vector<float> window_means(std::span<const float> hidden, int d);

// Softmax of the logits averaged over the windows.
PathProbabilities probabilities_of(const PathRouter& router, std::span<const float> hidden, int d);

}  // namespace switchyard
