#include "kernels/matmul_quant_avx512.h"

namespace pagemill::avx512 {

MatmulFn matmul_quant_fn(DType dtype) {
  switch (dtype) {
    case DType::kQ8_0:
      return run_tiles<QuantKernel<QuantOps, DType::kQ8_0>>;
    case DType::kQ4_0:
      return run_tiles<QuantKernel<QuantOps, DType::kQ4_0>>;
    case DType::kQ4_1:
      return run_tiles<QuantKernel<QuantOps, DType::kQ4_1>>;
    default:
      return nullptr;
  }
}

}  // namespace pagemill::avx512
