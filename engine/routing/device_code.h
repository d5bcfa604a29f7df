// What a scheme that is code may have besides its host function: the same rule as source for a device. A SchemeCode is
// a DeviceCode too where it may have some (dynamic_cast). Any thread.
#pragma once

#include <span>
#include <string>

namespace switchyard {

class DeviceCode {
 public:
  virtual ~DeviceCode() = default;
  // CUDA C++ as plugins/sdk/include/switchyard/device.h says; empty: there is none, or the plugin is off.
  virtual const std::string& device_source() const = 0;
  virtual const std::string& device_name() const = 0;  // "noisy-gate.noisy_top_k": of the source, in messages
  virtual std::span<const double> device_parameters() const = 0;
  // A line for people, once, about where the scheme runs; fault: what its source did wrong.
  virtual void tell_of_device(const std::string& line, bool fault) const = 0;
};

}  // namespace switchyard
