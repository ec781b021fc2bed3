// Activations to bf16 and to int16 blocks; the same bits as the scalar versions.
#include <immintrin.h>

#include "kernels/panel_layout.h"
#include "kernels/q16_finish.h"
#include "kernels/round_avx512.h"

namespace pagemill::avx512 {
namespace {

// 16 values as int16, of each 4 the elements 0, 2, 1, 3.
inline void store_q(std::int16_t* out, __m512i values) {
  const __m256i words = _mm512_cvtepi32_epi16(values);
  const __m256i ordered = _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(words, 0xd8), 0xd8);
  _mm256_store_si256(reinterpret_cast<__m256i*>(out), ordered);
}

}  // namespace

void prepare_bf16(const float* x, std::int64_t cols, std::byte* out) {
  auto* const rounded = reinterpret_cast<float*>(out);
  std::int64_t k = 0;
  for (; k + 16 <= cols; k += 16) _mm512_storeu_ps(rounded + k, round_bf16(_mm512_loadu_ps(x + k)));
  const std::int64_t left = cols - k;
  if (left == 0) return;
  const auto mask = static_cast<__mmask16>((1u << left) - 1);
  const auto padded = static_cast<__mmask16>((1u << (left + left % 2)) - 1);
  _mm512_mask_storeu_ps(rounded + k, padded, round_bf16(_mm512_maskz_loadu_ps(mask, x + k)));
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
    const bool finite = max <= kQ16MaxFinite && _mm512_cmp_ps_mask(x0, x1, _CMP_UNORD_Q) == 0;
    Q16Block& block = blocks[b];
    const auto keep = static_cast<__mmask16>(finite ? 0xffff : 0);
    const __m512 factor = _mm512_set1_ps(q16_factor(max, finite));
    const __m512i q0 = _mm512_cvtps_epi32(_mm512_maskz_mul_ps(keep, x0, factor));
    const __m512i q1 = _mm512_cvtps_epi32(_mm512_maskz_mul_ps(keep, x1, factor));
    store_q(block.q, q0);
    store_q(block.q + 16, q1);
    finish_q16(block, max, finite, _mm512_reduce_add_epi32(q0), _mm512_reduce_add_epi32(q1));
  }
}

}  // namespace pagemill::avx512
