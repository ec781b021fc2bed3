#include "kernels/limits_generic.h"

namespace pagemill {
namespace {

void fma(std::int64_t rounds) {
  const __m512 a = _mm512_set1_ps(1.0f), b = _mm512_set1_ps(0.5f);
  run_chains<__m512>(rounds, [a, b](__m512& sum) {
    __asm__ volatile("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  });
}

void dot_i16(std::int64_t rounds) {
  const __m512i a = _mm512_set1_epi16(1), b = _mm512_set1_epi16(2);
  run_chains<__m512i>(rounds, [a, b](__m512i& sum) {
    __asm__ volatile("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  });
}

void dot_i8(std::int64_t rounds) {
  const __m512i a = _mm512_set1_epi8(1), b = _mm512_set1_epi8(2);
  run_chains<__m512i>(rounds, [a, b](__m512i& sum) {
    __asm__ volatile("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  });
}

}  // namespace

const LimitLoop kLimitLoopsAvx512[3] = {
    {"VFMADD", 32, fma}, {"VPDPWSSD", 64, dot_i16}, {"VPDPBUSD", 128, dot_i8}};
const ReadLoop kReadLoopAvx512 = read_loop<__m512i>;

}  // namespace pagemill
