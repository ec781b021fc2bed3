#include "kernels/matmul_quant_rows_avx512.h"

namespace pagemill::avx512 {

MatmulFn matmul_kquant_fn(DType dtype) {
  switch (dtype) {
    case DType::kQ4_K:
      return QuantRows<DType::kQ4_K>::run;
    case DType::kQ5_K:
      return QuantRows<DType::kQ5_K>::run;
    case DType::kQ6_K:
      return QuantRows<DType::kQ6_K>::run;
    default:
      return nullptr;
  }
}

}  // namespace pagemill::avx512
