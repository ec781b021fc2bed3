// LLaMA 1 to 3 and its kin; Mistral, which adds a sliding window.
//
// Source: Touvron et al., "LLaMA" (arXiv 2302.13971): pre-norm RMSNorm, rotary positions, SwiGLU;
// Jiang et al., "Mistral 7B" (arXiv 2310.06825).
#include "models/architectures.h"
#include "models/llama_like.h"
#include "tensor/dequantize.h"

namespace pagemill {
namespace {

Result<std::vector<float>> read_freq_factors(const Checkpoint& checkpoint) {
  std::vector<float> factors;
  const CheckpointTensor* tensor = checkpoint.find("rope_freqs.weight");
  if (tensor == nullptr) return factors;
  factors.resize(tensor->view.elements());
  dequantize_row(tensor->view.dtype, tensor->view.data, tensor->view.elements(), factors.data());
  return factors;
}

}  // namespace

Result<DecoderSpec> llama_spec(const Checkpoint& checkpoint) {
  const ConfigReader reader(checkpoint);
  const bool attention_bias = reader.flag("attention_bias", false);
  PM_ASSIGN(DecoderSpec spec,
            llama_like(reader,
                       {.qkv = attention_bias,
                        .output = attention_bias,
                        .mlp = reader.flag("mlp_bias", false)}));
  float eps = 1e-6f;
  PM_TRY(reader.read_float("rms_norm_eps", &eps));
  add_rms_norms(eps, &spec);
  PM_ASSIGN(const std::int32_t rotary_dim, whole_rotary_dim(reader, spec));
  if (checkpoint.rotary_interleaved()) {
    spec.layer.qkv[0].order.rotary_heads = spec.num_heads;
    spec.layer.qkv[1].order.rotary_heads = spec.num_kv_heads;
  }
  PM_ASSIGN(const std::vector<float> freq_factors, read_freq_factors(checkpoint));
  PM_TRY(add_rope(reader, rotary_dim, &spec, freq_factors));
  PM_TRY(read_window(reader, &spec));
  return spec;
}

}  // namespace pagemill
