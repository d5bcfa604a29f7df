// Each kernel alone against a naive computation in double, over shapes that take its every path (rows that are no
// multiple of 16 bytes, more rows than warps, groups of heads, stretches of keys), with equal bits under every order of
// threads.
#include <cmath>

#include "tests/cuda_on_cpu/numbers.h"

namespace switchyard::cuda::testing {
namespace {

constexpr Stored kTypes[] = {Stored::kF32, Stored::kBF16, Stored::kF16};
constexpr float kEps = 1e-5f;

std::string name(Stored type) {
  return type == Stored::kF32 ? "f32" : type == Stored::kBF16 ? "bf16" : "f16";
}

TEST(ProjectKernel, IsANormAndMatricesTimesAVector) {
  Random random(1);
  for (const Stored type : kTypes)
    for (const int cols : {32, 100, 256, 1032, 2048})
      for (const bool centred : {false, true}) {
        SCOPED_TRACE(name(type) + " cols " + std::to_string(cols));
        const TestMatrix a(19, cols, type, random), b(3, cols, type, random), c(40, cols, type, random);
        const auto x = random.vector(cols, 3), weight = random.vector(cols), shift = random.vector(cols),
                   bias = random.vector(3), columns = random.vector(cols);
        const OnDevice<float> in(x), norm(weight), centre(shift), bias_there(bias), columns_there(columns),
            before(random.vector(62)), normed{size_t(cols)};
        Projection job{.in = in.data(),
                       .cols = cols,
                       .norm = {norm.data(), centred ? centre.data() : nullptr, kEps, centred},
                       .columns = columns_there.data(),
                       .normed = normed.data(),
                       .parts = {a.matrix, b.matrix, c.matrix},
                       .bias = {nullptr, bias_there.data(), nullptr},
                       .count = 3,
                       .adds = true,
                       .factor = 0.5f};
        const auto got = under_all_orders([&] {
          const OnDevice<float> out(before.get());
          job.out = out.data();
          launch_project(stream(), job);
          return out.get();
        });
        std::vector<double> y = doubles(x);
        double mean = 0;
        for (const double value : y) mean += value / cols;
        if (centred)
          for (double& value : y) value -= mean;
        y = rms_normed(y, weight, kEps);
        for (int i = 0; centred && i < cols; ++i) y[size_t(i)] += shift[size_t(i)];
        expect_near(normed.get(), y);
        for (int i = 0; i < cols; ++i) y[size_t(i)] *= columns[size_t(i)];
        std::vector<double> expected = doubles(before.get());
        for (int row = 0; row < 62; ++row)
          expected[size_t(row)] += 0.5 * (row < 19   ? a.dot(row, y)
                                          : row < 22 ? b.dot(row - 19, y) + bias[size_t(row - 19)]
                                                     : c.dot(row - 22, y));
        expect_near(got, expected);
      }
}

TEST(ProjectHeadsKernel, TakesTheRowsOfEachHead) {
  Random random(2);
  struct Case {
    Stored type;
    int tokens, rows, cols;
  };
  std::vector<Case> cases;
  for (const Stored type : kTypes)
    for (const auto& [tokens, rows, cols] : {std::tuple(1, 20, 40), {2, 20, 40}, {33, 16, 128}})
      cases.push_back({type, tokens, rows, cols});
  // On the tensor cores: several tiles of tokens, of rows, ragged ends.
  cases.push_back({Stored::kBF16, 70, 24, 40}), cases.push_back({Stored::kBF16, 5, 130, 36});
  for (const auto& [type, tokens, rows, cols] : cases) {
    const int heads = 3, first = 4, apart = rows + 8, in_step = cols + 12, out_step = rows + 2;
    const TestMatrix matrix(first + heads * apart, cols, type, random);
    const auto x = random.vector(tokens * heads * in_step);
    const OnDevice<float> in(x);
    const auto got = under_all_orders([&] {
      const OnDevice<float> out(std::vector<float>(size_t(tokens * heads * out_step), 7.0f));
      launch_project_heads(stream(),
                           {.in = in.data(),
                            .out = out.data(),
                            .matrix = matrix.matrix,
                            .heads = heads,
                            .rows = rows,
                            .first = first,
                            .rows_apart = apart,
                            .in_step = in_step,
                            .out_step = out_step},
                           tokens);
      return out.get();
    });
    std::vector<double> expected(got.size(), 7.0);
    for (int at = 0; at < tokens * heads; ++at) {
      const std::vector<double> part(x.begin() + at * in_step, x.begin() + at * in_step + cols);
      for (int row = 0; row < rows; ++row)
        expected[size_t(at * out_step + row)] = matrix.dot(first + at % heads * apart + row, part);
    }
    expect_near(got, expected);
  }
}

TEST(EmbedAndNormKernels, TakeRowsAndNormThem) {
  Random random(3);
  for (const Stored type : kTypes) {
    const int cols = 300, tokens = 3;
    const TestMatrix table(11, cols, type, random);
    const OnDevice<int32_t> ids(std::vector<int32_t>{4, 0, 10});
    const OnDevice<StepState> state(std::vector<StepState>{{.count = tokens, .tokens = ids.data()}});
    const auto weight = random.vector(cols);
    const OnDevice<float> norm(weight);
    const auto got = under_all_orders([&] {
      const OnDevice<float> hidden{size_t(tokens * cols)}, normed{size_t(tokens * cols)};
      launch_embed(stream(), state.data(), table.matrix, 2.0f, hidden.data(), tokens);
      launch_norm_rows(stream(), hidden.data(), {.weight = norm.data(), .eps = kEps}, cols, normed.data(), tokens);
      auto out = hidden.get();
      const auto more = normed.get();
      out.insert(out.end(), more.begin(), more.end());
      return out;
    });
    std::vector<double> rows, normed;
    for (const int id : {4, 0, 10}) {
      std::vector<double> row;
      for (int i = 0; i < cols; ++i) row.push_back(2.0 * table.values[size_t(id * cols + i)]);
      rows.insert(rows.end(), row.begin(), row.end());
      row = rms_normed(row, weight, kEps);
      normed.insert(normed.end(), row.begin(), row.end());
    }
    rows.insert(rows.end(), normed.begin(), normed.end());
    expect_near(got, rows);
  }
}

// Keys and values of `blocks` blocks, and the table of them.
struct Keys {
  Keys(int blocks, size_t block_bytes)
      : memory(std::vector<unsigned char>(size_t(blocks) * block_bytes)), table(size_t(blocks)) {
    std::vector<unsigned char*> at;
    for (int i = 0; i < blocks; ++i)
      at.push_back(memory.data() + size_t((i * 5 + 2) % blocks) * block_bytes);  // not in order
    table.set(at);
  }
  OnDevice<unsigned char> memory;
  OnDevice<unsigned char*> table;
};
double stored(Stored type, float value) {
  return type == Stored::kF32 ? value : from_bf16(rounded_bf16(value));
}

struct AttentionCase {
  int heads, kv_heads, dim, position, tokens, splits, window = 0, chunk = 0;
  bool sinks = false;
  int latent = 0;  // > 0: values are the first so many numbers of the keys
};

// finish_heads() fills the cache token by token, then attend() reads it.
void check_attention(const AttentionCase& c, Stored type, QkNorm qk_norm, bool interleaved) {
  SCOPED_TRACE("heads " + std::to_string(c.heads) + "/" + std::to_string(c.kv_heads) + " dim " + std::to_string(c.dim) +
               " position " + std::to_string(c.position) + " splits " + std::to_string(c.splits) + " " + name(type) +
               " norm " + std::to_string(int(qk_norm)));
  Random random(uint32_t(c.heads * 31 + c.dim));
  const int length = c.position + c.tokens, step = (c.heads + 2 * c.kv_heads) * c.dim, pairs = c.dim / 4;
  const size_t part = size_t(c.kv_heads) * kKeyBlock * size_t(c.dim) * size_t(stored_bytes(type));
  const Keys keys((length + kKeyBlock - 1) / kKeyBlock + 1, 3 * part);
  const KeyPlace place{part, 2 * part, c.kv_heads, c.dim, c.dim, type};  // another layer's keys come first
  const auto qkv = random.vector(length * step);
  std::vector<float> cosines, sines;
  for (int p = 0; p < length; ++p)
    for (int i = 0; i < pairs; ++i)
      cosines.push_back(std::cos(0.1f * float(p * (i + 1)))), sines.push_back(std::sin(0.1f * float(p * (i + 1))));
  const bool whole = qk_norm == QkNorm::kFullVector, late = qk_norm == QkNorm::kPerHeadPostRope;
  const auto q_weight = random.vector(whole ? c.heads * c.dim : c.dim),
             k_weight = random.vector(whole ? c.kv_heads * c.dim : c.dim), sinks = random.vector(c.heads);
  const OnDevice<float> rows(qkv), cos_there(cosines), sin_there(sines), q_norm(q_weight), k_norm(k_weight),
      sinks_there(sinks);
  const bool normed = qk_norm != QkNorm::kNone;
  HeadJob job{.step = step,
              .heads = c.heads,
              .place = place,
              .qk_norm = qk_norm,
              .query_norm = {normed ? q_norm.data() : nullptr, nullptr, kEps},
              .key_norm = {normed ? k_norm.data() : nullptr, nullptr, kEps},
              .clip = 2.5f,
              .rope = {cos_there.data(), sin_there.data(), 2 * pairs, interleaved},
              .temperature_floor = 3,
              .temperature_scale = 0.2f};

  // What a query and a key become.
  const auto turned = [&](const float* row, int head, int heads, const std::vector<float>& weight, int position) {
    std::vector<double> x(row + head * c.dim, row + (head + 1) * c.dim);
    const auto norm = [&] {
      const std::vector<double> over = whole ? std::vector<double>(row, row + heads * c.dim) : x;
      double squares = 0;
      for (const double value : over) squares += value * value;
      for (int i = 0; i < c.dim; ++i)
        x[size_t(i)] *= weight[size_t(whole ? head * c.dim + i : i)] / std::sqrt(squares / double(over.size()) + kEps);
    };
    if (normed && !late) norm();
    for (double& value : x) value = std::clamp(value, -2.5, 2.5);
    for (int i = 0; i < pairs; ++i) {
      double &a = x[size_t(interleaved ? 2 * i : i)], &b = x[size_t(interleaved ? 2 * i + 1 : i + pairs)];
      const double cosine = cosines[size_t(position * pairs + i)], sine = sines[size_t(position * pairs + i)],
                   before = a;
      a = a * cosine - b * sine, b = b * cosine + before * sine;
    }
    if (normed && late) norm();
    return x;
  };

  std::vector<float> queries;
  constexpr int kShared = 9;  // how far back shares are asked for
  const auto got = under_all_orders([&] {
    const OnDevice<float> all_queries{size_t(length * c.heads * c.dim)};
    const OnDevice<StepState> fill(
        std::vector<StepState>{{.position = 0, .count = length, .blocks = keys.table.data()}});
    job.qkv = rows.data(), job.queries = all_queries.data();
    launch_finish_heads(stream(), fill.data(), job, length);
    queries = all_queries.get();
    const OnDevice<StepState> state(
        std::vector<StepState>{{.position = c.position, .count = c.tokens, .blocks = keys.table.data()}});
    const OnDevice<float> out{size_t(c.tokens * c.heads * c.dim)}, partial{size_t(c.heads * c.splits * (c.dim + 2))};
    const OnDevice<unsigned> arrived(std::vector<unsigned>(size_t(c.heads * c.tokens)));
    const AttendJob attention{.queries = all_queries.data() + c.position * c.heads * c.dim,
                              .out = out.data(),
                              .heads = c.heads,
                              .place = place,
                              .scale = 0.3f,
                              .window = c.window,
                              .chunk = c.chunk,
                              .sinks = c.sinks ? sinks_there.data() : nullptr,
                              .partial = partial.data(),
                              .arrived = arrived.data()};
    launch_attend(stream(), state.data(), attention, c.splits, c.tokens);
    for (const unsigned left : arrived.get()) EXPECT_EQ(left, 0u);  // ready for the next launch
    const OnDevice<float> shares{size_t(c.tokens * kShared)};
    launch_attend_shares(stream(), state.data(), attention, kShared, shares.data(), c.tokens);
    auto all = out.get();
    const auto more = shares.get();
    all.insert(all.end(), more.begin(), more.end());
    return all;
  });

  std::vector<double> expected, expected_queries;
  for (int t = 0; t < length; ++t)
    for (int head = 0; head < c.heads; ++head)
      for (const double value : turned(qkv.data() + t * step, head, c.heads, q_weight, t))
        expected_queries.push_back(value * (1 + 0.2 * std::log1p(std::floor((t + 1) / 3.0))));
  expect_near(queries, expected_queries);
  std::vector<double> shares(size_t(c.tokens * kShared));
  for (int t = c.position; t < length; ++t)
    for (int head = 0; head < c.heads; ++head) {
      const int kv_head = head / (c.heads / c.kv_heads);
      const int first = std::max({0, c.window > 0 ? t - c.window + 1 : 0, c.chunk > 0 ? t - t % c.chunk : 0});
      double sum = c.sinks ? std::exp(double(sinks[size_t(head)])) : 0;
      std::vector<double> value(static_cast<size_t>(c.dim)), weights;
      for (int key = first; key <= t; ++key) {
        const float* row = qkv.data() + key * step;
        const auto k = turned(row + c.heads * c.dim, kv_head, c.kv_heads, k_weight, key);
        double score = 0;
        for (int d = 0; d < c.dim; ++d)
          score += 0.3 * queries[size_t((t * c.heads + head) * c.dim + d)] * stored(type, float(k[size_t(d)]));
        sum += std::exp(score);
        weights.push_back(std::exp(score));
        for (int d = 0; d < c.dim; ++d)
          value[size_t(d)] += std::exp(score) *
                              stored(type, std::clamp(row[(c.heads + c.kv_heads + kv_head) * c.dim + d], -2.5f, 2.5f));
      }
      for (const double v : value) expected.push_back(v / sum);
      for (int o = 0; o < kShared && o <= t - first; ++o)
        shares[size_t((t - c.position) * kShared + o)] += weights[size_t(t - first - o)] / sum / c.heads;
    }
  expected.insert(expected.end(), shares.begin(), shares.end());
  // A key near the middle of two bf16 numbers may be rounded to the other one.
  expect_near(got, expected, type == Stored::kF32 ? 5e-5 : 3e-3);
}

TEST(AttentionKernels, FillTheCacheAndMixValuesAsANaiveSoftmax) {
  for (const Stored type : {Stored::kF32, Stored::kBF16}) {
    check_attention({.heads = 4, .kv_heads = 2, .dim = 32, .position = 150, .tokens = 1, .splits = 5}, type,
                    QkNorm::kPerHead, false);
    check_attention({.heads = 9, .kv_heads = 1, .dim = 24, .position = 0, .tokens = 3, .splits = 1}, type,
                    QkNorm::kNone, true);
    check_attention({.heads = 4, .kv_heads = 4, .dim = 64, .position = 70, .tokens = 1, .splits = 32, .window = 20},
                    type, QkNorm::kFullVector, false);
    check_attention({.heads = 20, .kv_heads = 2, .dim = 40, .position = 33, .tokens = 2, .splits = 1, .chunk = 16},
                    type, QkNorm::kPerHeadPostRope, false);
    check_attention({.heads = 2, .kv_heads = 1, .dim = 128, .position = 66, .tokens = 1, .splits = 3, .sinks = true},
                    type, QkNorm::kPerHead, true);
    check_attention(
        {.heads = 5, .kv_heads = 1, .dim = 200, .position = 5, .tokens = 1, .splits = 2, .window = 3, .sinks = true},
        type, QkNorm::kNone, false);
    check_attention({.heads = 3, .kv_heads = 1, .dim = 576, .position = 9, .tokens = 1, .splits = 2}, type,
                    QkNorm::kNone, false);
  }
}

// Latents: keys hold the values; against the same through one head of everything.
TEST(AttentionKernels, LatentsAreKeysWhoseFirstNumbersAreTheValues) {
  Random random(5);
  for (const Stored type : {Stored::kF32, Stored::kBF16})
    for (const auto& [latent, rope_dims] : {std::pair(24, 8), {512, 64}}) {
      const int heads = 5, nope = 16, dim = latent + rope_dims, tokens = 3, pairs = rope_dims / 2,
                query_dim = nope + rope_dims;
      const auto first = random.vector(tokens * dim), weight = random.vector(latent),
                 queries = random.vector(tokens * heads * query_dim), absorbed = random.vector(tokens * heads * dim);
      std::vector<float> cosines, sines;
      for (int p = 0; p < 8; ++p)
        for (int i = 0; i < pairs; ++i)
          cosines.push_back(std::cos(float(p) / float(i + 1))), sines.push_back(std::sin(float(p) / float(i + 1)));
      const size_t bytes = size_t(kKeyBlock * dim * stored_bytes(type));
      const Keys keys(1, bytes);
      const KeyPlace place{0, 0, 1, dim, latent, type};
      const OnDevice<float> first_there(first), norm(weight), cos_there(cosines), sin_there(sines), scores(absorbed);
      const OnDevice<StepState> state(
          std::vector<StepState>{{.position = 0, .count = tokens, .blocks = keys.table.data()}});
      const auto got = under_all_orders([&] {
        const OnDevice<float> query(queries), rows(absorbed), out{size_t(tokens * heads * latent)};
        launch_finish_latents(stream(), state.data(),
                              {.first = first_there.data(),
                               .step = dim,
                               .queries = query.data(),
                               .absorbed = rows.data(),
                               .heads = heads,
                               .nope = nope,
                               .rope_dims = rope_dims,
                               .place = place,
                               .latent_norm = {norm.data(), nullptr, kEps},
                               .rope = {cos_there.data(), sin_there.data(), rope_dims, true},
                               .query_scale = 1.5f,
                               .latent_scale = 0.5f},
                              tokens);
        launch_attend(stream(), state.data(),
                      {.queries = rows.data(), .out = out.data(), .heads = heads, .place = place, .scale = 0.2f}, 1,
                      tokens);
        return out.get();
      });
      const auto rotated = [&](std::vector<double> x, int position) {
        for (int i = 0; i < pairs; ++i) {
          const double c = cosines[size_t(position * pairs + i)], s = sines[size_t(position * pairs + i)],
                       a = x[size_t(2 * i)], b = x[size_t(2 * i + 1)];
          x[size_t(2 * i)] = a * c - b * s, x[size_t(2 * i + 1)] = b * c + a * s;
        }
        return x;
      };
      std::vector<std::vector<double>> key;
      for (int t = 0; t < tokens; ++t) {
        auto row = rms_normed({first.begin() + t * dim, first.begin() + t * dim + latent}, weight, kEps);
        for (double& value : row) value *= 0.5;
        for (const double value : rotated({first.begin() + t * dim + latent, first.begin() + (t + 1) * dim}, t))
          row.push_back(value);
        for (double& value : row) value = stored(type, float(value));
        key.push_back(row);
      }
      std::vector<double> expected;
      for (int t = 0; t < tokens; ++t)
        for (int head = 0; head < heads; ++head) {
          const int at = t * heads + head;
          std::vector<double> q(absorbed.begin() + at * dim, absorbed.begin() + at * dim + latent),
              turned(queries.begin() + at * query_dim + nope, queries.begin() + (at + 1) * query_dim);
          for (double& value : turned) value *= 1.5;
          for (const double value : rotated(turned, t)) q.push_back(value);
          double sum = 0;
          std::vector<double> value(static_cast<size_t>(latent));
          for (int k = 0; k <= t; ++k) {
            double score = 0;
            for (int d = 0; d < dim; ++d) score += 0.2 * q[size_t(d)] * key[size_t(k)][size_t(d)];
            sum += std::exp(score);
            for (int d = 0; d < latent; ++d) value[size_t(d)] += std::exp(score) * key[size_t(k)][size_t(d)];
          }
          for (const double v : value) expected.push_back(v / sum);
        }
      expect_near(got, expected, type == Stored::kF32 ? 5e-5 : 3e-3);
    }
}

}  // namespace
}  // namespace switchyard::cuda::testing
