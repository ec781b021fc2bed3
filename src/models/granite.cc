// Granite 3: Llama with constant factors at the embedding, the scores, the branches and the logits.
//
// Source: IBM Granite team, "Granite 3.0 Language Models" (2024).
#include "models/architectures.h"
#include "models/llama_like.h"

namespace pagemill {

Result<DecoderSpec> granite_spec(const Checkpoint& checkpoint) {
  const ConfigReader reader(checkpoint);
  const bool attention_bias = reader.flag("attention_bias", false);
  PM_ASSIGN(DecoderSpec spec,
            llama_like(reader,
                       {.qkv = attention_bias,
                        .output = attention_bias,
                        .mlp = reader.flag("mlp_bias", false)}));
  float eps = 1e-6f, logits_scaling = 1;
  PM_TRY(reader.read_float("rms_norm_eps", &eps));
  add_rms_norms(eps, &spec);
  PM_TRY(add_rope(reader, spec.head_size, &spec));
  PM_TRY(reader.read_float("embedding_multiplier", &spec.embedding_scale));
  spec.attention_scale = 1;
  PM_TRY(reader.read_float("attention_multiplier", &spec.attention_scale));
  PM_TRY(reader.read_float("residual_multiplier", &spec.branch_scale));
  PM_TRY(reader.read_float("logits_scaling", &logits_scaling));
  if (logits_scaling == 0) return reader.fail("logits_scaling", "expected a number > 0, got 0");
  spec.logits_scale = 1 / logits_scaling;
  return spec;
}

}  // namespace pagemill
