#include "kernels/limits_generic.h"

namespace pagemill {
namespace {

void dot_bf16(std::int64_t rounds) {
  const __m512i ones = _mm512_set1_epi16(0x3f80);
  run_chains<__m512>(rounds, [ones](__m512& sum) {
    __asm__ volatile("vdpbf16ps %1, %1, %0" : "+v"(sum) : "v"(ones));
  });
}

}  // namespace

const LimitLoop kLimitLoopsAvx512Bf16[1] = {{"VDPBF16PS", 64, dot_bf16}};

}  // namespace pagemill
