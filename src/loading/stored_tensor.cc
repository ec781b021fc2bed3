#include "loading/stored_tensor.h"

#include <fmt/ranges.h>

#include <algorithm>

namespace pagemill {
namespace {

constexpr std::int64_t kMaxCount = std::int64_t{1} << 62;

}  // namespace

std::optional<std::int64_t> checked_elements(std::span<const std::int64_t> shape) {
  std::int64_t elements = 1;
  bool empty = false;
  for (const std::int64_t dim : shape) {
    if (dim < 0) return std::nullopt;
    if (dim == 0) {
      empty = true;  // the others must still be sane
    } else if (__builtin_mul_overflow(elements, dim, &elements) || elements > kMaxCount) {
      return std::nullopt;
    }
  }
  return empty ? 0 : elements;
}

std::optional<std::uint64_t> checked_bytes(DType dtype, std::span<const std::int64_t> shape) {
  const DTypeInfo& info = dtype_info(dtype);
  const auto elements = checked_elements(shape);
  if (!elements) return std::nullopt;
  const std::int64_t row = shape.empty() ? 1 : shape.back();
  if (row % info.block_elements != 0) return std::nullopt;
  std::int64_t bytes = 0;
  if (__builtin_mul_overflow(
          *elements / info.block_elements, std::int64_t{info.block_bytes}, &bytes) ||
      bytes > kMaxCount) {
    return std::nullopt;
  }
  return static_cast<std::uint64_t>(bytes);
}

std::string shape_to_string(std::span<const std::int64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

std::string in_quotes(std::string_view text) {
  constexpr std::size_t kShown = 120;
  std::string out = "'";
  for (const char c : text.substr(0, kShown)) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f || c == '\'' || c == '\\') {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    } else {
      out += c;
    }
  }
  out += text.size() > kShown ? "...'" : "'";
  return out;
}

Status check_directory(std::span<const StoredTensor> tensors,
                       const std::string& file,
                       bool may_share) {
  std::vector<const StoredTensor*> order(tensors.size());
  std::transform(tensors.begin(), tensors.end(), order.begin(), [](const auto& t) { return &t; });
  std::sort(
      order.begin(), order.end(), [](const auto* a, const auto* b) { return a->name < b->name; });
  for (std::size_t i = 1; i < order.size(); ++i) {
    if (order[i]->name == order[i - 1]->name) {
      return corrupt(
          fmt::format("{}: tensor {} occurs twice, at offsets {} and {}; names must be unique",
                      file,
                      in_quotes(order[i]->name),
                      order[i - 1]->offset,
                      order[i]->offset));
    }
  }
  if (may_share) return ok_status();
  std::erase_if(order, [](const auto* t) { return t->bytes == 0; });
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    return a->offset < b->offset;
  });
  for (std::size_t i = 1; i < order.size(); ++i) {
    const StoredTensor& before = *order[i - 1];
    if (before.offset + before.bytes > order[i]->offset) {
      return corrupt(fmt::format("{}: tensors {} (offset {}, {} bytes) and {} (offset {}) overlap",
                                 file,
                                 in_quotes(before.name),
                                 before.offset,
                                 before.bytes,
                                 in_quotes(order[i]->name),
                                 order[i]->offset));
    }
  }
  return ok_status();
}

}  // namespace pagemill
