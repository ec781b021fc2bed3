#include "kernels/limits_generic.h"

namespace pagemill {
namespace {

void fma(std::int64_t rounds) {
  const __m256 a = _mm256_set1_ps(1.0f), b = _mm256_set1_ps(0.5f);
  run_chains<__m256>(rounds, [a, b](__m256& sum) {
    __asm__ volatile("vfmadd231ps %2, %1, %0" : "+x"(sum) : "x"(a), "x"(b));
  });
}

// As the kernels use it: pairs of products added to a sum of int32.
void madd_i16(std::int64_t rounds) {
  const __m256i a = _mm256_set1_epi16(1), b = _mm256_set1_epi16(2);
  run_chains<__m256i>(rounds, [a, b](__m256i& sum) {
    __m256i products;
    __asm__ volatile("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0"
                     : "+x"(sum), "=&x"(products)
                     : "x"(a), "x"(b));
  });
}

}  // namespace

const LimitLoop kLimitLoopsAvx2[2] = {{"VFMADD", 16, fma}, {"VPMADDWD+VPADDD", 32, madd_i16}};
const ReadLoop kReadLoopAvx2 = read_loop<__m256i>;

}  // namespace pagemill
