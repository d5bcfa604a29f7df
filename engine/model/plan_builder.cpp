// Config values with limits, tensors with the shape they must have.
#include "engine/model/plan_builder.h"

#include <array>
#include <limits>

#include <fmt/format.h>

#include "engine/base/text.h"

namespace switchyard {

void PlanBuilder::refuse(const Error& error) {
  if (!error_) error_ = error;
}

void PlanBuilder::refuse_config(std::string_view what, std::string hint) {
  refuse(config_.fail(what, std::move(hint)).value());
}

int PlanBuilder::count(std::initializer_list<std::string_view> keys, int max) {
  std::string_view key = *keys.begin();
  for (const std::string_view candidate : keys)
    if (config_.has(candidate)) {
      key = candidate;
      break;
    }
  return static_cast<int>(take(config_.integer(key, 1, max), int64_t{1}));
}

int PlanBuilder::count_or(std::string_view key, int fallback, int max, int min) {
  return static_cast<int>(take(config_.integer_or(key, fallback, min, max), int64_t{min}));
}

bool PlanBuilder::flag_or(std::string_view key, bool fallback) {
  return take(config_.boolean_or(key, fallback), fallback);
}

float PlanBuilder::number_or(std::string_view key, float fallback, float min) {
  const auto member = config_.find(key);
  return member ? static_cast<float>(take(member->as_number(min, std::numeric_limits<float>::max()), double{fallback}))
                : fallback;
}

std::vector<int> PlanBuilder::list_or_empty(std::string_view key, int max) {
  if (!config_.has(key)) return {};
  const std::vector<int64_t> list = take(config_.integers(key, 0, max), {});
  return {list.begin(), list.end()};
}

std::vector<std::string> PlanBuilder::texts_or_empty(std::string_view key, size_t size) {
  if (!config_.has(key)) return {};
  std::vector<std::string> texts;
  for (const JsonView& entry : take(config_.array(key), {}))
    if (entry.json().is_string()) texts.push_back(entry.json().get<std::string>());
  if (!failed() && texts.size() != size) refuse_config(fmt::format("has {} {} that are texts, needs {}", texts.size(), key, size));
  return texts;
}

void PlanBuilder::only(std::string_view key, std::string_view value) {
  const std::string found = take(config_.text_or(key, value), std::string(value));
  if (found != value) refuse_config(fmt::format("has {} = {}, supported is {}", key, quote(found), value));
}

void PlanBuilder::refuse_if(std::string_view flag) {
  if (flag_or(flag, false)) refuse_config(fmt::format("has {} = true, which is not supported for this family", flag));
}

Activation PlanBuilder::activation(std::string_view key) {
  return activation(key, take(config_.text_or(key, "silu"), std::string("silu")));
}

Activation PlanBuilder::activation(std::string_view key, const std::string& wanted) {
  struct Row {
    std::string_view name;
    Activation activation;
  };
  constexpr std::array<Row, 6> kRows{{{"silu", Activation::kSilu},
                                      {"swish", Activation::kSilu},
                                      {"gelu", Activation::kGelu},
                                      {"gelu_new", Activation::kGeluTanh},
                                      {"gelu_pytorch_tanh", Activation::kGeluTanh},
                                      {"relu", Activation::kRelu}}};
  for (const Row& row : kRows)
    if (row.name == wanted) return row.activation;
  refuse_config(
      fmt::format("has {} = {}, supported are silu, gelu, gelu_new, gelu_pytorch_tanh and relu", key, quote(wanted)));
  return Activation::kSilu;
}

TensorRef PlanBuilder::checked(const std::string& name, const std::vector<int64_t>& shape, std::string_view why) {
  if (failed()) return {};
  const std::string needed = why.empty() ? "the config needs " : fmt::format("the config ({}) needs ", why);
  const auto stored = find_stored(quantisation_, tensors_, shards_, name, shape);
  if (!stored) {
    refuse(stored.error());
    return {};
  }
  if (!*stored) {
    refuse({ErrorCode::kMalformed,
            fmt::format("tensor {} is missing, {}it with shape {}.", quote(name), needed, shape_text(shape)),
            shards_.size() == 1 ? shards_[0] : "the checkpoint", "Is config.json from another model?"});
    return {};
  }
  const TensorInfo* tensor = find_tensor(tensors_, (*stored)->name);
  if ((*stored)->quantised && !tensor->layout) return **stored;  // its parts were checked
  const std::string& shard = shards_[tensor->shard];
  if (!tensor->layout && tensor->dtype != DType::kF32 && tensor->dtype != DType::kBF16 && tensor->dtype != DType::kF16) {
    refuse({ErrorCode::kMalformed,
            fmt::format("tensor {} is stored as {}, supported are F32, BF16 and F16.", quote(name),
                        switchyard::name(tensor->dtype)),
            shard,
            fmt::format("Quantised weights need a quantization_config in config.json. Supported: {}.",
                        supported_quantisations())});
    return {};
  }
  if (tensor->shape != shape) {
    refuse({ErrorCode::kMalformed,
            fmt::format("tensor {} has shape {}, {}{}.", quote(name), shape_text(tensor->shape), needed,
                        shape_text(shape)),
            shard, "Is config.json from another revision?"});
    return {};
  }
  return **stored;
}

TensorRef PlanBuilder::matrix(const std::string& name, int64_t rows, int64_t cols, std::string_view why) {
  return part(checked(name, {rows, cols}, why), 0, rows, cols);
}

TensorRef PlanBuilder::vector(const std::string& name, int64_t size, std::string_view why) {
  return part(checked(name, {size}, why), 0, 1, size);
}

TensorRef PlanBuilder::packed(const std::string& name, int64_t count, int64_t rows, int64_t cols,
                              std::string_view why) {
  return checked(name, {count, rows, cols}, why);
}

TensorRef PlanBuilder::strided(const TensorRef& tensor, int64_t element_offset, int64_t rows, int64_t cols,
                               int64_t row_stride, int64_t col_stride) {
  TensorRef ref = part(tensor, element_offset, rows, cols);
  ref.row_stride = row_stride;
  ref.col_stride = col_stride;
  return ref;
}

TensorRef PlanBuilder::part(const TensorRef& tensor, int64_t element_offset, int64_t rows, int64_t cols) {
  TensorRef ref = tensor;
  ref.element_offset = element_offset;
  ref.rows = rows;
  ref.cols = cols;
  return ref;
}

}  // namespace switchyard
