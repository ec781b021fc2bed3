// Activations to bf16, to int16 blocks and to int8 rows; the same bits as the scalar versions.
#include <immintrin.h>

#include "kernels/int16_scale.h"
#include "kernels/panel_layout.h"
#include "kernels/round_avx512.h"

namespace pagemill::avx512 {
namespace {

// 16 values as int16, of each 4 the elements 0, 2, 1, 3.
inline void store_q(std::int16_t* out, __m512i values) {
  const __m256i words = _mm512_cvtepi32_epi16(values);
  const __m256i ordered = _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(words, 0xd8), 0xd8);
  _mm256_store_si256(reinterpret_cast<__m256i*>(out), ordered);
}

inline __m512 load_left(const float* x, std::int64_t left) {
  const unsigned lanes = left >= 16 ? 0xffffu : left > 0 ? (1u << left) - 1 : 0u;
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>(lanes), x);
}

// Writes `size` int16 (a multiple of 16) and returns their scale; `left` values are there, zeros
// follow.
inline float quantize_block(const float* x, std::int64_t left, std::int64_t size, std::byte* q) {
  __m512 largest = _mm512_setzero_ps();
  __mmask16 unordered = 0;
  for (std::int64_t i = 0; i < size; i += 16) {
    const __m512 values = load_left(x + i, left - i);
    largest = _mm512_max_ps(largest, _mm512_abs_ps(values));
    unordered |= _mm512_cmp_ps_mask(values, values, _CMP_UNORD_Q);
  }
  const float max = _mm512_reduce_max_ps(largest);
  const bool finite = max <= kInt16MaxFinite && unordered == 0;
  const __m512 factor = _mm512_set1_ps(int16_factor(max, finite, kFixedMax));
  const auto keep = static_cast<__mmask16>(finite ? 0xffff : 0);
  for (std::int64_t i = 0; i < size; i += 16) {
    const __m512 scaled = _mm512_maskz_mul_ps(keep, load_left(x + i, left - i), factor);
    const __m256i words = _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(scaled));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(q + i * 2), words);
  }
  return int16_scale(max, finite, kFixedMax);
}

}  // namespace

void quantize_fixed16_weights(const float* x, std::int64_t cols, std::byte* out) {
  for (std::int64_t at = 0; at < cols; at += kFixedBlock, out += kFixedBlock * 2 + 4) {
    const float scale = quantize_block(x + at, cols - at, kFixedBlock, out);
    __builtin_memcpy(out + kFixedBlock * 2, &scale, sizeof(scale));
  }
}

void prepare_fixed16(const float* x, std::int64_t cols, std::byte* out) {
  auto* scale = reinterpret_cast<float*>(out + fixed_padded_cols(cols) * 2);
  std::int64_t at = 0;
  for (; cols - at > kFixedHalf; at += kFixedBlock) {
    *scale++ = quantize_block(x + at, cols - at, kFixedBlock, out + at * 2);
  }
  if (at < cols) *scale = quantize_block(x + at, cols - at, kFixedHalf, out + at * 2);
}

void prepare_bf16_pairs(const float* x, std::int64_t cols, std::byte* out) {
  for (std::int64_t k = 0; k < cols; k += 16) {
    const std::int64_t left = cols - k < 16 ? cols - k : 16;
    const auto mask = static_cast<__mmask16>((1u << left) - 1);
    const auto padded = static_cast<__mmask16>((1u << (left + left % 2)) - 1);
    const __m512i rounded = _mm512_castps_si512(round_bf16(_mm512_maskz_loadu_ps(mask, x + k)));
    _mm512_mask_cvtepi32_storeu_epi16(out + k * 2, padded, _mm512_srli_epi32(rounded, 16));
  }
}

void prepare_q16(const float* x, std::int64_t cols, std::byte* out) {
  auto* const blocks = reinterpret_cast<Q16Block*>(out);
  for (std::int64_t b = 0; b < cols / kQuantBlock; ++b) {
    const __m512 x0 = _mm512_loadu_ps(x + b * kQuantBlock);
    const __m512 x1 = _mm512_loadu_ps(x + b * kQuantBlock + 16);
    const float max = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(x0), _mm512_abs_ps(x1)));
    const bool finite = max <= kInt16MaxFinite && _mm512_cmp_ps_mask(x0, x1, _CMP_UNORD_Q) == 0;
    Q16Block& block = blocks[b];
    const auto keep = static_cast<__mmask16>(finite ? 0xffff : 0);
    const __m512 factor = _mm512_set1_ps(int16_factor(max, finite, kQ16Max));
    const __m512i q0 = _mm512_cvtps_epi32(_mm512_maskz_mul_ps(keep, x0, factor));
    const __m512i q1 = _mm512_cvtps_epi32(_mm512_maskz_mul_ps(keep, x1, factor));
    store_q(block.q, q0);
    store_q(block.q + 16, q1);
    finish_q16(block, max, finite, _mm512_reduce_add_epi32(q0), _mm512_reduce_add_epi32(q1));
  }
}

void prepare_int8(const float* x, std::int64_t cols, std::byte* out) {
  __m512 largest = _mm512_setzero_ps();
  __mmask16 unordered = 0;
  for (std::int64_t k = 0; k < cols; k += 16) {
    const __m512 values = load_left(x + k, cols - k);
    largest = _mm512_max_ps(largest, _mm512_abs_ps(values));
    unordered |= _mm512_cmp_ps_mask(values, values, _CMP_UNORD_Q);
  }
  const float max = _mm512_reduce_max_ps(largest);
  const bool finite = max <= kInt16MaxFinite && unordered == 0;
  const float scale = int16_scale(max, finite, kInt8Max);
  __builtin_memcpy(out, &scale, sizeof(scale));
  out += kInt8RowQuants;
  const __m512 factor = _mm512_set1_ps(int16_factor(max, finite, kInt8Max));
  const auto keep = static_cast<__mmask16>(finite ? 0xffff : 0);
  for (std::int64_t k = 0; k < cols; k += 16) {
    const std::int64_t left = int8_lines(cols) * 4 - k;
    const auto lanes = static_cast<__mmask16>(left >= 16 ? 0xffff : (1u << left) - 1);
    const __m512 scaled = _mm512_maskz_mul_ps(keep, load_left(x + k, cols - k), factor);
    const __m512i q = _mm512_add_epi32(_mm512_cvtps_epi32(scaled), _mm512_set1_epi32(128));
    _mm512_mask_cvtepi32_storeu_epi8(out + k, lanes, q);
  }
}

}  // namespace pagemill::avx512
