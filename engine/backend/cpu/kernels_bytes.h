// Sixteen stored bytes at a time, alike for AVX2 and AVX-512. Only for those kernels, inside their namespace.

inline float half_at(const unsigned char* p) {
  uint16_t bits;
  __builtin_memcpy(&bits, p, sizeof(bits));
  return _cvtsh_ss(bits);
}

// The low or the high nibble of every byte.
inline __m128i nibbles_of(__m128i bytes, bool high) {
  return _mm_and_si128(high ? _mm_srli_epi16(bytes, 4) : bytes, _mm_set1_epi8(15));
}

// Twice the values of E2M1.
inline __m128i doubled_fp4(__m128i nibbles) {
  return _mm_shuffle_epi8(_mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12), nibbles);
}

// The two values of every one of the lower eight bytes, low nibble first.
inline __m128i doubled_fp4_pairs(__m128i bytes) {
  return doubled_fp4(_mm_unpacklo_epi8(nibbles_of(bytes, false), nibbles_of(bytes, true)));
}

// E4M3 but its NaN, as the bits of halves 256 times too small, whose conversion is as quick for subnormal numbers.
inline __m128i size_of_e4m3(__m128i bytes) { return _mm_and_si128(bytes, _mm_set1_epi8(0x7f)); }
inline __m128i sign_of_e4m3(__m128i bytes) { return _mm_andnot_si128(_mm_set1_epi8(0x7f), bytes); }
