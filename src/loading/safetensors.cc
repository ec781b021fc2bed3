#include "loading/safetensors.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "loading/byte_reader.h"

namespace pagemill {
namespace {

constexpr std::uint64_t kPrefix = 8;  // the header's length

constexpr std::array<std::pair<std::string_view, DType>, 10> kTypes = {{
    {"F32", DType::kF32},
    {"F16", DType::kF16},
    {"BF16", DType::kBF16},
    {"F64", DType::kF64},
    {"I8", DType::kI8},
    {"I16", DType::kI16},
    {"I32", DType::kI32},
    {"I64", DType::kI64},
    {"U8", DType::kU8},
    {"BOOL", DType::kBool},
}};

// Reads the header as it is parsed: no document is built, so that memory is bounded by the tensors
// that are really there, and nesting by the four levels of the format.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderReader(const std::string& file, std::uint64_t file_bytes, std::uint64_t data_offset)
      : file_(file), data_offset_(data_offset), data_bytes_(file_bytes - data_offset) {}

  Error take_error() { return std::move(error_); }
  std::vector<StoredTensor> take_tensors() { return std::move(tensors_); }
  std::vector<std::string> take_metadata_keys() { return std::move(metadata_keys_); }

  bool null() override { return unexpected("null"); }
  bool boolean(bool) override { return unexpected("a boolean"); }
  bool number_float(number_float_t, const string_t&) override {
    return unexpected("a number that is not a whole one");
  }
  bool binary(binary_t&) override { return unexpected("binary"); }
  bool number_integer(number_integer_t) override { return unexpected("a negative number"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ == Place::kShape) {
      if (tensor_.shape.size() == kMaxTensorRank) {
        return fail(fmt::format("more than {} dimensions", kMaxTensorRank));
      }
      if (value > INT64_MAX) return fail(fmt::format("a dimension of {}", value));
      tensor_.shape.push_back(static_cast<std::int64_t>(value));
      return true;
    }
    if (place_ == Place::kOffsets) {
      if (num_offsets_ == 2) return fail("'data_offsets' has more than two numbers");
      offsets_[num_offsets_++] = value;
      return true;
    }
    return unexpected("a number");
  }

  bool string(string_t& value) override {
    if (place_ == Place::kMetadata) return true;
    if (place_ != Place::kTensor || field_ != "dtype") return unexpected("a string");
    for (const auto& [name, dtype] : kTypes) {
      if (name == value) {
        tensor_.dtype = dtype;
        return true;
      }
    }
    std::string known;
    for (const auto& [name, dtype] : kTypes)
      known += (known.empty() ? "" : ", ") + std::string(name);
    fail(fmt::format("type {} is not supported; supported: {}", in_quotes(value), known));
    error_.code = ErrorCode::kUnsupported;
    return false;
  }

  bool start_object(std::size_t) override {
    if (place_ == Place::kOutside) {
      place_ = Place::kDirectory;
      return true;
    }
    if (place_ != Place::kDirectory) return unexpected("an object");
    place_ = tensor_.name == "__metadata__" ? Place::kMetadata : Place::kTensor;
    return true;
  }

  bool end_object() override {
    if (place_ == Place::kDirectory) return true;
    const bool is_tensor = place_ == Place::kTensor;
    place_ = Place::kDirectory;
    return !is_tensor || finish_tensor();
  }

  bool start_array(std::size_t) override {
    if (place_ == Place::kTensor && field_ == "shape") {
      place_ = Place::kShape;
    } else if (place_ == Place::kTensor && field_ == "data_offsets") {
      place_ = Place::kOffsets;
    } else {
      return unexpected("an array");
    }
    return true;
  }

  bool end_array() override {
    place_ = Place::kTensor;
    return true;
  }

  bool key(string_t& name) override {
    if (place_ == Place::kDirectory) {
      tensor_ = {};
      tensor_.name = std::move(name);
      seen_ = {};
      num_offsets_ = 0;
      if (tensor_.name == "__metadata__" && std::exchange(seen_metadata_, true)) {
        return fail("occurs twice");
      }
      return true;
    }
    field_ = std::move(name);
    if (place_ == Place::kMetadata) {
      metadata_keys_.push_back(field_);
      return true;
    }
    const auto* const known = std::find(kFields.begin(), kFields.end(), field_);
    if (known == kFields.end()) return fail(fmt::format("unknown field {}", in_quotes(field_)));
    bool& seen = seen_[static_cast<std::size_t>(known - kFields.begin())];
    if (std::exchange(seen, true)) return fail(fmt::format("'{}' occurs twice", field_));
    return true;
  }

  bool parse_error(std::size_t position,
                   const std::string& token,
                   const nlohmann::detail::exception&) override {
    error_ = corrupt(fmt::format("{}: offset {}: the header is not valid JSON near {}",
                                 file_,
                                 kPrefix + position,
                                 in_quotes(token)));
    return false;
  }

 private:
  // Where the parser stands.
  enum class Place { kOutside, kDirectory, kMetadata, kTensor, kShape, kOffsets };
  static constexpr std::array<std::string_view, 3> kFields = {"dtype", "shape", "data_offsets"};

  bool fail(const std::string& what) {
    error_ =
        corrupt(fmt::format("{}: header, tensor {}: {}", file_, in_quotes(tensor_.name), what));
    return false;
  }
  bool unexpected(std::string_view what) {
    if (place_ == Place::kOutside) {
      error_ = corrupt(
          fmt::format("{}: offset {}: the header is {}, not an object", file_, kPrefix, what));
      return false;
    }
    if (place_ == Place::kDirectory) return fail(fmt::format("{} instead of an object", what));
    return fail(fmt::format("'{}' holds {}", field_, what));
  }

  bool finish_tensor() {
    for (std::size_t i = 0; i < kFields.size(); ++i) {
      if (!seen_[i]) return fail(fmt::format("'{}' is missing", kFields[i]));
    }
    if (num_offsets_ != 2) return fail("'data_offsets' needs two numbers");
    const auto [begin, end] = offsets_;
    if (begin > end || end > data_bytes_) {
      return fail(fmt::format(
          "data_offsets [{}, {}] do not lie in the {} bytes after the header; is the download "
          "complete?",
          begin,
          end,
          data_bytes_));
    }
    const auto bytes = checked_bytes(tensor_.dtype, tensor_.shape);
    if (!bytes || *bytes != end - begin) {
      return fail(fmt::format("shape {} of {} does not take the {} bytes of data_offsets [{}, {}]",
                              shape_to_string(tensor_.shape),
                              dtype_info(tensor_.dtype).name,
                              end - begin,
                              begin,
                              end));
    }
    if (tensors_.size() == kMaxTensors)
      return fail(fmt::format("more than {} tensors", kMaxTensors));
    tensor_.offset = data_offset_ + begin;
    tensor_.bytes = *bytes;
    tensors_.push_back(std::move(tensor_));
    return true;
  }

  const std::string& file_;
  const std::uint64_t data_offset_;
  const std::uint64_t data_bytes_;
  Place place_ = Place::kOutside;
  StoredTensor tensor_;
  std::string field_;
  std::array<bool, kFields.size()> seen_{};
  std::array<std::uint64_t, 2> offsets_{};
  std::size_t num_offsets_ = 0;
  bool seen_metadata_ = false;
  std::vector<std::string> metadata_keys_;
  std::vector<StoredTensor> tensors_;
  Error error_;
};

}  // namespace

Result<std::vector<StoredTensor>> parse_safetensors(std::span<const std::byte> bytes,
                                                    const std::string& file) {
  ByteReader reader(bytes);
  std::uint64_t header_bytes = 0;
  if (!reader.read(header_bytes)) {
    return corrupt(fmt::format(
        "{}: offset 0: {} bytes are too few for a safetensors file", file, bytes.size()));
  }
  if (header_bytes > kMaxSafetensorsHeader || header_bytes > reader.remaining()) {
    return corrupt(fmt::format("{}: offset 0: a header of {} bytes in a file of {} (at most {})",
                               file,
                               header_bytes,
                               bytes.size(),
                               kMaxSafetensorsHeader));
  }
  std::string_view header;
  PM_CHECK(reader.read_text(header_bytes, header));
  HeaderReader sax(file, bytes.size(), kPrefix + header_bytes);
  if (!nlohmann::json::sax_parse(header, &sax)) return sax.take_error();
  std::vector<std::string> keys = sax.take_metadata_keys();
  std::sort(keys.begin(), keys.end());
  if (const auto twice = std::adjacent_find(keys.begin(), keys.end()); twice != keys.end()) {
    return corrupt(
        fmt::format("{}: header, '__metadata__': key {} occurs twice", file, in_quotes(*twice)));
  }
  std::vector<StoredTensor> tensors = sax.take_tensors();
  PM_TRY(check_directory(tensors, file, false));
  return tensors;
}

}  // namespace pagemill
