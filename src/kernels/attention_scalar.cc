#include "kernels/vec_scalar.h"
// Written over the Vec above.
#include "kernels/attention_generic.h"
#include "tensor/float_convert.h"

namespace pagemill {
namespace {

// 16 lanes of two numbers each, widened to f32.
struct Pairs {
  Vec first;
  Vec second;
};

inline Vec fma_pairs(Vec acc, const Pairs& pairs, const float* by) {
  return fma(pairs.second, splat(by[1]), fma(pairs.first, splat(by[0]), acc));
}

inline Pairs widen(const std::byte* p, int lanes, bool use_first, bool use_second) {
  std::uint16_t pairs[kLanes][2] = {};
  __builtin_memcpy(pairs, p, static_cast<std::size_t>(lanes) * sizeof(pairs[0]));
  return {each_lane([&](int i) { return use_first ? bf16_to_float(pairs[i][0]) : 0.0f; }),
          each_lane([&](int i) { return use_second ? bf16_to_float(pairs[i][1]) : 0.0f; })};
}

// Keys and values are widened; queries and weights stay f32.
struct Bf16 {
  static constexpr int kPack = 2;
  static constexpr int kScoreRows = 2;
  static constexpr int kScoreTiles = 1;
  static constexpr int kValueRows = 1;
  static constexpr int kValueVecs = 1;
  using Elem = float;
  using KStep = Pairs;
  using VStep = Pairs;

  static void store_elems(Elem* p, Vec a) { store(p, a); }
  static KStep load_k(const std::byte* p) { return widen(p, kLanes, true, true); }
  static Vec dot(Vec acc, const KStep& k, const Elem* q) { return fma_pairs(acc, k, q); }
  static VStep load_v(const std::byte* p) { return load_k(p); }
  static VStep load_v_part(const std::byte* p, int lanes, bool use_first, bool use_second) {
    return widen(p, lanes, use_first, use_second);
  }
  static Vec add_v(Vec acc, const VStep& v, const Elem* w) { return fma_pairs(acc, v, w); }
};

struct F32 {
  static constexpr int kPack = 1;
  static constexpr int kScoreRows = 2;
  static constexpr int kScoreTiles = 1;
  static constexpr int kValueRows = 1;
  static constexpr int kValueVecs = 1;
  using Elem = float;
  using KStep = Vec;
  using VStep = Vec;

  static void store_elems(Elem* p, Vec a) { store(p, a); }
  static KStep load_k(const std::byte* p) { return load(reinterpret_cast<const float*>(p)); }
  static Vec dot(Vec acc, const KStep& k, const Elem* q) { return fma(k, splat(*q), acc); }
  static VStep load_v(const std::byte* p) { return load_k(p); }
  static VStep load_v_part(const std::byte* p, int lanes, bool /*use_first*/, bool /*use_second*/) {
    return load_first(reinterpret_cast<const float*>(p), lanes);
  }
  static Vec add_v(Vec acc, const VStep& v, const Elem* w) { return fma(v, splat(*w), acc); }
};

void to_bf16(const float* x, int n, std::uint16_t* y) {
  for (int i = 0; i < n; ++i) y[i] = float_to_bf16(x[i]);
}

}  // namespace

const AttentionKernels kAttentionScalar = {attend<Bf16>, attend<F32>, merge, finish, to_bf16};

}  // namespace pagemill
