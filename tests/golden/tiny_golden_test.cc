// Every variant of a configuration and every storage of weights, as tiny random models, against
// what Transformers computes in float32 (make_tiny_models.py, make_tiny_gguf.py).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>

#include "base/files_testing.h"
#include "golden/engine_testing.h"
#include "golden/golden_reader.h"
#include "kernels/isa.h"

namespace pagemill {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr double kTolerance = 1e-3;           // logits, float32 on any instruction set
constexpr double kQuantizedTolerance = 1e-4;  // logits, quantized weights and float32 activations
constexpr double kNoticeable = 1e-2;          // what a feature switched off must change
constexpr std::int32_t kWhole = TestEngine::kMaxTokens;

fs::path tiny_dir() { return fs::path(PM_GOLDEN_DIR) / "tiny"; }

std::vector<std::string> variants(std::string_view prefix = "") {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(tiny_dir())) {
    const std::string name = entry.path().filename();
    if (name.starts_with(prefix)) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string model_path(const fs::path& directory) {
  return fs::exists(directory / "model.gguf") ? directory / "model.gguf" : directory;
}

// A W8A8 checkpoint says how to compute, which its golden follows; all others are float32.
std::optional<DType> golden_compute(const std::string& variant) {
  return variant.starts_with("w8a8_") ? std::nullopt : std::optional(DType::kF32);
}

GoldenFile golden_of(const std::string& variant) {
  return GoldenFile(tiny_dir() / variant / (variant + ".golden"));
}

// The prompts, and as the last sequence the longest prompt with its continuation.
struct Sequences {
  explicit Sequences(const GoldenFile& golden) : tokens(golden.prompts()) {
    for (const auto& prompt : tokens) lens.push_back(static_cast<std::int32_t>(prompt.size()));
    lens.push_back(lens.back());
    tokens.push_back(tokens.back());
    const auto continuation = golden.tokens("continuation");
    tokens.back().insert(tokens.back().end(), continuation.begin(), continuation.end() - 1);
  }
  std::vector<std::vector<TokenId>> tokens;
  std::vector<std::int32_t> lens;
};

// All logits of a run, by (sequence, position).
using AllLogits = std::map<std::pair<std::size_t, std::int32_t>, std::vector<float>>;

AllLogits run(TestEngine& engine, const Sequences& sequences, std::int32_t chunk) {
  AllLogits all;
  engine.run(sequences.tokens,
             sequences.lens,
             chunk,
             [&](std::size_t index, std::int32_t position, std::span<const float> logits) {
               EXPECT_TRUE(all.try_emplace({index, position}, logits.begin(), logits.end()).second)
                   << "position " << position << " of sequence " << index << " twice";
             });
  return all;
}

// The greatest and the root mean square difference from the golden, over every position of every
// sequence.
struct Difference {
  double greatest = 0;
  double rms = 0;
};

Difference compare(const GoldenFile& golden, const Sequences& sequences, const AllLogits& all) {
  const auto columns = golden.array<std::int32_t>("column_ids");
  const auto expected = golden.array<float>("logits");
  const auto steps = golden.array<float>("continuation_logits");
  Difference difference;
  std::size_t count = 0;
  const auto compare_row = [&](const std::vector<float>& logits, const float* row) {
    for (std::size_t c = 0; c < columns.size(); ++c) {
      const double d = std::abs(double{logits.at(columns[c])} - row[c]);
      difference.greatest = std::isnan(d) ? INFINITY : std::max(difference.greatest, d);
      difference.rms += d * d;
      ++count;
    }
  };
  std::size_t row = 0;
  const std::size_t last = sequences.tokens.size() - 1;
  for (std::size_t i = 0; i < last; ++i) {
    for (std::int32_t p = 0; p < sequences.lens[i]; ++p, ++row) {
      compare_row(all.at({i, p}), expected.data() + row * columns.size());
    }
  }
  EXPECT_EQ(row * columns.size(), expected.size());
  const std::int32_t first = sequences.lens.back() - 1;  // predicts the continuation's first token
  for (std::size_t step = 0; step * columns.size() < steps.size(); ++step) {
    compare_row(all.at({last, first + static_cast<std::int32_t>(step)}),
                steps.data() + step * columns.size());
  }
  difference.rms = std::sqrt(difference.rms / static_cast<double>(count));
  return difference;
}

std::unique_ptr<TestEngine> load(const std::string& path, const TestEngineOptions& options) {
  auto engine = TestEngine::load(path, options);
  if (!engine.ok()) {
    ADD_FAILURE() << path << ": " << engine.error().message;
    return nullptr;
  }
  return std::move(engine.value());
}

class TinyGolden : public testing::TestWithParam<std::tuple<std::string, Isa>> {
 protected:
  const std::string& variant() const { return std::get<0>(GetParam()); }
  Isa isa() const { return std::get<1>(GetParam()); }
};

// In one piece on one thread, and in chunks of 16 on two: the golden's logits, and the same bits.
TEST_P(TinyGolden, LogitsAtEveryPosition) {
  const GoldenFile golden = golden_of(variant());
  ASSERT_GE(golden.meta().at("std").get<double>(), 1.0);
  const Sequences sequences(golden);
  const std::string path = model_path(tiny_dir() / variant());
  AllLogits whole;
  for (const auto& [threads, chunk] : {std::pair{1, kWhole}, std::pair{2, 16}}) {
    const auto engine =
        load(path, {.isa = isa(), .compute = golden_compute(variant()), .threads = threads});
    ASSERT_NE(engine, nullptr);
    AllLogits all = run(*engine, sequences, chunk);
    EXPECT_LE(compare(golden, sequences, all).greatest, kTolerance) << "chunks of " << chunk;
    if (whole.empty()) {
      whole = std::move(all);
    } else {
      EXPECT_TRUE(all == whole) << "chunking or threads changed bits";
    }
  }
}

TEST_P(TinyGolden, GreedyTokens) {
  const GoldenFile golden = golden_of(variant());
  const auto engine = load(model_path(tiny_dir() / variant()),
                           {.isa = isa(), .compute = golden_compute(variant())});
  ASSERT_NE(engine, nullptr);
  const auto expected = golden.tokens("continuation");
  const auto gaps = golden.array<float>("continuation_gaps");
  const std::vector<std::vector<TokenId>> longest = {golden.prompts().back()};
  const auto sampled =
      engine->generate(longest, static_cast<std::int32_t>(expected.size()), 1).front();
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (gaps[i] <= 2 * kTolerance && sampled[i].token != expected[i])
      break;  // a tie: both are right
    ASSERT_EQ(sampled[i].token, expected[i]) << "step " << i;
  }
}

class TinyQuantized : public TinyGolden {};

// Computed on in compressed form. Activations stay float32 in scalar code and beside float weights;
// vector code rounds them to 8 bits beside quantized weights, and every path to bfloat16 beside
// bfloat16.
TEST_P(TinyQuantized, AsStored) {
  const GoldenFile golden = golden_of(variant());
  const auto engine =
      load(model_path(tiny_dir() / variant()), {.isa = isa(), .compute = std::nullopt});
  ASSERT_NE(engine, nullptr);
  const Sequences sequences(golden);
  const Difference difference = compare(golden, sequences, run(*engine, sequences, 16));
  RecordProperty("rms", std::to_string(difference.rms));
  const bool is_float = variant() == "gguf_f32" || variant() == "gguf_f16";
  if (is_float || (isa() == Isa::kScalar && variant() != "gguf_bf16")) {
    EXPECT_LE(difference.greatest, kQuantizedTolerance);
  } else {
    EXPECT_LE(difference.rms, 0.05 * golden.meta().at("std").get<double>());
  }
}

std::string name_of(const testing::TestParamInfo<TinyGolden::ParamType>& info) {
  return std::get<0>(info.param) + "_" + std::string(to_string(std::get<1>(info.param)));
}
INSTANTIATE_TEST_SUITE_P(Variants,
                         TinyGolden,
                         testing::Combine(testing::ValuesIn(variants()),
                                          testing::ValuesIn(supported_isas())),
                         name_of);
INSTANTIATE_TEST_SUITE_P(Variants,
                         TinyQuantized,
                         testing::Combine(testing::ValuesIn(variants("gguf_")),
                                          testing::ValuesIn(supported_isas())),
                         name_of);

// A copy of a variant's directory, changed as one entry of `meta.without` says.
class ChangedModel {
 public:
  ChangedModel(const std::string& variant, const json& change) {
    for (const auto& entry : fs::directory_iterator(tiny_dir() / variant)) {
      fs::copy_file(fs::canonical(entry.path()), directory_ / entry.path().filename());
    }
    if (change.contains("config")) {
      json config = json::parse(std::ifstream(directory_ / "config.json"));
      config.merge_patch(change.at("config"));
      std::ofstream(directory_ / "config.json") << config;
    }
    change_tensors(change);
  }
  std::string path() const { return directory_; }

 private:
  // Overwrites tensors of model.safetensors in place; those of "one" are bfloat16.
  void change_tensors(const json& change) {
    const fs::path file = directory_ / "model.safetensors";
    std::ifstream in(file, std::ios::binary);
    std::vector<char> bytes{std::istreambuf_iterator<char>(in), {}};
    in.close();
    std::uint64_t header_bytes = 0;
    std::memcpy(&header_bytes, bytes.data(), sizeof(header_bytes));
    const json header = json::parse(bytes.begin() + 8, bytes.begin() + 8 + header_bytes);
    const auto data = [&](const std::string& name) {
      const auto& offsets = header.at(name).at("data_offsets");
      return std::span<char>(bytes.data() + 8 + header_bytes + offsets.at(0).get<std::size_t>(),
                             offsets.at(1).get<std::size_t>() - offsets.at(0).get<std::size_t>());
    };
    for (const auto& name : change.value("zero", json::array())) std::ranges::fill(data(name), 0);
    for (const auto& name : change.value("one", json::array())) {
      const std::span<char> target = data(name);
      for (std::size_t i = 0; i < target.size(); i += 2) {
        target[i] = static_cast<char>(0x80);  // 1.0 is 0x3f80
        target[i + 1] = 0x3f;
      }
    }
    const json copies = change.value("copy", json::object());
    for (const auto& [target, source] : copies.items()) {
      std::ranges::copy(data(source), data(target).begin());
    }
    std::ofstream(file, std::ios::binary)
        .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }

  const TemporaryFolder folder_;
  const fs::path directory_ = folder_.path();
};

// Switching off any feature must make its golden fail, by as much as Transformers' own logits move.
TEST(TinyGoldenChanges, EveryFeatureCounts) {
  std::size_t num_changes = 0;
  for (const std::string& variant : variants()) {
    const GoldenFile golden = golden_of(variant);
    for (const json& change : golden.meta().at("without")) {
      SCOPED_TRACE(variant + ": " + change.at("label").get<std::string>());
      const ChangedModel changed(variant, change);
      const auto engine =
          load(changed.path(), {.isa = choose_isa().value(), .compute = golden_compute(variant)});
      ASSERT_NE(engine, nullptr);
      Sequences sequences(golden);
      const AllLogits all = run(*engine, sequences, 16);
      // Transformers measured the change on the prompts alone.
      const auto columns = golden.array<std::int32_t>("column_ids");
      const auto expected = golden.array<float>("logits");
      double greatest = 0;
      std::size_t row = 0;
      for (std::size_t i = 0; i + 1 < sequences.tokens.size(); ++i) {
        for (std::int32_t p = 0; p < sequences.lens[i]; ++p, ++row) {
          for (std::size_t c = 0; c < columns.size(); ++c) {
            const double d =
                std::abs(double{all.at({i, p})[columns[c]]} - expected[row * columns.size() + c]);
            greatest = std::max(greatest, d);
          }
        }
      }
      EXPECT_GE(greatest, kNoticeable);
      EXPECT_NEAR(greatest, change.at("difference").get<double>(), 2 * kTolerance);
      ++num_changes;
    }
  }
  EXPECT_GE(num_changes, 100u);
}

// Guards against a directory that is empty or was moved: then nothing above would have run.
TEST(TinyGoldenChanges, AllVariantsAreThere) {
  EXPECT_GE(variants().size(), 80u);
  EXPECT_GE(variants("w8a8_").size(), 3u);
  EXPECT_GE(variants("gguf_").size(), 14u);
}

}  // namespace
}  // namespace pagemill
