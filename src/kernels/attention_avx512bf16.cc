// What kAvx512Bf16 does unlike kAvx512: everything that touches bf16.
#include "kernels/vec_avx512.h"
// Written over the Vec above.
#include "kernels/attention_generic.h"

namespace pagemill::avx512bf16 {
namespace {

inline __m512bh as_bf16(__m512i x) { return reinterpret_cast<__m512bh>(x); }

inline __m512i splat_pair(const std::uint16_t* pair) {
  std::int32_t bits;
  __builtin_memcpy(&bits, pair, sizeof(bits));
  return _mm512_set1_epi32(bits);
}

// Queries and weights are rounded to bf16 too: VDPBF16PS multiplies pairs and adds in f32.
struct Bf16 {
  static constexpr int kPack = 2;
  static constexpr int kScoreRows = 8;
  static constexpr int kScoreTiles = 2;
  static constexpr int kValueRows = 4;
  static constexpr int kValueVecs = 4;
  using Elem = std::uint16_t;
  using KStep = __m512i;
  using VStep = __m512i;

  static void store_elems(Elem* p, Vec a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(a.v)));
  }
  static KStep load_k(const std::byte* p) { return _mm512_loadu_si512(p); }
  static Vec dot(Vec acc, KStep k, const Elem* q) {
    return {_mm512_dpbf16_ps(acc.v, as_bf16(k), as_bf16(splat_pair(q)))};
  }
  static VStep load_v(const std::byte* p) { return _mm512_loadu_si512(p); }
  static VStep load_v_part(const std::byte* p, int lanes, bool use_first, bool use_second) {
    const int keep = (use_first ? 0xffff : 0) | (use_second ? static_cast<int>(0xffff0000u) : 0);
    return _mm512_and_si512(_mm512_maskz_loadu_epi32(first_lanes(lanes), p),
                            _mm512_set1_epi32(keep));
  }
  static Vec add_v(Vec acc, VStep v, const Elem* w) {
    return {_mm512_dpbf16_ps(acc.v, as_bf16(v), as_bf16(splat_pair(w)))};
  }
};

}  // namespace

void attend_bf16(const AttentionTask& task, int begin, int end, const AttentionPartial& to) {
  attend<Bf16>(task, begin, end, to);
}

void to_bf16(const float* x, int n, std::uint16_t* y) {
  for (int i = 0; i < n; i += kLanes) {
    const int lanes = int_min(n - i, kLanes);
    const __m256bh rounded = _mm512_cvtneps_pbh(load_first(x + i, lanes).v);
    _mm256_mask_storeu_epi16(y + i, first_lanes(lanes), reinterpret_cast<__m256i>(rounded));
  }
}

}  // namespace pagemill::avx512bf16
