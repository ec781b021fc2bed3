#include "tensor/dequantize.h"

#include <array>
#include <cstring>

#include "base/check.h"
#include "tensor/float_convert.h"

namespace pagemill {
namespace {

std::uint8_t u8(const std::byte* p) { return std::to_integer<std::uint8_t>(*p); }
std::int8_t i8(const std::byte* p) { return static_cast<std::int8_t>(u8(p)); }

template <typename T>
T load(const std::byte* p) {
  T value;
  std::memcpy(&value, p, sizeof(T));
  return value;
}

float f16(const std::byte* p) { return f16_to_float(load<std::uint16_t>(p)); }

template <typename T>
void convert_plain(const std::byte* src, std::int64_t elements, float* out) {
  for (std::int64_t i = 0; i < elements; ++i)
    out[i] = static_cast<float>(load<T>(src + i * sizeof(T)));
}

void q8_0_block(const std::byte* src, float* out) {
  const float d = f16(src);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(i8(src + 2 + i));
}

void q4_0_block(const std::byte* src, float* out) {
  const float d = f16(src);
  for (int i = 0; i < 16; ++i) {
    const int nibbles = u8(src + 2 + i);
    out[i] = d * static_cast<float>((nibbles & 15) - 8);
    out[i + 16] = d * static_cast<float>((nibbles >> 4) - 8);
  }
}

void q4_1_block(const std::byte* src, float* out) {
  const float d = f16(src);
  const float m = f16(src + 2);
  for (int i = 0; i < 16; ++i) {
    const int nibbles = u8(src + 4 + i);
    out[i] = d * static_cast<float>(nibbles & 15) + m;
    out[i + 16] = d * static_cast<float>(nibbles >> 4) + m;
  }
}

struct ScaleMin {
  int scale;  // 0..63
  int min;    // 0..63
};

// Q4_K and Q5_K keep eight 6-bit scales and eight 6-bit mins in 12 bytes: the first four of each
// in the low 6 bits of bytes 0-3 (scales) and 4-7 (mins); of the last four the low nibbles in bytes
// 8-11 (scale low, min high) and the upper 2 bits atop bytes 0-3 and 4-7.
ScaleMin k_scale_min(const std::byte* packed, int j) {
  if (j < 4) return {u8(packed + j) & 63, u8(packed + j + 4) & 63};
  const int low = u8(packed + j + 4);
  return {(low & 15) | (u8(packed + j - 4) >> 6 << 4), (low >> 4) | (u8(packed + j) >> 6 << 4)};
}

// Scales and mins of a Q4_K or Q5_K block; `quant(j, i)` is element i of sub-block j (32 elements).
template <typename Quant>
void k_block(const std::byte* src, float* out, const Quant& quant) {
  const float d = f16(src);
  const float dmin = f16(src + 2);
  for (int j = 0; j < 8; ++j) {
    const ScaleMin s = k_scale_min(src + 4, j);
    const float scale = d * static_cast<float>(s.scale);
    const float min = dmin * static_cast<float>(s.min);
    for (int i = 0; i < 32; ++i) {
      out[j * 32 + i] = scale * static_cast<float>(quant(j, i)) - min;
    }
  }
}

// Sub-block j takes the low (j even) or high nibbles of bytes [j/2*32, +32).
int k_nibble(const std::byte* nibbles, int j, int i) {
  return u8(nibbles + j / 2 * 32 + i) >> (j % 2 * 4) & 15;
}

void q4_k_block(const std::byte* src, float* out) {
  k_block(src, out, [nibbles = src + 16](int j, int i) { return k_nibble(nibbles, j, i); });
}

// As Q4_K; bit j of high byte i is the fifth bit of element i of sub-block j.
void q5_k_block(const std::byte* src, float* out) {
  k_block(src, out, [high = src + 16, nibbles = src + 48](int j, int i) {
    return k_nibble(nibbles, j, i) | (u8(high + i) >> j & 1) << 4;
  });
}

// Two halves of 128 elements, each four groups of 32: groups 0 and 1 take the low nibbles of 64
// bytes, groups 2 and 3 their high nibbles; group g takes bits 2g, 2g+1 of 32 high bytes. One scale
// per 16 elements.
void q6_k_block(const std::byte* src, float* out) {
  const std::byte* const scales = src + 192;
  const float d = f16(src + 208);
  for (int half = 0; half < 2; ++half) {
    const std::byte* const low = src + half * 64;
    const std::byte* const high = src + 128 + half * 32;
    for (int g = 0; g < 4; ++g) {
      for (int i = 0; i < 32; ++i) {
        const int nibble = u8(low + g % 2 * 32 + i) >> (g / 2 * 4) & 15;
        const int q = (nibble | (u8(high + i) >> (2 * g) & 3) << 4) - 32;
        const float scale = d * static_cast<float>(i8(scales + half * 8 + g * 2 + i / 16));
        out[half * 128 + g * 32 + i] = scale * static_cast<float>(q);
      }
    }
  }
}

void fixed16_block(const std::byte* src, float* out) {
  const auto d = load<float>(src + 256);
  for (int i = 0; i < 128; ++i) out[i] = d * static_cast<float>(load<std::int16_t>(src + i * 2));
}

template <void (*Block)(const std::byte*, float*)>
void convert_blocks(DType dtype, const std::byte* src, std::int64_t elements, float* out) {
  const DTypeInfo& info = dtype_info(dtype);
  for (std::int64_t i = 0; i < elements; i += info.block_elements) {
    Block(src, out + i);
    src += info.block_bytes;
  }
}

}  // namespace

void dequantize_row(DType dtype, const std::byte* src, std::int64_t elements, float* out) {
  const DTypeInfo& info = dtype_info(dtype);
  PM_CHECK(elements >= 0 && elements % info.block_elements == 0,
           "{} elements of {}",
           elements,
           info.name);
  switch (dtype) {
    case DType::kF32:
      return convert_plain<float>(src, elements, out);
    case DType::kF16:
      for (std::int64_t i = 0; i < elements; ++i) out[i] = f16(src + i * 2);
      return;
    case DType::kBF16:
      for (std::int64_t i = 0; i < elements; ++i) {
        out[i] = bf16_to_float(load<std::uint16_t>(src + i * 2));
      }
      return;
    case DType::kF64:
      return convert_plain<double>(src, elements, out);
    case DType::kI8:
      return convert_plain<std::int8_t>(src, elements, out);
    case DType::kI16:
      return convert_plain<std::int16_t>(src, elements, out);
    case DType::kI32:
      return convert_plain<std::int32_t>(src, elements, out);
    case DType::kI64:
      return convert_plain<std::int64_t>(src, elements, out);
    case DType::kU8:
      return convert_plain<std::uint8_t>(src, elements, out);
    case DType::kBool:
      for (std::int64_t i = 0; i < elements; ++i) out[i] = u8(src + i) != 0 ? 1.0f : 0.0f;
      return;
    case DType::kFixed16:
      return convert_blocks<fixed16_block>(dtype, src, elements, out);
    case DType::kQ8_0:
      return convert_blocks<q8_0_block>(dtype, src, elements, out);
    case DType::kQ4_0:
      return convert_blocks<q4_0_block>(dtype, src, elements, out);
    case DType::kQ4_1:
      return convert_blocks<q4_1_block>(dtype, src, elements, out);
    case DType::kQ4_K:
      return convert_blocks<q4_k_block>(dtype, src, elements, out);
    case DType::kQ5_K:
      return convert_blocks<q5_k_block>(dtype, src, elements, out);
    case DType::kQ6_K:
      return convert_blocks<q6_k_block>(dtype, src, elements, out);
  }
  PM_CHECK(false, "dtype {}", static_cast<int>(dtype));
}

}  // namespace pagemill
