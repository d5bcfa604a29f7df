// Rotary position embedding.
#include "engine/model/rope.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <optional>
#include <vector>

#include <fmt/format.h>

#include "engine/base/text.h"
#include "engine/model/limits.h"

namespace switchyard {
namespace {

// What every type needs; `values` holds the keys of the type.
struct RopeConfig {
  JsonView values;
  JsonView config;
  int dims = 0;
  int context = 0;
  double theta = 0;
  bool reads_alpha = false;

  Result<double> positive(std::string_view key) const { return positive_or(key, std::nullopt); }
  Result<double> positive_or(std::string_view key, std::optional<double> fallback) const {
    const auto member = values.find(key);
    if (!member && fallback) return *fallback;
    SY_TRY(const double value, values.number(key));
    if (value > 0) return value;
    return member->fail(fmt::format("is {}, needs a number above 0", member->json().dump()));
  }
  // In the config itself (phi) or beside the type's keys; the former counts if both are there.
  Result<double> original_context() const {
    constexpr std::string_view kKey = "original_max_position_embeddings";
    const JsonView& holder = config.has(kKey) ? config : values;
    SY_TRY(const int64_t original, holder.integer_or(kKey, context, 2, kMaxContext));
    return static_cast<double>(original);
  }
};

// theta^(2i/d), the wavelengths / 2 pi.
std::vector<float> position_periods(float theta, int dims) {
  std::vector<float> periods(static_cast<size_t>(dims) / 2);
  for (size_t i = 0; i < periods.size(); ++i)
    periods[i] = std::pow(theta, static_cast<float>(2 * i) / static_cast<float>(dims));
  return periods;
}

std::vector<float> position_periods(const RopeConfig& rope) {
  return position_periods(static_cast<float>(rope.theta), rope.dims);
}

std::vector<float> default_frequencies(float theta, int dims) {
  std::vector<float> frequencies = position_periods(theta, dims);
  for (float& f : frequencies) f = 1.0f / f;
  return frequencies;
}

std::vector<float> default_frequencies(const RopeConfig& rope) {
  return default_frequencies(static_cast<float>(rope.theta), rope.dims);
}

Result<RopeSpec> linear(const RopeConfig& rope) {
  SY_TRY(const double factor, rope.positive("factor"));
  RopeSpec spec{.inv_freq = default_frequencies(rope)};
  for (float& f : spec.inv_freq) f /= static_cast<float>(factor);
  return spec;
}

Result<RopeSpec> dynamic(const RopeConfig& rope) {
  if (rope.dims < 4) return rope.values.fail(fmt::format("of type dynamic rotates {} dimensions, needs 4", rope.dims));
  const double exponent = rope.dims / (rope.dims - 2.0);
  SY_TRY(const double alpha, rope.values.number_or("alpha", 0));
  if (rope.reads_alpha && alpha > 0)
    return RopeSpec{.inv_freq =
                        default_frequencies(static_cast<float>(rope.theta * std::pow(alpha, exponent)), rope.dims)};
  SY_TRY(const double factor, rope.positive("factor"));
  if (factor < 1) return rope.values.fail(fmt::format("has factor {}, needs at least 1", factor));
  return RopeSpec{.inv_freq = default_frequencies(rope),
                  .growth = RopeGrowth::kDynamic,
                  .original = rope.context,
                  .theta = static_cast<float>(rope.theta),
                  .factor = static_cast<float>(factor)};
}

Result<RopeSpec> llama3(const RopeConfig& rope) {
  SY_TRY(const double factor, rope.positive("factor"));
  SY_TRY(const double low, rope.positive("low_freq_factor"));
  SY_TRY(const double high, rope.positive("high_freq_factor"));
  SY_TRY(const double original, rope.original_context());
  if (high <= low)
    return rope.values.fail(fmt::format("has high_freq_factor {}, needs more than low_freq_factor {}", high, low));
  const auto longest = static_cast<float>(original / low);
  const auto shortest = static_cast<float>(original / high);
  RopeSpec spec{.inv_freq = default_frequencies(rope)};
  for (float& f : spec.inv_freq) {
    const float wavelength = 2 * std::numbers::pi_v<float> / f;
    const float scaled = f / static_cast<float>(factor);
    if (wavelength > longest) {
      f = scaled;
    } else if (wavelength >= shortest) {
      const float smooth =
          (static_cast<float>(original) / wavelength - static_cast<float>(low)) / static_cast<float>(high - low);
      f = (1 - smooth) * f / static_cast<float>(factor) + smooth * f;
    }
  }
  return spec;
}

double yarn_mscale(double factor, double mscale) {
  return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

Result<double> yarn_attention_factor(const RopeConfig& rope, double factor) {
  if (rope.values.has("attention_factor")) return rope.positive("attention_factor");
  // Zero counts as "not given", as in transformers.
  SY_TRY(const double mscale, rope.values.number_or("mscale", 0));
  SY_TRY(const double mscale_all_dim, rope.values.number_or("mscale_all_dim", 0));
  if (mscale != 0 && mscale_all_dim != 0) return yarn_mscale(factor, mscale) / yarn_mscale(factor, mscale_all_dim);
  return yarn_mscale(factor, 1);
}

Result<RopeSpec> yarn(const RopeConfig& rope) {
  SY_TRY(const double original, rope.original_context());
  SY_TRY(const double factor, rope.positive_or("factor", rope.context / original));
  SY_TRY(const double beta_fast, rope.positive_or("beta_fast", 32));
  SY_TRY(const double beta_slow, rope.positive_or("beta_slow", 1));
  SY_TRY(const bool truncate, rope.values.boolean_or("truncate", true));
  if (rope.theta <= 1)
    return rope.values.fail(fmt::format("of type yarn has rope_theta {}, needs more than 1", rope.theta));
  const auto correction_dim = [&](double rotations) {
    return rope.dims * std::log(original / (rotations * 2 * std::numbers::pi)) / (2 * std::log(rope.theta));
  };
  double low = correction_dim(beta_fast), high = correction_dim(beta_slow);
  if (truncate) low = std::floor(low), high = std::ceil(high);
  low = std::max(low, 0.0);
  high = std::min(high, rope.dims - 1.0);
  if (low == high) high += 0.001;

  RopeSpec spec{.inv_freq = position_periods(rope)};
  for (int i = 0; i < rope.dims / 2; ++i) {
    const float period = spec.inv_freq[i];
    const float ramp =
        std::clamp((static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(high - low), 0.0f, 1.0f);
    const float unscaled_share = 1 - ramp;
    spec.inv_freq[i] =
        1.0f / (static_cast<float>(factor) * period) * (1 - unscaled_share) + 1.0f / period * unscaled_share;
  }
  SY_TRY(const double attention_factor, yarn_attention_factor(rope, factor));
  spec.attention_factor = static_cast<float>(attention_factor);
  return spec;
}

// The frequencies under one of the two lists of factors.
Result<std::vector<float>> extended_frequencies(const RopeConfig& rope, std::string_view key) {
  SY_TRY(const auto factors, rope.values.array(key));
  if (factors.size() != static_cast<size_t>(rope.dims / 2))
    return rope.values.fail(fmt::format("has {} {} values, needs {}", factors.size(), key, rope.dims / 2));
  std::vector<float> frequencies = position_periods(rope);
  for (size_t i = 0; i < factors.size(); ++i) {
    SY_TRY(const double extension,
           factors[i].as_number(std::numeric_limits<float>::min(), std::numeric_limits<float>::max()));
    frequencies[i] = 1.0f / (static_cast<float>(extension) * frequencies[i]);
  }
  return frequencies;
}

Result<RopeSpec> longrope(const RopeConfig& rope) {
  SY_TRY(const double original, rope.original_context());
  RopeSpec spec{.growth = RopeGrowth::kLongRope, .original = static_cast<int>(original)};
  SY_TRY(spec.inv_freq, extended_frequencies(rope, "short_factor"));
  SY_TRY(spec.long_inv_freq, extended_frequencies(rope, "long_factor"));
  SY_TRY(const double factor, rope.positive_or("factor", rope.context / original));
  const double computed = factor <= 1 ? 1.0 : std::sqrt(1 + std::log(factor) / std::log(original));
  SY_TRY(const double attention_factor, rope.positive_or("attention_factor", computed));
  spec.attention_factor = spec.long_attention_factor = static_cast<float>(attention_factor);
  return spec;
}

// DeepSeek's m^2, of every type but the default; zero counts as "not given", as in transformers.
Result<float> score_scale(const RopeConfig& rope, std::string_view type) {
  SY_TRY(const double mscale_all_dim, rope.values.number_or("mscale_all_dim", 0));
  if (type == "default" || mscale_all_dim == 0) return 1.0f;
  SY_TRY(const double factor, rope.positive("factor"));
  const double m = yarn_mscale(factor, mscale_all_dim);
  return static_cast<float>(m * m);
}

Result<std::string> rope_type(const JsonView& values) {
  if (values.has("rope_type")) return values.text("rope_type");
  return values.text_or("type", "default");
}

// What every type shares. Transformers 5 writes all keys inside rope_parameters, 4 some beside rope_scaling.
Result<RopeConfig> read_shared(const JsonView& config, int head_dim, int context, const RopeDefaults& defaults) {
  static const Json none = Json::object();
  const Json& silent = defaults.parameters ? *defaults.parameters : none;
  const auto parameters = config.find("rope_parameters");
  const auto scaling = parameters ? parameters : config.find("rope_scaling");
  RopeConfig rope{.values = scaling.value_or(JsonView(silent, config.document(), "/rope_scaling")),
                  .config = config,
                  .context = context,
                  .reads_alpha = defaults.reads_alpha};
  if (!rope.values.json().is_object()) return rope.values.fail("is not an object");

  const auto holder = [&](std::string_view key) { return rope.values.has(key) ? rope.values : config; };
  SY_TRY(rope.theta, holder("rope_theta").number_or("rope_theta", defaults.theta));
  SY_TRY(const double partial,
         holder("partial_rotary_factor").number_or("partial_rotary_factor", defaults.partial_factor));
  if (!(rope.theta > 0 && rope.theta <= 1e30))
    return config.fail(fmt::format("has rope_theta {}, needs a number above 0", rope.theta));
  if (!(partial > 0 && partial <= 1))
    return config.fail(fmt::format("has partial_rotary_factor {}, needs more than 0 and at most 1", partial));
  rope.dims = static_cast<int>(head_dim * partial);
  if (rope.dims < 2 || rope.dims % 2 != 0)
    return config.fail(fmt::format("asks to rotate {} dimensions of a head, needs an even number above 0", rope.dims));
  return rope;
}

Result<RopeSpec> read_type(const RopeConfig& rope) {
  SY_TRY(const std::string type, rope_type(rope.values));
  if (type == "default") return RopeSpec{.inv_freq = default_frequencies(rope)};
  if (type == "linear") return linear(rope);
  if (type == "dynamic") return dynamic(rope);
  if (type == "llama3") return llama3(rope);
  if (type == "yarn") return yarn(rope);
  if (type == "longrope") return longrope(rope);
  return rope.values.fail(fmt::format(
      "has the rope type {}, supported are default, linear, dynamic, llama3, yarn and longrope", quote(type)));
}

}  // namespace

Result<Rope> read_rope(const JsonView& config, RopeKind kind, int head_dim, int context, const RopeDefaults& defaults) {
  SY_TRY(const RopeConfig shared, read_shared(config, head_dim, context, defaults));
  SY_TRY(RopeSpec spec, read_type(shared));
  spec.kind = kind;
  spec.dims = shared.dims;
  SY_TRY(const std::string type, rope_type(shared.values));
  SY_TRY(const float score, score_scale(shared, type));
  const auto finite = [](float value) { return std::isfinite(value); };
  const auto all_finite = [&](const std::vector<float>& values) {
    return std::all_of(values.begin(), values.end(), finite);
  };
  if (!all_finite(spec.inv_freq) || !all_finite(spec.long_inv_freq) || !finite(spec.attention_factor) || !finite(score))
    return shared.values.fail("gives a frequency or an attention factor that is not finite");
  if (spec.growth == RopeGrowth::kDynamic)
    context = static_cast<int>(std::min<double>(context * double{spec.factor}, kMaxContext));
  return Rope{.spec = std::move(spec), .context = context, .score_scale = score};
}

RopeFrequencies rope_frequencies(const RopeSpec& spec, int64_t tokens) {
  if (spec.growth == RopeGrowth::kNone || tokens <= spec.original) return {spec.inv_freq, spec.attention_factor};
  if (spec.growth == RopeGrowth::kLongRope) return {spec.long_inv_freq, spec.long_attention_factor};
  // In the float32 steps of transformers, whose length is a tensor.
  const float grown = spec.factor * static_cast<float>(tokens) / static_cast<float>(spec.original) - (spec.factor - 1);
  const auto dims = static_cast<float>(spec.dims);
  return {default_frequencies(spec.theta * std::pow(grown, dims / (dims - 2)), spec.dims), spec.attention_factor};
}

}  // namespace switchyard
