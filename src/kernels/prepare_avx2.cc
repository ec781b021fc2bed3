// Activations to bf16, to int16 blocks and to int8 rows; the same bits as the scalar versions.
#include <immintrin.h>

#include "kernels/int16_scale.h"
#include "kernels/panel_layout.h"

namespace pagemill::avx2 {
namespace {

inline __m256 load_x(const float* p) { return _mm256_loadu_ps(p); }

// Of which `left` values are there, zeros following.
inline __m256 load_left(const float* p, std::int64_t left) {
  if (left >= 8) return load_x(p);
  const __m256i count = _mm256_set1_epi32(left > 0 ? static_cast<int>(left) : 0);
  return _mm256_maskload_ps(p,
                            _mm256_cmpgt_epi32(count, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)));
}

// Rounded to bf16, to nearest even, and widened again.
inline __m256 round_bf16(__m256 x) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  return _mm256_castsi256_ps(_mm256_and_si256(_mm256_blendv_epi8(rounded, quiet, is_nan),
                                              _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
}

inline float max_of(__m256 x) {
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

// Sum of the 16 words.
inline int sum_of(__m256i words) {
  const __m256i wide = _mm256_madd_epi16(words, _mm256_set1_epi16(1));
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

// 16 values times `factor`, rounded to int16, of each 4 the elements 0, 2, 1, 3.
inline __m256i quantize(__m256 low, __m256 high, __m256 factor) {
  const __m256i a = _mm256_cvtps_epi32(_mm256_mul_ps(low, factor));
  const __m256i b = _mm256_cvtps_epi32(_mm256_mul_ps(high, factor));
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
  return _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(words, 0xd8), 0xd8);
}

}  // namespace

void prepare_bf16(const float* x, std::int64_t cols, std::byte* out) {
  auto* const rounded = reinterpret_cast<float*>(out);
  std::int64_t k = 0;
  for (; k + 8 <= cols; k += 8) _mm256_storeu_ps(rounded + k, round_bf16(load_x(x + k)));
  if (k == cols) return;
  float tail[8] = {};
  for (std::int64_t i = k; i < cols; ++i) tail[i - k] = x[i];
  _mm256_storeu_ps(tail, round_bf16(load_x(tail)));
  for (std::int64_t i = k; i < cols + cols % 2; ++i) rounded[i] = tail[i - k];
}

void prepare_q16(const float* x, std::int64_t cols, std::byte* out) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  auto* const blocks = reinterpret_cast<Q16Block*>(out);
  for (std::int64_t b = 0; b < cols / kQuantBlock; ++b) {
    __m256 values[4];
    __m256 largest = _mm256_setzero_ps();
    __m256 unordered = _mm256_setzero_ps();
    for (int i = 0; i < 4; ++i) {
      values[i] = load_x(x + b * kQuantBlock + i * 8);
      largest = _mm256_max_ps(largest, _mm256_andnot_ps(sign, values[i]));
      unordered = _mm256_or_ps(unordered, _mm256_cmp_ps(values[i], values[i], _CMP_UNORD_Q));
    }
    const float max = max_of(largest);
    const bool finite = max <= kInt16MaxFinite && _mm256_movemask_ps(unordered) == 0;
    const __m256 factor = _mm256_set1_ps(int16_factor(max, finite, kQ16Max));
    __m256i q0 = _mm256_setzero_si256();
    __m256i q1 = _mm256_setzero_si256();
    if (finite) {
      q0 = quantize(values[0], values[1], factor);
      q1 = quantize(values[2], values[3], factor);
    }
    Q16Block& block = blocks[b];
    _mm256_store_si256(reinterpret_cast<__m256i*>(block.q), q0);
    _mm256_store_si256(reinterpret_cast<__m256i*>(block.q + 16), q1);
    finish_q16(block, max, finite, sum_of(q0), sum_of(q1));
  }
}

void prepare_int8(const float* x, std::int64_t cols, std::byte* out) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  __m256 largest = _mm256_setzero_ps();
  __m256 unordered = _mm256_setzero_ps();
  for (std::int64_t k = 0; k < cols; k += 8) {
    const __m256 values = load_left(x + k, cols - k);
    largest = _mm256_max_ps(largest, _mm256_andnot_ps(sign, values));
    unordered = _mm256_or_ps(unordered, _mm256_cmp_ps(values, values, _CMP_UNORD_Q));
  }
  const float max = max_of(largest);
  const bool finite = max <= kInt16MaxFinite && _mm256_movemask_ps(unordered) == 0;
  const float scale = int16_scale(max, finite, kInt8Max);
  __builtin_memcpy(out, &scale, sizeof(scale));
  out += kInt8RowQuants;
  const __m256 factor = _mm256_set1_ps(int16_factor(max, finite, kInt8Max));
  for (std::int64_t k = 0; k < cols; k += 16) {
    __m256i words = _mm256_setzero_si256();
    if (finite) {
      words = quantize(load_left(x + k, cols - k), load_left(x + k + 8, cols - k - 8), factor);
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + k * 2), words);
  }
}

}  // namespace pagemill::avx2
