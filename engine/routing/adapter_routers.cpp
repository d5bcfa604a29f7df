// The registry of adapter routers, and adapters made ready for a model. See adapters.h; formulas and sources:
// specs/gating.md 1.7.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "engine/base/text.h"
#include "engine/model/linears.h"
#include "engine/routing/adapter_files.h"
#include "engine/routing/adapters.h"

namespace switchyard {
namespace {

using Type = AdapterParameter::Type;
constexpr int kMostExperts = 4096;

AdapterParameter real(const char* name, double standard, double min, double max, const char* meaning) {
  return {name, Type::kReal, standard, min, max, {}, meaning};
}
AdapterParameter integer(const char* name, int standard, int min, int max, const char* meaning) {
  return {name, Type::kInteger, double(standard), double(min), double(max), {}, meaning};
}
AdapterParameter boolean(const char* name, bool standard, const char* meaning) { return {name, Type::kBoolean, standard, 0, 0, {}, meaning}; }
AdapterParameter choice(const char* name, std::vector<const char*> choices, const char* meaning) {
  return {name, Type::kChoice, std::string(choices.front()), 0, 0, std::move(choices), meaning};
}
AdapterParameter reals(const char* name, double min, double max, const char* meaning) {
  return {name, Type::kReals, std::vector<double>{}, min, max, {}, meaning};
}

// Every router has these.
AdapterParameter scale() { return real("scale", 1, -1000, 1000, "multiplies every adapter"); }
AdapterParameter alpha(double standard) {
  return real("alpha", standard, 0, 1e6, "s = alpha / r of adapters whose file does not say, which PEFT's do; 0: s = 1");
}
AdapterParameter k(int standard) { return integer("k", standard, 1, kMostExperts, "adapters per token"); }

struct Entry {
  AdapterRouterInfo info;
  AdapterRouter router;
};

const std::vector<Entry>& entries() {
  static const std::vector<Entry> list = {
      {{.name = "fixed", .title = "Fixed weights", .source = "LoRA, arXiv 2106.09685; PEFT", .exact = true,
        .formula = "y = W x + sum_e s_e w_e B_e A_e x with given w", .needs = "",
        .parameters = {reals("weights", -1000, 1000, "one per adapter; none: all 1"), scale(), alpha(0)}},
       AdapterRouter::kFixed},
      {{.name = "phatgoose", .title = "PHATGOOSE", .source = "arXiv 2402.05859", .exact = true,
        .formula = "s_e = LN(x) . LN(v_e) / sqrt(d); w = softmax over the k largest", .needs = "gate vectors (lora.MODULE.gate)",
        .parameters = {k(2), scale(), alpha(1)}},
       AdapterRouter::kPhatgoose},
      {{.name = "glider", .title = "Glider", .source = "arXiv 2410.07172", .exact = true,
        .formula = "s_e = LN(x) . LN(v_e) / sqrt(d) + lambda cos(instruction, task_e); w = softmax over the k largest",
        .needs = "gate vectors (lora.MODULE.gate); cosines, or lora.embeddings and lora.instruction",
        .parameters = {k(2), real("lambda", 100, 0, 1e6, "weight of the instruction; 0: PHATGOOSE"),
                       reals("cosines", -1, 1, "of the instruction and each adapter's task; none: from the file's embeddings"), scale(), alpha(1)}},
       AdapterRouter::kPhatgoose},
      {{.name = "arrow", .title = "Arrow", .source = "arXiv 2405.11157", .exact = true,
        .formula = "s_e = |v_e . x| / 10, v_e the input direction that B_e A_e amplifies most; w = softmax over the k largest", .needs = "",
        .parameters = {k(2), scale(), alpha(0)}},
       AdapterRouter::kArrow},
      {{.name = "poly", .title = "Poly and multi-head routing (MHR)", .source = "arXiv 2211.03831", .exact = true,
        .formula = "alpha = sigmoid(Z) / sum sigmoid(Z), per block of the dimensions; A = sum alpha A_e, B = sum alpha B_e; y = W x + s B A x",
        .needs = "task logits (lora.MODULE.z), but for uniform; adapters of one rank and scale",
        .parameters = {integer("task", 0, 0, kMostExperts, "row of the task logits"), boolean("uniform", false, "MHR-mu: alpha = 1 / S, no task logits"),
                       scale(), alpha(1)}},
       AdapterRouter::kPoly},
      {{.name = "dynmole", .title = "DynMoLE", .source = "arXiv 2504.00661", .exact = true,
        .formula = "p = softmax(G x); S > h: all adapters; else those with cumulative p <= P, at least k_keep; w = p", .needs = "gate (lora.MODULE.gate)",
        .parameters = {real("p", 0.75, 0, 1, "mass not to exceed"), real("h", 0.9, 0, 2, "entropy above which all adapters run; 1 or more: never"),
                       real("q", 1.1, 0, 10, "order of the entropy; 0: no entropy rule"), real("eps", 1e-5, 0, 0.1, "added to each p"),
                       integer("k_keep", 2, 1, kMostExperts, "adapters at least"), choice("entropy", {"tsallis", "renyi"}, "kind of entropy"), scale(), alpha(0)}},
       AdapterRouter::kDynMole},
      {{.name = "lora_mixer", .title = "LoRA-Mixer", .source = "arXiv 2507.00029", .exact = false,
        .formula = "p = softmax(G x); w = the k largest p, over their sum; with a label that adapter alone", .needs = "gate (lora.MODULE.gate), but for a label",
        .parameters = {k(2), boolean("renorm", true, "weights divided by their sum"),
                       integer("label", -1, -1, kMostExperts - 1, "this adapter alone, as in its training; -1: routed"), scale(), alpha(0)}},
       AdapterRouter::kLoraMixer},
      {{.name = "flylora", .title = "FlyLoRA", .source = "arXiv 2510.08396", .exact = true,
        .formula = "y = A x; the k ranks with the largest |y + d| (absolute) or y + d (signed); out = (alpha / r) B (y * mask)",
        .needs = "one adapter; d (lora.MODULE.bias) where it has one",
        .parameters = {integer("k", 8, 1, kMostExperts, "ranks per token"),
                       choice("variant", {"absolute", "signed"}, "the authors' minimal file selects by |y + d|, their PEFT patch by y + d"), scale(), alpha(64)}},
       AdapterRouter::kFlyLora},
      {{.name = "mogu", .title = "MoGU", .source = "arXiv 2405.14488", .exact = true,
        .formula = "y = (alpha + beta) W x + s (alpha B_0 A_0 x + beta B_1 A_1 x); alpha, beta = sigmoid(W2 (W1 W0 x + b1) + b2)",
        .needs = "two adapters; two networks (lora.MODULE.alpha.*, .beta.*), or fixed shares",
        .parameters = {integer("tokens", 5, 0, 1000000000, "generated tokens that it serves; 0: all tokens"),
                       real("share_0", 1, 0, 1, "alpha where the file has no network"), real("share_1", 0, 0, 1, "beta where the file has no network"), scale(), alpha(0)}},
       AdapterRouter::kMogu},
  };
  return list;
}

const Entry* find_entry(std::string_view name) {
  const auto found = std::find_if(entries().begin(), entries().end(), [&](const Entry& entry) { return name == entry.info.name; });
  return found == entries().end() ? nullptr : &*found;
}

Result<void> check_number(const AdapterParameter& parameter, double value) {
  if (!(value >= parameter.min && value <= parameter.max))
    return fail(ErrorCode::kMalformed, fmt::format("{} is {:g}, needs {:g} to {:g}", parameter.name, value, parameter.min, parameter.max));
  if (parameter.type == Type::kInteger && value != std::floor(value))
    return fail(ErrorCode::kMalformed, fmt::format("{} is {:g}, needs an integer", parameter.name, value));
  return {};
}

Result<void> check_parameter(const AdapterParameter& parameter, const AdapterValue& value) {
  if (value.index() != parameter.standard.index()) {
    static constexpr const char* kNeeds[] = {"true or false", "a number", "a word", "a list of numbers"};
    return fail(ErrorCode::kMalformed, fmt::format("{} needs {}", parameter.name, kNeeds[parameter.standard.index()]));
  }
  if (const auto* number = std::get_if<double>(&value)) return check_number(parameter, *number);
  if (const auto* list = std::get_if<std::vector<double>>(&value)) {
    for (const double number : *list) SY_CHECK(check_number(parameter, number));
  } else if (const auto* word = std::get_if<std::string>(&value)) {
    if (std::none_of(parameter.choices.begin(), parameter.choices.end(), [&](const char* one) { return *word == one; }))
      return fail(ErrorCode::kMalformed, fmt::format("{} is {}, needs one of {}", parameter.name, quote(*word), fmt::join(parameter.choices, ", ")));
  }
  return {};
}

// The parameters in force: what was given, else the default; of a name that the router lacks the fallback.
class Values {
 public:
  Values(const AdapterRouterInfo& info, const AdapterChoice& choice) : info_(info), choice_(choice) {}
  float real(const char* name, double fallback = 0) const { return static_cast<float>(get(name, fallback)); }
  int integer(const char* name, int fallback = 0) const { return static_cast<int>(get(name, double(fallback))); }
  bool flag(const char* name, bool fallback = false) const { return get(name, fallback); }
  std::string word(const char* name) const { return get(name, std::string()); }
  std::vector<float> list(const char* name) const {
    const auto values = get(name, std::vector<double>{});
    return {values.begin(), values.end()};
  }

 private:
  template <class T>
  T get(const char* name, T fallback) const {
    if (const auto given = choice_.parameters.find(name); given != choice_.parameters.end()) return std::get<T>(given->second);
    for (const AdapterParameter& parameter : info_.parameters)
      if (std::string_view(name) == parameter.name) return std::get<T>(parameter.standard);
    return fallback;
  }
  const AdapterRouterInfo& info_;
  const AdapterChoice& choice_;
};

AdapterRule rule_of(const Entry& entry, const AdapterChoice& choice) {
  const Values v(entry.info, choice);
  AdapterRule rule{.router = entry.router, .scale = v.real("scale"), .alpha = v.real("alpha"), .k = v.integer("k")};
  rule.renorm = v.flag("renorm", true);
  rule.weights = v.list("weights");
  rule.cosines = v.list("cosines");
  rule.lambda = v.real("lambda");
  rule.hybrid.selector = Selector::kHybrid;
  rule.hybrid.p = v.real("p"), rule.hybrid.h = v.real("h"), rule.hybrid.q = v.real("q"), rule.hybrid.eps = v.real("eps");
  rule.hybrid.k_min = v.integer("k_keep", 1);
  rule.hybrid.entropy = v.word("entropy") == "renyi" ? EntropyKind::kRenyi : EntropyKind::kTsallis;
  rule.task = v.integer("task"), rule.uniform = v.flag("uniform");
  rule.label = v.integer("label", -1);
  rule.by_magnitude = v.word("variant") != "signed";
  rule.tokens = v.integer("tokens");
  rule.blend_alpha = v.real("share_0", 1), rule.blend_beta = v.real("share_1");
  return rule;
}

tl::unexpected<Error> unfit(const Linear& linear, std::string what, std::string hint = {}) {
  return fail(ErrorCode::kUsage, std::move(what), linear.module, std::move(hint));
}

// Cosines of the instruction and each expert's task.
Result<std::vector<float>> cosines_of(const AdapterFiles& files) {
  const size_t n = files.instruction.size();
  if (n == 0 || files.embedded == 0 || files.embeddings.size() != n * size_t(files.embedded))
    return fail(ErrorCode::kUsage, "glider needs the cosines of the instruction and each adapter's task", {},
                "Give the parameter \"cosines\", or lora.embeddings [adapters, n] and lora.instruction [n] in a file.");
  std::vector<float> out;
  const auto length = [n](const float* x) { return std::sqrt(std::inner_product(x, x + n, x, 0.0)); };
  for (int e = 0; e < files.embedded; ++e) {
    const float* own = files.embeddings.data() + size_t(e) * n;
    const double lengths = length(own) * length(files.instruction.data());
    out.push_back(lengths > 0 ? static_cast<float>(std::inner_product(own, own + n, files.instruction.begin(), 0.0) / lengths) : 0.0f);
  }
  return out;
}

// Sum of alpha M_e, alpha by the block in which `at(i)`, a number of [0, size), lies.
template <class At>
std::vector<float> mixed(const std::vector<LoraPair>& loras, std::vector<float> LoraPair::*part, const std::vector<double>& alpha,
                         int heads, int size, const At& at) {
  std::vector<float> out((loras[0].*part).size());
  for (size_t i = 0; i < out.size(); ++i) {
    const size_t head = size_t(at(i)) * size_t(heads) / size_t(size);
    double sum = 0;
    for (size_t e = 0; e < loras.size(); ++e) sum += alpha[e * size_t(heads) + head] * (loras[e].*part)[i];
    out[i] = static_cast<float>(sum);
  }
  return out;
}

// The adapters of one linear as the router takes them.
class Builder {
 public:
  Builder(const AdapterRule& rule, const std::string& router, const Linear& linear, const AdapterTensors& tensors)
      : rule_(rule), router_(router), linear_(linear), tensors_(tensors) {}

  Result<AdaptedLinear> build() {
    const auto& loras = tensors_.loras;
    if (loras.empty()) return unfit(linear_, "the files have tensors of a router, and no adapter");
    if (loras.size() > kMostExperts) return unfit(linear_, fmt::format("there are {} adapters, at most {} can stand on a linear layer", loras.size(), kMostExperts));
    out_.in = static_cast<int>(linear_.cols), out_.out = static_cast<int>(linear_.rows);
    for (const LoraPair& lora : loras) {
      out_.names.push_back(lora.expert);
      const double own = lora.scale ? double(*lora.scale) : rule_.alpha > 0 ? double(rule_.alpha) / lora.rank : 1;
      out_.scales.push_back(static_cast<float>(own * rule_.scale));
    }
    if (rule_.router == AdapterRouter::kPoly) SY_CHECK(mix());
    else stack();
    SY_CHECK(route());
    return std::move(out_);
  }

 private:
  void stack() {
    for (const LoraPair& lora : tensors_.loras) {
      out_.rank += lora.rank;
      out_.ends.push_back(out_.rank);
      out_.a.insert(out_.a.end(), lora.a.begin(), lora.a.end());
    }
    out_.b.resize(size_t(out_.out) * size_t(out_.rank));
    for (size_t e = 0; e < tensors_.loras.size(); ++e) {
      const LoraPair& lora = tensors_.loras[e];
      const auto rank = size_t(lora.rank);
      for (size_t o = 0; o < size_t(out_.out); ++o)
        std::copy_n(lora.b.data() + o * rank, rank, out_.b.data() + o * size_t(out_.rank) + size_t(out_.ends[e]) - rank);
    }
  }

  // alpha [experts][heads].
  Result<std::vector<double>> task_shares(int& heads) const {
    const auto experts = tensors_.loras.size();
    heads = 1;
    if (rule_.uniform) return std::vector<double>(experts, 1 / double(experts));
    if (tensors_.z.empty()) return unfit(linear_, "poly needs task logits (lora.MODULE.z [tasks, adapters, heads])", "Give a file with them, or \"uniform\": true.");
    if (size_t(tensors_.skills) != experts) return unfit(linear_, fmt::format("the task logits are of {} adapters, the files have {}", tensors_.skills, experts));
    if (rule_.task >= tensors_.tasks) return unfit(linear_, fmt::format("there is no task {}; the task logits have {}", rule_.task, tensors_.tasks));
    heads = tensors_.heads;
    if (out_.in % heads != 0 || out_.out % heads != 0)
      return unfit(linear_, fmt::format("{} heads do not divide its {} inputs and {} outputs", heads, out_.in, out_.out));
    const size_t width = experts * size_t(heads);
    std::vector<double> shares;
    for (size_t i = 0; i < width; ++i) shares.push_back(1 / (1 + std::exp(-double(tensors_.z[size_t(rule_.task) * width + i]))));
    for (size_t head = 0; head < size_t(heads); ++head) {
      double sum = 0;
      for (size_t e = 0; e < experts; ++e) sum += shares[e * size_t(heads) + head];
      for (size_t e = 0; e < experts; ++e) shares[e * size_t(heads) + head] /= sum > 0 ? sum : 1;
    }
    return shares;
  }

  Result<void> mix() {
    const auto& loras = tensors_.loras;
    out_.rank = loras[0].rank;
    for (size_t e = 0; e < loras.size(); ++e) {
      if (loras[e].rank != out_.rank || out_.scales[e] != out_.scales[0])
        return unfit(linear_, fmt::format("poly mixes adapters of one rank and scale; {} has {} and {:g}, {} has {} and {:g}", quote(loras[0].expert), out_.rank,
                                          out_.scales[0], quote(loras[e].expert), loras[e].rank, out_.scales[e]));
      out_.ends.push_back(out_.rank);
    }
    int heads = 1;
    SY_TRY(const std::vector<double> shares, task_shares(heads));
    const auto in = size_t(out_.in), rank = size_t(out_.rank);
    out_.a = mixed(loras, &LoraPair::a, shares, heads, out_.in, [in](size_t i) { return i % in; });
    out_.b = mixed(loras, &LoraPair::b, shares, heads, out_.out, [rank](size_t i) { return i / rank; });
    for (size_t e = 0; e < loras.size(); ++e)  // what is shown: the mean over the heads
      out_.weights.push_back(static_cast<float>(std::accumulate(shares.begin() + std::ptrdiff_t(e * size_t(heads)),
                                                                shares.begin() + std::ptrdiff_t((e + 1) * size_t(heads)), 0.0) / heads));
    return {};
  }

  Result<void> take_gate() {
    if (tensors_.gate.empty()) return unfit(linear_, fmt::format("{} needs a gate (lora.MODULE.gate [adapters, in])", router_), "Give a file with it, or choose arrow, which needs none.");
    if (tensors_.gates != out_.experts()) return unfit(linear_, fmt::format("the gate has {} rows, there are {} adapters", tensors_.gates, out_.experts()));
    out_.gate = tensors_.gate;
    return {};
  }

  Result<void> route() {
    const auto experts = size_t(out_.experts());
    switch (rule_.router) {
      case AdapterRouter::kFixed:
        out_.weights = rule_.weights.empty() ? std::vector<float>(experts, 1.0f) : rule_.weights;
        if (out_.weights.size() != experts) return unfit(linear_, fmt::format("there are {} weights for {} adapters", out_.weights.size(), experts));
        return {};
      case AdapterRouter::kPhatgoose: return phatgoose();
      case AdapterRouter::kArrow:
        for (const LoraPair& lora : tensors_.loras) {
          const auto direction = amplified_direction(lora.a, lora.b, lora.rank, out_.in, out_.out);
          out_.gate.insert(out_.gate.end(), direction.begin(), direction.end());
        }
        return {};
      case AdapterRouter::kPoly: return {};
      case AdapterRouter::kDynMole: return take_gate();
      case AdapterRouter::kLoraMixer:
        if (rule_.label >= int(experts)) return unfit(linear_, fmt::format("there is no adapter {}; there are {}", rule_.label, experts));
        return rule_.label >= 0 ? Result<void>{} : take_gate();
      case AdapterRouter::kFlyLora:
        if (experts != 1) return unfit(linear_, fmt::format("flylora routes the ranks of one adapter, the files have {}", experts));
        if (!tensors_.bias.empty() && tensors_.bias.size() != size_t(out_.rank))
          return unfit(linear_, fmt::format("lora.MODULE.bias has {} numbers, the adapter {} ranks", tensors_.bias.size(), out_.rank));
        out_.bias = tensors_.bias;
        out_.names.clear();
        for (int rank = 0; rank < out_.rank; ++rank) out_.names.push_back(fmt::format("rank {}", rank));
        return {};
      case AdapterRouter::kMogu:
        if (experts != 2) return unfit(linear_, fmt::format("mogu blends two adapters, the files have {}", experts));
        if (bool(tensors_.alpha) != bool(tensors_.beta)) return unfit(linear_, "mogu needs both networks (lora.MODULE.alpha.* and .beta.*), or neither");
        if (tensors_.alpha) {
          out_.alpha = std::make_shared<const BlendNet>(tensors_.alpha);
          out_.beta = std::make_shared<const BlendNet>(tensors_.beta);
        }
        return {};
    }
    return {};
  }

  // LN(v) per gate; Glider's offsets.
  Result<void> phatgoose() {
    SY_CHECK(take_gate());
    const auto in = size_t(out_.in);
    for (size_t e = 0; e < size_t(out_.experts()); ++e) {
      const std::span<float> gate = std::span(out_.gate).subspan(e * in, in);
      const double mean = std::accumulate(gate.begin(), gate.end(), 0.0) / double(in);
      double variance = 0;
      for (const float value : gate) variance += (value - mean) * (value - mean);
      const double inverse = 1 / std::sqrt(variance / double(in) + 1e-5);
      for (float& value : gate) value = static_cast<float>((value - mean) * inverse);
    }
    if (rule_.cosines.empty()) return {};
    if (rule_.cosines.size() != size_t(out_.experts()))
      return unfit(linear_, fmt::format("there are {} cosines for {} adapters", rule_.cosines.size(), out_.experts()));
    for (const float cosine : rule_.cosines) out_.offsets.push_back(rule_.lambda * cosine);
    return {};
  }

  const AdapterRule& rule_;
  const std::string& router_;
  const Linear& linear_;
  const AdapterTensors& tensors_;
  AdaptedLinear out_;
};

}  // namespace

const std::vector<AdapterRouterInfo>& adapter_routers() {
  static const std::vector<AdapterRouterInfo> list = [] {
    std::vector<AdapterRouterInfo> out;
    for (const Entry& entry : entries()) out.push_back(entry.info);
    return out;
  }();
  return list;
}

const AdapterRouterInfo* find_adapter_router(std::string_view name) {
  const Entry* entry = find_entry(name);
  return entry ? &entry->info : nullptr;
}

Result<std::shared_ptr<const AdapterSet>> make_adapters(const AdapterChoice& choice, const std::vector<int>& layers,
                                                        const std::vector<std::string>& modules, const ModelPlan& plan) {
  const Entry* entry = find_entry(choice.router);
  if (!entry) {
    std::vector<std::string_view> names;
    for (const Entry& one : entries()) names.push_back(one.info.name);
    return fail(ErrorCode::kMalformed, fmt::format("there is no adapter router {}", quote(choice.router)), {}, fmt::format("There are {}.", fmt::join(names, ", ")));
  }
  if (choice.files.empty()) return fail(ErrorCode::kMalformed, "no adapter file is named");
  auto out = std::make_shared<AdapterSet>();
  out->choice = {choice.files, choice.router, {}};
  for (const auto& [name, value] : choice.parameters) {
    const auto& known = entry->info.parameters;
    const auto parameter = std::find_if(known.begin(), known.end(), [&](const auto& p) { return name == p.name; });
    if (parameter == known.end()) return fail(ErrorCode::kMalformed, fmt::format("the adapter router {} has no parameter {}", choice.router, quote(name)));
    SY_CHECK(check_parameter(*parameter, value));
    if (value != parameter->standard) out->choice.parameters.emplace(name, value);
  }
  out->rule = rule_of(*entry, out->choice);

  const std::vector<Linear> linears = linears_of(plan);
  const auto wanted = [&](int place) {
    const Linear& linear = linears[size_t(place)];
    return (layers.empty() || std::find(layers.begin(), layers.end(), linear.layer) != layers.end()) &&
           (modules.empty() || std::any_of(modules.begin(), modules.end(), [&](const std::string& m) { return names_module(m, linear.module); }));
  };
  SY_TRY(const AdapterFiles files, read_adapter_files(choice.files, linears, wanted));
  if (files.linears.empty()) return fail(ErrorCode::kUsage, "the files have no adapter for these layers and modules", fmt::format("{}", fmt::join(choice.files, ", ")));
  if (choice.router == "glider" && out->rule.cosines.empty()) {
    SY_TRY(out->rule.cosines, cosines_of(files));
  }
  for (const auto& [place, tensors] : files.linears) {
    SY_TRY(AdaptedLinear linear, Builder(out->rule, choice.router, linears[size_t(place)], tensors).build());
    linear.label = short_name(linears[size_t(place)]);
    out->linears.emplace(place, std::move(linear));
  }
  return std::shared_ptr<const AdapterSet>(std::move(out));
}

std::string describe(const AdapterChoice& choice) {
  std::vector<std::string> names;
  for (const std::string& file : choice.files) {
    const std::string_view text = std::string_view(file).ends_with('/') ? std::string_view(file).substr(0, file.size() - 1) : file;
    names.push_back(printable(text.substr(text.rfind('/') + 1)));
  }
  std::string details;
  for (const auto& [name, value] : choice.parameters) {
    const std::string text = std::visit(
        []<class T>(const T& v) {
          if constexpr (std::is_same_v<T, std::vector<double>>) return fmt::format("{}", fmt::join(v, " "));
          else if constexpr (std::is_same_v<T, double>) return fmt::format("{:g}", v);
          else return fmt::format("{}", v);
        },
        value);
    details += fmt::format("{}{} {}", details.empty() ? "" : ", ", name, text);
  }
  return fmt::format("{} of {}{}", choice.router, fmt::join(names, ", "), details.empty() ? "" : " (" + details + ")");
}

}  // namespace switchyard
