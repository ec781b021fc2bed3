// Reads golden files (golden_format.py describes and writes them): named arrays of numbers and a
// JSON `meta`.
#pragma once

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <span>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

namespace pagemill {

// Throws std::runtime_error naming the file for whatever is wrong: a test has nothing better to do.
class GoldenFile {
 public:
  explicit GoldenFile(std::string path) : path_(std::move(path)) {
    std::ifstream in(path_, std::ios::binary);
    content_.assign(std::istreambuf_iterator<char>(in), {});
    if (content_.size() < 16 || std::memcmp(content_.data(), "PMGOLD01", 8) != 0) {
      fail("missing, or no golden file");
    }
    std::uint64_t header_bytes = 0;
    std::memcpy(&header_bytes, content_.data() + 8, sizeof(header_bytes));
    if (header_bytes > content_.size() - 16) fail("truncated");
    header_ = nlohmann::json::parse(content_.begin() + 16, content_.begin() + 16 + header_bytes);
    data_ = 16 + header_bytes;
  }

  const std::string& path() const { return path_; }
  const nlohmann::json& meta() const { return header_.at("meta"); }
  bool has(const std::string& name) const { return header_.at("arrays").contains(name); }
  std::vector<std::int64_t> shape(const std::string& name) const {
    return entry(name).at("shape").get<std::vector<std::int64_t>>();
  }

  // The whole array, row-major. T must be the stored type: uint16_t, int32_t, float or double.
  template <typename T>
  std::vector<T> array(const std::string& name) const {
    const nlohmann::json& found = entry(name);
    if (found.at("dtype").get<std::string>() != dtype_name<T>()) fail(name + " has another dtype");
    std::size_t count = 1;
    for (std::int64_t extent : shape(name)) count *= static_cast<std::size_t>(extent);
    const std::size_t begin = data_ + found.at("offset").get<std::size_t>();
    if (begin + count * sizeof(T) > content_.size()) fail(name + " is truncated");
    std::vector<T> values(count);
    if (count > 0) std::memcpy(values.data(), content_.data() + begin, count * sizeof(T));
    return values;
  }

  // Token ids, widened.
  std::vector<std::int32_t> tokens(const std::string& name) const {
    const auto stored = array<std::uint16_t>(name);
    return {stored.begin(), stored.end()};
  }

  // "prompt_tokens" cut at "prompt_offsets".
  std::vector<std::vector<std::int32_t>> prompts() const {
    const auto all = tokens("prompt_tokens");
    const auto offsets = array<std::int32_t>("prompt_offsets");
    std::vector<std::vector<std::int32_t>> result;
    for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
      result.emplace_back(all.begin() + offsets[i], all.begin() + offsets[i + 1]);
    }
    return result;
  }

 private:
  template <typename T>
  static constexpr const char* dtype_name() {
    if constexpr (std::is_same_v<T, std::uint16_t>) return "u16";
    if constexpr (std::is_same_v<T, std::int32_t>) return "i32";
    if constexpr (std::is_same_v<T, float>) return "f32";
    if constexpr (std::is_same_v<T, double>) return "f64";
  }

  const nlohmann::json& entry(const std::string& name) const {
    const auto& arrays = header_.at("arrays");
    if (!arrays.contains(name)) fail("no array " + name);
    return arrays.at(name);
  }
  [[noreturn]] void fail(const std::string& what) const {
    throw std::runtime_error(path_ + ": " + what);
  }

  std::string path_;
  std::vector<char> content_;
  nlohmann::json header_;
  std::size_t data_ = 0;
};

}  // namespace pagemill
