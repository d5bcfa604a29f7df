// See device_scheme.h.
#include "engine/backend/cuda/device_scheme.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

#include "engine/backend/cuda/scheme_kernel.cuh"
#include "engine/routing/scheme.h"
#include "scheme_texts.h"

namespace switchyard::cuda {
namespace {

constexpr size_t kTrialRows = 256;
constexpr unsigned kThreads = 64;

RawDecisions room_for(size_t rows, int slots) {
  const size_t all = rows * size_t(slots);
  return {slots, std::vector<uint32_t>(rows), std::vector<int32_t>(all), std::vector<float>(all),
          std::vector<uint8_t>(all)};
}

}  // namespace

RawDecisions read_raw(const unsigned char* from, size_t tokens, int slots) {
  RawDecisions out = room_for(tokens, slots);
  const auto take = [&](auto& values) {
    std::memcpy(values.data(), from, values.size() * sizeof(values[0]));
    from += values.size() * sizeof(values[0]);
  };
  take(out.count), take(out.id), take(out.weight), take(out.flags);
  return out;
}

KernelText scheme_text(const DeviceCode& code) {
  const std::string name = code.device_name() + ".cu";
  std::string text =
      "#include <switchyard/device.h>\n#ifndef INFINITY\n#define INFINITY __int_as_float(0x7f800000)\n#endif\n";
  text += "#line 1 \"" + name + "\"\n" + code.device_source() + "\n#line 1 \"scheme_kernel.cuh\"\n" + kSchemeKernel;
  return {name, std::move(text), {{"switchyard/device.h", kDeviceHeader}}};
}

Result<std::unique_ptr<DeviceScheme>> DeviceScheme::make(const SchemeCode& host, const DeviceCode& code,
                                                         std::shared_ptr<CompiledKernel> kernel) {
  std::unique_ptr<DeviceScheme> out(new DeviceScheme(host, code, std::move(kernel)));
  const std::span<const double> parameters = code.device_parameters();
  SY_TRY(out->parameters_,
         Buffer::make(std::max(parameters.size_bytes(), sizeof(double)), Place::kPinned, "parameters of a scheme"));
  std::ranges::copy(parameters, out->parameters_.as<double>());
  SY_TRY(out->refused_, Buffer::make(sizeof(unsigned), Place::kPinned, "what a scheme refused"));
  *out->refused_.as<unsigned>() = 0;
  return out;
}

Result<void> DeviceScheme::size_for(size_t tokens, const DevicePlace& place) {
  const auto room = [](Buffer& buffer, size_t bytes, Place where) {
    return grow(buffer, bytes, where, "decisions of a scheme");
  };
  const size_t all = tokens * size_t(place.slots), wide = tokens * size_t(place.experts) * sizeof(float);
  slots_ = place.slots;
  SY_CHECK(room(token_ids_, tokens * sizeof(TokenId), Place::kDevice));
  SY_CHECK(room(sent_ids_, tokens * sizeof(TokenId), Place::kPinned));
  SY_CHECK(room(clean_, wide, Place::kDevice));
  SY_CHECK(room(work_, wide, Place::kDevice));
  SY_CHECK(room(id_, all * sizeof(int32_t), Place::kDevice));
  SY_CHECK(room(weight_, all * sizeof(float), Place::kDevice));
  SY_CHECK(room(flags_, all, Place::kDevice));
  return room(count_, tokens * sizeof(unsigned), Place::kDevice);
}

Result<void> DeviceScheme::launch(Stream& stream, const DevicePlace& place, std::span<const TokenId> tokens,
                                  const Chosen& chosen) {
  static_assert(sizeof(TokenId) == sizeof(int) && sizeof(ExpertId) == sizeof(unsigned short));
  SY_CHECK(size_for(tokens.size(), place));
  // Every launch of a step has the same tokens; a step is waited for before the next one begins.
  std::ranges::copy(tokens, sent_ids_.as<TokenId>());
  SY_CHECK(copy(stream, token_ids_.as<>(), sent_ids_.as<>(), tokens.size_bytes(), "token ids of a scheme"));
  SchemeJob job{};
  job.logits = place.logits, job.bias = place.bias, job.clean = clean_.as<float>(), job.work = work_.as<float>();
  job.parameters = parameters_.as<double>(), job.token_ids = token_ids_.as<int>();
  job.tokens = unsigned(tokens.size()), job.experts = unsigned(place.experts), job.k = unsigned(place.k);
  job.slots = unsigned(place.slots), job.parameter_count = unsigned(code_.device_parameters().size());
  job.layer = unsigned(place.layer), job.row = unsigned(place.row), job.sequence = place.sequence;
  job.together = unsigned(place.together), job.position = place.position;
  job.id = id_.as<int>(), job.weight = weight_.as<float>(), job.flags = flags_.as<unsigned char>();
  job.count = count_.as<unsigned>(), job.refused = refused_.as<unsigned>();
  job.chosen_count = chosen.count, job.chosen_expert = chosen.experts, job.chosen_weight = chosen.weights;
  job.chosen_input = chosen.inputs, job.room = unsigned(chosen.slots);
  job.scale = place.scale, job.of_input = place.of_input;
  kernel_->launch(stream, (job.tokens + kThreads - 1) / kThreads, kThreads, &job);
  return {};
}

Result<void> DeviceScheme::fetch(Stream& stream, size_t tokens, unsigned char* to) const {
  const size_t all = tokens * size_t(slots_);
  for (const auto& [from, bytes] : {std::pair(&count_, tokens * sizeof(uint32_t)),
                                    {&id_, all * sizeof(int32_t)},
                                    {&weight_, all * sizeof(float)},
                                    {&flags_, all}}) {
    SY_CHECK(copy(stream, to, from->as<>(), bytes, "decisions of a scheme"));
    to += bytes;
  }
  return {};
}

bool DeviceScheme::refused() {
  return std::exchange(*refused_.as<unsigned>(), 0u) != 0;
}

// ---- against the host function --------------------------------------------------------------------

SchemeTrial try_host(const SchemeCode& host, const DevicePlace& place) {
  const auto experts = size_t(place.experts), slots = size_t(place.slots);
  SchemeTrial out;
  out.alone = out.together = room_for(kTrialRows, place.slots);
  std::mt19937 random(20261130);
  std::normal_distribution<float> logit(0, 3);
  std::vector<ExpertId> ids(slots);
  std::vector<SlotKind> kinds(slots);
  for (size_t row = 0; row < kTrialRows; ++row) {
    for (size_t e = 0; e < experts; ++e) out.logits.push_back(logit(random));
    for (size_t muted = 0; row % 8 == 7 && muted < experts / 4; ++muted)
      out.logits[row * experts + random() % experts] = -INFINITY;
    out.tokens.push_back(TokenId(random() % 50000));
    const auto logits = std::span<const float>(out.logits).last(experts);
    // In turn, so that no slow call is counted against the plugin here.
    for (RawDecisions* const to : {&out.together, &out.alone}) {
      RouterInput in;
      in.logits = logits, in.token = out.tokens.back(), in.index = place.position + row, in.row = place.row;
      in.sequence = place.sequence, in.together = to == &out.together ? int(kTrialRows) : 1;
      const std::span<float> weights = std::span(to->weight).subspan(row * slots, slots);
      int used = 0;
      if (!host.decide({in, place.layer, place.k, logits, {}}, {ids, weights, kinds}, used)) continue;
      to->count[row] = uint32_t(used);
      for (size_t slot = 0; slot < size_t(used); ++slot) {
        to->id[row * slots + slot] = ids[slot];
        to->flags[row * slots + slot] = kinds[slot] == SlotKind::kForced ? 1 : 0;
      }
    }
  }
  return out;
}

std::string difference(const RawDecisions& host, const RawDecisions& device) {
  for (size_t row = 0; row < host.count.size(); ++row) {
    const std::string where = "row " + std::to_string(row) + " of random logits: ";
    if (host.count[row] != device.count[row])
      return where + std::to_string(device.count[row]) + " slots where the host function has " +
             std::to_string(host.count[row]);
    for (size_t slot = 0; slot < host.count[row]; ++slot) {
      const size_t at = row * size_t(host.slots) + slot;
      if (host.id[at] != device.id[at] || host.flags[at] != device.flags[at])
        return where + "expert " + std::to_string(device.id[at]) + " in slot " + std::to_string(slot) +
               " where the host function has " + std::to_string(host.id[at]);
      if (!(std::abs(host.weight[at] - device.weight[at]) <= 1e-6f * std::abs(host.weight[at])))
        return where + "weight " + std::to_string(device.weight[at]) + " in slot " + std::to_string(slot) +
               " where the host function has " + std::to_string(host.weight[at]);
    }
  }
  return {};
}

Result<std::string> DeviceScheme::differs(Stream& stream, const DevicePlace& place) {
  for (const Shape& shape : checked_)
    if (shape.experts == place.experts && shape.k == place.k && shape.slots == place.slots) return shape.why;
  SY_TRY(std::string why, compare(stream, place));
  checked_.push_back({place.experts, place.k, place.slots, why});
  return why;
}

Result<std::string> DeviceScheme::compare(Stream& stream, const DevicePlace& place) {
  const SchemeTrial trial = try_host(host_, place);
  const size_t bytes = trial.logits.size() * sizeof(float);
  SY_TRY(const Buffer logits, Buffer::make(bytes, Place::kDevice, "random logits"));
  SY_CHECK(copy(stream, logits.as<>(), trial.logits.data(), bytes, "random logits"));
  SY_TRY(const Buffer raw, Buffer::make(raw_bytes(kTrialRows, place.slots), Place::kPinned, "decisions of a scheme"));
  DevicePlace here = place;
  here.logits = logits.as<float>(), here.bias = nullptr;
  const std::string what = "device source of " + code_.device_name();
  for (const bool together : {true, false}) {
    here.together = together ? int(kTrialRows) : 1;
    SY_CHECK(launch(stream, here, trial.tokens, {}));
    SY_CHECK(fetch(stream, kTrialRows, raw.as<>()));
    SY_CHECK(wait(stream, what));
    const RawDecisions got = read_raw(raw.as<>(), kTrialRows, place.slots);
    if (std::string why = difference(together ? trial.together : trial.alone, got); !why.empty()) return why;
  }
  refused();
  return std::string();
}

}  // namespace switchyard::cuda
