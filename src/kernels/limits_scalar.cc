#include "kernels/limits_generic.h"

namespace pagemill {

const ReadLoop kReadLoopScalar = read_loop<__m128i>;

}  // namespace pagemill
