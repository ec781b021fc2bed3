#include "kernels/vec_scalar.h"
// Written over the Vec above.
#include "kernels/elementwise_generic.h"
#include "kernels/elementwise_isa.h"

namespace pagemill {

const ElementwiseKernels kElementwiseScalar = kTable;

}  // namespace pagemill
