// Which instruction set the kernels use. Chosen once at start;
// PAGEMILL_ISA=scalar|avx2|avx512|avx512_bf16 forces one (an error if the machine lacks it), so
// that tests cover every path the machine has.
//
// The last two need the same registers and differ in how they multiply bf16 by bf16: kAvx512 has
// bf16 weights in block fixed point (VPDPWSSD) and widens a bf16 cache to f32, kAvx512Bf16 uses
// VDPBF16PS, two products at a time. Which is faster is a matter of the maker: on Intel's cores
// VDPBF16PS runs at a quarter of VFMADD's rate (family 6 model 207: 0.42 against 1.73 per cycle),
// on AMD's (Zen 4 and 5) at the same. Their results differ in the last bits, so the choice is made
// from the vendor's name and never by timing.
#pragma once

#include <string_view>
#include <vector>

#include "base/result.h"

namespace pagemill {

// kAvx512: F, BW, VL, DQ and VNNI. kAvx512Bf16: BF16 as well.
enum class Isa { kScalar, kAvx2, kAvx512, kAvx512Bf16 };

std::string_view to_string(Isa isa);
bool isa_supported(Isa isa);
std::vector<Isa> supported_isas();  // ascending; kScalar is always there
// The fastest of `supported` (ascending, not empty) on a CPU of AMD's, or of another maker.
Isa best_isa(const std::vector<Isa>& supported, bool is_amd);
Result<Isa> choose_isa();  // the best one for this CPU, or PAGEMILL_ISA's

}  // namespace pagemill
