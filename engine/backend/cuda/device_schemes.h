// Which schemes of plugins decide on the device. Engine thread.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>

#include "engine/backend/cuda/device_scheme.h"
#include "engine/routing/recipe.h"

namespace switchyard::cuda {

// Why the host decides though the scheme has device source, in words: it asks for what the device's function does not
// get, or the layer's edits change what it is asked; empty: nothing speaks against the device.
std::string only_on_host(const LayerRecipe& layer);

class DeviceSchemes {
 public:
  // The layer's scheme, compiled at the first use and compared with the host function for routers of this shape. Null:
  // the host decides; where the scheme has device source its plugin's people were told why. Errors are the device's.
  Result<DeviceScheme*> find(Stream& stream, const LayerRecipe& layer, const DevicePlace& place);
  // Tells of tokens that were refused; after a wait.
  void tell_refusals() const;

 private:
  struct Entry {
    std::shared_ptr<const SchemeCode> code;  // keeps what `scheme` refers to
    std::unique_ptr<DeviceScheme> scheme;    // null: not yet, or it cannot be compiled here
    std::set<std::string> told;
  };
  Result<DeviceScheme*> compiled(const DeviceCode& device, Entry& entry);

  std::map<const SchemeCode*, Entry> entries_;
  // By the text; the parameters of a scheme are none of it.
  std::map<std::string, tl::expected<std::shared_ptr<CompiledKernel>, Error>> kernels_;
};

}  // namespace switchyard::cuda
