// From router logits to a decision, by one warp, as a layer's table says: the stages of engine/routing/scheme_stages.h with
// the experts shared out to the lanes. Sums run in the order of the experts on one lane, so that on equal logits the
// decision is that of route() bit for bit where exp() and its kin are the same functions.
#pragma once

#include "engine/backend/cuda/intrinsics.cuh"
#include "engine/routing/block.h"
#include "engine/routing/scheme_stages.h"

namespace switchyard::cuda {

// Shared memory of one decision. width: experts and null experts.
struct GateRoom {
  float *z = nullptr, *scores = nullptr, *keys = nullptr, *native = nullptr, *work = nullptr;  // [width] each
  float* weights = nullptr;                                                                    // [slots]
  ExpertId* ids = nullptr;                                                                     // [slots]
  SlotKind* kinds = nullptr;                                                                   // [slots]

  __host__ __device__ static size_t bytes(int width, int slots) {
    return size_t(width) * 5 * sizeof(float) + size_t(slots) * (sizeof(float) + sizeof(ExpertId) + sizeof(SlotKind));
  }
  __device__ static GateRoom cut(float* memory, int width, int slots) {
    GateRoom room;
    room.z = memory, room.scores = room.z + width, room.keys = room.scores + width, room.native = room.keys + width;
    room.work = room.native + width, room.weights = room.work + width;
    room.ids = reinterpret_cast<ExpertId*>(room.weights + slots);
    room.kinds = reinterpret_cast<SlotKind*>(room.ids + slots);
    return room;
  }
};

__host__ __device__ inline RouterSpec spec_of(const GateTable& table) {
  RouterSpec spec;
  spec.experts = table.experts, spec.experts_per_token = table.native_k, spec.score = table.score;
  spec.has_logit_bias = table.router_bias != nullptr, spec.has_select_bias = table.select_bias != nullptr;
  spec.groups = table.groups, spec.groups_kept = table.groups_kept, spec.group_score = table.group_score;
  spec.group_fill = table.group_fill, spec.renorm = table.renorm, spec.renorm_floor = table.renorm_floor;
  spec.scale = table.scale, spec.apply = table.apply, spec.jitter = table.jitter;
  return spec;
}

__host__ __device__ inline Stages stages_of(const GateTable& table) {
  Stages s;
  s.activation = table.activation, s.schedule = table.schedule, s.tau = table.tau, s.tau_end = table.tau_end;
  s.steps = table.steps, s.gumbel = (table.flags & GateFlags::kGumbel) != 0, s.steer_margin = table.steer_margin;
  s.nulls = table.nulls, s.null_source = table.null_source, s.null_logit = table.null_logit;
  s.score = table.scheme_score, s.sdm_q = table.sdm_q, s.sdm_d = table.sdm_d, s.out = table.out;
  s.selector = table.selector, s.k = table.k, s.k_min = table.k_min, s.k_max = table.k_max, s.p = table.p;
  s.threshold = table.threshold, s.entropy = table.entropy, s.h = table.h, s.q = table.q, s.eps = table.eps;
  s.granularity = table.granularity, s.weights = table.weight_rule, s.forced_low = table.forced_low;
  s.guaranteed = table.guaranteed, s.seed = table.seed;
  return s;
}

template <class T>
__host__ __device__ std::span<const T> span_of(const T* data, size_t count) {
  return data ? std::span<const T>(data, count) : std::span<const T>();
}

class WarpGate {
 public:
  // logits: [experts] raw, the router's bias in them.
  __device__ WarpGate(const GateTable& table, const GateRoom& room, RouterInput in)
      : table_(table),
        room_(room),
        in_(in),
        experts_(table.experts),
        width_(table.experts + table.nulls),
        slots_(table.slots) {
    in_.logits = {in.logits.data(), size_t(experts_)};
    in_.router_bias = span_of(table.router_bias, size_t(experts_));
    in_.select_bias = span_of(table.select_bias, size_t(experts_));
  }

  // All lanes call it; the decision is the same in all, slots lie in the room.
  __device__ Decision decide() {
    Decision decision;
    decision.had_nan = copy_clean();
    const RouterSpec spec = spec_of(table_);
    const bool edited = (table_.flags & GateFlags::kEdited) != 0;
    double native_lse = 0;
    if (edited) native_lse = mark_native(spec);
    if (table_.mode == GateMode::kReplay && in_.index < table_.replayed && table_.tokens[in_.index] == in_.token) {
      replay(spec, decision);
    } else if (table_.mode == GateMode::kScheme) {
      decide_by_scheme(spec, decision);
    } else {
      if (edited) edit_logits();
      const SoftmaxSums sums = score(spec, edited);
      decision.k_used = select(experts_, table_.k);
      kinds_routed(decision.k_used);
      if (first()) {
        if (table_.forced)
          stages::force_slots(span_of(table_.forced, size_t(experts_)), real(), decision.k_used, spans());
        if (decision.k_used > 0)
          stages::weigh(spec, workspace(experts_), ids(decision.k_used), weights(decision.k_used));
      }
      __syncwarp();
      decision.stats = stats(sums, decision.k_used);
    }
    if (edited) {
      decision.stats.lse = static_cast<float>(native_lse);
      int changed = 0;
      for (int slot = 0; slot < decision.k_used; ++slot) changed += room_.native[room_.ids[slot]] == 0;
      decision.changed = changed;
    }
    return decision;
  }

 private:
  using SoftmaxSums = stages::SoftmaxSums;
  static constexpr float kNever = -INFINITY;

  __device__ static bool first() { return lane() == 0; }
  __device__ std::span<float> real() const { return {room_.z, size_t(experts_)}; }
  __device__ std::span<const ExpertId> ids(int count) const { return {room_.ids, size_t(count)}; }
  __device__ std::span<float> weights(int count) const { return {room_.weights, size_t(count)}; }
  __device__ DecisionSpans spans() const {
    return {{room_.ids, size_t(slots_)}, {room_.weights, size_t(slots_)}, {room_.kinds, size_t(slots_)}, {}, {}};
  }
  __device__ stages::Workspace workspace(int width) const {
    const auto cut = [&](float* data) { return std::span<float>(data, size_t(width)); };
    return {cut(room_.z), cut(room_.scores), cut(room_.keys), cut(room_.native)};
  }
  template <class Body>
  __device__ static void each(int count, Body&& body) {
    for (int e = lane(); e < count; e += kWarp) body(e);
    __syncwarp();
  }
  __device__ void kinds_routed(int count) {
    each(count, [&](int slot) { room_.kinds[slot] = SlotKind::kRouted; });
  }

  __device__ bool copy_clean() {
    bool clean = true;
    each(experts_, [&](int e) {
      room_.z[e] = in_.logits[size_t(e)];
      clean = clean && room_.z[e] < INFINITY;
    });
    if (__all_sync(kAllLanes, clean)) return false;
    if (first()) stages::copy_clean(in_.logits, real());
    __syncwarp();
    return true;
  }

  // exponentials: [count]. The sums are those of stages::softmax_sums().
  __device__ SoftmaxSums softmax(const float* z, int count, float* exponentials) {
    SoftmaxSums sums;
    float top = kNever;
    for (int e = lane(); e < count; e += kWarp) top = z[e] > top ? z[e] : top;
    sums.max = warp_max(top);
    if (sums.empty()) return sums;
    each(count, [&](int e) { exponentials[e] = std::exp(z[e] - sums.max); });
    if (first())
      for (int e = 0; e < count; ++e) stages::include(sums, z[e], exponentials[e]);
    sums.sum = __shfl_sync(kAllLanes, sums.sum, 0);
    sums.weighted = __shfl_sync(kAllLanes, sums.weighted, 0);
    return sums;
  }

  __device__ SoftmaxSums score(const RouterSpec& spec, bool edited) {
    const bool softmax_all = spec.score == ScoreFn::kSoftmaxAll;
    const SoftmaxSums sums = softmax(room_.z, experts_, softmax_all ? room_.scores : room_.work);
    if (sums.empty()) {
      each(experts_, [&](int e) { room_.scores[e] = 0, room_.keys[e] = kNever; });
      return sums;
    }
    const float sum = static_cast<float>(sums.sum);
    const float* edit_bias = edited && (table_.flags & GateFlags::kSelectBias) ? table_.edit_bias : nullptr;
    const bool by_logit = !table_.select_bias && !edit_bias && spec.groups <= 1;
    each(experts_, [&](int e) {
      const float z = room_.z[e];
      const float value = softmax_all                       ? room_.scores[e] / sum
                          : spec.score == ScoreFn::kSigmoid ? stages::sigmoid(z)
                                                            : z;
      room_.scores[e] = value;
      room_.keys[e] = by_logit ? z
                               : stages::selection_key(z, value, table_.select_bias ? table_.select_bias + e : nullptr,
                                                       edit_bias ? edit_bias + e : nullptr);
    });
    if (spec.groups > 1) {
      if (first()) stages::limit_groups(spec, workspace(experts_));
      __syncwarp();
    }
    return sums;
  }

  struct Best {
    float key = INFINITY;
    int id = -1;
  };
  // The largest of keys[0, count) behind `last`, ties to the lower id; kNever: there is none.
  __device__ Best next_best(int count, Best last) const {
    Best best{kNever, count};
    for (int e = lane(); e < count; e += kWarp) {
      const float key = room_.keys[e];
      if ((key < last.key || (key == last.key && e > last.id)) && key > best.key) best = {key, e};
    }
    for (int with = kWarp / 2; with > 0; with /= 2) {
      const float key = __shfl_xor_sync(kAllLanes, best.key, with);
      const int id = __shfl_xor_sync(kAllLanes, best.id, with);
      if (key > best.key || (key == best.key && id < best.id)) best = {key, id};
    }
    return best;
  }

  // The k largest, falling: as stages::select().
  __device__ int select(int count, int k) {
    int used = 0;
    for (Best best; used < k; ++used) {
      best = next_best(count, best);
      if (best.key == kNever) break;
      if (first()) room_.ids[used] = static_cast<ExpertId>(best.id);
    }
    __syncwarp();
    return used;
  }

  // Marks what the model's own router selects; slots may be fewer, so ids are not kept. Returns the lse of its logits.
  __device__ double mark_native(const RouterSpec& spec) {
    const SoftmaxSums sums = score(spec, false);
    each(experts_, [&](int e) { room_.native[e] = 0; });
    Best best;
    for (int turn = 0; turn < table_.native_k; ++turn) {
      best = next_best(experts_, best);
      if (best.key == kNever) break;
      if (first()) room_.native[best.id] = 1;
    }
    __syncwarp();
    return sums.empty() ? 0 : sums.lse();
  }

  __device__ void edit_logits() {
    const auto count = size_t(experts_);
    const stages::LogitEdits edits{span_of(table_.row_scale, count), span_of(table_.logit_bias, count),
                                   table_.temperature, span_of(table_.muted, count)};
    each(experts_, [&](int e) {
      room_.z[e] =
          stages::edited_logit(edits, table_.router_bias ? table_.router_bias[e] : 0.0f, size_t(e), room_.z[e]);
    });
  }

  __device__ DecisionStats stats(const SoftmaxSums& sums, int used) {
    DecisionStats out;
    if (sums.empty()) return out;
    each(experts_, [&](int e) { room_.work[e] = 0; });
    each(used, [&](int slot) { room_.work[room_.ids[slot]] = 1; });
    float highest = kNever;
    for (int e = lane(); e < experts_; e += kWarp)
      if (room_.work[e] == 0 && room_.z[e] > highest) highest = room_.z[e];
    highest = warp_max(highest);
    double mass = 0;
    float lowest = stages::kLargest;
    for (int slot = 0; slot < used; ++slot) {
      const float z = room_.z[room_.ids[slot]];
      mass += std::exp(z - sums.max);
      lowest = z < lowest ? z : lowest;
    }
    out.entropy = static_cast<float>(sums.entropy());
    out.topk_mass = static_cast<float>(std::min(1.0, mass / sums.sum));
    if (highest != kNever && used > 0) out.margin = stages::kept_finite(lowest - highest);
    out.lse = static_cast<float>(sums.lse());
    return out;
  }

  // Lane 0's number, in all lanes, which then see what it wrote: a shuffle alone orders no memory.
  __device__ static int from_first(int value) {
    __syncwarp();
    return __shfl_sync(kAllLanes, value, 0);
  }

  __device__ void edit_by_scheme(const Stages& s) {
    edit_logits();
    const float tau = stages::scheduled_tau(s, in_.index);
    each(experts_, [&](int e) { room_.z[e] = stages::scheme_logit(s, in_, tau, size_t(e), room_.z[e]); });
    each(s.nulls, [&](int j) {
      room_.z[experts_ + j] = s.null_source == NullSource::kCopy ? room_.z[j % experts_] : s.null_logit;
    });
    if (table_.on + table_.off == 0) return;
    const SoftmaxSums sums = softmax(room_.z, width_, room_.work);
    if (first())
      stages::steer(s.steer_margin, {table_.steered, table_.on}, {table_.steered + table_.on, table_.off}, sums,
                    {room_.z, size_t(width_)});
    __syncwarp();
  }

  __device__ SoftmaxSums score_by_scheme(const Stages& s) {
    const bool softmax_all = s.score == SchemeScore::kSoftmax;
    const SoftmaxSums sums = softmax(room_.z, width_, softmax_all ? room_.scores : room_.work);
    if (sums.empty()) {
      each(width_, [&](int e) { room_.scores[e] = 0; });
      return sums;
    }
    double total = sums.sum;
    if (s.score == SchemeScore::kSdm) {
      each(width_, [&](int e) { room_.scores[e] = stages::sdm_exponential(s, room_.z[e], sums.max); });
      total = 0;
      for (int e = 0; e < width_; ++e) total += room_.scores[e];
      __syncwarp();
    }
    each(width_, [&](int e) {
      room_.scores[e] = stages::scheme_score(s.score, room_.z[e], room_.scores[e], static_cast<float>(total));
    });
    return sums;
  }

  __device__ int kept(const Stages& s, int all, double entropy) {
    return from_first(first() ? stages::kept(s, {room_.scores, size_t(width_)}, ids(all), entropy) : 0);
  }

  // Stage 5: how many slots, null slots among them.
  __device__ int select_by_scheme(const Stages& s) {
    const int room = slots_ < width_ ? slots_ : width_, k = table_.k;
    switch (s.selector) {
      case Selector::kTable: {
        const auto rows = table_.columns > 0
                              ? std::span<const ExpertId>(table_.table, size_t(in_.token + 1) * table_.columns)
                              : std::span<const ExpertId>();
        return from_first(
            first() ? stages::select_from_table(rows, table_.columns, s, in_.token, k, real(), spans().ids) : 0);
      }
      case Selector::kRandom: {
        const uint64_t index = s.granularity == Granularity::kToken  ? in_.index
                               : s.granularity == Granularity::kStep ? in_.first_index
                                                                     : 0;
        each(experts_, [&](int e) {
          if (room_.z[e] != kNever)
            room_.keys[e] = static_cast<float>(stages::random_at(s.seed, in_, index, uint32_t(e)));
        });
        return select(experts_, k);
      }
      case Selector::kExpertChoice: {
        const int all = select(experts_, room);
        return from_first(first() ? stages::over_thresholds(span_of(table_.numbers, size_t(experts_)), s.threshold,
                                                            {room_.scores, size_t(width_)}, {room_.ids, size_t(all)})
                                  : 0);
      }
      case Selector::kBest:
      case Selector::kSwitch:
      case Selector::kBalanced:
        return select(experts_, 1);
      case Selector::kTopK:
      case Selector::kRatio:
        return kept(s, select(width_, k < room ? k : room), 0);
      default: {
        const int all = select(width_, room);
        const bool hybrid = s.selector == Selector::kHybrid;
        const double entropy =
            hybrid && first() ? stages::normalised_entropy(s.entropy, s.q, s.eps, {room_.scores, size_t(experts_)}) : 0;
        return kept(s, all, entropy);
      }
    }
  }

  __device__ void decide_by_scheme(const RouterSpec& spec, Decision& decision) {
    Stages s = stages_of(table_);
    edit_by_scheme(s);
    const SoftmaxSums sums = score_by_scheme(s);
    const bool biased = (table_.flags & GateFlags::kSelectBias) != 0;
    each(width_, [&](int e) {
      const float z = room_.z[e];
      room_.keys[e] = z == kNever || !biased ? z : room_.scores[e] + (e < experts_ ? table_.edit_bias[e] : 0.0f);
    });
    int used = select_by_scheme(s);
    if (s.out != OutRule::kSame && !sums.empty()) {
      float best = kNever;
      for (int e = lane(); e < experts_; e += kWarp) best = room_.scores[e] > best ? room_.scores[e] : best;
      if (stages::out_of_distribution(s, warp_max(best))) {
        used = select(experts_, slots_ < width_ ? slots_ : width_);
        s.selector = Selector::kTopP;
        if (s.out == OutRule::kTopP) used = kept(s, used, 0);
      }
    }
    int real_slots = used, with_forced = used;
    if (first()) {
      if (s.nulls > 0) real_slots = stages::nulls_last(size_t(experts_), {room_.ids, size_t(used)});
      for (int slot = 0; slot < real_slots; ++slot) room_.kinds[slot] = SlotKind::kRouted;
      stages::force_slots(span_of(table_.forced, size_t(experts_)), real(), real_slots, spans());
      with_forced = stages::add_by_scheme(s, span_of(table_.logit_bias, size_t(experts_)), real(), real_slots, spans());
      if (with_forced > 0)
        stages::weigh_by_rule(s.weights, spec.scale, real(), {room_.scores, size_t(width_)}, ids(with_forced),
                              weights(with_forced));
    }
    real_slots = from_first(real_slots), with_forced = from_first(with_forced);
    decision.nulls = used - real_slots;
    decision.k_used = with_forced;
    each(decision.nulls, [&](int null) {
      room_.kinds[with_forced + null] = SlotKind::kNull;
      room_.weights[with_forced + null] = 0;
    });
    const SoftmaxSums of_real = s.nulls > 0 ? softmax(room_.z, experts_, room_.work) : sums;
    decision.stats = stats(of_real, decision.k_used);
  }

  // The recorded route of this token; a muted expert never runs.
  __device__ void replay(const RouterSpec& spec, Decision& decision) {
    edit_logits();
    const SoftmaxSums sums = score(spec, true);
    if (first()) {
      const size_t begin = size_t(in_.index) * table_.columns;
      for (size_t slot = begin; slot < begin + table_.columns; ++slot) {
        const SlotKind kind = table_.kinds ? SlotKind(table_.kinds[slot]) : SlotKind::kRouted;
        if (kind == SlotKind::kNull) {
          ++decision.nulls;
          continue;
        }
        const ExpertId id = table_.table[slot];
        if (id == kNoExpert || room_.z[id] == kNever) continue;
        if (table_.numbers) room_.weights[decision.k_used] = table_.numbers[slot];
        room_.ids[decision.k_used] = id;
        room_.kinds[decision.k_used++] = kind;
      }
      if (!table_.numbers && decision.k_used > 0)
        stages::weigh(spec, workspace(experts_), ids(decision.k_used), weights(decision.k_used));
      for (int null = 0; null < decision.nulls; ++null) {
        const int slot = decision.k_used + null;
        room_.ids[slot] = static_cast<ExpertId>(experts_ + null), room_.kinds[slot] = SlotKind::kNull,
        room_.weights[slot] = 0;
      }
    }
    decision.k_used = from_first(decision.k_used), decision.nulls = from_first(decision.nulls);
    decision.stats = stats(sums, decision.k_used);
  }

  const GateTable& table_;
  const GateRoom& room_;
  RouterInput in_;
  int experts_, width_, slots_;
};

// Into the ring, what its layout asks for; the slots in order of selection.
__device__ inline void record(const Ring& ring, uint64_t number, int row, const GateTable& table, const GateRoom& room,
                              const Decision& decision, const float* logits) {
  if (!ring.records) return;
  const RecordLayout& at = ring.layout;
  unsigned char* out = ring.records + size_t(number % ring.tokens) * at.token_bytes() + size_t(row) * at.row_bytes;
  if (lane() == 0) {
    RecordHead head;
    head.stats = decision.stats;
    head.k_used = uint16_t(decision.k_used), head.nulls = uint16_t(decision.nulls),
    head.changed = uint16_t(decision.changed);
    head.had_nan = decision.had_nan, head.epoch = table.epoch, head.written = uint32_t(number) + 1;
    *reinterpret_cast<RecordHead*>(out) = head;
  }
  const int used = decision.k_used + decision.nulls;
  for (int slot = lane(); slot < used; slot += kWarp) {
    if (at.ids) reinterpret_cast<ExpertId*>(out + at.ids)[slot] = room.ids[slot];
    if (at.weights) reinterpret_cast<float*>(out + at.weights)[slot] = room.weights[slot];
    if (at.kinds) out[at.kinds + slot] = uint8_t(room.kinds[slot]);
  }
  if (at.logits)
    for (int e = lane(); e < table.experts; e += kWarp) reinterpret_cast<float*>(out + at.logits)[e] = logits[e];
}

// The executed slots of a token, by rising expert id.
__device__ inline void choose(const Chosen& chosen, int token, const GateTable& table, const GateRoom& room, int used) {
  const auto runs = [&](int slot) {
    return room.kinds[slot] == SlotKind::kRouted || room.kinds[slot] == SlotKind::kForced;
  };
  const bool of_input = table.apply == ApplyTo::kInput;
  const int64_t first = int64_t(token) * chosen.slots;
  int count = 0;
  for (int slot = 0; slot < used; ++slot) count += runs(slot);
  for (int slot = lane(); slot < used; slot += kWarp) {
    if (!runs(slot)) continue;
    int place = 0;
    for (int other = 0; other < used; ++other) place += runs(other) && room.ids[other] < room.ids[slot];
    const ExpertId id = room.ids[slot];
    const float scale = table.output_scale ? table.output_scale[id] : 1.0f, weight = room.weights[slot];
    chosen.experts[first + place] = id;
    chosen.weights[first + place] = of_input ? scale : weight * scale;
    chosen.inputs[first + place] = of_input ? weight : 1.0f;
  }
  if (lane() == 0) chosen.count[token] = count;
}

// One token, by one warp; memory: GateRoom::bytes(width, slots) of shared memory.
__device__ inline void route_token(const StepState& state, const RouteJob& job, int token, float* memory) {
  const GateTable& table = job.tables[job.row];
  const int64_t first = int64_t(token) * table.experts;
  float* logits = job.biased + first;
  for (int e = lane(); e < table.experts; e += kWarp)
    logits[e] = job.logits[first + e] + (table.router_bias ? table.router_bias[e] : 0.0f);
  __syncwarp();
  const GateRoom room = GateRoom::cut(memory, job.width, job.slots);
  RouterInput in;
  in.logits = {logits, size_t(table.experts)};
  in.token = state.tokens[token];
  in.index = uint64_t(state.position + token),
  in.first_index = uint64_t(state.position + token / kBlockTokens * kBlockTokens), in.sequence = state.sequence,
  in.row = job.row;
  const Decision decision = WarpGate(table, room, in).decide();
  record(job.ring, state.record + uint64_t(token), job.row, table, room, decision, logits);
  choose(job.chosen, token, table, room, decision.k_used);
}

}  // namespace switchyard::cuda
