// Products of bf16 matrices by the matrix unit (AMX); all else as in AVX-512. Compiled with those flags and
// entered only where the machine has them.
//
// The unit multiplies bf16 by bf16 and sums in fp32. A float input is cut into three bf16 pieces of eight bits of its
// mantissa each, x = high + middle + low exactly, so every product is exact, as in the other kernels. Weights are read
// where they stand: sixteen rows of thirty-two values are a tile. Every output adds, for one step of columns after the
// other, its high, middle and low products: one fixed order, whatever is computed beside it.
// Operands: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, TDPBF16PS.
#include "engine/backend/cpu/isa.h"
#include "engine/backend/cpu/kernels.h"
#include "engine/backend/cpu/kernels_isa.h"

#include <immintrin.h>

namespace switchyard::cpu {
namespace {

constexpr int64_t kStep = 32;  // columns of a tile
constexpr int64_t kTile = 16;  // rows of a tile, tokens of a block
constexpr int64_t kPieces = 3;
constexpr int64_t kRowsAtOnce = 64;  // weights that stay in the second-level cache while all tokens pass

constexpr int64_t steps_of(int64_t cols) {
  return (cols + kStep - 1) / kStep;
}

// Words of the pieces of `tokens` inputs for one step: [piece][pair of columns][token].
constexpr int64_t step_words(int tokens) {
  return kPieces * kTile * tokens;
}

// ---- inputs ----------------------------------------------------------------------------------------

// rows[i][j] <-> rows[j][i] of 32-bit words.
void transpose(__m512i* rows) {
  __m512i t[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; i += 4) {
    rows[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    rows[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    rows[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    rows[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; i += 8)
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      t[i + j] = _mm512_shuffle_i32x4(rows[i + j], rows[i + j + 4], 0x88);
      t[i + j + 4] = _mm512_shuffle_i32x4(rows[i + j], rows[i + j + 4], 0xdd);
    }
#pragma GCC unroll 8
  for (int j = 0; j < 8; ++j) {
    rows[j] = _mm512_shuffle_i32x4(t[j], t[j + 8], 0x88);
    rows[j + 8] = _mm512_shuffle_i32x4(t[j], t[j + 8], 0xdd);
  }
}

constexpr __mmask16 first_lanes(int64_t n) {
  return n >= 16 ? __mmask16(0xffff) : __mmask16((1u << n) - 1);
}

struct Halves {
  __m512 low, high;
};

__m512 cut(__m512 x) {
  return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(int(0xffff0000))));
}

// What a piece leaves; nothing of an infinity or NaN, which the first piece holds.
__m512 rest(__m512 x, __m512 piece) {
  const __mmask16 finite = _mm512_cmp_ps_mask(_mm512_abs_ps(x), _mm512_set1_ps(__builtin_inff()), _CMP_LT_OQ);
  return _mm512_maskz_sub_ps(finite, x, piece);
}

// The upper halves of thirty-two floats, as sixteen words of two neighbours.
__m512i upper(Halves x) {
  alignas(64) static constexpr uint16_t kOdd[32] = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31,
                                                    33, 35, 37, 39, 41, 43, 45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
  return _mm512_permutex2var_epi16(_mm512_castps_si512(x.low), _mm512_load_si512(kOdd), _mm512_castps_si512(x.high));
}

// Of inputs [0, tokens), at most a block, columns [column, column + kStep).
void pack_step(const float* const* x, int tokens, int64_t column, int64_t cols, uint32_t* out) {
  __m512i pieces[kPieces][kTile];
  const __mmask16 low = first_lanes(cols - column), high = first_lanes(cols - column > 16 ? cols - column - 16 : 0);
  for (int token = 0; token < tokens; ++token) {
    Halves left{_mm512_maskz_loadu_ps(low, x[token] + column), _mm512_maskz_loadu_ps(high, x[token] + column + 16)};
    for (int64_t piece = 0; piece < kPieces; ++piece) {
      const Halves cut_off{cut(left.low), cut(left.high)};
      pieces[piece][token] = upper(cut_off);
      left = {rest(left.low, cut_off.low), rest(left.high, cut_off.high)};
    }
  }
  if (tokens == 1) {
    for (int64_t piece = 0; piece < kPieces; ++piece) _mm512_storeu_si512(out + piece * kTile, pieces[piece][0]);
    return;
  }
  for (int64_t piece = 0; piece < kPieces; ++piece) {
    for (int token = tokens; token < kTile; ++token) pieces[piece][token] = _mm512_setzero_si512();
    transpose(pieces[piece]);
    for (int64_t pair = 0; pair < kTile; ++pair)
      _mm512_mask_storeu_epi32(out + (piece * kTile + pair) * tokens, first_lanes(tokens), pieces[piece][pair]);
  }
}

// ---- products --------------------------------------------------------------------------------------

// A matrix's rows from `first` on, as tiles: in place, but for what ends within a tile.
struct WeightTiles {
  const unsigned char* data;
  int64_t row_bytes, cols, rows;

  struct View {
    const unsigned char* at;
    int64_t stride;
  };
  View tile(int64_t row, int64_t column, unsigned char* room) const {
    const int64_t tall = rows - row < kTile ? rows - row : kTile, wide = cols - column < kStep ? cols - column : kStep;
    const unsigned char* at = data + row * row_bytes + column * 2;
    if (tall == kTile && wide == kStep) return {at, row_bytes};
    __builtin_memset(room, 0, kTile * kStep * 2);
    for (int64_t r = 0; r < tall; ++r) __builtin_memcpy(room + r * kStep * 2, at + r * row_bytes, size_t(wide) * 2);
    return {room, kStep * 2};
  }
};

// Tiles 0 and 1 are sums of one row tile by two blocks of tokens, 4 is weights, 6 and 7 are inputs.
struct alignas(64) Shapes {
  unsigned char palette = 1, start = 0, unused[14] = {};
  uint16_t bytes[16] = {};
  unsigned char rows[16] = {};
};

void shape_tiles(int first_tokens, int second_tokens) {
  Shapes shapes;
  const auto set = [&](int tile, int words) {
    shapes.rows[tile] = kTile;
    shapes.bytes[tile] = uint16_t(words * 4);
  };
  for (const int tile : {0, 6}) set(tile, first_tokens);
  for (const int tile : {1, 7}) set(tile, second_tokens);
  set(4, int(kTile));
  _tile_loadconfig(&shapes);
}

struct Inputs {
  const uint32_t* words;
  int tokens;
};

// Adds or stores what a tile of sums holds: `valid` rows from `row` on of `count` tokens from `token` on.
void put(float* sums, const TokenRows& tokens, int token, int count, int64_t row, int64_t valid) {
  __m512 outputs[kTile];
  if (count == 1) {
    outputs[0] = _mm512_load_ps(sums);
  } else {
    __m512i rows[kTile];
    for (int64_t r = 0; r < kTile; ++r) rows[r] = _mm512_maskz_loadu_epi32(first_lanes(count), sums + r * count);
    transpose(rows);
    for (int i = 0; i < count; ++i) outputs[i] = _mm512_castsi512_ps(rows[i]);
  }
  const __mmask16 lanes = first_lanes(valid);
  for (int i = 0; i < count; ++i) {
    float* out = tokens.out[token + i] + row;
    __m512 value = outputs[i];
    if (tokens.weight)
      value = _mm512_fmadd_ps(value, _mm512_set1_ps(tokens.weight[token + i]), _mm512_maskz_loadu_ps(lanes, out));
    _mm512_mask_storeu_ps(out, lanes, value);
  }
}

// The row tile at `row` times `C` blocks of tokens. Memory is waited for less when the processor is told in time what
// comes: the same rows some lines ahead, then the next ones (reading beyond the matrix does no harm).
template <int C>
void product(const WeightTiles& w, int64_t row, const Inputs* in, const TokenRows& tokens, int token,
             int64_t first_row) {
  constexpr int64_t kAhead = 2048;  // bytes
  alignas(64) unsigned char room[kTile * kStep * 2];
  _tile_zero(0);
  if constexpr (C > 1) _tile_zero(1);
  for (int64_t column = 0, step = 0; column < w.cols; column += kStep, ++step) {
    const int64_t ahead = column * 2 + kAhead;
    const unsigned char* next =
        w.data + row * w.row_bytes + ahead + (ahead >= w.row_bytes ? (kTile - 1) * w.row_bytes : 0);
#pragma GCC unroll 4
    for (int64_t r = 0; r < kTile; ++r) __builtin_prefetch(next + r * w.row_bytes, 0, 3);
    const auto weights = w.tile(row, column, room);
    _tile_loadd(4, weights.at, weights.stride);
#pragma GCC unroll 3
    for (int64_t piece = 0; piece < kPieces; ++piece) {
      const auto words = [&](int block) {
        return in[block].words + (step * kPieces + piece) * kTile * in[block].tokens;
      };
      _tile_loadd(6, words(0), in[0].tokens * 4);
      _tile_dpbf16ps(0, 4, 6);
      if constexpr (C > 1) {
        _tile_loadd(7, words(1), in[1].tokens * 4);
        _tile_dpbf16ps(1, 4, 7);
      }
    }
  }
  alignas(64) float sums[kTile * kTile];
  _tile_stored(0, sums, in[0].tokens * 4);
  put(sums, tokens, token, in[0].tokens, first_row + row, w.rows - row);
  if constexpr (C > 1) {
    _tile_stored(1, sums, in[1].tokens * 4);
    put(sums, tokens, token + int(kTile), in[1].tokens, first_row + row, w.rows - row);
  }
}

}  // namespace

int64_t packed_floats_amx(Stored type, int count, int64_t cols) {
  return type == Stored::kBF16 ? steps_of(cols) * step_words(count) : 0;
}

// [block of tokens][step] of what pack_step() makes.
void pack_amx(const float* const* x, int count, int64_t cols, float* packed) {
  auto* out = reinterpret_cast<uint32_t*>(packed);
  for (int first = 0; first < count; first += kTile) {
    const int tokens = count - first < kTile ? count - first : int(kTile);
    for (int64_t column = 0; column < cols; column += kStep, out += step_words(tokens))
      pack_step(x + first, tokens, column, cols, out);
  }
}

void dot_rows_amx(const Matrix& w, int64_t begin, int64_t end, const TokenRows& tokens) {
  if (w.type != Stored::kBF16) return kAvx512Kernels.dot_rows(w, begin, end, tokens);
  const int64_t row_bytes = w.cols * 2;
  const WeightTiles tiles{w.data + begin * row_bytes, row_bytes, w.cols, end - begin};
  const auto* packed = reinterpret_cast<const uint32_t*>(tokens.packed);
  for (int64_t chunk = 0; chunk < tiles.rows; chunk += kRowsAtOnce) {
    const int64_t chunk_end = tiles.rows - chunk < kRowsAtOnce ? tiles.rows : chunk + kRowsAtOnce;
    for (int token = 0; token < tokens.count; token += 2 * kTile) {
      const auto inputs = [&](int from) {
        const int left = tokens.count - from;
        return Inputs{packed + steps_of(w.cols) * step_words(from), left < 0 ? 0 : left < kTile ? left : int(kTile)};
      };
      const Inputs in[2] = {inputs(token), inputs(token + int(kTile))};
      shape_tiles(in[0].tokens, in[1].tokens > 0 ? in[1].tokens : in[0].tokens);
      for (int64_t row = chunk; row < chunk_end; row += kTile) {
        if (in[1].tokens > 0)
          product<2>(tiles, row, in, tokens, token, begin);
        else
          product<1>(tiles, row, in, tokens, token, begin);
      }
    }
  }
  _tile_release();
}

}  // namespace switchyard::cpu
