// The arithmetic of the cpu backend, one table of functions per instruction set. The kernels' own
// translation units include it under their own compiler flags, so it holds no standard template.
// Called by the engine thread and the pool's workers; kernels keep no state.
//
// Order of sums: every output of dot_rows() and every attention state is computed by one fixed order
// of additions that depends on nothing but its own inputs, never on how many rows or tokens are done
// together. So a token's numbers are the same bit for bit in decode and in prefill, for every chunking
// and every number of threads (but differ between instruction sets in the last bits).
#pragma once

#include <cstdint>

namespace switchyard::cpu {

enum class Isa;

// Elements stored one by one, or in blocks along the columns whose values are made as they are multiplied: each is the
// product that WeightStore::read() gives, rounded as there.
enum class Stored : uint8_t {
  kF32,
  kBF16,
  kF16,
  kQ8_0,       // GGUF: 32 in 34 bytes
  kQ4_K,       // GGUF: 256 in 144 bytes
  kMxfp4,      // GGUF: 32 in 17 bytes, the exponent first
  kMxfp4Apart,  // 32 in 16 bytes, neighbours in a byte; exponents apart
  kFp8,        // E4M3; fp32 scales apart
};

struct StoredBlock {
  int elements, bytes;
};
constexpr StoredBlock stored_block(Stored type) {
  switch (type) {
    case Stored::kF32:
      return {1, 4};
    case Stored::kBF16:
    case Stored::kF16:
      return {1, 2};
    case Stored::kQ8_0:
      return {32, 34};
    case Stored::kQ4_K:
      return {256, 144};
    case Stored::kMxfp4:
      return {32, 17};
    case Stored::kMxfp4Apart:
      return {32, 16};
    case Stored::kFp8:
      return {16, 16};  // as many as a vector holds; stored one by one
  }
  return {1, 4};
}

// A row-major matrix as the file holds it; `data` need not be aligned. cols are whole blocks.
struct Matrix {
  const unsigned char* data = nullptr;
  Stored type = Stored::kF32;
  int64_t rows = 0, cols = 0;
  int64_t apart = 0;  // bytes from one row to the next; 0: they stand end to end
  // kMxfp4Apart: exponents, a byte a block. kFp8: floats, one for 2^scale_shift columns. Rows that share scales:
  // scale_rows; bytes from the scales of some rows to the next ones': scales_apart.
  const unsigned char* scales = nullptr;
  int64_t scales_apart = 0, scale_rows = 1;
  int scale_shift = 0;
};
constexpr int64_t row_bytes(const Matrix& m) {
  return m.apart > 0 ? m.apart : m.cols / stored_block(m.type).elements * stored_block(m.type).bytes;
}
constexpr int64_t plain_bytes(Stored type, int64_t elements) {  // of types stored one by one
  return elements * stored_block(type).bytes;
}
// The narrowest plain type that holds every value.
constexpr Stored plain(Stored type) {
  if (type == Stored::kMxfp4 || type == Stored::kMxfp4Apart) return Stored::kBF16;
  return stored_block(type).elements == 1 ? type : Stored::kF32;
}
// Rows [first, first + count) as a matrix; first must begin a group of rows that share scales.
constexpr Matrix rows_of(const Matrix& m, int64_t first, int64_t count) {
  Matrix out = m;
  out.data += first * row_bytes(m);
  if (m.scales) out.scales += first / m.scale_rows * m.scales_apart;
  out.rows = count;
  return out;
}

// Tokens that share a weight matrix.
struct TokenRows {
  int count = 0;
  const float* const* x = nullptr;  // [count] inputs of cols values
  float* const* out = nullptr;      // [count] outputs, indexed by absolute row
  const float* weight = nullptr;    // absent: out[t][r] = dot; else out[t][r] += weight[t] * dot
  const float* packed = nullptr;    // x as pack() made it, where packed_floats() is not 0
};

enum class Unit : uint8_t { kSilu, kGelu, kGeluTanh, kRelu };

inline constexpr int kPackedTokens = 16;  // inputs that pack() interleaves
inline constexpr int kRowMultiple = 16;   // rows [begin, end) of dot_rows are quickest at multiples of this

inline constexpr int kKeyBlock = 64;    // keys of one attention block
inline constexpr int kKeyGroup = 16;    // keys interleaved in the key store: [group][head_dim][kKeyGroup]
inline constexpr int kMaxQueries = 64;  // queries of one attend() call

// Queries that share keys and values of one kv head (grouped heads, neighbouring tokens).
struct Queries {
  int count = 0;                    // <= kMaxQueries
  const float* const* q = nullptr;  // [count] of head_dim
  const int* first = nullptr;       // [count] first visible key of the block
  const int* last = nullptr;        // [count] one past the last visible key of the block
  float scale = 1;                  // multiplies q.k
};

// Online softmax of `count` queries: largest score, sum of exponentials, weighted values [count, head_dim].
struct AttentionState {
  float* largest = nullptr;
  float* sum = nullptr;
  float* values = nullptr;
};

struct Kernels {
  Isa isa;

  // Rows [begin, end) of W x for every token.
  void (*dot_rows)(const Matrix& w, int64_t begin, int64_t end, const TokenRows& tokens);

  // out[i] = unit(scale * gate[i]) * (scale * up[i]).
  void (*glu)(Unit unit, const float* gate, const float* up, float scale, float* out, int64_t n);

  // gpt-oss: g = min(gate, limit), u = clamp(up, -limit, limit); out[i] = (u + 1) * g * sigmoid(alpha * g).
  void (*glu_oss)(const float* gate, const float* up, float limit, float alpha, float* out, int64_t n);

  // out[i] = unit(scale * x[i]); out may be x.
  void (*activate)(Unit unit, const float* x, float scale, float* out, int64_t n);

  // values[i] *= sigmoid(gates[i]).
  void (*sigmoid_gate)(const float* gates, float* values, int64_t n);

  // out[i] = x[i] / sqrt(mean(x^2) + eps) * weight[i]; out may be x.
  void (*rms_norm)(const float* x, const float* weight, float eps, float* out, int64_t n);

  // out[i] = (x[i] - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) * weight[i] + bias[i]; out may be x.
  void (*layer_norm)(const float* x, const float* weight, const float* bias, float eps, float* out, int64_t n);

  // Takes one block of keys [kKeyBlock / kKeyGroup][head_dim][kKeyGroup] and values [kKeyBlock][head_dim]
  // into the state. scores: kMaxQueries * kKeyBlock floats of the calling thread.
  void (*attend)(const Queries& queries, const float* keys, const float* values, int head_dim, AttentionState state,
                 float* scores);

  // The same where a key's value is its own first `rank` dimensions; state.values [count, rank] with rank
  // rounded up to kKeyGroup.
  void (*attend_latent)(const Queries& queries, const float* keys, int head_dim, int rank, AttentionState state,
                        float* scores);

  // out[c] = element c of a row as float.
  void (*load_row)(const Matrix& w, int64_t row, float* out);

  // Floats of room, on a cache line, for `count` inputs of dot_rows with a matrix of this type, in the order it reads
  // them; 0: it reads them as they are. In proportion to count, so that blocks of kPackedTokens may be packed apart.
  int64_t (*packed_floats)(Stored type, int count, int64_t cols);
  void (*pack)(const float* const* x, int count, int64_t cols, float* packed);
};

const Kernels& kernels(Isa isa);

}  // namespace switchyard::cpu
