#include "kernels/vec_avx2.h"
//
#include "kernels/elementwise_generic.h"
#include "kernels/elementwise_isa.h"

namespace pagemill {

const ElementwiseKernels kElementwiseAvx2 = kTable;

}  // namespace pagemill
