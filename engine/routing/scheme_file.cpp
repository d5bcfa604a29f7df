// See scheme_file.h.
#include "engine/routing/scheme_file.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <optional>

#include <fmt/format.h>

#include "engine/base/folder.h"
#include "engine/base/json.h"
#include "engine/base/text.h"
#include "engine/model/checkpoint.h"
#include "engine/model/safetensors.h"

namespace switchyard {
namespace {

// "table.3" -> 3 where stem is "table."; nullopt: another name.
std::optional<int> layer_between(std::string_view name, std::string_view stem, std::string_view end) {
  if (!name.starts_with(stem) || !name.ends_with(end) || name.size() <= stem.size() + end.size()) return std::nullopt;
  const std::string_view digits = name.substr(stem.size(), name.size() - stem.size() - end.size());
  int layer = 0;
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), layer);
  if (parsed.ec != std::errc() || parsed.ptr != digits.data() + digits.size() || layer < 0) return std::nullopt;
  return layer;
}

// "layers.3.coe.1.weight" -> 3, 1.
std::optional<std::pair<int, int>> pass_of(std::string_view name) {
  const size_t middle = name.find(".coe.");
  if (middle == std::string_view::npos) return std::nullopt;
  const auto layer = layer_between(name.substr(0, middle), "layers.", ""), pass = layer_between(name.substr(middle), ".coe.", ".weight");
  return layer && pass ? std::optional(std::pair(*layer, *pass)) : std::nullopt;
}

template <class T>
Result<std::vector<T>> values_of(const OpenFile& file, const TensorInfo& tensor) {
  std::vector<T> values((tensor.end - tensor.begin) / sizeof(T));
  SY_CHECK(file.read(tensor.begin, {reinterpret_cast<char*>(values.data()), values.size() * sizeof(T)}));
  return values;
}

constexpr std::array<const char*, 6> kGruParts = {"ir", "hr", "iz", "hz", "in", "hn"};  // by GruPart

class Reader {
 public:
  Reader(const OpenFile& file, SchemeFile& out) : file_(file), out_(out) {}

  Result<void> take(const TensorInfo& tensor) {
    const std::string_view name = tensor.name;
    if (name == "table") return table(tensor, out_.every);
    if (name == "threshold") return vector(tensor, out_.every.thresholds);
    if (const auto layer = layer_between(name, "table.", "")) return table(tensor, out_.layers[*layer]);
    if (const auto layer = layer_between(name, "threshold.", "")) return vector(tensor, out_.layers[*layer].thresholds);
    if (const auto layer = layer_between(name, "layers.", ".gate.proto")) return prototypes(tensor, out_.layers[*layer]);
    if (const auto layer = layer_between(name, "layers.", ".gate.null.weight")) return matrix(tensor, out_.layers[*layer].nulls);
    if (const auto layer = layer_between(name, "layers.", ".uoe.weight")) return slice_gate(tensor, out_.layers[*layer]);
    if (const auto layer = layer_between(name, "layers.", ".uoe.bias")) return slice_bias(tensor, out_.layers[*layer]);
    if (const auto at = pass_of(name)) return gate(tensor, at->second, out_.layers[at->first]);
    if (name == "gate.similarity") return matrix(tensor, out_.every.likeness);
    if (const auto layer = layer_between(name, "layers.", ".gate.similarity")) return matrix(tensor, out_.layers[*layer].likeness);
    if (const auto layer = layer_between(name, "layers.", ".rmoe.w1")) return matrix(tensor, out_.layers[*layer].to_state);
    if (const auto layer = layer_between(name, "layers.", ".rmoe.w2")) return matrix(tensor, out_.layers[*layer].from_state);
    if (const auto layer = layer_between(name, "layers.", ".sdm.exemplars")) return matrix(tensor, out_.layers[*layer].bank.exemplars);
    if (const auto layer = layer_between(name, "layers.", ".sdm.labels")) return experts(tensor, out_.layers[*layer].bank.labels);
    if (const auto layer = layer_between(name, "layers.", ".sdm.predictions")) return experts(tensor, out_.layers[*layer].bank.predictions);
    if (const auto layer = layer_between(name, "layers.", ".sdm.distances")) return vector(tensor, calibration_[*layer].distances);
    if (const auto layer = layer_between(name, "layers.", ".sdm.classes")) return experts(tensor, calibration_[*layer].classes);
    for (size_t part = 0; part < kGruParts.size(); ++part) {
      if (name == fmt::format("rmoe.gru.{}.weight", kGruParts[part])) return matrix(tensor, out_.gru.weight[part]);
      if (name == fmt::format("rmoe.gru.{}.bias", kGruParts[part])) return vector(tensor, out_.gru.bias[part]);
    }
    return wrong(tensor, "is no tensor that a gating scheme reads",
                 "Known: table[.LAYER], threshold[.LAYER], layers.LAYER.gate.proto, layers.LAYER.gate.null.weight, [layers.LAYER.]gate.similarity, layers.LAYER.rmoe.w1 and .w2, rmoe.gru.PART.weight and .bias, layers.LAYER.sdm.exemplars, .labels, .predictions, .distances and .classes, "
                 "layers.LAYER.coe.PASS.weight, layers.LAYER.uoe.weight and .bias.");
  }

  // What the tensors must be together.
  Result<void> finish() {
    SY_CHECK(finish_gru());
    for (auto& [layer, data] : out_.layers) SY_CHECK(finish_bank(layer, data.bank));
    for (const auto& [layer, points] : calibration_)
      if (!out_.layers[layer].bank) return fail(ErrorCode::kMalformed, fmt::format("layers.{}.sdm has calibration points and no exemplars", layer), file_.name());
    return {};
  }

 private:
  // Distances of calibration points to their nearest exemplar, and the class of each.
  struct Calibration {
    std::vector<float> distances;
    std::vector<ExpertId> classes;
  };

  Result<void> finish_bank(int layer, SdmBank& bank) {
    if (!bank && bank.labels.empty() && bank.predictions.empty()) return {};
    const auto wrong_number = [&](const char* what, size_t found, size_t needed) {
      return fail(ErrorCode::kMalformed, fmt::format("layers.{}.sdm.{} is [{}], needed [{}]", layer, what, found, needed), file_.name());
    };
    const auto count = size_t(bank.exemplars.rows);
    if (bank.labels.size() != count) return wrong_number("labels", bank.labels.size(), count);
    if (bank.predictions.size() != count) return wrong_number("predictions", bank.predictions.size(), count);
    const Calibration& points = calibration_[layer];
    if (points.classes.size() != points.distances.size()) return wrong_number("classes", points.classes.size(), points.distances.size());
    std::map<ExpertId, std::vector<float>> classes;
    for (const ExpertId label : bank.labels) classes[label];
    for (size_t i = 0; i < points.classes.size(); ++i) classes[points.classes[i]].push_back(points.distances[i]);
    for (auto& [expert, distances] : classes) {
      std::sort(distances.begin(), distances.end());
      bank.classes.push_back({expert, std::move(distances)});
    }
    return {};
  }

  Result<void> finish_gru() const {
    const Gru& gru = out_.gru;
    int64_t width = 0;
    for (size_t part = 0; part < kGruParts.size(); ++part)
      width = std::max({width, gru.weight[part].rows, int64_t(gru.bias[part].size())});
    for (size_t part = 0; part < kGruParts.size() && width > 0; ++part) {
      const SchemeMatrix& weight = gru.weight[part];
      if (weight.rows != width || weight.cols != width)
        return fail(ErrorCode::kMalformed, fmt::format("rmoe.gru.{}.weight is [{}, {}], needed [{}, {}]", kGruParts[part], weight.rows, weight.cols, width, width), file_.name());
      if (int64_t(gru.bias[part].size()) != width)
        return fail(ErrorCode::kMalformed, fmt::format("rmoe.gru.{}.bias is [{}], needed [{}]", kGruParts[part], gru.bias[part].size(), width), file_.name());
    }
    return {};
  }

  tl::unexpected<Error> wrong(const TensorInfo& tensor, std::string what, std::string hint = {}) const {
    return fail(ErrorCode::kMalformed, fmt::format("tensor {} {}", quote(tensor.name), std::move(what)), file_.name(), std::move(hint));
  }
  Result<void> check(const TensorInfo& tensor, DType dtype, size_t least, size_t most) const {
    if (tensor.dtype != dtype) return wrong(tensor, fmt::format("is of {}, needs {}", name(tensor.dtype), name(dtype)));
    if (tensor.shape.size() < least || tensor.shape.size() > most || tensor.begin == tensor.end)
      return wrong(tensor, fmt::format("has shape {}", shape_text(tensor.shape)));
    return {};
  }

  Result<void> table(const TensorInfo& tensor, SchemeData& out) {
    SY_CHECK(check(tensor, DType::kI32, 1, 2));
    out.columns = tensor.shape.size() == 2 ? int(tensor.shape[1]) : 1;
    return ids_of(tensor, out.table);
  }

  Result<void> experts(const TensorInfo& tensor, std::vector<ExpertId>& out) {
    SY_CHECK(check(tensor, DType::kI32, 1, 1));
    return ids_of(tensor, out);
  }

  Result<void> ids_of(const TensorInfo& tensor, std::vector<ExpertId>& out) {
    SY_TRY(const std::vector<int32_t> ids, values_of<int32_t>(file_, tensor));
    out.reserve(ids.size());
    for (const int32_t id : ids) {
      if (id < 0 || id >= kNoExpert) return wrong(tensor, fmt::format("names expert {}", id));
      out.push_back(static_cast<ExpertId>(id));
    }
    return {};
  }

  Result<std::vector<float>> finite(const TensorInfo& tensor) {
    SY_TRY(std::vector<float> values, values_of<float>(file_, tensor));
    for (const float value : values)
      if (!std::isfinite(value)) return wrong(tensor, "has a value that is not finite");
    return values;
  }

  Result<void> vector(const TensorInfo& tensor, std::vector<float>& out) {
    SY_CHECK(check(tensor, DType::kF32, 1, 1));
    SY_TRY(out, finite(tensor));
    return {};
  }

  Result<void> matrix(const TensorInfo& tensor, SchemeMatrix& out) {
    SY_CHECK(check(tensor, DType::kF32, 2, 2));
    out.rows = tensor.shape[0], out.cols = tensor.shape[1];
    SY_TRY(out.values, finite(tensor));
    return {};
  }

  Result<void> prototypes(const TensorInfo& tensor, SchemeData& out) {
    SY_CHECK(check(tensor, DType::kF32, 2, 2));
    out.width = int(tensor.shape[1]);
    SY_TRY(out.prototypes, finite(tensor));
    return {};
  }

  Result<void> gate(const TensorInfo& tensor, int pass, SchemeData& out) {
    SY_CHECK(check(tensor, DType::kF32, 2, 2));
    if (pass >= kMostPasses) return wrong(tensor, fmt::format("is of pass {}; passes are 0 to {}", pass, kMostPasses - 1));
    if (out.gate_width > 0 && tensor.shape[1] != out.gate_width) return wrong(tensor, fmt::format("is {} wide, another gate of the layer {}", tensor.shape[1], out.gate_width));
    out.gate_width = int(tensor.shape[1]);
    if (out.gates.size() <= size_t(pass)) out.gates.resize(size_t(pass) + 1);
    SY_TRY(out.gates[size_t(pass)], finite(tensor));
    return {};
  }

  Result<void> slice_gate(const TensorInfo& tensor, SchemeData& out) {
    SY_CHECK(check(tensor, DType::kF32, 2, 2));
    out.slice_width = int(tensor.shape[1]);
    SY_TRY(out.slice_gate, finite(tensor));
    return {};
  }

  Result<void> slice_bias(const TensorInfo& tensor, SchemeData& out) {
    SY_CHECK(check(tensor, DType::kF32, 1, 1));
    SY_TRY(out.slice_bias, finite(tensor));
    return {};
  }

  const OpenFile& file_;
  SchemeFile& out_;
  std::map<int, Calibration> calibration_;  // by layer
};

RoutesReader routes_reader = nullptr;

}  // namespace

std::vector<std::string> scheme_examples() {
  std::vector<std::string> names;
  std::error_code error;
  if (const auto assets = find_assets())
    for (const auto& entry : std::filesystem::directory_iterator(*assets / "schemes", error))
      if (entry.path().extension() == ".safetensors" && find_scheme(entry.path().stem().string())) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

std::string example_of(std::string_view scheme) {
  const std::string name = std::string(scheme) + ".safetensors";
  const std::vector<std::string> all = scheme_examples();
  return std::find(all.begin(), all.end(), name) == all.end() ? std::string() : name;
}

void set_routes_reader(RoutesReader reader) { routes_reader = reader; }

Result<std::shared_ptr<const SchemeFile>> read_recorded_routes(const std::string& trace, int sequence) {
  if (!routes_reader) return fail(ErrorCode::kUsage, "this program reads no traces.", trace);
  return routes_reader(trace, sequence);
}

Result<std::shared_ptr<const SchemeFile>> read_scheme_file(const std::string& path) {
  std::error_code error;
  std::filesystem::path where = std::filesystem::absolute(path);
  if (path.find('/') == path.npos && !std::filesystem::exists(where, error))
    if (const auto assets = find_assets(); assets && std::filesystem::exists(*assets / "schemes" / path, error)) where = *assets / "schemes" / path;
  SY_TRY(const Folder folder, Folder::open(where.parent_path()));
  SY_TRY(const OpenFile file, folder.open_file(where.filename().string()));
  SY_TRY(const std::vector<TensorInfo> tensors, read_safetensors(file));
  auto out = std::make_shared<SchemeFile>();
  Reader reader(file, *out);
  for (const TensorInfo& tensor : tensors) SY_CHECK(reader.take(tensor));
  SY_CHECK(reader.finish());
  return std::shared_ptr<const SchemeFile>(std::move(out));
}

std::string scheme_file_bytes(const SchemeFile& file) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  std::string body;
  const auto add = [&]<class T>(const std::string& name, DType dtype, std::vector<int64_t> shape, const std::vector<T>& values) {
    if (values.empty()) return;
    const size_t begin = body.size();
    body.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
    header[name] = {{"dtype", switchyard::name(dtype)}, {"shape", shape}, {"data_offsets", {begin, body.size()}}};
  };
  const auto add_layer = [&](const SchemeData& data, const std::string& suffix, const std::string& prototypes) {
    const std::vector<int32_t> table(data.table.begin(), data.table.end());
    if (data.columns > 0) add("table" + suffix, DType::kI32, {int64_t(table.size()) / data.columns, data.columns}, table);
    add("threshold" + suffix, DType::kF32, {int64_t(data.thresholds.size())}, data.thresholds);
    if (data.width > 0) add(prototypes, DType::kF32, {int64_t(data.prototypes.size()) / data.width, data.width}, data.prototypes);
  };
  const auto add_matrix = [&](const std::string& name, const SchemeMatrix& matrix) {
    add(name, DType::kF32, {matrix.rows, matrix.cols}, matrix.values);
  };
  const auto add_ids = [&](const std::string& name, const std::vector<ExpertId>& ids) {
    add(name, DType::kI32, {int64_t(ids.size())}, std::vector<int32_t>(ids.begin(), ids.end()));
  };
  const auto add_bank = [&](const std::string& stem, const SdmBank& bank) {
    std::vector<float> distances;
    std::vector<ExpertId> classes;
    for (const SdmClass& one : bank.classes) {
      distances.insert(distances.end(), one.distances.begin(), one.distances.end());
      classes.insert(classes.end(), one.distances.size(), one.expert);
    }
    add_matrix(stem + "exemplars", bank.exemplars);
    add_ids(stem + "labels", bank.labels);
    add_ids(stem + "predictions", bank.predictions);
    add(stem + "distances", DType::kF32, {int64_t(distances.size())}, distances);
    add_ids(stem + "classes", classes);
  };
  for (size_t part = 0; part < kGruParts.size(); ++part) {
    add_matrix(fmt::format("rmoe.gru.{}.weight", kGruParts[part]), file.gru.weight[part]);
    add(fmt::format("rmoe.gru.{}.bias", kGruParts[part]), DType::kF32, {file.gru.width()}, file.gru.bias[part]);
  }
  add_layer(file.every, "", "");
  add_matrix("gate.similarity", file.every.likeness);
  for (const auto& [layer, data] : file.layers) {
    add_layer(data, fmt::format(".{}", layer), fmt::format("layers.{}.gate.proto", layer));
    add_matrix(fmt::format("layers.{}.gate.null.weight", layer), data.nulls);
    add_matrix(fmt::format("layers.{}.gate.similarity", layer), data.likeness);
    add_matrix(fmt::format("layers.{}.rmoe.w1", layer), data.to_state);
    add_matrix(fmt::format("layers.{}.rmoe.w2", layer), data.from_state);
    add_bank(fmt::format("layers.{}.sdm.", layer), data.bank);
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // the data begins at a multiple of 8
  std::string out(8, '\0');
  for (int i = 0; i < 8; ++i) out[i] = static_cast<char>(text.size() >> (8 * i) & 0xFF);
  return out + text + body;
}

}  // namespace switchyard
