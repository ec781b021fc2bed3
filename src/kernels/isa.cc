#include "kernels/isa.h"

#include <cstdlib>
#include <string>

namespace pagemill {

std::string_view to_string(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return "scalar";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
  }
  return "unknown";
}

// __builtin_cpu_supports also asks the operating system (XGETBV) whether it saves the registers.
bool isa_supported(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return true;
    case Isa::kAvx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case Isa::kAvx512:
      return isa_supported(Isa::kAvx2) && __builtin_cpu_supports("avx512f") &&
             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni") &&
             __builtin_cpu_supports("avx512bf16");
  }
  return false;
}

std::vector<Isa> supported_isas() {
  std::vector<Isa> isas;
  for (Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512}) {
    if (isa_supported(isa)) isas.push_back(isa);
  }
  return isas;
}

Result<Isa> choose_isa() {
  const std::vector<Isa> supported = supported_isas();
  const char* forced = std::getenv("PAGEMILL_ISA");
  if (forced == nullptr || *forced == '\0') return supported.back();
  for (Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512}) {
    if (forced != to_string(isa)) continue;
    if (isa_supported(isa)) return isa;
    return unsupported(fmt::format("PAGEMILL_ISA={}: this machine lacks it; its best is {}",
                                   forced,
                                   to_string(supported.back())));
  }
  return invalid_argument(fmt::format("PAGEMILL_ISA={}: must be scalar, avx2 or avx512", forced),
                          "PAGEMILL_ISA");
}

}  // namespace pagemill
