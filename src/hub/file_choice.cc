#include "hub/file_choice.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "hub/repo_name.h"

namespace pagemill {
namespace {

using Names = std::vector<std::string>;

constexpr std::string_view kConfig = "config.json";
// Read where they are there.
constexpr std::array<std::string_view, 10> kSideFiles = {"generation_config.json",
                                                         "tokenizer_config.json",
                                                         "tokenizer.json",
                                                         "tokenizer.model",
                                                         "vocab.json",
                                                         "merges.txt",
                                                         "added_tokens.json",
                                                         "special_tokens_map.json",
                                                         "chat_template.jinja",
                                                         "chat_template.json"};
// In the loader's order of preference.
constexpr std::array<std::string_view, 4> kWeights = {"model.safetensors.index.json",
                                                      "model.safetensors",
                                                      "pytorch_model.bin.index.json",
                                                      "pytorch_model.bin"};
// What llama.cpp takes where no quantization is named.
constexpr std::string_view kDefaultQuant = "Q4_K_M";
constexpr std::size_t kMaxListed = 40;

bool has(const Names& names, std::string_view name) {
  return std::ranges::find(names, name) != names.end();
}

std::string list(const Names& names) {
  if (names.empty()) return "none";
  const std::size_t shown = std::min(names.size(), kMaxListed);
  std::string text = fmt::format("{}", fmt::join(names.begin(), names.begin() + shown, ", "));
  if (shown < names.size()) text += fmt::format(" and {} more", names.size() - shown);
  return text;
}

std::string upper(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), [](unsigned char c) { return std::toupper(c); });
  return out;
}

// GGUF files that are models: not the projectors and importance matrices that lie beside them.
Names gguf_models(const Names& names) {
  Names found;
  for (const std::string& name : names) {
    const std::string base = upper(name.substr(name.rfind('/') + 1));
    if (base.ends_with(".GGUF") && base.find("MMPROJ") == base.npos &&
        base.find("IMATRIX") == base.npos) {
      found.push_back(name);
    }
  }
  std::ranges::sort(found);
  return found;
}

// Whether a file's name has the quantization as a word of its own: "Q4_K" is not in "x-Q4_K_M.gguf"
// nor in "x-IQ4_K.gguf".
bool has_quant(const std::string& name, const std::string& quant) {
  const std::string text = upper(name), word = upper(quant);
  for (std::size_t at = text.find(word); at != text.npos; at = text.find(word, at + 1)) {
    const std::size_t end = at + word.size();
    const bool begins = at == 0 || std::string_view("-_./").find(text[at - 1]) != std::string::npos;
    const bool ends =
        end < text.size() && std::string_view("-./").find(text[end]) != std::string::npos;
    if (begins && ends) return true;
  }
  return false;
}

// "model-00002-of-00003.gguf"
bool is_part_of_split(std::string_view name) {
  const std::size_t of = name.rfind("-of-");
  if (of == name.npos || of < 6) return false;
  const std::string_view number = name.substr(of - 5, 5);
  return name[of - 6] == '-' &&
         std::ranges::all_of(number, [](unsigned char c) { return std::isdigit(c) != 0; });
}

FileChoice only(const std::string& gguf_file) {
  return {.files = {gguf_file}, .shard_index = {}, .gguf_file = gguf_file};
}

Result<FileChoice> checked(const std::string& gguf_file, const std::string& repo) {
  if (!is_part_of_split(gguf_file)) return only(gguf_file);
  return unsupported(fmt::format(
      "{}: {} is a part of a split GGUF model, which is not supported: merge its parts, "
      "or choose a quantization that is one file",
      repo,
      gguf_file));
}

Result<FileChoice> choose_gguf(const Names& names, const FileWish& wish, const std::string& repo) {
  const Names models = gguf_models(names);
  if (!wish.gguf_file.empty()) {
    if (has(names, wish.gguf_file)) return checked(wish.gguf_file, repo);
    return not_found(
        fmt::format("{}: no file '{}'; its GGUF files: {}", repo, wish.gguf_file, list(models)));
  }
  if (wish.quant.empty() && models.size() == 1) return checked(models.front(), repo);
  const std::string quant = wish.quant.empty() ? std::string(kDefaultQuant) : wish.quant;
  Names matching;
  std::ranges::copy_if(models, std::back_inserter(matching), [&](const std::string& name) {
    return has_quant(name, quant);
  });
  if (matching.size() == 1) return checked(matching.front(), repo);
  if (!matching.empty() && std::ranges::all_of(matching, is_part_of_split)) {
    return checked(matching.front(), repo);
  }
  if (matching.empty()) {
    return not_found(
        fmt::format("{}: no GGUF file of quantization {}; there are: {}; choose one "
                    "with {}:QUANT or --gguf-file",
                    repo,
                    quant,
                    list(models),
                    repo));
  }
  return invalid_argument(
      fmt::format("{}: several GGUF files of quantization {}: {}; choose one with --gguf-file",
                  repo,
                  quant,
                  list(matching)));
}

std::optional<std::string_view> weights_in(const Names& names) {
  for (const std::string_view weights : kWeights) {
    if (has(names, weights)) return weights;
  }
  return std::nullopt;
}

}  // namespace

Result<FileChoice> choose_files(const Names& names, const FileWish& wish, const std::string& repo) {
  if (!wish.quant.empty() || !wish.gguf_file.empty()) return choose_gguf(names, wish, repo);
  const auto weights = weights_in(names);
  if (!weights && !gguf_models(names).empty()) return choose_gguf(names, wish, repo);
  if (!weights || !has(names, kConfig)) {
    Names sorted = names;
    std::ranges::sort(sorted);
    return not_found(
        fmt::format("{}: no model: expected config.json with one of {}, or a GGUF "
                    "file; there are: {}",
                    repo,
                    fmt::join(kWeights, ", "),
                    list(sorted)));
  }
  FileChoice choice;
  choice.files.emplace_back(kConfig);
  for (const std::string_view name : kSideFiles) {
    if (has(names, name)) choice.files.emplace_back(name);
  }
  choice.files.emplace_back(*weights);
  if (weights->ends_with(".index.json")) choice.shard_index = *weights;
  return choice;
}

Result<Names> shards_of_index(std::string_view json, const std::string& file) {
  const auto index = nlohmann::json::parse(json, nullptr, false);
  const auto wrong = [&](std::string_view what) {
    return corrupt(
        fmt::format("{}: expected an object 'weight_map' of file names: {}", file, what));
  };
  if (!index.is_object()) return wrong("it is no JSON object");
  const auto map = index.find("weight_map");
  if (map == index.end() || !map->is_object() || map->empty()) return wrong("it has none");
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : map->items()) {
    if (!shard.is_string()) return wrong("a value is no text");
    const auto& name = shard.get_ref<const std::string&>();
    if (!is_safe_file_name(name) || name.find('/') != name.npos) {
      return wrong(fmt::format("'{}' is not the name of a file in the same folder", name));
    }
    shards.insert(name);
  }
  return Names(shards.begin(), shards.end());
}

}  // namespace pagemill
