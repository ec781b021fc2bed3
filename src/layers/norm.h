// RMSNorm and LayerNorm, of a whole row or of each head.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/elementwise.h"
#include "layers/linear.h"

namespace pagemill {

enum class NormKind { kRms, kLayer };

// Where a norm's weights are, and what is done with them.
struct NormSpec {
  // Hugging Face's, without ".weight" and ".bias"; empty: it has no weights. "{}" stands for the
  // number of the group where each has a tensor of its own (no bias then).
  std::string name;
  NormKind kind = NormKind::kRms;
  float eps = 1e-6f;
  bool bias = false;          // LayerNorm's
  float weight_offset = 0;    // added to the weights (Gemma stores them less 1)
  std::int64_t groups = 1;    // the row is normed in so many equal parts, each by itself (heads) ..
  bool shares_weight = true;  // .. by the same weights
};

class Norm {
 public:
  // size: of a row, a multiple of spec.groups.
  static Result<Norm> load(const LoadContext& context, const NormSpec& spec, std::int64_t size);

  // y may be x. [size]
  void apply(const ElementwiseKernels& kernels, const float* x, float* y) const;

  // In whose order the elements of each group are: a head's rotary order (RowOrder).
  void reorder(RowOrder order);

 private:
  NormKind kind_ = NormKind::kRms;
  float eps_ = 0;
  std::int64_t groups_ = 1, group_size_ = 0;
  std::int64_t weight_stride_ = 0;  // from one group's weights to the next
  std::vector<float> weight_;       // [group_size], or [groups, group_size]
  std::vector<float> bias_;         // likewise, or empty
};

}  // namespace pagemill
