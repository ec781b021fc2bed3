#include "kernels/matmul_quant_avx512.h"

namespace pagemill::avx512 {

MatmulFn matmul_kquant_fn(DType dtype) {
  switch (dtype) {
    case DType::kQ4_K:
      return run_tiles<QuantKernel<QuantOps, DType::kQ4_K>>;
    case DType::kQ5_K:
      return run_tiles<QuantKernel<QuantOps, DType::kQ5_K>>;
    case DType::kQ6_K:
      return run_tiles<QuantKernel<QuantOps, DType::kQ6_K>>;
    default:
      return nullptr;
  }
}

}  // namespace pagemill::avx512
