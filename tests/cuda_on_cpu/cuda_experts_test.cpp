// The kernels of experts and of prompts, and the choice of the next token, against naive computations.
#include <cmath>
#include <map>

#include "engine/backend/cuda/gate_tables.h"
#include "engine/backend/cuda/records.h"
#include "engine/runtime/sampler.h"
#include "tests/cuda_on_cpu/numbers.h"

namespace switchyard::cuda::testing {
namespace {

constexpr float kEpsilon = 1e-5f;

double activated(Unit unit, double x) {
  switch (unit) {
    case Unit::kSilu:
      return x / (1 + std::exp(-x));
    case Unit::kGelu:
      return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case Unit::kGeluTanh:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / 3.14159265358979) * (x + 0.044715 * x * x * x)));
    case Unit::kRelu:
      return std::max(x, 0.0);
  }
  return x;
}

// One block with its numbers; off: every third unit.
struct TestExpert {
  TestExpert(const FfnForm& the_form, int hidden, Stored type, bool biased, bool masked, Random& random)
      : form(the_form),
        gate(form.width, hidden, type, random),
        up(form.width, hidden, type, random),
        down(hidden, form.width, type, random),
        gate_bias(random.vector(form.width)),
        up_bias(random.vector(form.width)),
        down_bias(random.vector(hidden)),
        off(size_t(form.width)),
        gate_there(gate_bias),
        up_there(up_bias),
        down_there(down_bias),
        off_there(size_t(form.width)),
        has_bias(biased) {
    for (size_t i = 0; masked && i < off.size(); i += 3) off[i] = 1;
    off_there.set(off);
    expert = {gate.matrix.data,
              up.matrix.data,
              down.matrix.data,
              nullptr,
              nullptr,
              nullptr,
              masked ? off_there.data() : nullptr,
              type,
              type};
    if (form.form == Form::kMlp) expert.gate = nullptr;
    if (biased)
      expert.gate_bias = gate_there.data(), expert.up_bias = up_there.data(), expert.down_bias = down_there.data();
  }
  std::vector<double> run(const std::vector<double>& x, double input) const {
    std::vector<double> units;
    for (int f = 0; f < form.width; ++f) {
      double g = gate.dot(f, x) * input + (has_bias ? gate_bias[size_t(f)] : 0),
             u = up.dot(f, x) * input + (has_bias ? up_bias[size_t(f)] : 0);
      double y = 0;
      if (form.form == Form::kGlu) y = activated(form.unit, g) * u;
      if (form.form == Form::kMlp) y = activated(form.unit, u);
      if (form.form == Form::kGluOss) {
        g = std::min(g, double(form.limit)), u = std::clamp(u, -double(form.limit), double(form.limit));
        y = (u + 1) * g / (1 + std::exp(-double(form.alpha) * g));
      }
      units.push_back(off[size_t(f)] ? 0 : y);
    }
    std::vector<double> out;
    for (int row = 0; row < down.rows; ++row)
      out.push_back(down.dot(row, units) + (has_bias ? down_bias[size_t(row)] : 0));
    return out;
  }
  FfnForm form;
  TestMatrix gate, up, down;
  std::vector<float> gate_bias, up_bias, down_bias;
  std::vector<uint8_t> off;
  OnDevice<float> gate_there, up_there, down_there;
  OnDevice<uint8_t> off_there;
  bool has_bias;
  Expert expert;
};

struct ExpertsCase {
  FfnForm form, shared;
  int hidden, slots;
  Stored type;
  bool biased, masked, has_shared, gated;
};

// Five experts and a shared block, tokens that chose none, one, or all slots; one token at a time, then all in tiles.
void check_experts(const ExpertsCase& c) {
  SCOPED_TRACE("form " + std::to_string(int(c.form.form)) + " width " + std::to_string(c.form.width) + " hidden " +
               std::to_string(c.hidden));
  Random random(uint32_t(c.hidden + c.form.width));
  constexpr int kExperts = 5, kTokens = 70;
  std::vector<std::unique_ptr<TestExpert>> experts;
  std::vector<Expert> table;
  for (int e = 0; e < kExperts; ++e) {
    experts.push_back(std::make_unique<TestExpert>(c.form, c.hidden, c.type, c.biased, c.masked, random));
    table.push_back(experts.back()->expert);
  }
  const TestExpert shared(c.shared, c.hidden, c.type, c.biased, false, random);
  const OnDevice<Expert> table_there(table), shared_there(std::vector<Expert>{shared.expert});
  std::vector<int32_t> counts;
  std::vector<ExpertId> ids(size_t(kTokens * c.slots));
  std::vector<float> weights(ids.size()), inputs(ids.size(), 1.0f);
  for (int t = 0; t < kTokens; ++t) {
    counts.push_back(t == 0 ? 0 : t == 1 ? c.slots : 1 + random.below(c.slots));
    int id = random.below(kExperts - c.slots + 1);
    for (int s = 0; s < counts.back(); ++s, ++id) {
      const size_t at = size_t(t * c.slots + s);
      ids[at] = ExpertId(id), weights[at] = random.normal(), inputs[at] = t % 4 == 3 ? 0.5f : 1.0f;
    }
  }
  const auto x = random.vector(kTokens * c.hidden), bias = random.vector(c.hidden), gates = random.vector(kTokens),
             before = random.vector(kTokens * c.hidden);
  const OnDevice<float> in(x), bias_there(bias), gates_there(gates), weights_there(weights), inputs_there(inputs);
  const OnDevice<int32_t> counts_there(counts);
  const OnDevice<ExpertId> ids_there(ids);
  const int width = std::max(c.form.width, c.shared.width);

  std::vector<double> expected = doubles(before);
  for (int t = 0; t < kTokens; ++t) {
    const std::vector<double> input(x.begin() + t * c.hidden, x.begin() + (t + 1) * c.hidden);
    std::vector<double> sum = doubles(bias);
    const auto add = [&](const std::vector<double>& y, double weight) {
      for (int i = 0; i < c.hidden; ++i) sum[size_t(i)] += weight * y[size_t(i)];
    };
    for (int s = 0; s < counts[size_t(t)]; ++s) {
      const size_t at = size_t(t * c.slots + s);
      add(experts[ids[at]]->run(input, inputs[at]), weights[at]);
    }
    if (c.has_shared) add(shared.run(input, 1), c.gated ? 1 / (1 + std::exp(-double(gates[size_t(t)]))) : 1);
    for (int i = 0; i < c.hidden; ++i) expected[size_t(t * c.hidden + i)] += 0.75 * sum[size_t(i)];
  }

  const auto chosen = [&](int token) {
    return Chosen{counts_there.data() + token, ids_there.data() + token * c.slots,
                  weights_there.data() + token * c.slots, inputs_there.data() + token * c.slots, c.slots};
  };
  constexpr int kAlone = 4;
  const auto alone = under_all_orders([&] {
    const OnDevice<float> out(before), units{size_t((c.slots + 1) * width)};
    for (int t = 0; t < kAlone; ++t) {
      const ExpertJob job{.experts = table_there.data(),
                          .form = c.form,
                          .chosen = chosen(t),
                          .shared = c.has_shared ? shared_there.data() : nullptr,
                          .shared_form = c.shared,
                          .shared_gate = c.gated ? gates_there.data() + t : nullptr,
                          .in = in.data() + t * c.hidden,
                          .hidden = c.hidden,
                          .units = units.data(),
                          .width = width,
                          .output_bias = bias_there.data(),
                          .out = out.data() + t * c.hidden,
                          .factor = 0.75f};
      launch_expert_units(stream(), job);
      launch_expert_down(stream(), job);
    }
    auto all = out.get();
    all.resize(size_t(kAlone * c.hidden));
    return all;
  });
  expect_near(alone, {expected.begin(), expected.begin() + kAlone * c.hidden}, 5e-5);

  const auto together = under_all_orders([&] {
    const OnDevice<float> out(before), units{size_t(kTokens * c.slots * width)},
        routed{size_t(kTokens * c.slots * c.hidden)}, own{size_t(kTokens * width)}, own_out{size_t(kTokens * c.hidden)},
        sorted_inputs{size_t(kTokens * c.slots)};
    const OnDevice<int32_t> slot_counts(kExperts), starts(kExperts + 1), tokens{size_t(kTokens * c.slots)},
        places{size_t(kTokens * c.slots)};
    const Sorted sorted{slot_counts.data(), starts.data(), tokens.data(), sorted_inputs.data(), places.data()};
    launch_sort_slots(stream(), chosen(0), kTokens, kExperts, sorted);
    launch_group_units(stream(),
                       {.experts = table_there.data(),
                        .form = c.form,
                        .bf16 = c.type == Stored::kBF16,
                        .starts = sorted.starts,
                        .rows = sorted.tokens,
                        .weights = sorted.inputs,
                        .in = in.data(),
                        .cols = c.hidden,
                        .out = units.data()},
                       kExperts, kTokens);
    launch_group_down(stream(),
                      {.experts = table_there.data(),
                       .form = c.form,
                       .bf16 = c.type == Stored::kBF16,
                       .starts = sorted.starts,
                       .in = units.data(),
                       .cols = c.form.width,
                       .out = routed.data()},
                      c.hidden, kExperts, kTokens);
    if (c.has_shared) {
      launch_group_units(stream(),
                         {.experts = shared_there.data(),
                          .form = c.shared,
                          .bf16 = c.type == Stored::kBF16,
                          .tokens = kTokens,
                          .in = in.data(),
                          .cols = c.hidden,
                          .out = own.data()},
                         1, kTokens);
      launch_group_down(stream(),
                        {.experts = shared_there.data(),
                         .form = c.shared,
                         .bf16 = c.type == Stored::kBF16,
                         .tokens = kTokens,
                         .in = own.data(),
                         .cols = c.shared.width,
                         .out = own_out.data()},
                        c.hidden, 1, kTokens);
    }
    launch_combine(stream(),
                   {.chosen = chosen(0),
                    .places = places.data(),
                    .routed = routed.data(),
                    .shared = c.has_shared ? own_out.data() : nullptr,
                    .shared_gate = c.gated ? gates_there.data() : nullptr,
                    .output_bias = bias_there.data(),
                    .hidden = c.hidden,
                    .out = out.data(),
                    .factor = 0.75f},
                   kTokens);
    return out.get();
  });
  expect_near(together, expected, 5e-5);
}

TEST(ExpertKernels, RunTheChosenExpertsAloneAndInTiles) {
  check_experts(
      {{Form::kGlu, Unit::kSilu, 40}, {Form::kGlu, Unit::kSilu, 72}, 48, 3, Stored::kBF16, false, false, true, true});
  check_experts({{Form::kGluOss, Unit::kSilu, 70, 1.5f, 1.702f},
                 {Form::kGlu, Unit::kGelu, 8},
                 100,
                 2,
                 Stored::kF32,
                 true,
                 false,
                 false,
                 false});
  // On the tensor cores: ragged ends, biases, an MLP without gates, rows that are no multiple of 16 bytes, a width of
  // more than one tile; an expert that nobody chooses is among them (five experts, one slot).
  check_experts({{Form::kGluOss, Unit::kSilu, 70, 1.5f, 1.702f},
                 {Form::kMlp, Unit::kGelu, 130},
                 100,
                 2,
                 Stored::kBF16,
                 true,
                 true,
                 true,
                 false});
  check_experts(
      {{Form::kMlp, Unit::kRelu, 33}, {Form::kGlu, Unit::kSilu, 8}, 136, 1, Stored::kBF16, true, false, false, false});
  check_experts(
      {{Form::kGlu, Unit::kSilu, 150}, {Form::kGlu, Unit::kGelu, 64}, 64, 4, Stored::kBF16, false, true, true, true});
  check_experts(
      {{Form::kMlp, Unit::kRelu, 33}, {Form::kMlp, Unit::kGeluTanh, 20}, 64, 1, Stored::kF16, true, true, true, false});
  check_experts(
      {{Form::kGlu, Unit::kGelu, 24}, {Form::kGlu, Unit::kGeluTanh, 24}, 80, 5, Stored::kF32, false, true, true, true});
}

TEST(TileKernel, IsAMatrixTimesManyVectors) {
  Random random(8);
  for (const Stored type : {Stored::kF32, Stored::kBF16, Stored::kF16})
    for (const auto& [tokens, rows, cols] :
         {std::tuple(3, 70, 20), {65, 64, 48}, {64, 5, 33}, {130, 200, 72}, {34, 129, 8}}) {
      const TestMatrix matrix(rows, cols, type, random);
      const int step = rows + 4;
      const auto x = random.vector(tokens * cols), bias = random.vector(rows), before = random.vector(tokens * step);
      const OnDevice<float> in(x), bias_there(bias);
      for (const bool adds : {false, true}) {
        const auto got = under_all_orders([&] {
          const OnDevice<float> out(before);
          launch_multiply_tiles(stream(), {.in = in.data(),
                                           .tokens = tokens,
                                           .matrix = matrix.matrix,
                                           .bias = bias_there.data(),
                                           .out = out.data(),
                                           .step = step,
                                           .at = 3,
                                           .adds = adds,
                                           .factor = 2});
          return out.get();
        });
        std::vector<double> expected = doubles(before);
        for (int t = 0; t < tokens; ++t)
          for (int row = 0; row < rows; ++row) {
            double& at = expected[size_t(t * step + 3 + row)];
            at = (adds ? at : 0) +
                 2 * (matrix.dot(row, {x.begin() + t * cols, x.begin() + (t + 1) * cols}) + bias[size_t(row)]);
          }
        expect_near(got, expected);
      }
    }
}

// The router's own kernel: norm, logits, the gate of the shared block, and the decision in the last block to be done.
TEST(RouteKernel, DecidesOnTheLogitsThatItMakes) {
  Random random(9);
  for (const auto& [experts, k, hidden] : {std::tuple(8, 2, 64), {64, 8, 100}, {128, 8, 256}}) {
    const TestMatrix router(experts, hidden, Stored::kBF16, random), gate(1, hidden, Stored::kBF16, random);
    const auto x = random.vector(hidden), weight = random.vector(hidden), bias = random.vector(experts, 0.1f);
    const OnDevice<float> in(x), norm(weight), bias_there(bias);
    RouterSpec spec;
    spec.experts = experts, spec.experts_per_token = k, spec.renorm = Renorm::kSum, spec.has_logit_bias = true;
    GatePage page;
    page.add({spec, bias_there.data(), nullptr}, nullptr, 4);
    const OnDevice<GateTable> tables(page.tables());
    const OnDevice<int32_t> token(std::vector<int32_t>{17});
    const OnDevice<StepState> state(
        std::vector<StepState>{{.position = 3, .count = 1, .record = 5, .tokens = token.data()}});
    const RecordLayout layout = record_layout(1, experts, k, CaptureLevel::kLogits);
    std::vector<double> expected_logits;
    const auto normed = rms_normed(doubles(x), weight, kEpsilon);
    for (int e = 0; e < experts; ++e) expected_logits.push_back(router.dot(e, normed) + bias[size_t(e)]);
    const auto got = under_all_orders([&] {
      const OnDevice<float> logits{size_t(experts + 1)}, biased{size_t(experts)}, x_normed{size_t(hidden)},
          weights{size_t(k)}, inputs{size_t(k)};
      const OnDevice<int32_t> count(1);
      const OnDevice<ExpertId> ids{size_t(k)};
      const OnDevice<unsigned> arrived(std::vector<unsigned>(1));
      const OnDevice<unsigned char> records(layout.token_bytes() * 8);
      const Projection job{.in = in.data(),
                           .cols = hidden,
                           .norm = {norm.data(), nullptr, kEpsilon},
                           .normed = x_normed.data(),
                           .parts = {router.matrix, gate.matrix},
                           .count = 2,
                           .out = logits.data()};
      launch_route(stream(), state.data(), job,
                   {.tables = tables.data(),
                    .row = 0,
                    .logits = logits.data(),
                    .biased = biased.data(),
                    .width = experts,
                    .slots = k,
                    .chosen = {count.data(), ids.data(), weights.data(), inputs.data(), k},
                    .ring = {records.data(), 8, layout}},
                   arrived.data());
      EXPECT_EQ(arrived.get()[0], 0u);
      const auto bytes = records.get();
      const Recorded record(layout, bytes.data() + 5 * layout.token_bytes(), 0);
      std::vector<float> out(record.logits(experts).begin(), record.logits(experts).end());
      expect_near(out, expected_logits);
      EXPECT_NEAR(logits.get()[size_t(experts)], gate.dot(0, normed), 1e-5);
      // On these logits route() decides the same.
      std::vector<float> scratch(scratch_needed(spec, nullptr)), own_weights(static_cast<size_t>(k));
      std::vector<ExpertId> own_ids(static_cast<size_t>(k));
      std::vector<SlotKind> kinds(static_cast<size_t>(k));
      route(spec, nullptr, {.logits = out, .router_bias = bias}, scratch, {own_ids, own_weights, kinds});
      for (int slot = 0; slot < k; ++slot) {
        EXPECT_EQ(record.ids()[size_t(slot)], own_ids[size_t(slot)]);
        EXPECT_NEAR(record.weights()[size_t(slot)], own_weights[size_t(slot)], exact() ? 0 : 1e-5);
        out.push_back(record.weights()[size_t(slot)]);
      }
      return out;
    });
    EXPECT_EQ(got.size(), size_t(experts + k));
  }
}

// By the table of the sampler: the id that sample() gives on the same logits.
TEST(PickKernel, ChoosesAsTheSampler) {
  Random random(10);
  constexpr int kVocab = 700;
  std::vector<float> logits = random.vector(kVocab, 2);
  logits[13] = logits[400] = 9;  // a tie for the best
  logits[7] = NAN;
  const OnDevice<float> there(logits);
  std::map<TokenId, int> seen;
  for (int i = 0; i < 24; ++i) {
    Sampling sampling{.greedy = i == 0,
                      .temperature = i % 3 == 0 ? 0.5f : 2.0f,
                      .top_p = i % 2 == 0 ? 1.0f : 0.7f,
                      .top_k = i % 4 == 0 ? 5 : 0,
                      .seed = uint64_t(i) << 33};
    const OnDevice<Sampler> sampler(
        std::vector<Sampler>{{sampling.greedy, sampling.temperature, sampling.top_p, sampling.top_k, sampling.seed}});
    const OnDevice<int32_t> token(1), chosen(64);
    const OnDevice<StepState> state(
        std::vector<StepState>{{.position = 20 + i, .count = 2, .sequence = 6, .record = 9, .tokens = token.data()}});
    launch_pick(stream(), {.logits = there.data(),
                           .vocab = kVocab,
                           .sampler = sampler.data(),
                           .state = state.data(),
                           .chosen = chosen.data()});
    const TokenId expected = sample(logits, sampling, 6, uint64_t(22 + i));
    ASSERT_EQ(token.get()[0], expected) << i;
    ASSERT_EQ(chosen.get()[size_t(22 + i)], expected);
    const StepState after = state.get()[0];
    EXPECT_EQ(after.position, 22 + i);
    EXPECT_EQ(after.count, 1);
    EXPECT_EQ(after.record, 11u);
    ++seen[expected];
  }
  EXPECT_GT(seen.size(), 8u);
}

TEST(TellHostKernel, CountsTheRecordsThatAreWhole) {
  Buffer word = value_of(Buffer::make(sizeof(uint64_t), Place::kPinned, "a test"));
  const OnDevice<StepState> state(std::vector<StepState>{{.count = 3, .record = 40}});
  launch_tell_host(stream(), state.data(), word.as<uint64_t>());
  value_of(wait(stream(), "a test"));
  EXPECT_EQ(*word.as<uint64_t>(), 43u);
}

}  // namespace
}  // namespace switchyard::cuda::testing
