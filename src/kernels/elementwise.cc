#include "kernels/elementwise.h"

#include "kernels/elementwise_isa.h"

namespace pagemill {

const ElementwiseKernels& elementwise_kernels(Isa isa) {
  switch (isa) {
    case Isa::kAvx512:
    case Isa::kAvx512Bf16:  // no products of bf16 here
      return kElementwiseAvx512;
    case Isa::kAvx2:
      return kElementwiseAvx2;
    case Isa::kScalar:
      break;
  }
  return kElementwiseScalar;
}

}  // namespace pagemill
