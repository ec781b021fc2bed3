#include "kernels/vec_avx2.h"
// Written over the Vec above.
#include "kernels/attention_generic.h"

namespace pagemill {
namespace {

inline __m256i load_bits(const std::byte* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
inline __m256 low_half(__m256i pairs) { return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)); }
inline __m256 high_half(__m256i pairs) {
  return _mm256_castsi256_ps(
      _mm256_and_si256(pairs, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
}

// 16 lanes of two numbers each, widened to f32.
struct Pairs {
  Vec first;
  Vec second;
};

inline Pairs widen(__m256i lo, __m256i hi) {
  return {{low_half(lo), low_half(hi)}, {high_half(lo), high_half(hi)}};
}

inline Vec fma_pairs(Vec acc, const Pairs& pairs, const float* by) {
  return fma(pairs.second, splat(by[1]), fma(pairs.first, splat(by[0]), acc));
}

// Keys and values are widened; queries and weights stay f32.
struct Bf16 {
  static constexpr int kPack = 2;
  static constexpr int kScoreRows = 4;
  static constexpr int kScoreTiles = 1;
  static constexpr int kValueRows = 4;
  static constexpr int kValueVecs = 1;
  using Elem = float;
  using KStep = Pairs;
  using VStep = Pairs;

  static void store_elems(Elem* p, Vec a) { store(p, a); }
  static KStep load_k(const std::byte* p) { return widen(load_bits(p), load_bits(p + 32)); }
  static Vec dot(Vec acc, const KStep& k, const Elem* q) { return fma_pairs(acc, k, q); }
  static VStep load_v(const std::byte* p) { return load_k(p); }
  static VStep load_v_part(const std::byte* p, int lanes, bool use_first, bool use_second) {
    const int* bits = reinterpret_cast<const int*>(p);
    const Pairs pairs = widen(_mm256_maskload_epi32(bits, lanes_below(0, lanes)),
                              _mm256_maskload_epi32(bits + 8, lanes_below(8, lanes)));
    return {use_first ? pairs.first : splat(0), use_second ? pairs.second : splat(0)};
  }
  static Vec add_v(Vec acc, const VStep& v, const Elem* w) { return fma_pairs(acc, v, w); }
};

struct F32 {
  static constexpr int kPack = 1;
  static constexpr int kScoreRows = 4;
  static constexpr int kScoreTiles = 1;
  static constexpr int kValueRows = 4;
  static constexpr int kValueVecs = 1;
  using Elem = float;
  using KStep = Vec;
  using VStep = Vec;

  static void store_elems(Elem* p, Vec a) { store(p, a); }
  static KStep load_k(const std::byte* p) { return load(reinterpret_cast<const float*>(p)); }
  static Vec dot(Vec acc, KStep k, const Elem* q) { return fma(k, splat(*q), acc); }
  static VStep load_v(const std::byte* p) { return load_k(p); }
  static VStep load_v_part(const std::byte* p, int lanes, bool /*use_first*/, bool /*use_second*/) {
    return load_first(reinterpret_cast<const float*>(p), lanes);
  }
  static Vec add_v(Vec acc, VStep v, const Elem* w) { return fma(v, splat(*w), acc); }
};

inline __m256i round_to_bf16(__m256 x) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_srli_epi32(
      _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
  const __m256i quiet = _mm256_or_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(0x40));
  const __m256 is_nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
  return _mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(is_nan));
}

void to_bf16(const float* x, int n, std::uint16_t* y) {
  for (int i = 0; i < n; i += kLanes) {
    const int lanes = int_min(n - i, kLanes);
    const Vec a = load_first(x + i, lanes);
    const __m256i packed = _mm256_permute4x64_epi64(
        _mm256_packus_epi32(round_to_bf16(a.lo), round_to_bf16(a.hi)), 0xd8);
    alignas(32) std::uint16_t rounded[kLanes];
    _mm256_store_si256(reinterpret_cast<__m256i*>(rounded), packed);
    __builtin_memcpy(y + i, rounded, static_cast<std::size_t>(lanes) * sizeof(std::uint16_t));
  }
}

}  // namespace

const AttentionKernels kAttentionAvx2 = {attend<Bf16>, attend<F32>, merge, finish, to_bf16};

}  // namespace pagemill
