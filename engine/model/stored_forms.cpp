// How a checkpoint stores a matrix.
#include "engine/model/stored_forms.h"

#include <algorithm>
#include <limits>

#include <fmt/format.h>

#include "engine/base/text.h"
#include "engine/model/quantised.h"

namespace switchyard {
namespace {

constexpr int64_t kMaxGroup = 1 << 20;

tl::unexpected<Error> unsupported(const JsonView& at, std::string_view what) {
  return at.fail(fmt::format("{}, which is not supported", what),
                 fmt::format("Supported: {}.", supported_quantisations()));
}

Result<void> only(const JsonView& at, std::string_view key, int64_t wanted) {
  SY_TRY(const int64_t found, at.integer_or(key, wanted, std::numeric_limits<int64_t>::min(),
                                            std::numeric_limits<int64_t>::max()));
  if (found != wanted) return unsupported(at, fmt::format("has {} = {}", key, found));
  return {};
}

Result<void> one_of(const JsonView& at, std::string_view key, std::string_view fallback,
                    std::initializer_list<std::string_view> wanted) {
  SY_TRY(const std::string found, at.text_or(key, fallback));
  if (std::find(wanted.begin(), wanted.end(), found) == wanted.end())
    return unsupported(at, fmt::format("has {} = {}", key, quote(found)));
  return {};
}

// group_size: -1 is one group for all columns.
Result<int64_t> group_of(const JsonView& at, std::string_view key) {
  SY_TRY(const int64_t group, at.integer_or(key, 128, -1, kMaxGroup));
  if (group == 0) return at.fail(fmt::format("has {} = 0, needs -1 or at least 1", key));
  return std::max<int64_t>(group, 0);
}

Result<Quantisation> read_fp8(const JsonView& at) {
  Quantisation q{.method = QuantMethod::kFp8};
  SY_CHECK(one_of(at, "fmt", "e4m3", {"e4m3", "float8_e4m3fn"}));
  if (!at.has("weight_block_size")) return q;
  SY_TRY(const auto block, at.integers("weight_block_size", 1, kMaxGroup));
  if (block.size() != 2) return at.fail(fmt::format("has {} numbers in weight_block_size, needs 2", block.size()));
  q.block_rows = block[0];
  q.block_cols = block[1];
  return q;
}

Result<Quantisation> read_gptq(const JsonView& at) {
  Quantisation q{.method = QuantMethod::kGptq};
  SY_CHECK(only(at, "bits", 4));
  SY_CHECK(one_of(at, "checkpoint_format", "gptq", {"gptq", "gptq_v2"}));
  SY_TRY(q.group, group_of(at, "group_size"));
  SY_TRY(const std::string format, at.text_or("checkpoint_format", "gptq"));
  q.zero_less_one = format == "gptq";
  return q;
}

Result<Quantisation> read_awq(const JsonView& at) {
  Quantisation q{.method = QuantMethod::kAwq};
  SY_CHECK(only(at, "bits", 4));
  SY_TRY(std::string version, at.text_or("version", "gemm"));
  std::transform(version.begin(), version.end(), version.begin(), [](unsigned char c) { return std::tolower(c); });
  if (version != "gemm") return unsupported(at, fmt::format("has version = {}", quote(version)));
  SY_TRY(q.group, group_of(at, at.has("group_size") ? "group_size" : "q_group_size"));
  return q;
}

// compressed-tensors: one weight scheme for all groups of modules.
Result<Quantisation> read_compressed(const JsonView& at) {
  SY_TRY(const std::string format, at.text_or("format", "unnamed"));
  SY_TRY(const JsonView groups, at.at("config_groups"));
  SY_TRY(const auto entries, groups.as_object());
  std::optional<Quantisation> all;
  for (const auto& [key, group] : entries) {
    SY_TRY(const JsonView weights, group.at("weights"));
    SY_TRY(const std::string own_format, group.text_or("format", format));
    SY_TRY(const std::string type, weights.text_or("type", "int"));
    SY_TRY(const std::string strategy, weights.text_or("strategy", "group"));
    Quantisation q;
    if (own_format == "pack-quantized" && type == "int") {
      q.method = QuantMethod::kPackedInt4;
      SY_CHECK(only(weights, "num_bits", 4));
      SY_CHECK(one_of(weights, "strategy", "group", {"group", "channel"}));
      if (strategy == "group") {
        SY_TRY(q.group, group_of(weights, "group_size"));
      }
    } else if (own_format == "float-quantized" && type == "float") {
      q.method = QuantMethod::kFp8;
      SY_CHECK(only(weights, "num_bits", 8));
      SY_CHECK(one_of(weights, "strategy", "tensor", {"tensor", "channel"}));
    } else {
      return unsupported(group, fmt::format("has format {} of type {}", quote(own_format), quote(type)));
    }
    if (all && (all->method != q.method || all->group != q.group))
      return unsupported(groups, "has groups of modules with different schemes");
    all = q;
  }
  if (!all) return groups.fail("is empty");
  return *all;
}

// Collects the parts of a stored form; the first thing wrong stays.
class Parts {
 public:
  Parts(std::span<const TensorInfo> tensors, std::span<const std::string> shards, const std::string& form)
      : tensors_(tensors), shards_(shards), form_(form) {}

  const TensorInfo* find(const std::string& name) const { return find_tensor(tensors_, name); }

  // A part that must be there with one of these dtypes and this shape.
  StoredBytes part(const std::string& name, std::initializer_list<DType> dtypes, const std::vector<int64_t>& shape) {
    const TensorInfo* tensor = find(name);
    if (!tensor) {
      refuse(fmt::format("tensor {} is missing: {} needs it with shape {}.", quote(name), form_, shape_text(shape)),
             shards_.size() == 1 ? shards_[0] : "the checkpoint");
      return {};
    }
    const std::string& shard = shards_[static_cast<size_t>(tensor->shard)];
    if (std::find(dtypes.begin(), dtypes.end(), tensor->dtype) == dtypes.end()) {
      std::string wanted;
      for (const DType dtype : dtypes) wanted += (wanted.empty() ? "" : ", ") + std::string(switchyard::name(dtype));
      refuse(fmt::format("tensor {} is stored as {}, {} needs {}.", quote(name), switchyard::name(tensor->dtype), form_,
                         wanted),
             shard);
    }
    if (tensor->shape != shape)
      refuse(fmt::format("tensor {} has shape {}, {} needs {}.", quote(name), shape_text(tensor->shape), form_,
                         shape_text(shape)),
             shard);
    return {tensor->dtype, tensor->shard, tensor->begin, tensor->end};
  }
  StoredBytes part_if_there(const std::string& name, std::initializer_list<DType> dtypes,
                            const std::vector<int64_t>& shape) {
    return find(name) ? part(name, dtypes, shape) : StoredBytes{};
  }

  void refuse(std::string what, std::string where) {
    if (!error_)
      error_ = Error{ErrorCode::kMalformed, std::move(what), std::move(where),
                     "Is config.json from another revision, or a shard missing?"};
  }
  const std::optional<Error>& error() const { return error_; }

 private:
  std::span<const TensorInfo> tensors_;
  std::span<const std::string> shards_;
  std::string form_;
  std::optional<Error> error_;
};

int64_t blocks_in(int64_t size, int64_t block) {
  return (size + block - 1) / block;
}

// [..., out, in] as rows and columns.
struct Flat {
  int64_t rows = 1, cols = 1, last_rows = 1;  // rows of one matrix
  explicit Flat(const std::vector<int64_t>& shape) {
    for (const int64_t dim : shape) rows *= dim;
    cols = std::max<int64_t>(shape.back(), 1);
    rows /= cols;
    last_rows = shape.size() > 1 ? std::max<int64_t>(shape[shape.size() - 2], 1) : 1;
  }
};

using Form = Result<std::optional<TensorRef>>;

Form finish(const Parts& parts, const std::string& main, DType dtype, QuantLayout layout) {
  if (parts.error()) return tl::unexpected<Error>(*parts.error());
  return TensorRef{.name = main, .dtype = dtype, .quantised = std::make_shared<const QuantLayout>(std::move(layout))};
}

// name: the FP8 tensor itself. Its scale: NAME_scale_inv of blocks, else NAME_scale: one, or one a row.
Form fp8_form(const Quantisation& q, std::span<const TensorInfo> tensors, std::span<const std::string> shards,
              const std::string& name, const std::vector<int64_t>& shape) {
  const Flat flat(shape);
  QuantLayout layout{.kind = QuantKind::kFp8, .rows = flat.rows, .cols = flat.cols, .unit = flat.last_rows};
  Parts parts(tensors, shards, "FP8");
  parts.part(name, {DType::kF8E4M3}, shape);
  const bool inverse = parts.find(name + "_scale_inv") != nullptr;
  const std::string scale_name = name + (inverse ? "_scale_inv" : "_scale");
  const TensorInfo* scale = parts.find(scale_name);
  std::vector<int64_t> scale_shape = shape;
  if (q.block_cols > 0) {
    layout.group = q.block_cols;
    layout.block_rows = q.block_rows;
    scale_shape[shape.size() - 2] = blocks_in(flat.last_rows, q.block_rows);
    scale_shape.back() = blocks_in(flat.cols, q.block_cols);
    layout.label = fmt::format("FP8 e4m3, {} x {} blocks", q.block_rows, q.block_cols);
  } else {
    layout.group = flat.cols;
    const bool by_row = scale && scale->shape.size() == shape.size() && scale->shape.back() == 1 && scale->shape != std::vector<int64_t>(shape.size(), 1);
    if (by_row) {
      scale_shape.back() = 1;
      layout.block_rows = 1;
    } else if (shape.size() == 2) {  // one scale, written as [], [1] or [1, 1]
      if (scale) scale_shape = std::vector<int64_t>(std::min<size_t>(scale->shape.size(), 2), 1);
      layout.block_rows = flat.last_rows;
    } else {  // packed: one a matrix
      scale_shape[shape.size() - 2] = scale_shape.back() = 1;
      layout.block_rows = flat.last_rows;
    }
    layout.label = by_row ? "FP8 e4m3, scaled by row" : "FP8 e4m3, one scale";
  }
  layout.scales = parts.part(scale_name, {DType::kF32, DType::kBF16, DType::kF16, DType::kF8E8M0, DType::kU8}, scale_shape);
  return finish(parts, name, DType::kF8E4M3, std::move(layout));
}

Form mxfp4_form(std::span<const TensorInfo> tensors, std::span<const std::string> shards, const std::string& name,
                const std::vector<int64_t>& shape) {
  const Flat flat(shape);
  Parts parts(tensors, shards, "MXFP4");
  const std::string main = name + "_blocks";
  if (flat.cols % 32 != 0)
    parts.refuse(fmt::format("tensor {} has {} columns, MXFP4 needs a multiple of 32.", quote(main), flat.cols), shards[0]);
  std::vector<int64_t> scales = shape;
  scales.back() = flat.cols / 32;
  std::vector<int64_t> blocks = scales;
  blocks.push_back(16);
  parts.part(main, {DType::kU8}, blocks);
  QuantLayout layout{.kind = QuantKind::kMxfp4, .label = "MXFP4", .rows = flat.rows, .cols = flat.cols, .group = 32};
  layout.scales = parts.part(name + "_scales", {DType::kU8, DType::kF8E8M0}, scales);
  return finish(parts, main, DType::kU8, std::move(layout));
}

// GPTQ and AWQ; base: the module's name with its dot.
Form packed_words_form(const Quantisation& q, std::span<const TensorInfo> tensors, std::span<const std::string> shards,
                       const std::string& base, int64_t rows, int64_t cols) {
  const bool awq = q.method == QuantMethod::kAwq;
  const int64_t group = q.group > 0 ? q.group : cols, groups = blocks_in(cols, group);
  const std::string form = awq ? "AWQ int4" : "GPTQ int4";
  Parts parts(tensors, shards, form);
  const std::string main = base + "qweight";
  if (rows % 8 != 0 || (!awq && cols % 8 != 0))
    parts.refuse(fmt::format("tensor {} stands for {} x {} values, {} needs multiples of 8.", quote(main), rows, cols, form), shards[0]);
  parts.part(main, {DType::kI32}, awq ? std::vector{cols, rows / 8} : std::vector{cols / 8, rows});
  QuantLayout layout{.kind = awq ? QuantKind::kAwq : QuantKind::kGptq,
                     .label = q.group > 0 ? fmt::format("{}, groups of {}", form, q.group) : form + ", one group",
                     .rows = rows,
                     .cols = cols,
                     .group = group,
                     .zero_offset = !awq && q.zero_less_one ? 1 : 0,
                     .zero_wraps = !awq && q.zero_less_one};
  layout.scales = parts.part(base + "scales", {DType::kF16, DType::kBF16, DType::kF32}, {groups, rows});
  layout.zeros = parts.part(base + "qzeros", {DType::kI32}, {groups, rows / 8});
  if (!awq) layout.order = parts.part_if_there(base + "g_idx", {DType::kI32}, {cols});
  return finish(parts, main, DType::kI32, std::move(layout));
}

Form packed_int4_form(const Quantisation& q, std::span<const TensorInfo> tensors, std::span<const std::string> shards,
                      const std::string& name, int64_t rows, int64_t cols) {
  const int64_t group = q.group > 0 ? q.group : cols, groups = blocks_in(cols, group);
  Parts parts(tensors, shards, "pack-quantized int4");
  const std::string main = name + "_packed";
  parts.part(main, {DType::kI32}, {rows, blocks_in(cols, 8)});
  QuantLayout layout{.kind = QuantKind::kPackedInt4,
                     .label = q.group > 0 ? fmt::format("packed int4, groups of {}", q.group) : "packed int4, scaled by row",
                     .rows = rows,
                     .cols = cols,
                     .group = group};
  layout.scales = parts.part(name + "_scale", {DType::kBF16, DType::kF16, DType::kF32}, {rows, groups});
  layout.zeros = parts.part_if_there(name + "_zero_point", {DType::kI32}, {blocks_in(rows, 8), groups});
  layout.order = parts.part_if_there(name + "_g_idx", {DType::kI32}, {cols});
  return finish(parts, main, DType::kI32, std::move(layout));
}

// "X." of "X.weight"; empty where the name has another end.
std::string module_of(std::string_view name) {
  constexpr std::string_view kWeight = "weight";
  return name.ends_with(".weight") ? std::string(name.substr(0, name.size() - kWeight.size())) : std::string();
}

// The name of the main tensor of the quantised form.
std::string quantised_name(QuantMethod method, std::string_view name) {
  switch (method) {
    case QuantMethod::kMxfp4:
      return std::string(name) + "_blocks";
    case QuantMethod::kGptq:
    case QuantMethod::kAwq:
      return module_of(name).empty() ? std::string() : module_of(name) + "qweight";
    case QuantMethod::kPackedInt4:
      return std::string(name) + "_packed";
    default:
      return {};
  }
}

// gpt_oss in a GGUF file: its experts have the names of the MXFP4 release, whatever their type.
const TensorInfo* gguf_blocks(std::span<const TensorInfo> tensors, std::string_view name) {
  const TensorInfo* tensor = find_tensor(tensors, std::string(name) + "_blocks");
  return tensor && tensor->layout ? tensor : nullptr;
}

}  // namespace

std::string supported_quantisations() {
  return "fp8 (e4m3; blocks, rows or one scale), mxfp4, gptq (4 bits), awq (4 bits, gemm), compressed-tensors "
         "(pack-quantized 4 bits, float-quantized), and GGUF files";
}

Result<Quantisation> read_quantisation(const JsonView& config) {
  const auto at = config.find("quantization_config");
  if (!at) return Quantisation{};
  SY_TRY(const std::string method, at->text_or("quant_method", "unnamed"));
  if (method == "fp8") return read_fp8(*at);
  if (method == "mxfp4") return Quantisation{.method = QuantMethod::kMxfp4, .group = 32};
  if (method == "gptq") return read_gptq(*at);
  if (method == "awq") return read_awq(*at);
  if (method == "compressed-tensors") return read_compressed(*at);
  return unsupported(*at, fmt::format("says the weights are quantised with quant_method {}", quote(method)));
}

bool is_stored(const Quantisation& quantisation, std::span<const TensorInfo> tensors, std::string_view name) {
  if (find_tensor(tensors, name)) return true;
  if (gguf_blocks(tensors, name)) return true;
  const std::string other = quantised_name(quantisation.method, name);
  return !other.empty() && find_tensor(tensors, other);
}

Result<std::optional<TensorRef>> find_stored(const Quantisation& quantisation, std::span<const TensorInfo> tensors,
                                             std::span<const std::string> shards, const std::string& name,
                                             const std::vector<int64_t>& shape) {
  const TensorInfo* tensor = find_tensor(tensors, name);
  if (tensor && tensor->dtype == DType::kF8E4M3 && quantisation.method == QuantMethod::kFp8 && shape.size() >= 2)
    return fp8_form(quantisation, tensors, shards, name, shape);
  if (tensor) return TensorRef{.name = name, .dtype = tensor->dtype, .quantised = tensor->layout};
  if (const TensorInfo* blocks = gguf_blocks(tensors, name))
    return TensorRef{.name = blocks->name, .dtype = blocks->dtype, .quantised = blocks->layout};
  const std::string other = quantised_name(quantisation.method, name);
  if (other.empty() || !find_tensor(tensors, other)) return std::optional<TensorRef>();
  if (quantisation.method == QuantMethod::kMxfp4) return mxfp4_form(tensors, shards, name, shape);
  if (shape.size() != 2)
    return fail(ErrorCode::kMalformed,
                fmt::format("tensor {} is quantised, a matrix was expected of shape {}.", quote(other), shape_text(shape)),
                shards.size() == 1 ? shards[0] : "the checkpoint");
  if (quantisation.method == QuantMethod::kPackedInt4)
    return packed_int4_form(quantisation, tensors, shards, name, shape[0], shape[1]);
  return packed_words_form(quantisation, tensors, shards, module_of(name), shape[0], shape[1]);
}

}  // namespace switchyard
