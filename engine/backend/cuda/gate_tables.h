// A recipe as the tables that the kernels read (GateTable), and what of a recipe does not fit into one. Engine thread.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "engine/backend/cuda/tables.h"
#include "engine/routing/recipe.h"

namespace switchyard::cuda {

// A layer's router with the checkpoint's biases on the device, or null.
struct ModelGate {
  RouterSpec spec;
  const float* router_bias = nullptr;
  const float* select_bias = nullptr;
};

// What of the layer's routing a table cannot hold, in words: "the scheme recurrent"; empty: all fits. The host decides then
// (host_walk.h).
std::string beyond_table(const LayerRecipe& recipe);

// Tables of all rows and the arrays that they point to, made on the host.
class GatePage {
 public:
  // recipe: nullptr for native.
  void add(const ModelGate& gate, const LayerRecipe* recipe, uint32_t epoch);
  // The arrays will lie at `base`: the tables' pointers become the device's.
  void place(const unsigned char* base);

  const std::vector<GateTable>& tables() const { return tables_; }
  const std::vector<unsigned char>& arrays() const { return arrays_; }

 private:
  void add_scheme(const RouterSpec& spec, const LayerRecipe& recipe, GateTable& table);
  template <class T>
  void keep(std::span<const T> values, const T* GateTable::*place);

  std::vector<GateTable> tables_;
  std::vector<unsigned char> arrays_;
  struct Kept {
    size_t field;  // byte of the pointer in the tables
    size_t offset;
  };
  std::vector<Kept> kept_;
};

}  // namespace switchyard::cuda
