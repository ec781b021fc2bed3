#include "kernels/vec_avx512.h"
// Written over the Vec above.
#include "kernels/attention_generic.h"
#include "kernels/round_avx512.h"

namespace pagemill {
namespace {

// 16 lanes of two numbers each, widened to f32.
struct Pairs {
  Vec first;
  Vec second;
};

inline Pairs widen(__m512i pairs) {
  const __m512i high = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  return {{_mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16))},
          {_mm512_castsi512_ps(_mm512_and_si512(pairs, high))}};
}

inline Vec fma_pairs(Vec acc, const Pairs& pairs, const float* by) {
  return fma(pairs.second, splat(by[1]), fma(pairs.first, splat(by[0]), acc));
}

// Keys and values are widened, once for all rows of a tile; queries and weights stay f32.
struct Bf16 {
  static constexpr int kPack = 2;
  static constexpr int kScoreRows = 8;
  static constexpr int kScoreTiles = 2;
  static constexpr int kValueRows = 8;
  static constexpr int kValueVecs = 2;
  using Elem = float;
  using KStep = Pairs;
  using VStep = Pairs;

  static void store_elems(Elem* p, Vec a) { store(p, a); }
  static KStep load_k(const std::byte* p) { return widen(_mm512_loadu_si512(p)); }
  static Vec dot(Vec acc, const KStep& k, const Elem* q) { return fma_pairs(acc, k, q); }
  static VStep load_v(const std::byte* p) { return load_k(p); }
  static VStep load_v_part(const std::byte* p, int lanes, bool use_first, bool use_second) {
    const Pairs pairs = widen(_mm512_maskz_loadu_epi32(first_lanes(lanes), p));
    return {use_first ? pairs.first : splat(0), use_second ? pairs.second : splat(0)};
  }
  static Vec add_v(Vec acc, const VStep& v, const Elem* w) { return fma_pairs(acc, v, w); }
};

struct F32 {
  static constexpr int kPack = 1;
  static constexpr int kScoreRows = 8;
  static constexpr int kScoreTiles = 2;
  static constexpr int kValueRows = 4;
  static constexpr int kValueVecs = 4;
  using Elem = float;
  using KStep = Vec;
  using VStep = Vec;

  static void store_elems(Elem* p, Vec a) { store(p, a); }
  static KStep load_k(const std::byte* p) { return {_mm512_loadu_ps(p)}; }
  static Vec dot(Vec acc, KStep k, const Elem* q) { return fma(k, splat(*q), acc); }
  static VStep load_v(const std::byte* p) { return {_mm512_loadu_ps(p)}; }
  static VStep load_v_part(const std::byte* p, int lanes, bool /*use_first*/, bool /*use_second*/) {
    return {_mm512_maskz_loadu_ps(first_lanes(lanes), p)};
  }
  static Vec add_v(Vec acc, VStep v, const Elem* w) { return fma(v, splat(*w), acc); }
};

void to_bf16(const float* x, int n, std::uint16_t* y) {
  for (int i = 0; i < n; i += kLanes) {
    const int lanes = int_min(n - i, kLanes);
    const __m512 rounded = round_bf16(load_first(x + i, lanes).v);
    const __m512i high = _mm512_srli_epi32(_mm512_castps_si512(rounded), 16);
    _mm512_mask_cvtepi32_storeu_epi16(y + i, first_lanes(lanes), high);
  }
}

}  // namespace

const AttentionKernels kAttentionAvx512 = {attend<Bf16>, attend<F32>, merge, finish, to_bf16};
const AttentionKernels kAttentionAvx512Bf16 = {
    avx512bf16::attend_bf16, attend<F32>, merge, finish, avx512bf16::to_bf16};

}  // namespace pagemill
