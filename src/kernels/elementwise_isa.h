// One table per ISA, each from the same source (elementwise_generic.h) compiled for it.
#pragma once

#include "kernels/elementwise.h"

namespace pagemill {

extern const ElementwiseKernels kElementwiseScalar;
extern const ElementwiseKernels kElementwiseAvx2;
extern const ElementwiseKernels kElementwiseAvx512;

}  // namespace pagemill
