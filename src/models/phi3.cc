// Phi-3 and Phi-4: Llama with Q, K and V in one tensor, gate and up in another, and the longrope
// scaling.
//
// Source: arXiv 2404.14219.
#include "models/architectures.h"
#include "models/llama_like.h"

namespace pagemill {

Result<DecoderSpec> phi3_spec(const Checkpoint& checkpoint) {
  const ConfigReader reader(checkpoint);
  PM_ASSIGN(DecoderSpec spec, llama_like(reader, {}));
  float eps = 1e-5f;
  PM_TRY(reader.read_float("rms_norm_eps", &eps));
  add_rms_norms(eps, &spec);
  const std::int64_t width = spec.intermediate_size;
  spec.layer.qkv = stacked_qkv(spec, "self_attn.qkv_proj", false);
  for (std::int64_t i = 0; i < 2; ++i) {
    spec.layer.up[i].name = "mlp.gate_up_proj";
    spec.layer.up[i].rows = {
        .total = 2 * width, .first = i * width, .group = width, .stride = width};
  }
  PM_ASSIGN(const std::int32_t rotary_dim,
            read_rotary_dim(reader, "partial_rotary_factor", 1, spec.head_size));
  PM_TRY(add_rope(reader, rotary_dim, &spec));
  PM_TRY(read_window(reader, &spec));
  return spec;
}

}  // namespace pagemill
