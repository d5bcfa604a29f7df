// What the host does in the midst of a step: it decides for routers whose rule no table holds (engine.md section 8,
// tier C) by the functions that the cpu backend calls, runs a layer in passes, switches slices of experts, shows inputs
// and hidden units to whoever asked, and measures what experts gave. Numbers go to the host and back over the bus, and
// the device waits meanwhile. Engine thread.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "engine/backend/cuda/cache.h"
#include "engine/backend/cuda/device_schemes.h"
#include "engine/backend/cuda/executor.h"
#include "engine/backend/cuda/host_records.h"

namespace switchyard::cuda {

// Whether the host decides in this row: the scheme or its router rows are beyond a table, the scheme decides for tokens
// together and there are several, or the layer runs more than once.
bool host_decides(const Recipe& recipe, int row, size_t tokens, int passes);

// Tokens of a request that run as one step.
struct HostTask {
  std::span<const TokenId> tokens;
  size_t first = 0;  // of the request
  DeviceCache* cache = nullptr;
  const Recipe* recipe = nullptr;
  uint32_t sequence = 0;
  RouterTap* tap = nullptr;
  UnitTap* units = nullptr;
  uint8_t taps = 0;       // of the frames
  bool records = false;   // there are frames
  bool together = false;  // the request has several tokens
};

class HostWalk final : public HostSide {
 public:
  HostWalk(const ModelOnDevice& model, Executor& executor, Stream& stream)
      : model_(model), executor_(executor), stream_(stream) {}

  void begin(const HostTask& task);
  Result<void> run(const StepShape& shape, const Visit& visit) override;
  // When the step's stream was waited for: what the host recorded goes to the frames of its tokens, or to none.
  void finish(std::span<RoutingFrame> frames);

 private:
  // The sublayer in hand.
  struct Place {
    const StepShape& shape;
    const SublayerOnDevice& sublayer;
    const FeedForwardOnDevice& op;
    const LayerRecipe* recipe;
    int pass = 0;      // of the layer
    int decision = 0;  // of the scheme, within it
    int window = 0;    // of the shares of the attention before it
    bool decides = false;

    size_t tokens() const { return size_t(shape.tokens); }
  };
  // A router as the host needs it; made when first asked for.
  struct Router {
    std::vector<float> router_bias, select_bias, norms;
    bool read = false;
  };
  struct UploadedRows {
    std::vector<RowSource> sources;
    std::vector<ExpertId> experts;
    std::vector<float> lengths;  // of the rows
    Buffer data;
    Matrix matrix;
  };
  struct UploadedGate {
    std::shared_ptr<const SchemeData> data;
    Buffer values;
  };

  // Pinned host memory that grows.
  class Pinned {
   public:
    // Room for so many numbers; what it held is lost where it grows.
    Result<void> reserve(size_t numbers);
    template <class T = float>
    std::span<T> as(size_t count) const {
      return {buffer_.as<T>(), count};
    }

   private:
    Buffer buffer_;
  };

  // What frames are to say of a decision on the device.
  struct Kept {
    const RouterSpec* spec = nullptr;
    const LayerRecipe* recipe = nullptr;
    const Router* router = nullptr;
    int row = 0, frame_row = 0, slots = 0;
    Pinned raw, logits;
  };

  Result<void> run_passes(const Place& place);
  // out += factor * y, by this decision; normed: the input lies there already.
  Result<void> run_once(const Place& place, float* out, float factor, bool has_input);
  // False: the device decided, by a plugin's code, and nothing was waited for.
  Result<bool> decide(const Place& place);
  Result<bool> decide_on_device(const Place& place, const Router& router);
  // Its logits, and the products with further rows that stand in the router's places, on their way.
  Result<void> fetch_logits(const Place& place, const UploadedRows* rows);
  // logits_: what the router in force says, biases in it; native_: the checkpoint's own, where that is another one.
  void merge_logits(const Place& place, const Router& router, const UploadedRows* rows);
  Result<const UploadedRows*> replaced_rows(const Place& place);
  Result<Matrix> own_gate(const Place& place);
  Result<Router*> router(const Place& place);
  Result<void> bring_norms(const Place& place, Router& router);
  Result<void> send_chosen(const Place& place);
  Result<void> bring_chosen(const Place& place);  // that the device decided
  Result<void> work_on_units(const Place& place);
  Result<void> cut_experts(const Place& place, std::span<float> units, size_t step);
  void slice_logits(const Place& place, std::span<const float> units, size_t step);
  Result<void> measure(const Place& place, float factor);
  int frame_row(const Place& place, int decision) const;
  // `count` numbers from the device, there after the next wait.
  Result<void> fetch(Pinned& to, const float* from, size_t count, const char* what);
  // The same into other memory, waited for.
  Result<void> bring(std::vector<float>& to, const float* from, size_t count, const char* what);

  const ModelOnDevice& model_;
  Executor& executor_;
  Stream& stream_;
  HostTask task_;
  HostGate gate_;
  HostRecords records_;
  std::map<int, Router> routers_;  // by routing row
  std::map<int, UploadedRows> rows_;
  std::map<std::pair<int, int>, UploadedGate> gates_;  // by row and decision
  Buffer more_, passed_;                               // products with further rows; what a pass gave

  DeviceSchemes schemes_;
  std::vector<Kept> kept_;
  size_t kept_used_ = 0;
  Pinned inputs_, logits_, replaced_, shares_, chosen_;  // one wait a decision
  std::vector<float> native_, residual_, slice_logits_;
  std::vector<HostSlot> slots_;  // what runs, by token
  std::vector<size_t> order_;    // places in slots_ by the order of Executor::units()
};

}  // namespace switchyard::cuda
