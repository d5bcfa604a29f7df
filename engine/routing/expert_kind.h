// Experts of other kinds than the model's own, as an edit puts them into an expert's place (specs/gating.md 1.3: Hecto,
// low-cost customization), with weights from one safetensors file. Values; any thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/base/ids.h"
#include "engine/base/result.h"

namespace switchyard {

// y of one token's input x [d]:
enum class ExpertKind : uint8_t {
  kOwn,       // what else the recipe says
  kSwiglu,    // down(silu(gate x) * (up x))
  kGeluMlp,   // down(gelu(up x)), gelu by erf
  kGru,       // down((1 - z) n) of one GRU step from the state 0: r = sigmoid(ir x + b_ir + b_hr),
              // z = sigmoid(iz x + b_iz + b_hz), n = tanh(in x + b_in + r b_hn)
  kIdentity,  // x
  kNull,      // 0
  kConstant,  // a vector
  kLocal,     // own where sigmoid(gn x + b) <= 1/2, else the swiglu or gelu_mlp of the file
};
inline constexpr std::string_view kExpertKinds[] = {"own", "swiglu", "gelu_mlp", "gru", "identity", "null", "constant", "local"};
inline std::string_view name(ExpertKind kind) { return kExpertKinds[size_t(kind)]; }
constexpr bool needs_file(ExpertKind kind) {
  return kind != ExpertKind::kOwn && kind != ExpertKind::kIdentity && kind != ExpertKind::kNull;
}

// One of GE and LE: exactly 1/2 is global.
inline bool is_local(double gate) { return gate > 0.5; }

// Tensors of one expert, row-major [out, in]; empty: not in the file.
struct ExpertTensors {
  struct Tensor {
    int64_t rows = 0, cols = 0;  // of a vector rows is its length, cols 0
    std::vector<float> values;
    explicit operator bool() const { return !values.empty(); }
  };
  Tensor gate, gate_bias, up, up_bias, down, down_bias;
  Tensor ir, iz, in, hr, hz, hn;                          // hr, hz, hn multiply the state, which is 0
  Tensor b_ir, b_iz, b_in, b_hr, b_hz, b_hn;
  Tensor gn, gn_bias;
  Tensor constant;
  int64_t width() const { return up ? up.rows : in.rows; }  // hidden units
};

// By the model's layer and the expert's id; shared, immutable.
struct ExpertFile {
  std::map<std::pair<int, int>, ExpertTensors> experts;
};

// What runs in an expert's place.
struct OtherExpert {
  ExpertKind kind = ExpertKind::kOwn;
  std::string file;
  std::shared_ptr<const ExpertTensors> tensors;  // of this place; null where the kind needs none

  explicit operator bool() const { return kind != ExpertKind::kOwn; }
  bool operator==(const OtherExpert& other) const { return kind == other.kind && file == other.file; }
  bool operator<(const OtherExpert& other) const { return std::pair(kind, file) < std::pair(other.kind, other.file); }
};

// Tensors layers.{layer}.experts.{expert}.NAME, all F32: gate, up, down with .weight and .bias; gru.{ir,iz,in,hr,hz,hn} with
// .weight and .bias; gn.weight [d] or [1, d] and gn.bias [1]; constant [d]. Anything else is refused by name.
Result<std::shared_ptr<const ExpertFile>> read_expert_file(const std::string& path);

// Whether the file's tensors make an expert of this kind for vectors of `hidden` numbers; kUsage with what is missing or
// has another shape. where: "layer 3, expert 5".
Result<void> check_expert(ExpertKind kind, const ExpertFile* file, int layer, ExpertId expert, int64_t hidden);

}  // namespace switchyard
