#include "kernels/elementwise.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

namespace pagemill {
namespace {

constexpr unsigned kSeed = 20261122;
constexpr std::int64_t kSizes[] = {1, 2, 7, 15, 16, 17, 31, 64, 65, 100, 576, 1000, 1536};

std::vector<float> random_row(std::mt19937& rng, std::int64_t n, float low, float high) {
  std::uniform_real_distribution<float> uniform(low, high);
  std::vector<float> row(static_cast<std::size_t>(n));
  for (float& x : row) x = uniform(rng);
  return row;
}

// Error in units of the expected value's last place, as a float; below 1e-31 in 1e-31's, since
// 1 + exp(x) overflows at 88.7.
double ulps(float got, double expected) {
  const double size = std::max(std::abs(expected), 1e-31);
  return std::abs(static_cast<double>(got) - expected) /
         (std::exp2(std::floor(std::log2(size)) - 23));
}

class Elementwise : public ::testing::TestWithParam<Isa> {
 protected:
  const ElementwiseKernels& kernels_ = elementwise_kernels(GetParam());
  std::mt19937 rng_{kSeed};

  void silu(const float* gate, const float* up, std::int64_t n, float* y) const {
    activation_kernel(kernels_, Activation::kSilu)(gate, up, n, y);
  }
};

TEST_P(Elementwise, RmsNorm) {
  for (std::int64_t n : kSizes) {
    const auto x = random_row(rng_, n, -3, 3);
    const auto weight = random_row(rng_, n, 0.5f, 2);
    std::vector<float> y(x.size());
    kernels_.rms_norm(x.data(), weight.data(), 1e-5f, n, y.data());
    double sum = 0;
    for (float a : x) sum += static_cast<double>(a) * a;
    const double inverse = 1 / std::sqrt(sum / static_cast<double>(n) + 1e-5f);
    for (std::size_t i = 0; i < y.size(); ++i) {
      ASSERT_LE(ulps(y[i], x[i] * inverse * weight[i]), 8) << "n " << n << " i " << i;
    }
  }
}

TEST_P(Elementwise, LayerNorm) {
  for (std::int64_t n : kSizes) {
    const auto x = random_row(rng_, n, -1, 3);
    const auto weight = random_row(rng_, n, 0.5f, 2);
    const auto bias = random_row(rng_, n, -1, 1);
    double mean = 0;
    for (float a : x) mean += a / static_cast<double>(n);
    double variance = 0;
    for (float a : x) variance += (a - mean) * (a - mean) / static_cast<double>(n);
    const double inverse = 1 / std::sqrt(variance + 1e-5f);
    for (bool biased : {false, true}) {
      std::vector<float> y(x.size());
      kernels_.layer_norm(
          x.data(), weight.data(), biased ? bias.data() : nullptr, 1e-5f, n, y.data());
      for (std::size_t i = 0; i < y.size(); ++i) {
        const double expected = (x[i] - mean) * inverse * weight[i] + (biased ? bias[i] : 0.0f);
        ASSERT_NEAR(y[i], expected, 5e-6 * (1 + inverse)) << "n " << n << " i " << i;
      }
    }
  }
}

TEST_P(Elementwise, Activations) {
  const auto exact = [](Activation activation, double x) {
    const double u = 1.5957691216057308 * (x + 0.044715 * x * x * x);
    switch (activation) {
      case Activation::kSilu:
        return x / (1 + std::exp(-x));
      case Activation::kGeluTanh:
        return x / (1 + std::exp(-u));
      case Activation::kGeluErf:
        return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
      case Activation::kRelu:
        break;
    }
    return std::max(x, 0.0);
  };
  // The rounding of gelu_tanh's u is amplified by u itself where the result is tiny; erf is good to
  // an absolute error.
  const auto bound = [](Activation activation, double x) {
    const double u = 1.5957691216057308 * (x + 0.044715 * x * x * x);
    return activation == Activation::kGeluTanh ? 6 + 4 * std::abs(u) : 6;
  };
  for (std::int64_t n : kSizes) {
    const auto gate = random_row(rng_, n, -12, 12);
    const auto up = random_row(rng_, n, -2, 2);
    for (const auto activation :
         {Activation::kSilu, Activation::kGeluTanh, Activation::kGeluErf, Activation::kRelu}) {
      const auto kernel = activation_kernel(kernels_, activation);
      std::vector<float> gated(gate.size()), plain(gate.size());
      kernel(gate.data(), up.data(), n, gated.data());
      kernel(gate.data(), nullptr, n, plain.data());
      for (std::size_t i = 0; i < gate.size(); ++i) {
        const double x = gate[i];
        const double expected = exact(activation, x);
        ASSERT_EQ(gated[i], plain[i] * up[i]) << x;
        if (activation == Activation::kGeluErf) {
          ASSERT_NEAR(plain[i], expected, 3e-7 * (1 + std::abs(x))) << x;
        } else {
          ASSERT_LE(ulps(plain[i], expected), bound(activation, x)) << x;
        }
      }
    }
  }
}

TEST_P(Elementwise, ActivationsKeepNan) {
  for (std::size_t i = 0; i < kNumActivations; ++i) {
    float x = std::numeric_limits<float>::quiet_NaN();
    kernels_.activate[i](&x, nullptr, 1, &x);
    EXPECT_TRUE(std::isnan(x)) << i;
  }
}

TEST_P(Elementwise, SiluAtTheExtremes) {
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> gate = {0.0f, -0.0f, 200.0f, -200.0f, 3e38f, -3e38f, inf};
  const std::vector<float> up(gate.size(), 1.0f);
  std::vector<float> y(gate.size());
  silu(gate.data(), up.data(), static_cast<std::int64_t>(gate.size()), y.data());
  EXPECT_EQ(y[0], 0.0f);
  EXPECT_EQ(y[1], 0.0f);
  EXPECT_EQ(y[2], 200.0f);
  EXPECT_NEAR(y[3], 0.0f, 1e-30);
  EXPECT_EQ(y[4], 3e38f);
  EXPECT_NEAR(y[5], 0.0f, 1e-30);
  EXPECT_EQ(y[6], inf);
}

// silu(x) / x = 1 / (1 + exp(-x)) shows exp alone where exp dwarfs the 1.
TEST_P(Elementwise, ExpIsWithinTwoUlp) {
  std::vector<float> gate = random_row(rng_, 100000, -80, -20);
  std::vector<float> up(gate.size());
  for (std::size_t i = 0; i < gate.size(); ++i) up[i] = 1.0f;
  std::vector<float> y(gate.size());
  silu(gate.data(), up.data(), static_cast<std::int64_t>(gate.size()), y.data());
  double worst = 0;
  for (std::size_t i = 0; i < gate.size(); ++i) {
    worst = std::max(worst, ulps(y[i], gate[i] / (1 + std::exp(-static_cast<double>(gate[i])))));
  }
  EXPECT_LE(worst, 3.0);  // 2 for exp, the rest for the addition and the division
}

TEST_P(Elementwise, RopeRotatesPairsAndLeavesTheRest) {
  for (const auto& [head_size, rotary_dim] :
       std::vector<std::pair<std::int64_t, std::int64_t>>{{64, 64}, {80, 32}, {96, 96}, {8, 6}}) {
    constexpr std::int64_t kHeads = 3;
    const auto x = random_row(rng_, kHeads * head_size, -2, 2);
    const auto angles = random_row(rng_, rotary_dim / 2, -3, 3);
    std::vector<float> cos;
    std::vector<float> sin;
    for (float a : angles) {
      cos.push_back(std::cos(a));
      sin.push_back(std::sin(a));
    }
    std::vector<float> y = x;
    kernels_.rope_neox(y.data(), kHeads, head_size, rotary_dim, cos.data(), sin.data());
    for (std::int64_t i = 0; i < kHeads * head_size; ++i) {
      const std::int64_t d = i % head_size;
      const auto at = static_cast<std::size_t>(i);
      if (d >= rotary_dim) {
        ASSERT_EQ(y[at], x[at]);
        continue;
      }
      const std::int64_t half = rotary_dim / 2;
      const auto pair = static_cast<std::size_t>(d % half);
      const double c = cos[pair];
      const double s = sin[pair];
      const double expected = d < half ? x[at] * c - x[at + static_cast<std::size_t>(half)] * s
                                       : x[at] * c + x[at - static_cast<std::size_t>(half)] * s;
      ASSERT_NEAR(y[at], expected, 1e-6) << "head_size " << head_size << " d " << d;
    }
  }
}

TEST_P(Elementwise, AddScaled) {
  for (std::int64_t n : kSizes) {
    const auto x = random_row(rng_, n, -3, 3);
    const auto y = random_row(rng_, n, -3, 3);
    for (const float scale : {1.0f, 0.22f}) {
      std::vector<float> sum = y;
      kernels_.add_scaled(x.data(), scale, n, sum.data());
      for (std::size_t i = 0; i < x.size(); ++i) ASSERT_NEAR(sum[i], scale * x[i] + y[i], 1e-6);
    }
  }
}

TEST_P(Elementwise, ScaleAndSoftcap) {
  for (std::int64_t n : kSizes) {
    const auto x = random_row(rng_, n, -60, 60);
    for (const float cap : {0.0f, 30.0f}) {
      std::vector<float> y = x;
      kernels_.scale_softcap(y.data(), 0.5f, cap, n);
      for (std::size_t i = 0; i < x.size(); ++i) {
        const double scaled = 0.5 * x[i];
        ASSERT_NEAR(y[i], cap > 0 ? cap * std::tanh(scaled / cap) : scaled, 2e-5);
      }
    }
  }
}

TEST_P(Elementwise, LogSumExpAndArgmax) {
  for (std::int64_t n : {1, 5, 16, 17, 64, 127, 1000, 49152}) {
    const auto x = random_row(rng_, n, -30, 30);
    float max = 0;
    const float got = kernels_.log_sum_exp(x.data(), n, &max);
    const auto top = std::max_element(x.begin(), x.end());
    double sum = 0;
    for (float a : x) sum += std::exp(static_cast<double>(a) - *top);
    EXPECT_EQ(max, *top);
    EXPECT_NEAR(got, std::log(sum) + *top, 4e-6 * (1 + std::abs(got))) << n;
    EXPECT_EQ(kernels_.argmax(x.data(), n), top - x.begin()) << n;
  }
}

TEST_P(Elementwise, ArgmaxTakesTheLowestOfTiesAndPassesOverNan) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  for (std::int64_t n : {3, 16, 40, 200}) {
    std::vector<float> x(static_cast<std::size_t>(n), -inf);
    EXPECT_EQ(kernels_.argmax(x.data(), n), 0);
    x[static_cast<std::size_t>(n) - 1] = 1;
    EXPECT_EQ(kernels_.argmax(x.data(), n), n - 1);
    x[static_cast<std::size_t>(n) / 2] = 1;
    x[0] = nan;
    EXPECT_EQ(kernels_.argmax(x.data(), n), n / 2);
  }
  const std::vector<float> all(20, nan);
  EXPECT_EQ(kernels_.argmax(all.data(), 20), 0);
}

TEST_P(Elementwise, TouchesNothingBeyondTheRow) {
  for (std::int64_t n : kSizes) {
    std::vector<float> x = random_row(rng_, n, -1, 1);  // exact allocations: ASan watches the ends
    std::vector<float> y(x.size() + 1, 7.0f);
    kernels_.rms_norm(x.data(), x.data(), 1e-5f, n, y.data());
    silu(x.data(), x.data(), n, y.data());
    EXPECT_EQ(y.back(), 7.0f);
  }
}

INSTANTIATE_TEST_SUITE_P(Isas,
                         Elementwise,
                         ::testing::ValuesIn(supported_isas()),
                         [](const auto& info) { return std::string(to_string(info.param)); });

}  // namespace
}  // namespace pagemill
