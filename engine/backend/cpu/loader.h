// Tensors of a checkpoint as the kernels take them. Used by load_model() on the opening thread.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <tuple>
#include <vector>

#include "engine/backend/cpu/model.h"

namespace switchyard::cpu {

// The plain element types that the kernels read.
std::optional<Stored> stored(DType dtype);

// How the kernels read a tensor that is quantised where it stands; nullopt: they do not, and it is decoded at load.
std::optional<Stored> stored_in_blocks(const TensorRef& ref);

// What a matrix takes as the cpu backend reads it: in the file, in blocks or plain, or decoded.
uint64_t held_bytes(const TensorRef& ref);

class Loader {
 public:
  // copies: receives the buffers of what cannot be used in place.
  Loader(const WeightStore& weights, std::vector<std::unique_ptr<unsigned char[]>>& copies)
      : weights_(weights), copies_(copies) {}

  // In place where the file's order and type allow; else a copy in the narrowest type that holds every value of
  // that storage exactly (exact_dtype). An absent tensor is left as it is.
  Result<void> matrix(const TensorRef& ref, Matrix& out);
  // The same, but never in blocks.
  Result<void> plain_matrix(const TensorRef& ref, Matrix& out);
  Result<void> vector(const TensorRef& ref, std::vector<float>& out);
  // size: of the normed vector, for an absent weight.
  Result<void> norm(const NormSpec& spec, int64_t size, Norm& out);
  // [heads * cols, rows]: of each of `heads` blocks of `rows` rows, `apart` rows from one to the next, the transpose.
  Matrix transposed_blocks(const Matrix& matrix, int heads, int64_t rows, int64_t apart);

 private:
  unsigned char* reserve(size_t bytes);
  Result<void> copy(const TensorRef& ref, Matrix& out);
  Result<void> blocks(const TensorRef& ref, Stored type, Matrix& out);

  using Key = std::tuple<std::string, int64_t, int64_t, int64_t, int64_t, int64_t>;
  const WeightStore& weights_;
  std::vector<std::unique_ptr<unsigned char[]>>& copies_;
  std::map<Key, Matrix> copied_;  // a tensor used twice (tied head) is copied once
};

}  // namespace switchyard::cpu
