// The demo model against what Transformers computes from its dequantized weights
// (make_model_goldens.py): every logit that the goldens keep, greedy text, log-probabilities and
// perplexity.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <numeric>

#include "golden/engine_testing.h"
#include "golden/golden_reader.h"
#include "hub/model_path.h"
#include "kernels/isa.h"

namespace pagemill {
namespace {

namespace fs = std::filesystem;

constexpr double kTolerance = 1e-3;  // logits and log-probabilities, float32
constexpr double kQuantizedTolerance =
    1e-4;  // logits, quantized against dequantized weights, float32 activations
constexpr std::size_t kBatch = 8;  // prompts that run together

// There, or the test was skipped.
std::string demo_model() { return *resolve_model_path("demo"); }

// The goldens can be made anew from other prompts and read from elsewhere.
std::string golden_path(const std::string& name) {
  const char* folder = std::getenv("PAGEMILL_GOLDENS");
  return (folder != nullptr ? fs::path(folder) : fs::path(PM_GOLDEN_DIR) / "models") / name;
}

// Also a Hugging Face directory by PAGEMILL_GOLDEN_MODEL_F32 / _BF16 (convert_demo.py's), to check
// that path.
std::string model_for(DType dtype) {
  const char* path = std::getenv(dtype == DType::kF32 ? "PAGEMILL_GOLDEN_MODEL_F32"
                                                      : "PAGEMILL_GOLDEN_MODEL_BF16");
  return path != nullptr ? path : demo_model();
}

double log_sum_exp(std::span<const float> logits) {
  const double peak = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (float logit : logits) sum += std::exp(logit - peak);
  return peak + std::log(sum);
}

class ModelGolden : public testing::Test {
 protected:
  void SetUp() override {
    const auto demo = resolve_model_path("demo");
    if (!demo.ok()) GTEST_SKIP() << demo.error().message;
  }
  static std::unique_ptr<TestEngine> load(const std::string& path, TestEngineOptions options) {
    options.threads = default_num_threads();
    auto engine = TestEngine::load(path, options);
    if (!engine.ok()) ADD_FAILURE() << engine.error().message;
    return engine.ok() ? std::move(engine.value()) : nullptr;
  }
};

// What the golden keeps of one position's logits, compared.
class RowChecker {
 public:
  explicit RowChecker(const GoldenFile& golden)
      : top_ids_(golden.array<std::uint16_t>("top_ids")),
        top_logits_(golden.array<float>("top_logits")),
        columns_(golden.array<std::int32_t>("column_ids")),
        column_logits_(golden.array<float>("column_logits")),
        log_sum_exp_(golden.array<float>("logsumexp")) {}

  std::size_t num_rows() const { return log_sum_exp_.size(); }

  void check(std::size_t row, std::span<const float> logits) {
    const std::size_t top = top_ids_.size() / num_rows();
    for (std::size_t i = 0; i < top; ++i) {
      compare(row, logits[top_ids_[row * top + i]], top_logits_[row * top + i]);
    }
    for (std::size_t i = 0; i < columns_.size(); ++i) {
      compare(row, logits[columns_[i]], column_logits_[row * columns_.size() + i]);
    }
    compare(row, log_sum_exp(logits), log_sum_exp_[row]);
  }

  double greatest = 0;
  std::size_t worst_row = 0;

 private:
  void compare(std::size_t row, double actual, double expected) {
    const double difference = std::abs(actual - expected);
    if (difference <= greatest) return;  // false for NaN
    greatest = std::isnan(difference) ? INFINITY : difference;
    worst_row = row;
  }

  std::vector<std::uint16_t> top_ids_;
  std::vector<float> top_logits_;
  std::vector<std::int32_t> columns_;
  std::vector<float> column_logits_;
  std::vector<float> log_sum_exp_;
};

// A number that tells two rows of different bits apart.
std::uint64_t fingerprint(std::span<const float> logits) {
  std::uint64_t hash = 14695981039346656037u;
  for (float logit : logits) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, &logit, sizeof(bits));
    hash = (hash ^ bits) * 1099511628211u;
  }
  return hash;
}

TEST_F(ModelGolden, Float32LogitsAtEveryPosition) {
  const GoldenFile golden(golden_path("smollm2_f32.golden"));
  const auto engine =
      load(model_for(DType::kF32), {.isa = choose_isa().value(), .compute = DType::kF32});
  ASSERT_NE(engine, nullptr);
  const auto prompts = golden.prompts();
  ASSERT_EQ(prompts.size(), 64u);
  RowChecker checker(golden);
  std::vector<std::uint64_t> whole(checker.num_rows());
  for (std::int32_t chunk : {TestEngine::kMaxTokens, 16}) {
    std::size_t first_row = 0, num_checked = 0, num_other_bits = 0;
    for (std::size_t begin = 0; begin < prompts.size(); begin += kBatch) {
      const std::span batch(prompts.data() + begin, std::min(kBatch, prompts.size() - begin));
      std::vector<std::size_t> row_of(batch.size());
      for (std::size_t i = 0; i < batch.size(); ++i) {
        row_of[i] = first_row;
        first_row += batch[i].size();
      }
      engine->run(
          batch, chunk, [&](std::size_t i, std::int32_t position, std::span<const float> logits) {
            const std::size_t row = row_of[i] + position;
            checker.check(row, logits);
            ++num_checked;
            if (chunk == 16) {
              num_other_bits += fingerprint(logits) != whole[row];
            } else {
              whole[row] = fingerprint(logits);
            }
          });
    }
    EXPECT_EQ(num_checked, checker.num_rows());
    EXPECT_EQ(num_other_bits, 0u) << "rows whose bits depend on the chunking";
    EXPECT_LE(checker.greatest, kTolerance)
        << "row " << checker.worst_row << ", chunks of " << chunk;
  }
  RecordProperty("greatest_difference", std::to_string(checker.greatest));
  std::printf("float32 logits: greatest difference %.2e (the oracle's own from float64: %.2e)\n",
              checker.greatest,
              golden.meta().at("float64_difference").get<double>());
}

// All prompts in batches of half of them, which one step's token budget holds.
std::vector<std::vector<SampledToken>> generate(TestEngine& engine,
                                                const std::vector<std::vector<TokenId>>& prompts,
                                                std::int32_t count,
                                                std::int32_t num_top) {
  std::vector<std::vector<SampledToken>> sampled;
  const std::span<const std::vector<TokenId>> all(prompts);
  const std::size_t half = prompts.size() / 2;
  for (const auto batch : {all.first(half), all.subspan(half)}) {
    for (auto& tokens : engine.generate(batch, count, num_top))
      sampled.push_back(std::move(tokens));
  }
  return sampled;
}

TEST_F(ModelGolden, Float32GreedyTokensAndLogprobs) {
  const GoldenFile golden(golden_path("smollm2_f32.golden"));
  const auto engine =
      load(model_for(DType::kF32), {.isa = choose_isa().value(), .compute = DType::kF32});
  ASSERT_NE(engine, nullptr);
  const auto prompts = golden.prompts();
  const auto expected = golden.tokens("continuation");
  const auto logprobs = golden.array<float>("continuation_logprobs");
  const auto gaps = golden.array<float>("continuation_gaps");
  const auto count = static_cast<std::int32_t>(golden.shape("continuation").at(1));
  std::size_t num_compared = 0;
  const auto sampled = generate(*engine, prompts, count, 1);
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    for (std::int32_t step = 0; step < count; ++step) {
      const std::size_t at = i * count + step;
      const SampledToken& token = sampled[i][step];
      if (gaps[at] <= 2 * kTolerance && token.token != expected[at])
        break;  // a tie: both are right
      ASSERT_EQ(token.token, expected[at]) << "prompt " << i << ", step " << step;
      EXPECT_NEAR(token.logprobs.chosen.logprob, logprobs[at], kTolerance)
          << "prompt " << i << ", step " << step;
      ++num_compared;
    }
  }
  EXPECT_GE(num_compared, expected.size() * 95 / 100);
}

bool contains(std::span<const std::uint16_t> ids, TokenId token) {
  return std::find(ids.begin(), ids.end(), token) != ids.end();
}

// Two bfloat16 engines round differently: at the first token that differs, each must be in the
// other's top 5.
TEST_F(ModelGolden, Bfloat16GreedyTokens) {
  const GoldenFile golden(golden_path("smollm2_bf16.golden"));
  const auto engine =
      load(model_for(DType::kBF16),
           {.isa = choose_isa().value(), .compute = DType::kBF16, .kv_dtype = DType::kBF16});
  ASSERT_NE(engine, nullptr);
  const auto prompts = golden.prompts();
  const auto expected = golden.tokens("continuation");
  const auto top_ids = golden.array<std::uint16_t>("continuation_top_ids");
  const auto count = static_cast<std::int32_t>(golden.shape("continuation").at(1));
  const auto top = static_cast<std::size_t>(golden.shape("continuation_top_ids").at(2));
  const auto sampled = generate(*engine, prompts, count, static_cast<std::int32_t>(top));
  std::size_t num_equal = 0;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    for (std::int32_t step = 0; step < count; ++step) {
      const std::size_t at = i * count + step;
      const SampledToken& token = sampled[i][step];
      if (token.token == expected[at]) {
        ++num_equal;
        continue;
      }
      EXPECT_TRUE(contains({top_ids.data() + at * top, top}, token.token))
          << "prompt " << i << ", step " << step;
      EXPECT_TRUE(std::ranges::any_of(token.logprobs.top,
                                      [&](const auto& t) { return t.token == expected[at]; }))
          << "prompt " << i << ", step " << step;
      break;
    }
  }
  std::printf("bfloat16: %zu of %zu greedy tokens before the first that differs\n",
              num_equal,
              expected.size());
  EXPECT_GE(num_equal, expected.size() / 3) << "alike nowhere: the rule above then says little";
}

double perplexity(double nll, std::size_t num_predicted) {
  return std::exp(nll / static_cast<double>(num_predicted));
}

// Of the fixed text, in windows of 512 tokens.
double engine_perplexity(TestEngine& engine, const GoldenFile& golden) {
  const auto tokens = golden.tokens("tokens");
  const auto window = static_cast<std::size_t>(golden.shape("tokens").at(1));
  double nll = 0;
  std::size_t num_predicted = 0;
  for (std::size_t begin = 0; begin < tokens.size(); begin += window) {
    const std::vector<std::vector<TokenId>> text = {
        {tokens.begin() + begin, tokens.begin() + begin + window}};
    engine.run(text,
               TestEngine::kMaxTokens,
               [&](std::size_t, std::int32_t position, std::span<const float> logits) {
                 if (position + 1 == static_cast<std::int32_t>(window)) return;
                 nll += log_sum_exp(logits) - logits[text[0][position + 1]];
                 ++num_predicted;
               });
  }
  return perplexity(nll, num_predicted);
}

TEST_F(ModelGolden, Perplexity) {
  const GoldenFile golden(golden_path("smollm2_ppl.golden"));
  const auto nll = golden.array<double>("nll");
  const auto predicted = nll.size() * golden.meta().at("predicted_per_window").get<std::size_t>();
  const double expected = perplexity(std::accumulate(nll.begin(), nll.end(), 0.0), predicted);
  const Isa isa = choose_isa().value();
  struct Case {
    const char* name;
    TestEngineOptions options;
    double tolerance;  // relative
  };
  const Case cases[] = {
      {"float32", {.isa = isa, .compute = DType::kF32}, 0.005},
      {"bfloat16", {.isa = isa, .compute = DType::kBF16, .kv_dtype = DType::kBF16}, 0.01},
      {"quantized as stored",
       {.isa = isa, .compute = std::nullopt, .kv_dtype = DType::kBF16},
       0.01},
  };
  for (const Case& c : cases) {
    const auto engine = load(demo_model(), c.options);
    ASSERT_NE(engine, nullptr);
    const double actual = engine_perplexity(*engine, golden);
    std::printf("perplexity %.4f (%s), the oracle's %.4f: %+.3f %%\n",
                actual,
                c.name,
                expected,
                100 * (actual / expected - 1));
    EXPECT_NEAR(actual / expected, 1.0, c.tolerance) << c.name;
  }
}

// Computing on quantized blocks is computing on what they mean.
TEST_F(ModelGolden, QuantizedEqualsDequantizedOnTheScalarPath) {
  const GoldenFile golden(golden_path("smollm2_f32.golden"));
  auto prompts = golden.prompts();
  std::ranges::stable_sort(prompts, {}, [](const auto& prompt) { return prompt.size(); });
  const std::span chosen(prompts.data() + 4, 4);  // short ones: this path is slow
  std::map<std::pair<std::size_t, std::int32_t>, std::vector<float>> dequantized;
  double greatest = 0;
  for (const std::optional<DType> compute : {std::optional(DType::kF32), std::optional<DType>()}) {
    const auto engine = load(demo_model(), {.isa = Isa::kScalar, .compute = compute});
    ASSERT_NE(engine, nullptr);
    engine->run(
        chosen, 16, [&](std::size_t i, std::int32_t position, std::span<const float> logits) {
          if (compute.has_value()) {
            dequantized[{i, position}].assign(logits.begin(), logits.end());
            return;
          }
          const auto& expected = dequantized.at({i, position});
          for (std::size_t c = 0; c < logits.size(); ++c) {
            const double difference = std::abs(double{logits[c]} - expected[c]);
            greatest = std::isnan(difference) ? INFINITY : std::max(greatest, difference);
          }
        });
  }
  ASSERT_FALSE(dequantized.empty());
  EXPECT_LE(greatest, kQuantizedTolerance);
}

}  // namespace
}  // namespace pagemill
