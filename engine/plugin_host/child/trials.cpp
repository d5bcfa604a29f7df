// Tries of a plugin's code on random input: the invariants that hold for every scheme, edit and metric.
#include <cmath>
#include <limits>
#include <random>

#include <fmt/format.h>

#include "engine/base/text.h"
#include "engine/plugin_host/child/session.h"
#include "engine/plugin_host/environment.h"
#include "engine/plugin_host/fenced.h"

namespace switchyard::plugin_child {
namespace {

struct Case {
  uint32_t tokens, experts, k;
  bool muted;  // every third expert
};

// Input of a case; the plugin's output buffers.
struct Trial {
  Trial(const Case& what, const std::vector<double>& parameters, int max_slots, uint32_t needs, uint32_t state_bytes,
        std::mt19937& random) {
    const size_t cells = size_t(what.tokens) * what.experts;
    std::normal_distribution<float> normal(0, 2);
    for (size_t i = 0; i < cells; ++i)
      logits.push_back(what.muted && i % what.experts % 3 == 0 ? -INFINITY : normal(random));
    for (uint32_t t = 0; t < what.tokens; ++t) tokens.push_back(int32_t(random() % 1000)), positions.push_back(t + 5);
    if (needs & SY_NEEDS_HIDDEN)
      for (size_t i = 0; i < size_t(what.tokens) * 16; ++i) hidden.push_back(normal(random));
    state.resize(size_t(what.tokens) * state_bytes / 4 + 1);
    const uint32_t slots = max_slots < 0   ? what.experts
                           : max_slots > 0 ? std::min(uint32_t(max_slots), what.experts)
                                           : what.k;
    in = {sizeof(sy_scheme_in),
          what.tokens,
          what.experts,
          what.k,
          slots,
          3,
          1,
          uint32_t(what.tokens > 1 ? SY_PHASE_TOGETHER : SY_PHASE_ALONE),
          0,
          uint32_t(parameters.size()),
          parameters.data(),
          logits.data(),
          tokens.data(),
          positions.data(),
          hidden.empty() ? nullptr : hidden.data(),
          hidden.empty() ? 0u : 16u,
          state_bytes,
          state_bytes ? reinterpret_cast<uint8_t*>(state.data()) : nullptr};
    count.resize(what.tokens), id.resize(size_t(what.tokens) * slots), weight.resize(id.size()),
        flags.resize(id.size());
    out = {sizeof(sy_scheme_out), 0, count.data(), id.data(), weight.data(), flags.data()};
  }
  std::vector<float> logits, hidden;
  std::vector<int32_t> tokens;
  std::vector<uint64_t> positions;
  std::vector<uint32_t> state;
  FencedBuffer<uint32_t> count;
  FencedBuffer<int32_t> id;
  FencedBuffer<float> weight;
  FencedBuffer<uint8_t> flags;
  sy_scheme_in in{};
  sy_scheme_out out{};
};

std::vector<Case> cases(bool deep) {
  if (!deep) return {{1, 8, 2, false}, {3, 64, 8, false}};
  return {{1, 1, 1, false}, {1, 2, 1, false}, {1, 8, 2, false},    {1, 8, 8, false}, {3, 64, 8, false},
          {5, 64, 6, true}, {1, 9, 2, true},  {17, 256, 8, false}, {2, 300, 4, true}};
}

tl::unexpected<Error> bad(const std::string& id, const Case& one, const std::string& what) {
  return fail(ErrorCode::kPlugin, fmt::format("{}: {} ({} tokens, {} experts, k {}{})", id, what, one.tokens,
                                              one.experts, one.k, one.muted ? ", some muted" : ""));
}

Result<void> unchanged(const ProcessEnvironment& before, const std::string& id) {
  const std::vector<std::string> changed = before.restore();
  if (changed.empty()) return {};
  return fail(ErrorCode::kPlugin, fmt::format("{}: it changed {}", id, changed.front()));
}

}  // namespace

Result<void> try_scheme(PluginCode& code, const std::string& id, const std::vector<double>& parameters, int max_slots,
                        bool deep) {
  SY_TRY(const sy_scheme scheme, code.scheme(id));
  const ProcessEnvironment before = ProcessEnvironment::now();
  for (const Case& one : cases(deep)) {
    std::vector<float> first;
    for (int turn = 0; turn < 2; ++turn) {
      std::mt19937 random(7);
      Trial trial(one, parameters, max_slots, scheme.needs, scheme.state_bytes, random);
      CallContext ctx;
      const std::vector<float> given = trial.logits;
      if (!code.call(PluginCall::kRoute, ctx, [&] { return scheme.route(code.self(), &trial.in, &trial.out, &ctx); }))
        return bad(id, one, ctx.message[0] ? printable(ctx.message, 300) : "route() failed");
      if (!trial.count.whole() || !trial.id.whole() || !trial.weight.whole() || !trial.flags.whole())
        return bad(id, one, "it wrote past the end of a buffer");
      if (trial.logits != given) return bad(id, one, "it wrote into its input");
      trial.out = {sizeof(sy_scheme_out), 0, trial.count.data(), trial.id.data(), trial.weight.data(),
                   trial.flags.data()};
      if (const std::string wrong = wrong_slots(trial.in, trial.out); !wrong.empty()) return bad(id, one, wrong);
      std::vector<float> made;
      for (uint32_t t = 0; t < one.tokens; ++t)
        for (uint32_t s = 0; s < trial.count.data()[t]; ++s)
          made.push_back(float(trial.id.data()[t * trial.in.slots + s])),
              made.push_back(trial.weight.data()[t * trial.in.slots + s]);
      if (turn == 0)
        first = made;
      else if (deep && made != first)
        return bad(id, one, "it decides otherwise for the same input; take randomness from host->random()");
    }
  }
  return unchanged(before, id);
}

Result<void> try_edit(PluginCode& code, const std::string& id, const std::vector<double>& parameters, bool deep) {
  SY_TRY(const sy_edit edit, code.edit(id));
  const ProcessEnvironment before = ProcessEnvironment::now();
  for (const Case& one : cases(deep)) {
    std::mt19937 random(7);
    Trial trial(one, parameters, 0, edit.needs, 0, random);
    FencedBuffer<float> logits;
    logits.resize(trial.logits.size());
    std::copy(trial.logits.begin(), trial.logits.end(), logits.data());
    CallContext ctx;
    if (!code.call(PluginCall::kEdit, ctx, [&] { return edit.apply(code.self(), &trial.in, logits.data(), &ctx); }))
      return bad(id, one, ctx.message[0] ? printable(ctx.message, 300) : "apply() failed");
    if (!logits.whole()) return bad(id, one, "it wrote past the end of the logits");
    for (size_t i = 0; i < trial.logits.size(); ++i) {
      const float made = logits.data()[i];
      if (std::isnan(made) || made == INFINITY) return bad(id, one, "a logit is not finite");
      if (trial.logits[i] == -INFINITY && made != -INFINITY) return bad(id, one, "it woke a muted expert");
    }
  }
  return unchanged(before, id);
}

namespace {

// Random blocks of one row.
struct Blocks {
  explicit Blocks(uint32_t row, std::mt19937& random) {
    const uint32_t tokens = 40;
    for (uint32_t t = 0; t < tokens; ++t) {
      const auto first = int32_t(random() % kExperts);
      ids.insert(ids.end(), {first, int32_t((uint32_t(first) + 1 + random() % (kExperts - 1)) % kExperts)});
      weights.insert(weights.end(), {0.75f, 0.25f});
      entropy.push_back(float(random() % 1000) / 500);
      token_ids.push_back(int32_t(random() % 100)), position.push_back(t % 20), sequence.push_back(t / 20);
      for (uint32_t e = 0; e < kExperts; ++e) logits.push_back(float(random() % 1000) / 250);
    }
    row_ = row;
  }
  sy_block part(size_t from, size_t to) const {
    return {sizeof(sy_block),
            row_,
            row_ + 1,
            uint32_t(to - from),
            kExperts,
            2,
            from,
            ids.data() + 2 * from,
            weights.data() + 2 * from,
            logits.data() + kExperts * from,
            entropy.data() + from,
            entropy.data() + from,
            entropy.data() + from,
            entropy.data() + from,
            token_ids.data() + from,
            position.data() + from,
            sequence.data() + from,
            nullptr};
  }
  static constexpr uint32_t kExperts = 6;
  uint32_t row_ = 0;
  std::vector<int32_t> ids, token_ids;
  std::vector<float> weights, entropy, logits;
  std::vector<uint32_t> position, sequence;
};

// The cells of all tables.
Result<std::vector<double>> cells_of(PluginCode& code, const sy_metric& metric, const std::string& id, void* state) {
  std::vector<double> out;
  for (uint32_t table = 0; table < metric.table_count; ++table) {
    CallContext ctx;
    uint64_t rows = 0;
    code.call(PluginCall::kMetric, ctx, [&] {
      rows = metric.rows(state, table);
      return 0;
    });
    if (rows > 1'000'000)
      return fail(ErrorCode::kPlugin, fmt::format("{}: a table has {} rows, 1,000,000 are the most", id, rows));
    std::vector<double> cells(rows * table_of(metric, table).column_count + 8, -7.25);
    if (!code.call(PluginCall::kMetric, ctx, [&] { return metric.result(state, table, cells.data(), &ctx); }))
      return fail(ErrorCode::kPlugin, fmt::format("{}: result() failed: {}", id, printable(ctx.message)));
    for (size_t i = cells.size() - 8; i < cells.size(); ++i)
      if (cells[i] != -7.25) return fail(ErrorCode::kPlugin, id + ": result() wrote past the end of its table");
    out.insert(out.end(), cells.begin(), cells.end() - 8);
  }
  return out;
}

}  // namespace

Result<void> try_metric(PluginCode& code, const std::string& id) {
  SY_TRY(const sy_metric metric, code.metric(id));
  const ProcessEnvironment before = ProcessEnvironment::now();
  const std::vector<uint32_t> layers{1, 2};
  const sy_trace_shape shape{sizeof(sy_trace_shape), 2, Blocks::kExperts, 2, 40, 2, layers.data()};
  const auto make = [&]() -> Result<void*> {
    CallContext ctx;
    void* state = nullptr;
    code.call(PluginCall::kMetric, ctx, [&] {
      state = metric.create(code.self(), &shape, &ctx);
      return 0;
    });
    if (!state) return fail(ErrorCode::kPlugin, fmt::format("{}: create() failed: {}", id, printable(ctx.message)));
    return state;
  };
  const auto feed = [&](void* state, const sy_block& block) -> Result<void> {
    CallContext ctx;
    if (!code.call(PluginCall::kMetric, ctx, [&] { return metric.feed(state, &block, &ctx); }))
      return fail(ErrorCode::kPlugin, fmt::format("{}: feed() failed: {}", id, printable(ctx.message)));
    return {};
  };
  std::mt19937 random(11);
  const Blocks blocks(0, random);
  SY_TRY(void* const empty, make());
  SY_TRY(const std::vector<double> nothing, cells_of(code, metric, id, empty));
  SY_TRY(void* const whole, make());
  SY_CHECK(feed(whole, blocks.part(0, 20)));
  SY_CHECK(feed(whole, blocks.part(20, 40)));
  SY_TRY(void* const first, make());
  SY_TRY(void* const second, make());
  SY_CHECK(feed(first, blocks.part(20, 40)));  // whole sequences, in the other order
  SY_CHECK(feed(second, blocks.part(0, 20)));
  CallContext ctx;
  if (!code.call(PluginCall::kMetric, ctx, [&] { return metric.merge(first, second, &ctx); }))
    return fail(ErrorCode::kPlugin, fmt::format("{}: merge() failed: {}", id, printable(ctx.message)));
  SY_TRY(const std::vector<double> a, cells_of(code, metric, id, whole));
  SY_TRY(const std::vector<double> b, cells_of(code, metric, id, first));
  bool same = a.size() == b.size();
  for (size_t i = 0; same && i < a.size(); ++i)
    same = (std::isnan(a[i]) && std::isnan(b[i])) || std::abs(a[i] - b[i]) <= 1e-6 * std::max(1.0, std::abs(a[i]));
  if (!same)
    return fail(ErrorCode::kPlugin,
                id + ": two states that are merged give other numbers than one that saw everything");
  for (void* state : {empty, whole, first, second})
    code.call(PluginCall::kMetric, ctx, [&] {
      metric.destroy(state);
      return 0;
    });
  return unchanged(before, id);
}

}  // namespace switchyard::plugin_child
