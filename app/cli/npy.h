// A float32 matrix as a NumPy .npy file (format 1.0), written row by row and seen only when whole. Main thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "engine/base/atomic_file.h"
#include "engine/base/result.h"

namespace switchyard {

class NpyWriter {
 public:
  static Result<NpyWriter> create(const std::string& path, uint64_t rows, uint64_t columns, bool overwrite);
  Result<void> append(std::span<const float> values);
  Result<void> commit() { return file_.commit(); }

 private:
  explicit NpyWriter(AtomicFile file) : file_(std::move(file)) {}
  AtomicFile file_;
};

}  // namespace switchyard
