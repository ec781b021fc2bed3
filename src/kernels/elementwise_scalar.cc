#include "kernels/vec_scalar.h"
//
#include "kernels/elementwise_generic.h"
#include "kernels/elementwise_isa.h"

namespace pagemill {

const ElementwiseKernels kElementwiseScalar = kTable;

}  // namespace pagemill
