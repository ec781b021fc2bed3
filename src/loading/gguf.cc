#include "loading/gguf.h"

#include <algorithm>
#include <array>
#include <bit>
#include <numeric>

#include "loading/byte_reader.h"

namespace pagemill {
namespace {

constexpr std::uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr std::uint64_t kDefaultAlignment = 32;
constexpr std::uint64_t kMaxAlignment = 1 << 20;
constexpr int kMaxArrayDepth = 4;
constexpr std::uint64_t kMaxEntries = 4'096;  // real files have some dozens
constexpr std::uint64_t kMaxNameBytes = 4'096;
constexpr std::uint32_t kMaxDims = 4;
// The smallest that the format allows, to hold a count against what the file can contain.
constexpr std::uint64_t kMinEntryBytes = 8 + 4 + 1;
constexpr std::uint64_t kMinTensorBytes = 8 + 4 + 8 + 4 + 8;

struct TypeInfo {
  std::string_view name;
  std::uint8_t bytes;  // 0: not fixed
};
constexpr std::array<TypeInfo, 13> kTypes = {{{"u8", 1},
                                              {"i8", 1},
                                              {"u16", 2},
                                              {"i16", 2},
                                              {"u32", 4},
                                              {"i32", 4},
                                              {"f32", 4},
                                              {"bool", 1},
                                              {"string", 0},
                                              {"array", 0},
                                              {"u64", 8},
                                              {"i64", 8},
                                              {"f64", 8}}};

struct GgmlType {
  std::uint32_t id;
  std::string_view name;
  std::optional<DType> dtype;
};
constexpr std::array<GgmlType, 36> kGgmlTypes = {{
    {0, "F32", DType::kF32},
    {1, "F16", DType::kF16},
    {2, "Q4_0", DType::kQ4_0},
    {3, "Q4_1", DType::kQ4_1},
    {6, "Q5_0", {}},
    {7, "Q5_1", {}},
    {8, "Q8_0", DType::kQ8_0},
    {9, "Q8_1", {}},
    {10, "Q2_K", {}},
    {11, "Q3_K", {}},
    {12, "Q4_K", DType::kQ4_K},
    {13, "Q5_K", DType::kQ5_K},
    {14, "Q6_K", DType::kQ6_K},
    {15, "Q8_K", {}},
    {16, "IQ2_XXS", {}},
    {17, "IQ2_XS", {}},
    {18, "IQ3_XXS", {}},
    {19, "IQ1_S", {}},
    {20, "IQ4_NL", {}},
    {21, "IQ3_S", {}},
    {22, "IQ2_S", {}},
    {23, "IQ4_XS", {}},
    {24, "I8", DType::kI8},
    {25, "I16", DType::kI16},
    {26, "I32", DType::kI32},
    {27, "I64", DType::kI64},
    {28, "F64", DType::kF64},
    {29, "IQ1_M", {}},
    {30, "BF16", DType::kBF16},
    {34, "TQ1_0", {}},
    {35, "TQ2_0", {}},
    {39, "MXFP4", {}},
    {4, "Q4_2", {}},
    {5, "Q4_3", {}},
    {31, "Q4_0_4_4", {}},
    {32, "Q4_0_4_8", {}},
}};

}  // namespace

std::string_view gguf_type_name(GgufType type) {
  return kTypes[static_cast<std::size_t>(type)].name;
}

class GgufParser {
 public:
  GgufParser(std::span<const std::byte> bytes, std::string name) : bytes_(bytes), reader_(bytes) {
    file_.name_ = std::move(name);
  }

  Result<GgufFile> run() {
    PM_TRY(header());
    for (std::uint64_t i = 0; i < num_entries_; ++i) PM_TRY(entry(i));
    PM_TRY(index_keys());
    for (std::uint64_t i = 0; i < num_tensors_; ++i) PM_TRY(tensor(i));
    PM_TRY(place_tensors());
    PM_TRY(check_directory(file_.tensors_, file_.name_, false));
    return std::move(file_);
  }

 private:
  template <typename... Args>
  Error fail(std::uint64_t offset, fmt::format_string<Args...> format, Args&&... args) const {
    return corrupt(fmt::format("{}: offset {}: {}",
                               file_.name_,
                               offset,
                               fmt::format(format, std::forward<Args>(args)...)));
  }
  Error truncated(std::string_view what) const {
    return fail(reader_.offset(),
                "the file ends inside {}: it has {} bytes; is the download complete?",
                what,
                bytes_.size());
  }

  Status header() {
    std::uint32_t magic = 0;
    if (!reader_.read(magic) || magic != kMagic) {
      return fail(0, "not a GGUF file: it must start with the four bytes 'GGUF'");
    }
    if (!reader_.read(file_.version_)) return truncated("the version");
    if (file_.version_ != 2 && file_.version_ != 3) {
      const bool swapped = file_.version_ != 0 && (file_.version_ & 0xffffu) == 0;
      return unsupported(
          fmt::format("{}: offset 4: GGUF version {}{}; supported: 2 and 3, little-endian",
                      file_.name_,
                      file_.version_,
                      swapped ? " (a big-endian file?)" : ""));
    }
    if (!reader_.read(num_tensors_)) return truncated("the count of tensors");
    if (!reader_.read(num_entries_)) return truncated("the count of metadata entries");
    if (num_tensors_ > std::min<std::uint64_t>(kMaxTensors, bytes_.size() / kMinTensorBytes)) {
      return fail(8, "{} tensors claimed in a file of {} bytes", num_tensors_, bytes_.size());
    }
    if (num_entries_ > std::min(kMaxEntries, bytes_.size() / kMinEntryBytes)) {
      return fail(
          16, "{} metadata entries claimed in a file of {} bytes", num_entries_, bytes_.size());
    }
    return ok_status();
  }

  // A length-prefixed string of at most `max_bytes`.
  Result<std::string_view> text(std::string_view what, std::uint64_t max_bytes) {
    const std::uint64_t start = reader_.offset();
    std::uint64_t length = 0;
    if (!reader_.read(length)) return truncated(what);
    if (length > max_bytes)
      return fail(start, "{} of {} bytes; at most {}", what, length, max_bytes);
    std::string_view out;
    if (!reader_.read_text(length, out)) {
      return fail(
          start, "{} claims {} bytes, {} are left in the file", what, length, reader_.remaining());
    }
    return out;
  }

  Result<GgufType> value_type(std::string_view what) {
    const std::uint64_t start = reader_.offset();
    std::uint32_t type = 0;
    if (!reader_.read(type)) return truncated(what);
    if (type >= kTypes.size()) {
      return fail(
          start, "{}: unknown value type {}; known: 0 to {}", what, type, kTypes.size() - 1);
    }
    return static_cast<GgufType>(type);
  }

  Status entry(std::uint64_t index) {
    PM_ASSIGN(const std::string_view key,
              text(fmt::format("the key of metadata entry {}", index), kMaxNameBytes));
    const std::string where = fmt::format("key {}", in_quotes(key));
    PM_ASSIGN(const GgufType type, value_type(where));
    GgufEntry entry{key, type, {}, reader_.offset()};
    PM_ASSIGN(entry.value, value(type, where));
    file_.entries_.push_back(entry);
    return ok_status();
  }

  template <typename Stored, typename Widened>
  Result<GgufValue> scalar(const std::string& where) {
    Stored stored{};
    if (!reader_.read(stored)) return truncated(where);
    return GgufValue(static_cast<Widened>(stored));
  }

  Result<GgufValue> value(GgufType type, const std::string& where) {
    switch (type) {
      case GgufType::kU8:
        return scalar<std::uint8_t, std::uint64_t>(where);
      case GgufType::kI8:
        return scalar<std::int8_t, std::int64_t>(where);
      case GgufType::kU16:
        return scalar<std::uint16_t, std::uint64_t>(where);
      case GgufType::kI16:
        return scalar<std::int16_t, std::int64_t>(where);
      case GgufType::kU32:
        return scalar<std::uint32_t, std::uint64_t>(where);
      case GgufType::kI32:
        return scalar<std::int32_t, std::int64_t>(where);
      case GgufType::kF32:
        return scalar<float, double>(where);
      case GgufType::kU64:
        return scalar<std::uint64_t, std::uint64_t>(where);
      case GgufType::kI64:
        return scalar<std::int64_t, std::int64_t>(where);
      case GgufType::kF64:
        return scalar<double, double>(where);
      case GgufType::kBool: {
        const std::uint64_t start = reader_.offset();
        std::uint8_t flag = 0;
        if (!reader_.read(flag)) return truncated(where);
        if (flag > 1) return fail(start, "{}: a bool is 0 or 1, not {}", where, flag);
        return GgufValue(flag == 1);
      }
      case GgufType::kString: {
        PM_ASSIGN(const std::string_view string, text(where, bytes_.size()));
        return GgufValue(string);
      }
      case GgufType::kArray: {
        PM_ASSIGN(const GgufArray elements, array(where, 1));
        return GgufValue(elements);
      }
    }
    PM_CHECK(false, "type {}", static_cast<int>(type));
  }

  Result<GgufArray> array(const std::string& where, int depth) {
    const std::uint64_t start = reader_.offset();
    PM_ASSIGN(const GgufType element, value_type(where));
    GgufArray out{element, 0, {}};
    if (!reader_.read(out.count)) return truncated(where);
    const std::uint64_t first = reader_.offset();
    const std::uint64_t fixed = kTypes[static_cast<std::size_t>(element)].bytes;
    // A string takes at least its length field, an array its type and count.
    const std::uint64_t least = fixed != 0 ? fixed : element == GgufType::kString ? 8 : 12;
    if (out.count > reader_.remaining() / least) {
      return fail(start,
                  "{}: an array of {} elements of type {}, {} bytes are left in the file",
                  where,
                  out.count,
                  gguf_type_name(element),
                  reader_.remaining());
    }
    if (fixed != 0) {
      PM_CHECK(reader_.skip(out.count * fixed));
    } else if (element == GgufType::kString) {
      for (std::uint64_t i = 0; i < out.count; ++i) PM_TRY(text(where, bytes_.size()));
    } else {
      if (depth == kMaxArrayDepth) {
        return fail(start, "{}: arrays nested deeper than {}", where, kMaxArrayDepth);
      }
      for (std::uint64_t i = 0; i < out.count; ++i) PM_TRY(array(where, depth + 1));
    }
    out.bytes = bytes_.subspan(first, reader_.offset() - first);
    return out;
  }

  Status index_keys() {
    const auto& entries = file_.entries_;
    auto& order = file_.by_key_;
    order.resize(entries.size());
    std::iota(order.begin(), order.end(), 0u);
    std::sort(order.begin(), order.end(), [&](auto a, auto b) {
      return entries[a].key < entries[b].key;
    });
    for (std::size_t i = 1; i < order.size(); ++i) {
      const GgufEntry& a = entries[order[i - 1]];
      const GgufEntry& b = entries[order[i]];
      if (a.key == b.key) {
        return fail(std::max(a.offset, b.offset), "key {} occurs twice", in_quotes(a.key));
      }
    }
    return ok_status();
  }

  Result<DType> tensor_type(const std::string& where) {
    const std::uint64_t start = reader_.offset();
    std::uint32_t id = 0;
    if (!reader_.read(id)) return truncated(where);
    std::string supported;
    for (const GgmlType& type : kGgmlTypes) {
      if (type.id == id && type.dtype) return *type.dtype;
      if (type.dtype) supported += (supported.empty() ? "" : ", ") + std::string(type.name);
    }
    const auto* const known = std::find_if(
        kGgmlTypes.begin(), kGgmlTypes.end(), [&](const GgmlType& t) { return t.id == id; });
    return unsupported(fmt::format(
        "{}: offset {}: {} has type {}; supported: {}",
        file_.name_,
        start,
        where,
        known != kGgmlTypes.end() ? std::string(known->name) : fmt::format("{} (unknown)", id),
        supported));
  }

  Status tensor(std::uint64_t index) {
    PM_ASSIGN(const std::string_view name,
              text(fmt::format("the name of tensor {}", index), kMaxNameBytes));
    const std::string where = fmt::format("tensor {}", in_quotes(name));
    const std::uint64_t start = reader_.offset();
    std::uint32_t num_dims = 0;
    if (!reader_.read(num_dims)) return truncated(where);
    if (num_dims < 1 || num_dims > kMaxDims) {
      return fail(start, "{} has {} dimensions; 1 to {} are allowed", where, num_dims, kMaxDims);
    }
    StoredTensor tensor{std::string(name), DType::kF32, {}, 0, 0};
    tensor.shape.resize(num_dims);
    for (std::uint32_t d = 0; d < num_dims; ++d) {
      std::int64_t& dim = tensor.shape[num_dims - 1 - d];  // the file has the innermost first
      if (!reader_.read(dim)) return truncated(where);
      if (dim < 1) return fail(start, "{}: dimension {} is {}", where, d, dim);
    }
    PM_ASSIGN(tensor.dtype, tensor_type(where));
    const auto bytes = checked_bytes(tensor.dtype, tensor.shape);
    if (!bytes) {
      return fail(start,
                  "{}: shape {} is too large, or its rows are not whole blocks of {} elements ({})",
                  where,
                  shape_to_string(tensor.shape),
                  dtype_info(tensor.dtype).block_elements,
                  dtype_info(tensor.dtype).name);
    }
    tensor.bytes = *bytes;
    if (!reader_.read(tensor.offset)) return truncated(where);
    file_.tensors_.push_back(std::move(tensor));
    return ok_status();
  }

  // Offsets in the directory count from the data section, which begins after it, aligned.
  Status place_tensors() {
    PM_ASSIGN(const auto alignment_key, file_.integer("general.alignment"));
    const auto alignment = static_cast<std::uint64_t>(alignment_key.value_or(kDefaultAlignment));
    if (!std::has_single_bit(alignment) || alignment > kMaxAlignment) {
      return fail(file_.find("general.alignment")->offset,
                  "key 'general.alignment': {} is not a power of two of at most {}",
                  static_cast<std::int64_t>(alignment),
                  kMaxAlignment);
    }
    const std::uint64_t data = (reader_.offset() + alignment - 1) / alignment * alignment;
    for (StoredTensor& tensor : file_.tensors_) {
      if (tensor.offset % alignment != 0) {
        return fail(data,
                    "tensor {}: its offset {} in the data section is not a multiple of {}",
                    in_quotes(tensor.name),
                    tensor.offset,
                    alignment);
      }
      if (data > bytes_.size() || tensor.offset > bytes_.size() - data ||
          tensor.bytes > bytes_.size() - data - tensor.offset) {
        return fail(data,
                    "tensor {}: {} bytes at {} of the data section end past the file's {} bytes; "
                    "is the download complete?",
                    in_quotes(tensor.name),
                    tensor.bytes,
                    tensor.offset,
                    bytes_.size());
      }
      tensor.offset += data;
    }
    return ok_status();
  }

  std::span<const std::byte> bytes_;
  ByteReader reader_;
  std::uint64_t num_tensors_ = 0;
  std::uint64_t num_entries_ = 0;
  GgufFile file_;
};

Result<GgufFile> GgufFile::parse(std::span<const std::byte> bytes, std::string name) {
  return GgufParser(bytes, std::move(name)).run();
}

const GgufEntry* GgufFile::find(std::string_view key) const {
  const auto it = std::lower_bound(
      by_key_.begin(), by_key_.end(), key, [&](std::uint32_t index, std::string_view wanted) {
        return entries_[index].key < wanted;
      });
  return it != by_key_.end() && entries_[*it].key == key ? &entries_[*it] : nullptr;
}

Error GgufFile::wrong_type(const GgufEntry& entry, std::string_view wanted) const {
  return corrupt(fmt::format("{}: offset {}: key {}: expected {}, got {}",
                             name_,
                             entry.offset,
                             in_quotes(entry.key),
                             wanted,
                             gguf_type_name(entry.type)));
}

Result<std::optional<std::int64_t>> GgufFile::integer(std::string_view key) const {
  const GgufEntry* const entry = find(key);
  if (entry == nullptr) return std::optional<std::int64_t>();
  if (const auto* value = std::get_if<std::int64_t>(&entry->value)) return std::optional(*value);
  const auto* const value = std::get_if<std::uint64_t>(&entry->value);
  if (value == nullptr || *value > INT64_MAX) return wrong_type(*entry, "an integer below 2^63");
  return std::optional(static_cast<std::int64_t>(*value));
}

Result<std::optional<double>> GgufFile::number(std::string_view key) const {
  const GgufEntry* const entry = find(key);
  if (entry == nullptr) return std::optional<double>();
  if (const auto* value = std::get_if<double>(&entry->value)) return std::optional(*value);
  if (const auto* value = std::get_if<std::int64_t>(&entry->value)) {
    return std::optional(static_cast<double>(*value));
  }
  if (const auto* value = std::get_if<std::uint64_t>(&entry->value)) {
    return std::optional(static_cast<double>(*value));
  }
  return wrong_type(*entry, "a number");
}

Result<std::optional<bool>> GgufFile::boolean(std::string_view key) const {
  const GgufEntry* const entry = find(key);
  if (entry == nullptr) return std::optional<bool>();
  if (const auto* value = std::get_if<bool>(&entry->value)) return std::optional(*value);
  return wrong_type(*entry, "a bool");
}

Result<std::optional<std::string_view>> GgufFile::string(std::string_view key) const {
  const GgufEntry* const entry = find(key);
  if (entry == nullptr) return std::optional<std::string_view>();
  if (const auto* value = std::get_if<std::string_view>(&entry->value)) {
    return std::optional(*value);
  }
  return wrong_type(*entry, "a string");
}

Result<std::optional<GgufArray>> GgufFile::array(std::string_view key) const {
  const GgufEntry* const entry = find(key);
  if (entry == nullptr) return std::optional<GgufArray>();
  if (const auto* value = std::get_if<GgufArray>(&entry->value)) return std::optional(*value);
  return wrong_type(*entry, "an array");
}

}  // namespace pagemill
