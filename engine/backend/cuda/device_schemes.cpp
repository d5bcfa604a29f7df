// See device_schemes.h.
#include "engine/backend/cuda/device_schemes.h"

#include <algorithm>

namespace switchyard::cuda {
namespace {

const DeviceCode* device_code(const SchemeCode* code) {
  return dynamic_cast<const DeviceCode*>(code);
}

}  // namespace

std::string only_on_host(const LayerRecipe& layer) {
  const auto any = [](const auto& values, auto none) {
    return std::ranges::any_of(values, [&](const auto& value) { return value != none; });
  };
  const SchemeCode& code = *layer.scheme.code;
  if (code.edits_logits() || code.reads_input() || code.state_floats() > 0)
    return "its device source is for a scheme that reads logits alone";
  if (layer.temperature != 1 || any(layer.row_scale, 1.0f) || any(layer.logit_bias, 0.0f) ||
      any(layer.select_bias, 0.0f) || any(layer.expert_scale, 1.0f) || any(layer.muted, uint8_t(0)) ||
      any(layer.forced, uint8_t(0)) || any(layer.router_rows, RowSource{}))
    return "edits of logits, experts' scales or router rows are in force";
  return {};
}

Result<DeviceScheme*> DeviceSchemes::compiled(const DeviceCode& device, Entry& entry) {
  if (entry.scheme) return entry.scheme.get();
  KernelText text = scheme_text(device);
  auto kernel = kernels_.find(text.text);
  if (kernel == kernels_.end()) kernel = kernels_.emplace(text.text, compile_kernel(text, kSchemeKernelName)).first;
  if (!kernel->second) return tl::unexpected(kernel->second.error());
  SY_TRY(entry.scheme, DeviceScheme::make(*entry.code, device, *kernel->second));
  return entry.scheme.get();
}

Result<DeviceScheme*> DeviceSchemes::find(Stream& stream, const LayerRecipe& layer, const DevicePlace& place) {
  const std::shared_ptr<const SchemeCode>& code = layer.scheme.code;
  const DeviceCode* const device = device_code(code.get());
  if (!device || device->device_source().empty()) return nullptr;
  if (!entries_.contains(code.get())) {
    std::erase_if(entries_, [](const auto& one) { return one.second.code.use_count() == 1; });
    entries_[code.get()].code = code;
  }
  Entry& entry = entries_[code.get()];
  const auto host_decides = [&](const std::string& why, bool fault) -> DeviceScheme* {
    if (entry.told.insert(why).second) device->tell_of_device(why + "; the host function decides", fault);
    return nullptr;
  };
  if (const std::string why = only_on_host(layer); !why.empty()) return host_decides(why, false);
  const Result<DeviceScheme*> scheme = compiled(*device, entry);
  if (!scheme && scheme.error().code == ErrorCode::kDevice) return scheme;
  if (!scheme)
    return host_decides("device source: " + scheme.error().message(), scheme.error().code == ErrorCode::kMalformed);
  SY_TRY(const std::string why, (*scheme)->differs(stream, place));
  if (!why.empty()) return host_decides("device source differs from the host function, " + why, true);
  return scheme;
}

void DeviceSchemes::tell_refusals() const {
  for (const auto& [code, entry] : entries_)
    if (entry.scheme && entry.scheme->refused())
      device_code(code)->tell_of_device(
          "on the device it gave slots that cannot be used; the model's own router decided for those tokens", true);
}

}  // namespace switchyard::cuda
