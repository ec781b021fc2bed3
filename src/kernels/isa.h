// Which instruction set the kernels use. Chosen once at start; PAGEMILL_ISA=scalar|avx2|avx512 forces
// one (an error if the machine lacks it), so that tests cover every path the machine has.
#pragma once

#include <string_view>
#include <vector>

#include "base/result.h"

namespace pagemill {

enum class Isa { kScalar, kAvx2, kAvx512 };  // kAvx512: F, BW, VL, DQ, BF16 and VNNI

std::string_view to_string(Isa isa);
bool isa_supported(Isa isa);
std::vector<Isa> supported_isas();  // ascending; kScalar is always there
Result<Isa> choose_isa();           // the best one, or PAGEMILL_ISA's

}  // namespace pagemill
