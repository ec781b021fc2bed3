// Rounding to bf16 where the CPU may lack AVX-512 BF16, and where subnormals must stay:
// VCVTNEPS2BF16 flushes them. Include after <immintrin.h>.
#pragma once

namespace pagemill {
namespace {

// Rounded to bf16, to nearest even, and widened again; NaN stays NaN.
inline __m512 round_bf16(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  const __m512i quiet = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x400000));
  return _mm512_castsi512_ps(
      _mm512_and_si512(quiet, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
}

}  // namespace
}  // namespace pagemill
