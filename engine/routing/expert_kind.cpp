// See expert_kind.h.
#include "engine/routing/expert_kind.h"

#include <charconv>
#include <cmath>
#include <filesystem>
#include <optional>

#include <fmt/format.h>

#include "engine/base/folder.h"
#include "engine/base/text.h"
#include "engine/model/safetensors.h"

namespace switchyard {
namespace {

using Tensor = ExpertTensors::Tensor;

struct Named {
  const char* name;
  Tensor ExpertTensors::*tensor;
};
constexpr Named kTensors[] = {
    {"gate.weight", &ExpertTensors::gate},      {"gate.bias", &ExpertTensors::gate_bias},
    {"up.weight", &ExpertTensors::up},          {"up.bias", &ExpertTensors::up_bias},
    {"down.weight", &ExpertTensors::down},      {"down.bias", &ExpertTensors::down_bias},
    {"gru.ir.weight", &ExpertTensors::ir},      {"gru.ir.bias", &ExpertTensors::b_ir},
    {"gru.iz.weight", &ExpertTensors::iz},      {"gru.iz.bias", &ExpertTensors::b_iz},
    {"gru.in.weight", &ExpertTensors::in},      {"gru.in.bias", &ExpertTensors::b_in},
    {"gru.hr.weight", &ExpertTensors::hr},      {"gru.hr.bias", &ExpertTensors::b_hr},
    {"gru.hz.weight", &ExpertTensors::hz},      {"gru.hz.bias", &ExpertTensors::b_hz},
    {"gru.hn.weight", &ExpertTensors::hn},      {"gru.hn.bias", &ExpertTensors::b_hn},
    {"gn.weight", &ExpertTensors::gn},          {"gn.bias", &ExpertTensors::gn_bias},
    {"constant", &ExpertTensors::constant},
};

// The number at the front of `text`, which loses it and the dot behind it.
std::optional<int> number_before_dot(std::string_view& text) {
  int number = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), number);
  if (parsed.ec != std::errc() || number < 0 || parsed.ptr == text.data() + text.size() || *parsed.ptr != '.') return std::nullopt;
  text.remove_prefix(size_t(parsed.ptr - text.data()) + 1);
  return number;
}

Result<void> take(const OpenFile& file, const TensorInfo& info, ExpertFile& out) {
  const auto wrong = [&](std::string what, std::string hint = {}) {
    return fail(ErrorCode::kMalformed, fmt::format("tensor {} {}", quote(info.name), std::move(what)), file.name(), std::move(hint));
  };
  std::string_view rest = info.name;
  constexpr std::string_view kLayers = "layers.", kExperts = "experts.";
  std::optional<int> layer, expert;
  if (rest.starts_with(kLayers)) rest.remove_prefix(kLayers.size()), layer = number_before_dot(rest);
  if (layer && rest.starts_with(kExperts)) rest.remove_prefix(kExperts.size()), expert = number_before_dot(rest);
  Tensor ExpertTensors::*place = nullptr;
  for (const Named& named : kTensors)
    if (expert && rest == named.name) place = named.tensor;
  if (!place)
    return wrong("is no tensor of an expert", "Known: layers.LAYER.experts.EXPERT. and gate, up or down with .weight or .bias; gru.ir, .iz, .in, .hr, .hz, "
                                              ".hn with .weight or .bias; gn.weight, gn.bias; constant.");
  if (info.dtype != DType::kF32) return wrong(fmt::format("is of {}, needs F32", name(info.dtype)));
  if (info.shape.empty() || info.shape.size() > 2 || info.begin == info.end) return wrong(fmt::format("has shape {}", shape_text(info.shape)));
  Tensor tensor{info.shape[0], info.shape.size() == 2 ? info.shape[1] : 0, std::vector<float>((info.end - info.begin) / sizeof(float))};
  SY_CHECK(file.read(info.begin, {reinterpret_cast<char*>(tensor.values.data()), tensor.values.size() * sizeof(float)}));
  for (const float value : tensor.values)
    if (!std::isfinite(value)) return wrong("has a value that is not finite");
  out.experts[{*layer, *expert}].*place = std::move(tensor);
  return {};
}

// Reads of one expert's tensors what its kind needs; what is left over is of another kind.
class Check {
 public:
  Check(const ExpertTensors& tensors, std::string where) : tensors_(tensors), where_(std::move(where)) {}

  // cols 0: a vector. rows -1: any.
  Check& needs(const char* name, int64_t rows, int64_t cols) { return look(name, rows, cols, true); }
  Check& may(const char* name, int64_t rows, int64_t cols) { return look(name, rows, cols, false); }
  Result<void> done(ExpertKind kind) {
    for (const Named& named : kTensors)
      if (problem_.empty() && tensors_.*named.tensor && !seen(named.name)) problem_ = fmt::format("{} has no tensor {}", name(kind), named.name);
    if (problem_.empty()) return {};
    return fail(ErrorCode::kUsage, fmt::format("{}: {}", where_, problem_));
  }

 private:
  bool seen(std::string_view name) const { return std::find(seen_.begin(), seen_.end(), name) != seen_.end(); }
  Check& look(const char* name, int64_t rows, int64_t cols, bool must) {
    seen_.push_back(name);
    for (const Named& named : kTensors) {
      if (std::string_view(name) != named.name || !problem_.empty()) continue;
      const Tensor& tensor = tensors_.*named.tensor;
      if (!tensor) {
        if (must) problem_ = fmt::format("the file has no tensor {}", name);
      } else if ((rows >= 0 && tensor.rows != rows) || tensor.cols != cols) {
        const auto shape = [](int64_t r, int64_t c) { return c > 0 ? fmt::format("[{}, {}]", r, c) : fmt::format("[{}]", r); };
        problem_ = fmt::format("{} is {}, needed {}", name, shape(tensor.rows, tensor.cols),
                               rows >= 0 ? shape(rows, cols) : fmt::format("[units, {}]", cols));
      }
    }
    return *this;
  }

  const ExpertTensors& tensors_;
  const std::string where_;
  std::string problem_;
  std::vector<std::string_view> seen_;
};

}  // namespace

Result<std::shared_ptr<const ExpertFile>> read_expert_file(const std::string& path) {
  const std::filesystem::path where = std::filesystem::absolute(path);
  SY_TRY(const Folder folder, Folder::open(where.parent_path()));
  SY_TRY(const OpenFile file, folder.open_file(where.filename().string()));
  SY_TRY(const std::vector<TensorInfo> tensors, read_safetensors(file));
  auto out = std::make_shared<ExpertFile>();
  for (const TensorInfo& tensor : tensors) SY_CHECK(take(file, tensor, *out));
  return std::shared_ptr<const ExpertFile>(std::move(out));
}

Result<void> check_expert(ExpertKind kind, const ExpertFile* file, int layer, ExpertId expert, int64_t hidden) {
  if (!needs_file(kind)) return {};
  const std::string where = fmt::format("layer {}, expert {}", layer, expert);
  const auto found = file ? file->experts.find({layer, int(expert)}) : decltype(file->experts.end()){};
  if (!file || found == file->experts.end()) return fail(ErrorCode::kUsage, fmt::format("{}: the file has no tensors for it", where));
  const ExpertTensors& t = found->second;
  const int64_t width = t.width();
  Check check(t, where);
  const bool gated = kind == ExpertKind::kSwiglu || (kind == ExpertKind::kLocal && t.gate);
  switch (kind) {
    case ExpertKind::kConstant: return check.needs("constant", hidden, 0).done(kind);
    case ExpertKind::kGru:
      for (const char* name : {"gru.ir.weight", "gru.iz.weight", "gru.in.weight"}) check.needs(name, width > 0 ? width : -1, hidden);
      for (const char* name : {"gru.hr.weight", "gru.hz.weight", "gru.hn.weight"}) check.may(name, width, width);
      for (const char* name : {"gru.ir.bias", "gru.iz.bias", "gru.in.bias", "gru.hr.bias", "gru.hz.bias", "gru.hn.bias"}) check.may(name, width, 0);
      break;
    case ExpertKind::kLocal:
      check.needs("gn.weight", t.gn.cols > 0 ? 1 : hidden, t.gn.cols > 0 ? hidden : 0).may("gn.bias", 1, 0);
      [[fallthrough]];
    default:
      if (gated) check.needs("gate.weight", width > 0 ? width : -1, hidden).may("gate.bias", width, 0);
      check.needs("up.weight", -1, hidden).may("up.bias", width, 0);
  }
  return check.needs("down.weight", hidden, width).may("down.bias", hidden, 0).done(kind);
}

}  // namespace switchyard
