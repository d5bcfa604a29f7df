// What a family file builds its plan with: config values with limits and tensors checked against the shapes
// they must have. The first error stays and everything after it is harmless, so that a family reads as data.
// One builder per opening; one thread.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/json.h"
#include "engine/base/result.h"
#include "engine/model/limits.h"
#include "engine/model/plan.h"
#include "engine/model/stored_forms.h"
#include "engine/model/tensor_info.h"

namespace switchyard {

class PlanBuilder {
 public:
  // tensors: sorted by name. Both must outlive the builder.
  PlanBuilder(const JsonView& config, std::span<const TensorInfo> tensors, std::span<const std::string> shards,
              const Quantisation& quantisation = {})
      : config_(config), tensors_(tensors), shards_(shards), quantisation_(quantisation) {}

  const JsonView& config() const { return config_; }
  bool failed() const { return error_.has_value(); }
  const std::optional<Error>& error() const { return error_; }
  void refuse(const Error& error);  // kept if it is the first
  void refuse_config(std::string_view what, std::string hint = {});

  // The value, or after an error a harmless one; of several keys the first present.
  int count(std::initializer_list<std::string_view> keys, int max);  // 1 to max, required
  int count_or(std::string_view key, int fallback, int max, int min = 1);
  bool flag_or(std::string_view key, bool fallback);
  float number_or(std::string_view key, float fallback, float min);  // at least min
  std::vector<std::string> texts_or_empty(std::string_view key, size_t size);  // exactly `size` strings, or absent
  std::vector<int> list_or_empty(std::string_view key, int max);     // integers 0 to max
  void only(std::string_view key, std::string_view value);  // refuses another text; absent is accepted
  void refuse_if(std::string_view flag);                             // refuses a flag that is set
  Activation activation(std::string_view key = "hidden_act");        // silu if absent
  Activation activation(std::string_view key, const std::string& name);  // name: the value of key
  template <class T>
  T take(Result<T> result, T harmless) {
    if (result) return std::move(*result);
    refuse(result.error());
    return harmless;
  }

  int64_t extent(std::string_view tensor, size_t axis) const {  // 0: there is no such tensor or axis
    const TensorInfo* found = find_tensor(tensors_, tensor);
    return found && axis < found->shape.size() ? found->shape[axis] : 0;
  }
  // Stored plainly or quantised.
  bool has(std::string_view tensor) const { return is_stored(quantisation_, tensors_, tensor); }
  // A tensor of exactly this shape, whatever its storage; why: the config keys behind it ("num_experts = 60").
  TensorRef matrix(const std::string& name, int64_t rows, int64_t cols, std::string_view why = {});
  TensorRef vector(const std::string& name, int64_t size, std::string_view why = {});
  TensorRef vector_if(bool wanted, const std::string& name, int64_t size) {
    return wanted ? vector(name, size) : TensorRef{};
  }
  // [count, rows, cols], to be cut into matrices by part().
  TensorRef packed(const std::string& name, int64_t count, int64_t rows, int64_t cols, std::string_view why = {});
  // Rows and columns that are not neighbours: strides in elements.
  static TensorRef strided(const TensorRef& tensor, int64_t element_offset, int64_t rows, int64_t cols,
                           int64_t row_stride, int64_t col_stride);
  static TensorRef part(const TensorRef& tensor, int64_t element_offset, int64_t rows, int64_t cols);

 private:
  TensorRef checked(const std::string& name, const std::vector<int64_t>& shape, std::string_view why);

  const JsonView& config_;
  std::span<const TensorInfo> tensors_;
  std::span<const std::string> shards_;
  Quantisation quantisation_;
  std::optional<Error> error_;
};

}  // namespace switchyard
