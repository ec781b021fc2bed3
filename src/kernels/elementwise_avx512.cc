#include "kernels/vec_avx512.h"
// Written over the Vec above.
#include "kernels/elementwise_generic.h"
#include "kernels/elementwise_isa.h"

namespace pagemill {

const ElementwiseKernels kElementwiseAvx512 = kTable;

}  // namespace pagemill
