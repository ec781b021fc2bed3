#include "kernels/matmul_quant_rows_avx512.h"

namespace pagemill::avx512 {

MatmulFn matmul_quant_fn(DType dtype) {
  switch (dtype) {
    case DType::kQ8_0:
      return QuantRows<DType::kQ8_0>::run;
    case DType::kQ4_0:
      return QuantRows<DType::kQ4_0>::run;
    case DType::kQ4_1:
      return QuantRows<DType::kQ4_1>::run;
    default:
      return nullptr;
  }
}

}  // namespace pagemill::avx512
