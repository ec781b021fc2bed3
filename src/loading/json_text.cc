#include "loading/json_text.h"

#include <utility>
#include <vector>

#include "loading/stored_tensor.h"
#include "tensor/mapped_file.h"

namespace pagemill {
namespace {

using nlohmann::json;

// Builds the document. A SAX handler rather than json::parse: that one takes the last of two equal
// keys, and any depth.
class Builder : public nlohmann::json_sax<json> {
 public:
  explicit Builder(const std::string& file) : file_(file) {}

  json& document() { return document_; }
  const std::string& problem() const { return problem_; }

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t&) override { return add(value); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t&) override { return false; }  // no JSON text has one
  bool start_object(std::size_t) override { return open(json::object()); }
  bool start_array(std::size_t) override { return open(json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    if (stack_.back()->contains(name)) {
      problem_ = fmt::format("{}: key {} occurs twice in one object", file_, in_quotes(name));
      return false;
    }
    key_ = std::move(name);
    return true;
  }

  bool parse_error(std::size_t position,
                   const std::string& token,
                   const nlohmann::detail::exception&) override {
    problem_ =
        fmt::format("{}: byte {}: not valid JSON near {}", file_, position, in_quotes(token));
    return false;
  }

 private:
  bool add(json value) {
    place(std::move(value));
    return true;
  }

  bool open(json container) {
    if (stack_.size() == kMaxJsonDepth) {
      problem_ = fmt::format("{}: nested deeper than {} levels", file_, kMaxJsonDepth);
      return false;
    }
    stack_.push_back(place(std::move(container)));
    return true;
  }

  bool close() {
    stack_.pop_back();
    return true;
  }

  // Parents are complete but for their last child, so that pointers into them stay good.
  json* place(json value) {
    if (stack_.empty()) {
      document_ = std::move(value);
      return &document_;
    }
    json& parent = *stack_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    return &(parent[key_] = std::move(value));
  }

  const std::string& file_;
  json document_;
  std::vector<json*> stack_;
  std::string key_;
  std::string problem_;
};

}  // namespace

Result<json> parse_json(std::string_view text, const std::string& file) {
  Builder builder(file);
  if (!json::sax_parse(text, &builder)) return corrupt(builder.problem());
  return std::move(builder.document());
}

Result<json> read_json_object(const std::string& path, std::size_t max_bytes) {
  PM_ASSIGN(const MappedFile file, MappedFile::open(path));
  if (file.size() > max_bytes) {
    return corrupt(fmt::format("{}: {} bytes; at most {} are read", path, file.size(), max_bytes));
  }
  PM_ASSIGN(json document,
            parse_json({reinterpret_cast<const char*>(file.data()), file.size()}, path));
  if (!document.is_object()) {
    return corrupt(fmt::format("{}: expected a JSON object, got {}", path, document.type_name()));
  }
  return document;
}

}  // namespace pagemill
