// What a GPU makes of our kernels: read bandwidth as the ceiling, the decode of one token through layers of OLMoE's
// shape in bf16 (random weights) as a captured graph, kernel by kernel and whole, with and without capture of routing;
// the products of prompts on the tensor cores. One JSON object on standard output. Run by tests/gpu/run.sh.
//   cuda_bench [--layers N] [--tokens N]
#include <chrono>
#include <iostream>
#include <map>

#include <nlohmann/json.hpp>

#include "engine/backend/cuda/gate_tables.h"
#include "engine/backend/cuda/records.h"
#include "tests/cuda_on_cpu/numbers.h"
#include "tests/cuda_on_cpu/on_device.h"

namespace switchyard::cuda::testing {
namespace {

constexpr int kHidden = 2048, kExperts = 64, kSlots = 8, kWidth = 1024, kHeads = 16, kDim = 128, kVocab = 50304,
              kContext = 4096;

using Clock = std::chrono::steady_clock;
double seconds(Clock::time_point from) {
  return std::chrono::duration<double>(Clock::now() - from).count();
}

struct Spread {
  double median = 0, least = 0, most = 0;
};
void to_json(nlohmann::json& out, const Spread& s) {
  out = {{"median", s.median}, {"least", s.least}, {"most", s.most}};
}

// Seconds of one run of `body`, by repeats of `inner` runs.
Spread timed(int repeats, int inner, const std::function<void()>& body) {
  body();
  value_of(wait(stream(), "a benchmark"));
  std::vector<double> times;
  for (int r = 0; r < repeats; ++r) {
    const auto start = Clock::now();
    for (int i = 0; i < inner; ++i) body();
    value_of(wait(stream(), "a benchmark"));
    times.push_back(seconds(start) / inner);
  }
  std::sort(times.begin(), times.end());
  return {times[times.size() / 2], times.front(), times.back()};
}

// Device memory with random bf16 numbers of the size of weights, from one host block again and again.
class Weights {
 public:
  Weights() {
    Random random(1);
    std::vector<uint16_t> block(size_t(1) << 22);
    for (uint16_t& half : block) half = rounded_bf16(random.normal(0.02f));
    block_ = value_of(Buffer::make(block.size() * 2, Place::kDevice, "weights"));
    value_of(copy(stream(), block_.as<>(), block.data(), block_.bytes(), "weights"));
    value_of(wait(stream(), "weights"));
  }
  Matrix matrix(int rows, int cols) {
    const size_t bytes = size_t(rows) * size_t(cols) * 2;
    Buffer made = value_of(Buffer::make(bytes, Place::kDevice, "weights"));
    for (size_t done = 0; done < bytes; done += block_.bytes())
      value_of(copy(stream(), made.as<>() + done, block_.as<>(), std::min(block_.bytes(), bytes - done), "weights"));
    const Matrix out{made.as<>(), rows, cols, Stored::kBF16};
    buffers_.push_back(std::move(made));
    bytes_ += bytes;
    return out;
  }
  uint64_t bytes() const { return bytes_; }

 private:
  Buffer block_;
  std::vector<Buffer> buffers_;
  uint64_t bytes_ = 0;
};

struct Layer {
  Matrix q, k, v, o, router;
  std::shared_ptr<OnDevice<Expert>> experts;
};

class Bench {
 public:
  explicit Bench(int layers)
      : ones_(std::vector<float>(kHidden, 1.0f)),
        hidden_(std::vector<float>(kHidden, 0.1f)),
        normed_(kHidden),
        projected_(3 * kHidden),
        queries_(kHidden),
        mixed_(kHidden),
        partial_(size_t(kHeads * kSplits * (kDim + 2))),
        logits_(kExperts),
        biased_(kExperts),
        weights_(kSlots),
        inputs_(kSlots),
        units_(size_t(kSlots * kWidth)),
        out_(kVocab),
        count_(1),
        ids_(kSlots),
        arrived_(std::vector<unsigned>(kHeads + 1)),
        token_(std::vector<int32_t>{1}) {
    RouterSpec spec;
    spec.experts = kExperts, spec.experts_per_token = kSlots;
    GatePage page;
    for (int l = 0; l < layers; ++l) {
      Layer layer{all_.matrix(kHidden, kHidden), all_.matrix(kHidden, kHidden),  all_.matrix(kHidden, kHidden),
                  all_.matrix(kHidden, kHidden), all_.matrix(kExperts, kHidden), nullptr};
      std::vector<Expert> table;
      for (int e = 0; e < kExperts; ++e) {
        Expert expert;
        expert.gate = all_.matrix(kWidth, kHidden).data, expert.up = all_.matrix(kWidth, kHidden).data,
        expert.down = all_.matrix(kHidden, kWidth).data;
        expert.type = expert.down_type = Stored::kBF16;
        table.push_back(expert);
      }
      layer.experts = std::make_shared<OnDevice<Expert>>(table);
      layers_.push_back(std::move(layer));
      page.add({spec, nullptr, nullptr}, nullptr, 0);
    }
    head_ = all_.matrix(kVocab, kHidden);
    tables_ = std::make_unique<OnDevice<GateTable>>(page.tables());
    const size_t part = size_t(kHeads) * kKeyBlock * kDim * 2, block = 2 * part * size_t(layers);
    keys_ = value_of(Buffer::make(block * (kContext / kKeyBlock), Place::kDevice, "keys and values"));
    value_of(clear(stream(), keys_.as<>(), keys_.bytes(), "keys and values"));
    std::vector<unsigned char*> blocks;
    for (int b = 0; b < kContext / kKeyBlock; ++b) blocks.push_back(keys_.as<>() + size_t(b) * block);
    blocks_ = std::make_unique<OnDevice<unsigned char*>>(blocks);
    layout_ = record_layout(layers, kExperts, kSlots, CaptureLevel::kLogits);
    records_ = value_of(Buffer::make(layout_.token_bytes() * 64, Place::kDevice, "records"));
    const std::vector<float> angles(size_t(kContext * kDim / 2), 0.5f);
    angles_ = std::make_unique<OnDevice<float>>(angles);
  }

  void place(int position) {
    state_ = std::make_unique<OnDevice<StepState>>(std::vector<StepState>{
        {.position = position, .count = 1, .record = 0, .blocks = blocks_->data(), .tokens = token_.data()}});
  }
  // The kernels of a layer by name.
  std::vector<std::pair<std::string, std::function<void(Stream&)>>> kernels(int l, bool captures) {
    const Layer& layer = layers_[size_t(l)];
    const size_t part = size_t(kHeads) * kKeyBlock * kDim * 2;
    const KeyPlace place{2 * part * size_t(l), 2 * part * size_t(l) + part, kHeads, kDim, kDim, Stored::kBF16};
    const Norm norm{ones_.data(), nullptr, 1e-5f};
    const Chosen chosen{count_.data(), ids_.data(), weights_.data(), inputs_.data(), kSlots};
    const RouteJob route{.tables = tables_->data(),
                         .row = l,
                         .logits = logits_.data(),
                         .biased = biased_.data(),
                         .width = kExperts,
                         .slots = kSlots,
                         .chosen = chosen,
                         .ring = captures ? Ring{records_.as<>(), 64, layout_} : Ring{}};
    const ExpertJob experts{.experts = layer.experts->data(),
                            .form = {Form::kGlu, Unit::kSilu, kWidth},
                            .chosen = chosen,
                            .in = normed_.data(),
                            .hidden = kHidden,
                            .units = units_.data(),
                            .width = kWidth,
                            .out = hidden_.data(),
                            .factor = 1e-3f};
    return {{"project q, k, v",
             [=, this](Stream& s) {
               launch_project(s, {.in = hidden_.data(),
                                  .cols = kHidden,
                                  .norm = norm,
                                  .parts = {layer.q, layer.k, layer.v},
                                  .count = 3,
                                  .out = projected_.data()});
             }},
            {"finish_heads",
             [=, this](Stream& s) {
               launch_finish_heads(s, state_->data(),
                                   {.qkv = projected_.data(),
                                    .step = 3 * kHidden,
                                    .queries = queries_.data(),
                                    .heads = kHeads,
                                    .place = place,
                                    .qk_norm = QkNorm::kFullVector,
                                    .query_norm = norm,
                                    .key_norm = norm,
                                    .rope = {angles_->data(), angles_->data(), kDim, false}},
                                   1);
             }},
            {"attend",
             [=, this](Stream& s) {
               launch_attend(s, state_->data(),
                             {.queries = queries_.data(),
                              .out = mixed_.data(),
                              .heads = kHeads,
                              .place = place,
                              .scale = 0.088f,
                              .partial = partial_.data(),
                              .arrived = arrived_.data() + 1},
                             kSplits, 1);
             }},
            {"project o",
             [=, this](Stream& s) {
               launch_project(s, {.in = mixed_.data(),
                                  .cols = kHidden,
                                  .parts = {layer.o},
                                  .count = 1,
                                  .out = hidden_.data(),
                                  .adds = true,
                                  .factor = 1e-3f});
             }},
            {"route",
             [=, this](Stream& s) {
               launch_route(s, state_->data(),
                            {.in = hidden_.data(),
                             .cols = kHidden,
                             .norm = norm,
                             .normed = normed_.data(),
                             .parts = {layer.router},
                             .count = 1,
                             .out = logits_.data()},
                            route, arrived_.data());
             }},
            {"expert_units", [=](Stream& s) { launch_expert_units(s, experts); }},
            {"expert_down", [=](Stream& s) { launch_expert_down(s, experts); }}};
  }
  void head(Stream& s) {
    launch_project(s, {.in = hidden_.data(),
                       .cols = kHidden,
                       .norm = {ones_.data(), nullptr, 1e-5f},
                       .parts = {head_},
                       .count = 1,
                       .out = out_.data()});
  }
  // The products of a layer for a prompt of so many tokens, each of which takes eight experts, spread evenly.
  void make_prompt(int tokens) {
    std::vector<ExpertId> ids;
    for (int t = 0; t < tokens; ++t)
      for (int s = 0; s < kSlots; ++s) ids.push_back(ExpertId((t * 5 + s * (kExperts / kSlots)) % kExperts));
    prompt_ = std::make_unique<Prompt>(tokens, ids);
  }
  void prompt_dense(Stream& s, int l) {
    const Layer& layer = layers_[size_t(l)];
    for (const Matrix& matrix : {layer.q, layer.k, layer.v, layer.o})
      launch_multiply_tiles(s, {.in = prompt_->in.data(),
                                .tokens = prompt_->tokens,
                                .matrix = matrix,
                                .out = prompt_->out.data(),
                                .step = kHidden});
  }
  void prompt_experts(Stream& s, int l) {
    Prompt& p = *prompt_;
    const Sorted sorted{p.counts.data(), p.starts.data(), p.rows.data(), p.sorted_inputs.data(), p.places.data()};
    GroupJob job{.experts = layers_[size_t(l)].experts->data(),
                 .form = {Form::kGlu, Unit::kSilu, kWidth},
                 .bf16 = true,
                 .starts = sorted.starts,
                 .rows = sorted.tokens,
                 .weights = sorted.inputs,
                 .in = p.in.data(),
                 .cols = kHidden,
                 .out = p.units.data()};
    const Chosen chosen{p.count.data(), p.ids.data(), p.weights.data(), p.weights.data(), kSlots};
    launch_sort_slots(s, chosen, p.tokens, kExperts, sorted);
    launch_group_units(s, job, kExperts, p.tokens);
    job.in = p.units.data(), job.cols = kWidth, job.out = p.routed.data();
    launch_group_down(s, job, kHidden, kExperts, p.tokens);
  }
  // Multiplications of the model, not those of the three pieces of an input.
  static double dense_products(int tokens) { return 4.0 * kHidden * kHidden * tokens; }
  static double expert_products(int tokens) { return 3.0 * kSlots * kWidth * kHidden * tokens; }

  int layers() const { return int(layers_.size()); }
  // Bytes that one token reads at this position.
  double token_bytes(int position) const {
    const double layer = (4.0 * kHidden * kHidden + kExperts * kHidden + 3.0 * kSlots * kWidth * kHidden) * 2 +
                         2.0 * kHidden * 2 * (position + 1);
    return layer * layers() + 2.0 * kVocab * kHidden;
  }
  const Matrix& head_matrix() const { return head_; }

 private:
  struct Prompt {
    Prompt(int the_tokens, const std::vector<ExpertId>& the_ids)
        : tokens(the_tokens),
          in(std::vector<float>(size_t(tokens) * kHidden, 0.1f)),
          out(size_t(tokens) * kHidden),
          units(the_ids.size() * kWidth),
          routed(the_ids.size() * kHidden),
          weights(std::vector<float>(the_ids.size(), 1.0f)),
          sorted_inputs(the_ids.size()),
          count(std::vector<int32_t>(size_t(tokens), kSlots)),
          counts(kExperts),
          starts(kExperts + 1),
          rows(the_ids.size()),
          places(the_ids.size()),
          ids(the_ids) {}
    int tokens;
    OnDevice<float> in, out, units, routed, weights, sorted_inputs;
    OnDevice<int32_t> count, counts, starts, rows, places;
    OnDevice<ExpertId> ids;
  };
  std::unique_ptr<Prompt> prompt_;
  static constexpr int kSplits = 16;
  Weights all_;
  std::vector<Layer> layers_;
  Matrix head_;
  OnDevice<float> ones_, hidden_, normed_, projected_, queries_, mixed_, partial_, logits_, biased_, weights_, inputs_,
      units_, out_;
  OnDevice<int32_t> count_;
  OnDevice<ExpertId> ids_;
  OnDevice<unsigned> arrived_;
  OnDevice<int32_t> token_;
  std::unique_ptr<OnDevice<GateTable>> tables_;
  std::unique_ptr<OnDevice<unsigned char*>> blocks_;
  std::unique_ptr<OnDevice<StepState>> state_;
  std::unique_ptr<OnDevice<float>> angles_;
  Buffer keys_, records_;
  RecordLayout layout_;
};

nlohmann::json measure(int layers, int tokens) {
  nlohmann::json out;
  const DeviceInfo device = value_of(open_device());
  out["device"] = {{"name", device.name},
                   {"capability", std::to_string(device.major) + "." + std::to_string(device.minor)},
                   {"processors", device.processors},
                   {"memory", device.memory}};
  Bench bench(layers);
  // The ceiling: a copy within the card reads and writes; its bytes both ways.
  Buffer from = value_of(Buffer::make(size_t(2) << 30, Place::kDevice, "a probe")),
         to = value_of(Buffer::make(size_t(2) << 30, Place::kDevice, "a probe"));
  const Spread probe = timed(9, 5, [&] { value_of(copy(stream(), to.as<>(), from.as<>(), from.bytes(), "a probe")); });
  const double ceiling = 2.0 * double(from.bytes()) / probe.median;
  out["copy_bytes_per_second"] = ceiling;
  const Spread head = timed(9, 20, [&] { bench.head(stream()); });
  out["head"] = {{"seconds", head}, {"bytes_per_second", 2.0 * kVocab * kHidden / head.median}};
  for (const int position : {128, 2048, 4000}) {
    bench.place(position);
    nlohmann::json at{{"position", position}};
    for (const auto& [name, launch] : bench.kernels(0, true)) {
      // All layers in turn, so that weights come from memory and not from a cache.
      const Spread one = timed(9, 5, [&, wanted = name] {
        for (int l = 0; l < bench.layers(); ++l)
          for (const auto& [other, run] : bench.kernels(l, true))
            if (other == wanted) run(stream());
      });
      at["kernels"][name] = one.median / bench.layers();
    }
    for (const bool captures : {false, true}) {
      const auto graph = value_of(capture(stream(), [&](Stream& s) {
        for (int l = 0; l < bench.layers(); ++l)
          for (const auto& [name, run] : bench.kernels(l, captures)) run(s);
        bench.head(s);
      }));
      const Spread token = timed(9, tokens, [&] { value_of(graph->launch(stream())); });
      at[captures ? "token_with_capture" : "token"] = {
          {"seconds", token},
          {"tokens_per_second", 1 / token.median},
          {"share_of_copy_bandwidth", bench.token_bytes(position) / token.median / ceiling}};
    }
    out["decode"].push_back(at);
  }
  for (const int tokens : {64, 512, 2048}) {
    bench.make_prompt(tokens);
    const auto all_layers = [&](void (Bench::*part)(Stream&, int)) {
      Spread one = timed(9, 3, [&] {
        for (int l = 0; l < bench.layers(); ++l) (bench.*part)(stream(), l);
      });
      one.median /= layers, one.least /= layers, one.most /= layers;
      return one;
    };
    const Spread dense = all_layers(&Bench::prompt_dense), experts = all_layers(&Bench::prompt_experts);
    out["prompt"].push_back({{"tokens", tokens},
                             {"dense_seconds_a_layer", dense},
                             {"experts_seconds_a_layer", experts},
                             {"dense_multiplications_per_second", Bench::dense_products(tokens) / dense.median},
                             {"expert_multiplications_per_second", Bench::expert_products(tokens) / experts.median}});
  }
  out["layers"] = layers;
  return out;
}

}  // namespace
}  // namespace switchyard::cuda::testing

int main(int argc, char** argv) {
  std::map<std::string, int> options{{"--layers", 16}, {"--tokens", 64}};
  for (int i = 1; i + 1 < argc; i += 2) options[argv[i]] = std::atoi(argv[i + 1]);
  try {
    std::cout << switchyard::cuda::testing::measure(options["--layers"], options["--tokens"]).dump(1) << "\n";
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 7;
  }
}
