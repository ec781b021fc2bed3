// exp and tanh of a Vec. Included by each vec_*.h after its Vec: the same source for every ISA.
#pragma once

namespace pagemill {
namespace {

// Within 2 ulp; overflows to infinity above 88.72; below -87.3, 1.2e-38, the least that is not
// subnormal: a subnormal costs a hundred cycles. NaN for NaN.
//
// x = n ln 2 + r with |r| <= ln(2) / 2 (Cody and Waite's two-part ln 2: n times the high part is
// exact), and exp(r) = 1 + r + r^2 q(r), q of degree 4 fitted to the least relative error, 2^-27.7.
inline Vec vec_exp(Vec x) {
  x = vec_max(splat(-87.3f), vec_min(splat(89.0f), x));
  const Vec n = round_nearest(x * splat(1.44269504f));
  Vec r = fma(n, splat(-0.693359375f), x);
  r = fma(n, splat(2.12194440e-4f), r);
  Vec q = splat(0.0013814496342f);
  q = fma(q, r, splat(0.0083687659353f));
  q = fma(q, r, splat(0.0416683927178f));
  q = fma(q, r, splat(0.1666651964188f));
  q = fma(q, r, splat(0.4999999403954f));
  const Vec e = fma(q * r, r, r) + splat(1.0f);
  return scale_by_power(e, n);
}

// Absolute error under 2e-7.
inline Vec vec_tanh(Vec x) { return splat(1.0f) - splat(2.0f) / (vec_exp(x + x) + splat(1.0f)); }

}  // namespace
}  // namespace pagemill
