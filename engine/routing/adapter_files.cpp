// See adapter_files.h.
#include "engine/routing/adapter_files.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <optional>
#include <set>

#include <fmt/format.h>

#include "engine/base/folder.h"
#include "engine/base/json.h"
#include "engine/base/text.h"
#include "engine/model/checkpoint.h"
#include "engine/model/safetensors.h"

namespace switchyard {
namespace {

constexpr int64_t kLargestRank = 4096;
constexpr uint64_t kLargestConfig = 1 << 20;
constexpr uint64_t kLargestTotal = uint64_t(4) << 30;  // bytes of values that are read, as fp32

// A file with its tensors, and the values of those that pass.
class Source {
 public:
  Source(const OpenFile& file, uint64_t& total) : file_(file), total_(total) {}

  tl::unexpected<Error> wrong(const TensorInfo& tensor, std::string what, std::string hint = {}) const {
    return fail(ErrorCode::kMalformed, fmt::format("tensor {} {}", quote(tensor.name), std::move(what)), file_.name(),
                std::move(hint));
  }

  // shape: with -1 where any size from 1 to kLargestRank will do.
  Result<void> check_shape(const TensorInfo& tensor, std::initializer_list<int64_t> shape) const {
    const std::vector<int64_t> needed(shape);
    bool fits = needed.size() == tensor.shape.size();
    for (size_t i = 0; fits && i < needed.size(); ++i)
      fits = needed[i] < 0 ? tensor.shape[i] >= 1 && tensor.shape[i] <= kLargestRank : tensor.shape[i] == needed[i];
    if (fits) return {};
    std::string text;
    for (const int64_t size : needed)
      text += fmt::format("{}{}", text.empty() ? "" : ", ", size < 0 ? "any" : fmt::format("{}", size));
    return wrong(tensor, fmt::format("has shape {}, needed [{}]", shape_text(tensor.shape), text),
                 "Was the adapter made for this model?");
  }

  Result<std::vector<float>> values(const TensorInfo& tensor) {
    if (tensor.dtype != DType::kF32 && tensor.dtype != DType::kF16 && tensor.dtype != DType::kBF16)
      return wrong(tensor, fmt::format("is of {}, needs F32, F16 or BF16", name(tensor.dtype)));
    const size_t each = size_t(bits(tensor.dtype)) / 8, count = (tensor.end - tensor.begin) / each;
    total_ += count * sizeof(float);
    if (total_ > kLargestTotal)
      return fail(ErrorCode::kUsage, fmt::format("the adapters need more than {}", bytes_text(kLargestTotal)),
                  file_.name(), "Name fewer modules, layers or files.");
    std::vector<float> out(count);
    if (each == sizeof(float)) {
      SY_CHECK(file_.read(tensor.begin, {reinterpret_cast<char*>(out.data()), count * sizeof(float)}));
    } else {
      std::vector<uint16_t> halves(count);
      SY_CHECK(file_.read(tensor.begin, {reinterpret_cast<char*>(halves.data()), count * sizeof(uint16_t)}));
      std::transform(halves.begin(), halves.end(), out.begin(),
                     tensor.dtype == DType::kBF16 ? float_of_bf16 : float_of_f16);
    }
    for (const float value : out)
      if (!std::isfinite(value)) return wrong(tensor, "has a value that is not finite");
    return out;
  }

  const std::string& name() const { return file_.name(); }

 private:
  static std::string_view name(DType dtype) { return switchyard::name(dtype); }
  const OpenFile& file_;
  uint64_t& total_;
};

// The linears of the model by module, and which of them are wanted.
class Places {
 public:
  Places(const std::vector<Linear>& linears, const std::function<bool(int)>& wanted)
      : linears_(linears), wanted_(wanted) {
    for (size_t place = 0; place < linears.size(); ++place)
      if (!linears[place].module.empty()) by_module_.emplace(linears[place].module, int(place));
  }

  // The place of a module that the files name; an error where no adapter can stand there.
  Result<int> find(const Source& source, const TensorInfo& tensor, std::string_view module) const {
    const auto found = by_module_.find(module);
    if (found == by_module_.end()) {
      const auto example = std::find_if(linears_.begin(), linears_.end(),
                                        [](const Linear& l) { return !l.module.empty() && l.refused.empty(); });
      return source.wrong(
          tensor,
          fmt::format("names the module {}, which is no linear layer of this model that adapters can stand on",
                      quote(module)),
          example == linears_.end() ? std::string() : fmt::format("One is {}.", quote(example->module)));
    }
    const Linear& linear = linears_[size_t(found->second)];
    if (!linear.refused.empty())
      return fail(ErrorCode::kUsage, fmt::format("no adapter can stand on {}: {}", quote(module), linear.refused),
                  source.name());
    return found->second;
  }
  bool wanted(int place) const { return wanted_(place); }
  const Linear& at(int place) const { return linears_[size_t(place)]; }

 private:
  const std::vector<Linear>& linears_;
  const std::function<bool(int)>& wanted_;
  std::map<std::string, int, std::less<>> by_module_;
};

// A and B of one expert on one linear, as they turn up.
struct Pair {
  const TensorInfo *a = nullptr, *b = nullptr;
};

Result<LoraPair> read_pair(Source& source, const Pair& pair, const Linear& linear, std::string expert) {
  if (!pair.a || !pair.b) {
    const TensorInfo& there = pair.a ? *pair.a : *pair.b;
    return source.wrong(there, fmt::format("has no {} beside it", pair.a ? "B" : "A"));
  }
  SY_CHECK(source.check_shape(*pair.a, {-1, linear.cols}));
  SY_CHECK(source.check_shape(*pair.b, {linear.rows, pair.a->shape[0]}));
  LoraPair out{.expert = std::move(expert), .rank = static_cast<int>(pair.a->shape[0])};
  SY_TRY(out.a, source.values(*pair.a));
  SY_TRY(out.b, source.values(*pair.b));
  return out;
}

// ---- PEFT ----

tl::unexpected<Error> not_done(const std::string& file, std::string what) {
  return fail(ErrorCode::kUsage, std::move(what), file, "Merge or retrain the adapter without it.");
}

// null, false, 0, "", [] and {} are "not asked for".
bool asked_for(const JsonView& config, const char* key) {
  const auto value = config.find(key);
  if (!value) return false;
  const Json& json = value->json();
  if (json.is_boolean()) return json.get<bool>();
  if (json.is_number()) return json != 0;
  return !json.empty() && !(json.is_string() && json.get<std::string>().empty());
}

// The name that a pattern of modules stands for: peft takes it as a regular expression behind any prefix, and writes
// some as ".*\\.NAME" itself.
std::string plain_module(std::string_view pattern) {
  if (pattern.starts_with('^')) pattern.remove_prefix(1);
  if (pattern.starts_with(".*\\.")) pattern.remove_prefix(4);
  std::string out;
  for (size_t i = 0; i < pattern.size(); ++i)
    if (pattern.substr(i, 2) != "\\.") out += pattern[i];
  return out;
}

// What adapter_config.json asks for.
struct PeftConfig {
  int rank = 8;
  double alpha = 8;
  bool rank_stabilised = false;
  bool rank_patterns = false;
  std::map<std::string, double> alphas;  // alpha_pattern
  std::vector<std::string> targets;      // empty: whatever the file has
};

Result<PeftConfig> peft_config(const std::string& text) {
  const std::string file = "adapter_config.json";
  SY_TRY(const Json json, parse_json(text, file, {.bytes = kLargestConfig}));
  const JsonView config(json, file);
  SY_TRY(const std::string type, config.text("peft_type"));
  if (type != "LORA")
    return not_done(file, fmt::format("the adapter is of type {}; LORA is what is read here", quote(type)));
  static constexpr std::pair<const char*, const char*> kNotDone[] = {
      {"use_dora", "DoRA (use_dora) also changes the length of the weight's columns, which is not done here"},
      {"use_qalora", "QA-LoRA (use_qalora) pools its input, which is not done here"},
      {"use_bdlora", "block-diagonal LoRA (use_bdlora) is not done here"},
      {"lora_bias", "biases of the adapter (lora_bias) are not done here"},
      {"fan_in_fan_out", "fan_in_fan_out is not done here"},
      {"modules_to_save", "whole modules that were trained beside the adapter (modules_to_save) are not replaced here"},
      {"trainable_token_indices", "trained token embeddings (trainable_token_indices) are not done here"},
      {"layer_replication", "repeated layers (layer_replication) are not done here"},
      {"target_parameters", "adapters on packed parameters (target_parameters) are not done here"},
      {"alora_invocation_tokens", "adapters that begin at a token (alora_invocation_tokens) are not done here"},
  };
  for (const auto& [key, what] : kNotDone)
    if (asked_for(config, key)) return not_done(file, what);
  SY_TRY(const std::string bias, config.text_or("bias", "none"));
  if (bias != "none")
    return not_done(
        file, fmt::format("biases that were trained beside the adapter (bias {}) are not replaced here", quote(bias)));
  if (const auto init = config.find("init_lora_weights"); init && init->json().is_string()) {
    const std::string how = init->json().get<std::string>();
    for (const char* start : {"pissa", "olora", "loftq", "corda"})
      if (how.starts_with(start))
        return not_done(file, fmt::format("the base weights were changed when the adapter began (init_lora_weights {})",
                                          quote(how)));
  }
  PeftConfig out;
  SY_TRY(const int64_t rank, config.integer_or("r", 8, 1, kLargestRank));
  out.rank = static_cast<int>(rank);
  SY_TRY(out.alpha, config.number_or("lora_alpha", 8));
  SY_TRY(out.rank_stabilised, config.boolean_or("use_rslora", false));
  out.rank_patterns = asked_for(config, "rank_pattern");
  if (asked_for(config, "alpha_pattern")) {
    SY_TRY(const JsonView pattern, config.at("alpha_pattern"));
    SY_TRY(const auto members, pattern.as_object());
    for (const auto& [key, value] : members) {
      const std::string module = plain_module(key);
      const bool plain = std::all_of(module.begin(), module.end(), [](unsigned char c) {
        return std::isalnum(c) || c == '_' || c == '.' || c == '-';
      });
      if (module.empty() || !plain)
        return not_done(file,
                        fmt::format("alpha_pattern {} is a regular expression; names of modules are what is read here",
                                    quote(key)));
      SY_TRY(const double alpha, value.as_number());
      out.alphas[module] = alpha;
    }
  }
  if (const auto targets = config.find("target_modules"); targets && targets->json().is_array()) {
    SY_TRY(const std::vector<JsonView> list, targets->as_array());
    for (const JsonView& item : list) {
      SY_TRY(std::string target, item.as_text());
      out.targets.push_back(std::move(target));
    }
  }
  return out;
}

// scale of a module with A of this rank: alpha / r, or alpha / sqrt(r).
Result<float> peft_scale(const PeftConfig& config, const std::string& module, int rank) {
  double alpha = config.alpha;
  bool found = false;
  for (const auto& [name, value] : config.alphas) {
    if (!names_module(name, module)) continue;
    if (found && value != alpha)
      return fail(ErrorCode::kUsage,
                  fmt::format("two entries of alpha_pattern name {} with different values", quote(module)),
                  "adapter_config.json");
    alpha = value, found = true;
  }
  const auto scale = static_cast<float>(alpha / (config.rank_stabilised ? std::sqrt(double(rank)) : double(rank)));
  if (!std::isfinite(scale)) return fail(ErrorCode::kMalformed, "lora_alpha is out of range", "adapter_config.json");
  return scale;
}

// "base_model.model.MODULE.lora_A.weight", also "lora_A.NAME.weight" -> MODULE and which of the two.
struct PeftName {
  std::string module;
  bool is_a = false;
};
std::optional<PeftName> peft_name(std::string_view name) {
  constexpr std::string_view kPrefix = "base_model.model.";
  if (!name.starts_with(kPrefix) || !name.ends_with(".weight")) return std::nullopt;
  name.remove_prefix(kPrefix.size());
  for (const bool is_a : {true, false}) {
    const std::string_view mark = is_a ? ".lora_A." : ".lora_B.";
    const size_t at = name.find(mark);
    if (at == std::string_view::npos || at == 0) continue;
    const std::string_view rest = name.substr(at + mark.size());  // "weight" or "NAME.weight"
    if (std::count(rest.begin(), rest.end(), '.') <= 1) return PeftName{std::string(name.substr(0, at)), is_a};
  }
  return std::nullopt;
}

Result<void> read_peft(const Folder& folder, const Places& places, uint64_t& total, AdapterFiles& out) {
  SY_TRY(const std::string text, folder.read_text("adapter_config.json", kLargestConfig));
  SY_TRY(const PeftConfig config, peft_config(text));
  if (!folder.has("adapter_model.safetensors") && folder.has("adapter_model.bin"))
    return fail(ErrorCode::kUsage, "adapter_model.bin is a pickle, which can run code and is not read",
                folder.path().filename().string(), "Save the adapter as safetensors.");
  SY_TRY(const OpenFile file, folder.open_file("adapter_model.safetensors"));
  SY_TRY(const std::vector<TensorInfo> tensors, read_safetensors(file));
  Source source(file, total);
  std::map<int, Pair> pairs;
  for (const TensorInfo& tensor : tensors) {
    const auto parsed = peft_name(tensor.name);
    if (!parsed)
      return source.wrong(tensor, "is no lora_A or lora_B weight of a linear layer",
                          "Embeddings, DoRA magnitudes, biases and saved modules are not read.");
    SY_TRY(const int place, places.find(source, tensor, parsed->module));
    if (!config.targets.empty() && std::none_of(config.targets.begin(), config.targets.end(),
                                                [&](const std::string& t) { return names_module(t, parsed->module); }))
      return source.wrong(tensor, "is of a module that target_modules of adapter_config.json does not name");
    const TensorInfo*& slot = parsed->is_a ? pairs[place].a : pairs[place].b;
    if (slot)
      return source.wrong(tensor,
                          fmt::format("is there twice, as {} too: two adapters in one file", quote(slot->name)));
    slot = &tensor;
  }
  if (pairs.empty()) return fail(ErrorCode::kMalformed, "has no tensors", file.name());
  for (const auto& [place, pair] : pairs) {
    if (!places.wanted(place)) continue;
    SY_TRY(LoraPair lora, read_pair(source, pair, places.at(place), folder.path().filename().string()));
    if (lora.rank != config.rank && !config.rank_patterns)
      return source.wrong(*pair.a, fmt::format("has {} rows, r is {}", lora.rank, config.rank));
    SY_TRY(lora.scale, peft_scale(config, places.at(place).module, lora.rank));
    out.linears[place].loras.push_back(std::move(lora));
  }
  return {};
}

// ---- Our own file ----

// The last component of a dotted name, which it cuts off.
std::string_view take_last(std::string_view& name) {
  const size_t dot = name.rfind('.');
  const std::string_view last = name.substr(dot == std::string_view::npos ? 0 : dot + 1);
  name = dot == std::string_view::npos ? std::string_view() : name.substr(0, dot);
  return last;
}

std::optional<int> number_of(std::string_view text) {
  int value = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size() || value < 0) return std::nullopt;
  return value;
}

class OwnFile {
 public:
  OwnFile(const OpenFile& file, const Places& places, uint64_t& total, AdapterFiles& out)
      : source_(file, total), places_(places), out_(out) {}

  Result<void> take(const TensorInfo& tensor) {
    std::string_view rest = tensor.name;
    if (!rest.starts_with("lora.")) return unknown(tensor);
    rest.remove_prefix(5);
    if (rest == "embeddings") return embeddings(tensor);
    if (rest == "instruction") return instruction(tensor);
    const std::string_view last = take_last(rest);
    if (last == "A" || last == "B") return pair(tensor, rest, last == "A");
    if (last == "gate" || last == "z" || last == "bias") return of_linear(tensor, rest, last);
    const std::string_view which = take_last(rest);
    if (which == "alpha" || which == "beta") return net(tensor, rest, which == "alpha", last);
    return unknown(tensor);
  }

  // The experts of every linear, in order of their numbers.
  Result<void> finish() {
    for (const auto& [place, experts] : pairs_) {
      int expected = 0;
      for (const auto& [number, pair] : experts) {
        const TensorInfo& there = pair.a ? *pair.a : *pair.b;
        if (number != expected++)
          return source_.wrong(there, fmt::format("is of expert {}; expert {} is missing", number, expected - 1));
        if (!places_.wanted(place)) continue;
        SY_TRY(LoraPair lora,
               read_pair(source_, pair, places_.at(place), fmt::format("{} {}", source_.name(), number)));
        out_.linears[place].loras.push_back(std::move(lora));
      }
    }
    for (const auto& [place, parts] : nets_)
      for (const bool alpha : {true, false})
        if (parts.contains(alpha)) SY_CHECK(finish_net(place, alpha, parts.at(alpha)));
    return {};
  }

 private:
  using NetParts = std::map<std::string, const TensorInfo*, std::less<>>;

  tl::unexpected<Error> unknown(const TensorInfo& tensor) const {
    return source_.wrong(tensor, "is no tensor of an adapter file",
                         "Known: lora.MODULE.E.A and .B, lora.MODULE.gate, .z, .bias, .alpha.*, .beta.*, "
                         "lora.embeddings, lora.instruction.");
  }

  Result<void> pair(const TensorInfo& tensor, std::string_view rest, bool is_a) {
    const auto number = number_of(take_last(rest));
    if (!number || *number >= 65535) return unknown(tensor);
    SY_TRY(const int place, places_.find(source_, tensor, rest));
    (is_a ? pairs_[place][*number].a : pairs_[place][*number].b) = &tensor;
    return {};
  }

  Result<void> of_linear(const TensorInfo& tensor, std::string_view module, std::string_view what) {
    SY_TRY(const int place, places_.find(source_, tensor, module));
    if (!places_.wanted(place)) return {};
    AdapterTensors& out = out_.linears[place];
    if (what == "gate") {  // of several files: one below the other
      SY_CHECK(source_.check_shape(tensor, {-1, places_.at(place).cols}));
      SY_TRY(const std::vector<float> gate, source_.values(tensor));
      out.gates += static_cast<int>(tensor.shape[0]);
      out.gate.insert(out.gate.end(), gate.begin(), gate.end());
    } else if (what == "z") {
      SY_CHECK(source_.check_shape(tensor, {-1, -1, -1}));
      if (!out.z.empty()) return twice(tensor);
      out.tasks = int(tensor.shape[0]), out.skills = int(tensor.shape[1]), out.heads = int(tensor.shape[2]);
      SY_TRY(out.z, source_.values(tensor));
    } else {
      SY_CHECK(source_.check_shape(tensor, {-1}));
      if (!out.bias.empty()) return twice(tensor);
      SY_TRY(out.bias, source_.values(tensor));
    }
    return {};
  }

  Result<void> net(const TensorInfo& tensor, std::string_view module, bool alpha, std::string_view part) {
    if (std::set<std::string_view>{"w0", "w1", "b1", "w2", "b2"}.count(part) == 0) return unknown(tensor);
    SY_TRY(const int place, places_.find(source_, tensor, module));
    nets_[place][alpha].emplace(part, &tensor);
    return {};
  }

  Result<void> finish_net(int place, bool alpha, const NetParts& parts) {
    if (parts.size() != 5)
      return source_.wrong(*parts.begin()->second, "is one of w0, w1, b1, w2 and b2, not all of which are there");
    if (!places_.wanted(place)) return {};
    BlendNet& net = alpha ? out_.linears[place].alpha : out_.linears[place].beta;
    if (net) return twice(*parts.begin()->second);
    const auto part = [&](const char* name) -> const TensorInfo& { return *parts.find(name)->second; };
    SY_CHECK(source_.check_shape(part("w0"), {-1, places_.at(place).cols}));
    net.inner = static_cast<int>(part("w0").shape[0]);
    SY_CHECK(source_.check_shape(part("w1"), {-1, net.inner}));
    net.outer = static_cast<int>(part("w1").shape[0]);
    SY_CHECK(source_.check_shape(part("b1"), {net.outer}));
    SY_CHECK(source_.check_shape(part("w2"), {1, net.outer}));
    SY_CHECK(source_.check_shape(part("b2"), {1}));
    SY_TRY(net.w0, source_.values(part("w0")));
    SY_TRY(net.w1, source_.values(part("w1")));
    SY_TRY(net.b1, source_.values(part("b1")));
    SY_TRY(net.w2, source_.values(part("w2")));
    SY_TRY(net.b2, source_.values(part("b2")));
    return {};
  }

  Result<void> embeddings(const TensorInfo& tensor) {
    SY_CHECK(source_.check_shape(tensor, {-1, -1}));
    if (!out_.embeddings.empty()) return twice(tensor);
    out_.embedded = static_cast<int>(tensor.shape[0]);
    SY_TRY(out_.embeddings, source_.values(tensor));
    return {};
  }

  Result<void> instruction(const TensorInfo& tensor) {
    SY_CHECK(source_.check_shape(tensor, {-1}));
    if (!out_.instruction.empty()) return twice(tensor);
    SY_TRY(out_.instruction, source_.values(tensor));
    return {};
  }

  tl::unexpected<Error> twice(const TensorInfo& tensor) const {
    return source_.wrong(tensor, "is in two of the files");
  }

  Source source_;
  const Places& places_;
  AdapterFiles& out_;
  std::map<int, std::map<int, Pair>> pairs_;      // by place and expert
  std::map<int, std::map<bool, NetParts>> nets_;  // by place; true: alpha
};

Result<void> read_own(const OpenFile& file, const Places& places, uint64_t& total, AdapterFiles& out) {
  SY_TRY(const std::vector<TensorInfo> tensors, read_safetensors(file));
  OwnFile own(file, places, total, out);
  for (const TensorInfo& tensor : tensors) SY_CHECK(own.take(tensor));
  return own.finish();
}

// A name without a folder that is not there is looked for among the shipped examples.
std::filesystem::path located(const std::string& path) {
  std::error_code error;
  if (path.find('/') == path.npos && !std::filesystem::exists(path, error))
    if (const auto assets = find_assets(); assets && std::filesystem::exists(*assets / "schemes" / path, error))
      return *assets / "schemes" / path;
  return std::filesystem::absolute(path);
}

}  // namespace

Result<AdapterFiles> read_adapter_files(const std::vector<std::string>& paths, const std::vector<Linear>& linears,
                                        const std::function<bool(int place)>& wanted) {
  const Places places(linears, wanted);
  AdapterFiles out;
  uint64_t total = 0;
  for (const std::string& path : paths) {
    const std::filesystem::path where = located(path);
    std::error_code ignored;
    if (std::filesystem::is_directory(where, ignored)) {
      SY_TRY(const Folder folder, Folder::open(where));
      if (auto done = read_peft(folder, places, total, out); !done) {
        Error error = std::move(done).error();
        const std::string name = folder.path().filename().string();
        error.where = error.where.empty() || error.where == name ? name : name + "/" + error.where;
        return tl::unexpected<Error>(std::move(error));
      }
    } else {
      SY_TRY(const Folder folder, Folder::open(where.parent_path()));
      SY_TRY(const OpenFile file, folder.open_file(where.filename().string()));
      SY_CHECK(read_own(file, places, total, out));
    }
  }
  return out;
}

}  // namespace switchyard
