#include "kernels/isa.h"

#include <algorithm>
#include <cstdlib>
#include <string>

namespace pagemill {
namespace {

constexpr Isa kAllIsas[] = {Isa::kScalar, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16};

}  // namespace

std::string_view to_string(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return "scalar";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx512Bf16:
      return "avx512_bf16";
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
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
    case Isa::kAvx512Bf16:
      return isa_supported(Isa::kAvx512) && __builtin_cpu_supports("avx512bf16");
  }
  return false;
}

std::vector<Isa> supported_isas() {
  std::vector<Isa> isas;
  std::copy_if(std::begin(kAllIsas), std::end(kAllIsas), std::back_inserter(isas), &isa_supported);
  return isas;
}

Isa best_isa(const std::vector<Isa>& supported, bool is_amd) {
  const Isa best = supported.back();
  return best == Isa::kAvx512Bf16 && !is_amd ? Isa::kAvx512 : best;
}

Result<Isa> choose_isa() {
  const Isa best = best_isa(supported_isas(), __builtin_cpu_is("amd"));
  const char* forced = std::getenv("PAGEMILL_ISA");
  if (forced == nullptr || *forced == '\0') return best;
  for (Isa isa : kAllIsas) {
    if (forced != to_string(isa)) continue;
    if (isa_supported(isa)) return isa;
    return unsupported(fmt::format(
        "PAGEMILL_ISA={}: this machine lacks it; its best is {}", forced, to_string(best)));
  }
  return invalid_argument(
      fmt::format("PAGEMILL_ISA={}: must be scalar, avx2, avx512 or avx512_bf16", forced),
      "PAGEMILL_ISA");
}

}  // namespace pagemill
