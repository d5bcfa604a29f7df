// Low-rank adapters from disk: PEFT folders (adapter_config.json, adapter_model.safetensors) and our own safetensors
// file (specs/gating.md section 2). Every name and shape is checked against the model before a value is read.
// Files are foreign: reliability.md, sections 2 and 4. Any thread.
//
// Our own file, all tensors F32, F16 or BF16; MODULE is the model's, "model.layers.0.self_attn.q_proj":
//   lora.MODULE.E.A [r, in], lora.MODULE.E.B [out, r]   experts E = 0, 1, ... of the module
//   lora.MODULE.gate [experts, in]                       gate vectors or a router's weight
//   lora.MODULE.z [tasks, experts, heads]                task logits of Poly and MHR
//   lora.MODULE.bias [r]                                 FlyLoRA's d
//   lora.MODULE.{alpha,beta}.{w0 [m, in], w1 [n, m], b1 [n], w2 [1, n], b2 [1]}   MoGU's two routers
//   lora.embeddings [experts, n], lora.instruction [n]   Glider's task embeddings
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "engine/model/linears.h"

namespace switchyard {

struct LoraPair {
  std::string expert;  // "chemistry", "routed.safetensors 2": the folder, or the file and the number in it
  int rank = 0;
  std::optional<float> scale;  // lora_alpha / r, or lora_alpha / sqrt(r) with rslora; nullopt: the file does not say
  std::vector<float> a;        // [rank, in]
  std::vector<float> b;        // [out, rank]
};

// sigmoid(w2 (w1 w0 x + b1) + b2).
struct BlendNet {
  int inner = 0, outer = 0;
  std::vector<float> w0, w1, b1, w2, b2;  // [inner, in], [outer, inner], [outer], [outer], [1]
  explicit operator bool() const { return !w0.empty(); }
};

// What the files hold for one linear.
struct AdapterTensors {
  std::vector<LoraPair> loras;  // in the order of the files
  int gates = 0;
  std::vector<float> gate;  // [gates, in]
  int tasks = 0, skills = 0, heads = 0;
  std::vector<float> z;  // [tasks, skills, heads]
  std::vector<float> bias;
  BlendNet alpha, beta;
};

struct AdapterFiles {
  std::map<int, AdapterTensors> linears;  // by place
  int embedded = 0;
  std::vector<float> embeddings;   // [embedded, n]
  std::vector<float> instruction;  // [n]
};

// paths: PEFT folders and files of ours; a name without a folder that is not there is looked for in assets/schemes.
// wanted: which places to read; what the files hold for others is checked and left out. kNotFound, kMalformed; kUsage
// for a sound adapter that asks for what is not done here (DoRA, biases, saved modules, other methods than LoRA).
Result<AdapterFiles> read_adapter_files(const std::vector<std::string>& paths, const std::vector<Linear>& linears,
                                        const std::function<bool(int place)>& wanted);

}  // namespace switchyard
