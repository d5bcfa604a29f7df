// A plugin's scheme as device code (engine.md section 8, tier B): its source compiled around our kernel, and compared
// with the host function, which is the definition, before it decides anything. Engine thread.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/backend/cuda/device.h"
#include "engine/backend/cuda/tables.h"
#include "engine/routing/decision.h"
#include "engine/routing/device_code.h"

struct SchemeJob;  // engine/backend/cuda/scheme_kernel.cuh

namespace switchyard::cuda {

// What decides: the same for every token of a launch.
struct DevicePlace {
  int experts = 0, k = 0, slots = 0;  // slots: room of the plugin
  int layer = 0, row = 0;
  uint32_t sequence = 0;
  uint64_t position = 0;          // of the first token
  int together = 1;               // tokens of a block that run in one pass
  const float* logits = nullptr;  // [tokens, experts] on the device, without the router's bias
  const float* bias = nullptr;    // [experts] on the device or null
  float scale = 1;                // routed scale
  bool of_input = false;
};

// What the plugin wrote, as on the device.
struct RawDecisions {
  int slots = 0;
  std::vector<uint32_t> count;  // [tokens]; 0: refused
  std::vector<int32_t> id;      // [tokens, slots]
  std::vector<float> weight;
  std::vector<uint8_t> flags;
};
// The same one behind the other in plain memory.
constexpr size_t raw_bytes(size_t tokens, int slots) {
  return tokens * (sizeof(uint32_t) + size_t(slots) * (sizeof(int32_t) + sizeof(float) + 1));
}
RawDecisions read_raw(const unsigned char* from, size_t tokens, int slots);

// The text that is compiled: the source of people behind the contract's header, our kernel behind it.
KernelText scheme_text(const DeviceCode& code);
inline constexpr const char* kSchemeKernelName = "sy_decide";

class DeviceScheme {
 public:
  // kernel: of scheme_text(). Nothing is compared yet.
  static Result<std::unique_ptr<DeviceScheme>> make(const SchemeCode& host, const DeviceCode& code,
                                                    std::shared_ptr<CompiledKernel> kernel);

  // Why its decisions are not those of the host function for routers of this shape, with the first difference; empty:
  // they are. 512 rows of seeded random logits, some muted, half of them as of a prompt: the same ids in the same
  // order, the same flags, weights to 1e-6 of their size. Once for a shape.
  Result<std::string> differs(Stream& stream, const DevicePlace& place);

  // Decides for the tokens; what it refuses stays in `chosen` as it was. chosen.count null: nothing is to run.
  Result<void> launch(Stream& stream, const DevicePlace& place, std::span<const TokenId> tokens, const Chosen& chosen);
  // What the last launch wrote into to, raw_bytes() of pinned memory, there after the next wait of the stream.
  Result<void> fetch(Stream& stream, size_t tokens, unsigned char* to) const;
  // Whether a token was refused since it was asked last; after a wait.
  bool refused();

 private:
  struct Shape {
    int experts = 0, k = 0, slots = 0;
    std::string why;
  };
  DeviceScheme(const SchemeCode& host, const DeviceCode& code, std::shared_ptr<CompiledKernel> kernel)
      : host_(host), code_(code), kernel_(std::move(kernel)) {}
  Result<void> size_for(size_t tokens, const DevicePlace& place);
  Result<std::string> compare(Stream& stream, const DevicePlace& place);

  const SchemeCode& host_;
  const DeviceCode& code_;
  std::shared_ptr<CompiledKernel> kernel_;
  Buffer parameters_, token_ids_, sent_ids_, clean_, work_, id_, weight_, flags_, count_, refused_;
  int slots_ = 0;
  std::vector<Shape> checked_;
};

// Random logits and tokens of that comparison, and what the host function says of them.
struct SchemeTrial {
  std::vector<float> logits;    // [rows, experts]
  std::vector<TokenId> tokens;  // [rows]
  RawDecisions alone, together;
};
SchemeTrial try_host(const SchemeCode& host, const DevicePlace& place);
// The first difference in words; empty: none.
std::string difference(const RawDecisions& host, const RawDecisions& device);

}  // namespace switchyard::cuda
