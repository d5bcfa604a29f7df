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
  int dims = 0;
  int context = 0;
  double theta = 0;

  Result<double> positive(std::string_view key) const { return positive_or(key, std::nullopt); }
  Result<double> positive_or(std::string_view key, std::optional<double> fallback) const {
    const auto member = values.find(key);
    if (!member && fallback) return *fallback;
    SY_TRY(const double value, values.number(key));
    if (value > 0) return value;
    return member->fail(fmt::format("is {}, needs a number above 0", member->json().dump()));
  }
  Result<double> original_context() const {
    SY_TRY(const int64_t original, values.integer_or("original_max_position_embeddings", context, 1, kMaxContext));
    return static_cast<double>(original);
  }
};

// theta^(2i/d), the wavelengths / 2 pi.
std::vector<float> position_periods(const RopeConfig& rope) {
  std::vector<float> periods(rope.dims / 2);
  for (int i = 0; i < rope.dims / 2; ++i)
    periods[i] = std::pow(static_cast<float>(rope.theta), static_cast<float>(2 * i) / static_cast<float>(rope.dims));
  return periods;
}

std::vector<float> default_frequencies(const RopeConfig& rope) {
  std::vector<float> frequencies = position_periods(rope);
  for (float& f : frequencies) f = 1.0f / f;
  return frequencies;
}

Result<RopeSpec> linear(const RopeConfig& rope) {
  SY_TRY(const double factor, rope.positive("factor"));
  RopeSpec spec{.inv_freq = default_frequencies(rope)};
  for (float& f : spec.inv_freq) f /= static_cast<float>(factor);
  return spec;
}

Result<RopeSpec> llama3(const RopeConfig& rope) {
  SY_TRY(const double factor, rope.positive("factor"));
  SY_TRY(const double low, rope.positive("low_freq_factor"));
  SY_TRY(const double high, rope.positive("high_freq_factor"));
  SY_TRY(const int64_t original, rope.values.integer("original_max_position_embeddings", 1, kMaxContext));
  if (high <= low)
    return rope.values.fail(fmt::format("has high_freq_factor {}, needs more than low_freq_factor {}", high, low));
  const auto longest = static_cast<float>(static_cast<double>(original) / low);
  const auto shortest = static_cast<float>(static_cast<double>(original) / high);
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

Result<RopeSpec> longrope(const RopeConfig& rope, double original) {
  SY_TRY(const auto factors, rope.values.array("short_factor"));
  if (factors.size() != static_cast<size_t>(rope.dims / 2))
    return rope.values.fail(fmt::format("has {} short_factor values, needs {}", factors.size(), rope.dims / 2));
  RopeSpec spec{.inv_freq = position_periods(rope)};
  for (size_t i = 0; i < factors.size(); ++i) {
    SY_TRY(const double extension,
           factors[i].as_number(std::numeric_limits<float>::min(), std::numeric_limits<float>::max()));
    spec.inv_freq[i] = 1.0f / (static_cast<float>(extension) * spec.inv_freq[i]);
  }
  SY_TRY(const double factor, rope.positive_or("factor", rope.context / original));
  const double computed = factor <= 1 ? 1.0 : std::sqrt(1 + std::log(factor) / std::log(original));
  SY_TRY(const double attention_factor, rope.positive_or("attention_factor", computed));
  spec.attention_factor = static_cast<float>(attention_factor);
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

// Where longrope's original context stands: beside the scaling keys, or (phi) in the config itself.
Result<double> longrope_original(const JsonView& config, const RopeConfig& rope) {
  const bool beside = rope.values.has("original_max_position_embeddings");
  const JsonView& holder = beside ? rope.values : config;
  SY_TRY(const int64_t original, holder.integer_or("original_max_position_embeddings", rope.context, 2, kMaxContext));
  return static_cast<double>(original);
}

Result<std::string> rope_type(const JsonView& values) {
  if (values.has("rope_type")) return values.text("rope_type");
  return values.text_or("type", "default");
}

// What every type shares. Transformers 5 writes all keys inside rope_parameters, 4 some beside rope_scaling.
Result<RopeConfig> read_shared(const JsonView& config, int head_dim, int context, double default_theta,
                               double default_partial) {
  static const Json none = Json::object();
  const auto parameters = config.find("rope_parameters");
  const auto scaling = parameters ? parameters : config.find("rope_scaling");
  RopeConfig rope{.values = scaling.value_or(JsonView(none, config.document(), "/rope_scaling")), .context = context};
  if (!rope.values.json().is_object()) return rope.values.fail("is not an object");

  const auto holder = [&](std::string_view key) { return rope.values.has(key) ? rope.values : config; };
  SY_TRY(rope.theta, holder("rope_theta").number_or("rope_theta", default_theta));
  SY_TRY(const double partial, holder("partial_rotary_factor").number_or("partial_rotary_factor", default_partial));
  if (!(rope.theta > 0 && rope.theta <= 1e30))
    return config.fail(fmt::format("has rope_theta {}, needs a number above 0", rope.theta));
  if (!(partial > 0 && partial <= 1))
    return config.fail(fmt::format("has partial_rotary_factor {}, needs more than 0 and at most 1", partial));
  rope.dims = static_cast<int>(head_dim * partial);
  if (rope.dims < 2 || rope.dims % 2 != 0)
    return config.fail(fmt::format("asks to rotate {} dimensions of a head, needs an even number above 0", rope.dims));
  return rope;
}

Result<Rope> read_type(const JsonView& config, const RopeConfig& rope) {
  const auto unlimited = [&](RopeSpec spec) { return Rope{std::move(spec), rope.context}; };
  SY_TRY(const std::string type, rope_type(rope.values));
  if (type == "default") return unlimited({.inv_freq = default_frequencies(rope)});
  if (type == "linear") return linear(rope).map(unlimited);
  if (type == "llama3") return llama3(rope).map(unlimited);
  if (type == "yarn") return yarn(rope).map(unlimited);
  if (type == "longrope") {
    SY_TRY(const double original, longrope_original(config, rope));
    SY_TRY(RopeSpec spec, longrope(rope, original));
    return Rope{std::move(spec), std::min(rope.context, static_cast<int>(original))};
  }
  return rope.values.fail(
      fmt::format("has the rope type {}, supported are default, linear, llama3, yarn and longrope", quote(type)));
}

}  // namespace

Result<Rope> read_rope(const JsonView& config, RopeKind kind, int head_dim, int context, double default_theta,
                       double default_partial) {
  SY_TRY(const RopeConfig shared, read_shared(config, head_dim, context, default_theta, default_partial));
  SY_TRY(Rope rope, read_type(config, shared));
  rope.spec.kind = kind;
  rope.spec.dims = shared.dims;
  SY_TRY(const std::string type, rope_type(shared.values));
  SY_TRY(rope.score_scale, score_scale(shared, type));
  const auto finite = [](float value) { return std::isfinite(value); };
  if (!std::all_of(rope.spec.inv_freq.begin(), rope.spec.inv_freq.end(), finite) || !finite(rope.spec.attention_factor) ||
      !finite(rope.score_scale))
    return shared.values.fail("gives a frequency or an attention factor that is not finite");
  return rope;
}

}  // namespace switchyard
