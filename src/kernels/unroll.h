// PM_UNROLL before a loop of a constant count unrolls it, so that what it indexes stays in
// registers.
#pragma once

#if defined(__clang__)
#define PM_UNROLL _Pragma("unroll")
#else
#define PM_UNROLL _Pragma("GCC unroll 32")
#endif
