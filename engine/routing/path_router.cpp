// See path_router.h.
#include "engine/routing/path_router.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <numbers>

#include <fmt/format.h>

#include "engine/base/folder.h"
#include "engine/base/text.h"
#include "engine/model/checkpoint.h"
#include "engine/model/dtype.h"
#include "engine/model/safetensors.h"

namespace switchyard {
namespace {

// Which layer and which of its four tensors.
struct Place {
  int layer = -1;
  std::string_view part;
};
Place place_of(std::string_view name) {
  constexpr std::string_view kStem = "layers.", kRouter = ".drllm.";
  const size_t at = name.find(kRouter);
  if (!name.starts_with(kStem) || at == std::string_view::npos) return {};
  const std::string_view digits = name.substr(kStem.size(), at - kStem.size());
  Place place{.part = name.substr(at + kRouter.size())};
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), place.layer);
  if (digits.empty() || digits[0] < '0' || digits[0] > '9' || parsed.ec != std::errc() ||
      parsed.ptr != digits.data() + digits.size() || place.layer > 65535)
    return {};
  return place;
}

std::vector<float>* part_of(PathRouter& router, std::string_view part) {
  if (part == "l1.weight") return &router.l1;
  if (part == "l1.bias") return &router.l1_bias;
  if (part == "l2.weight") return &router.l2;
  if (part == "l2.bias") return &router.l2_bias;
  return nullptr;
}

class Reader {
 public:
  explicit Reader(const OpenFile& file) : file_(file) {}

  Result<void> take(const TensorInfo& tensor) {
    const Place place = place_of(tensor.name);
    std::vector<float>* into = place.layer < 0 ? nullptr : part_of(out_->layers[place.layer], place.part);
    if (!into)
      return wrong(tensor.name, "is no tensor of a layer router",
                   "Known: layers.LAYER.drllm.l1.weight, .l1.bias, .l2.weight, .l2.bias.");
    const bool matrix = place.part.ends_with("weight");
    if (tensor.shape.size() != (matrix ? 2u : 1u) || tensor.begin == tensor.end)
      return wrong(tensor.name,
                   fmt::format("has shape {}, needs {}", shape_text(tensor.shape), matrix ? "two axes" : "one axis"));
    if (matrix && into == &out_->layers[place.layer].l1) shapes_[place.layer] = {tensor.shape[0], tensor.shape[1]};
    return values(tensor, *into);
  }

  // All four, and of one shape.
  Result<std::shared_ptr<const PathRouters>> finish() {
    if (out_->layers.empty()) return fail(ErrorCode::kMalformed, "holds no layer router", file_.name());
    out_->hidden = int(shapes_.empty() ? 0 : shapes_.begin()->second.second);
    for (auto& [layer, router] : out_->layers) {
      const auto [width, d] = shapes_[layer];
      router.width = int(width);
      const auto needs = [&](const char* part, const std::vector<float>& values, int64_t rows,
                             int64_t cols) -> Result<void> {
        if (int64_t(values.size()) == rows * cols) return {};
        return wrong(fmt::format("layers.{}.drllm.{}", layer, part),
                     fmt::format("has {} values, needs {} x {}", values.size(), rows, cols));
      };
      if (width < 1 || d != out_->hidden)
        return wrong(fmt::format("layers.{}.drllm.l1.weight", layer),
                     fmt::format("is missing, or its rows have not {} values as those of other layers", out_->hidden));
      SY_CHECK(needs("l1.bias", router.l1_bias, width, 1));
      SY_CHECK(needs("l2.weight", router.l2, 3, width));
      SY_CHECK(needs("l2.bias", router.l2_bias, 3, 1));
    }
    return std::shared_ptr<const PathRouters>(std::move(out_));
  }

 private:
  tl::unexpected<Error> wrong(const std::string& name, std::string what, std::string hint = {}) const {
    return fail(ErrorCode::kMalformed, fmt::format("tensor {} {}", quote(name), std::move(what)), file_.name(),
                std::move(hint));
  }

  Result<void> values(const TensorInfo& tensor, std::vector<float>& out) {
    const size_t bytes = tensor.end - tensor.begin;
    std::vector<char> raw(bytes);
    SY_CHECK(file_.read(tensor.begin, raw));
    if (tensor.dtype == DType::kF32) {
      out.resize(bytes / 4);
      std::memcpy(out.data(), raw.data(), bytes);
    } else if (tensor.dtype == DType::kBF16 || tensor.dtype == DType::kF16) {
      for (size_t i = 0; i + 1 < bytes; i += 2) {
        uint16_t half = 0;
        std::memcpy(&half, raw.data() + i, 2);
        out.push_back(tensor.dtype == DType::kBF16 ? float_of_bf16(half) : float_of_f16(half));
      }
    } else {
      return wrong(tensor.name, fmt::format("is of {}, needs F32, BF16 or F16", name(tensor.dtype)));
    }
    if (!std::all_of(out.begin(), out.end(), [](float value) { return std::isfinite(value); }))
      return wrong(tensor.name, "has a value that is not finite");
    return {};
  }

  const OpenFile& file_;
  std::shared_ptr<PathRouters> out_ = std::make_shared<PathRouters>();
  std::map<int, std::pair<int64_t, int64_t>> shapes_;  // of l1.weight
};

double gelu(double x) {
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
}

}  // namespace

Result<std::shared_ptr<const PathRouters>> read_path_routers(const std::string& path) {
  std::error_code error;
  std::filesystem::path where = std::filesystem::absolute(path);
  if (path.find('/') == path.npos && !std::filesystem::exists(where, error))
    if (const auto assets = find_assets(); assets && std::filesystem::exists(*assets / "paths" / path, error))
      where = *assets / "paths" / path;
  SY_TRY(const Folder folder, Folder::open(where.parent_path()));
  SY_TRY(const OpenFile file, folder.open_file(where.filename().string()));
  SY_TRY(const std::vector<TensorInfo> tensors, read_safetensors(file));
  Reader reader(file);
  for (const TensorInfo& tensor : tensors) SY_CHECK(reader.take(tensor));
  return reader.finish();
}

PathProbabilities at_budget(const PathProbabilities& pi, double budget) {
  constexpr PathProbabilities kSkip{1, 0, 0}, kRun{0, 1, 0}, kRepeat{0, 0, 1};
  const auto mixed = [](const PathProbabilities& a, const PathProbabilities& b, double t) {
    PathProbabilities out;
    for (size_t i = 0; i < 3; ++i) out[i] = (1 - t) * a[i] + t * b[i];
    return out;
  };
  if (budget <= -0.5) return mixed(kSkip, pi, (budget + 1) / 0.5);
  if (budget <= 0.5) return mixed(pi, kRun, budget + 0.5);
  return mixed(kRun, kRepeat, (budget - 0.5) / 0.5);
}

int passes_of(const PathProbabilities& mixed) {
  return static_cast<int>(std::max_element(mixed.begin(), mixed.end()) - mixed.begin());
}

PathWindows windows_of(int tokens) {
  const int count = std::min(8, tokens);
  return {count, count > 0 ? tokens / count : 0};
}

std::vector<float> window_means(std::span<const float> hidden, int d) {
  const PathWindows windows = windows_of(static_cast<int>(hidden.size() / size_t(d)));
  std::vector<float> means(size_t(windows.count) * size_t(d));
  std::vector<double> sum(static_cast<size_t>(d));
  for (int w = 0; w < windows.count; ++w) {
    std::fill(sum.begin(), sum.end(), 0.0);
    for (int t = w * windows.size; t < (w + 1) * windows.size; ++t)
      for (int i = 0; i < d; ++i) sum[size_t(i)] += hidden[size_t(t) * size_t(d) + size_t(i)];
    for (int i = 0; i < d; ++i) means[size_t(w) * size_t(d) + size_t(i)] = float(sum[size_t(i)] / windows.size);
  }
  return means;
}

PathProbabilities probabilities_of(const PathRouter& router, std::span<const float> hidden, int d) {
  const std::vector<float> means = window_means(hidden, d);
  const size_t width = size_t(router.width), cols = size_t(d), windows = means.size() / cols;
  PathProbabilities logits{};
  std::vector<double> inner(width);
  for (size_t w = 0; w < windows; ++w) {
    for (size_t r = 0; r < width; ++r) {
      double sum = router.l1_bias[r];
      for (size_t i = 0; i < cols; ++i) sum += double(router.l1[r * cols + i]) * means[w * cols + i];
      inner[r] = gelu(sum);
    }
    for (size_t a = 0; a < 3; ++a) {
      double sum = router.l2_bias[a];
      for (size_t r = 0; r < width; ++r) sum += double(router.l2[a * width + r]) * inner[r];
      logits[a] += sum / double(windows);
    }
  }
  const double top = *std::max_element(logits.begin(), logits.end());
  double total = 0;
  for (double& logit : logits) total += logit = std::exp(logit - top);
  for (double& logit : logits) logit /= total;
  return logits;
}

}  // namespace switchyard
