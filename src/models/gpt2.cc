// GPT-2: learned positions, LayerNorms, weights stored [in, out].
//
// Source: Radford et al., "Language Models are Unsupervised Multitask Learners" (2019).
#include "models/architectures.h"
#include "models/gpt2_like.h"

namespace pagemill {

Result<DecoderSpec> gpt2_spec(const Checkpoint& checkpoint) {
  const ConfigReader reader(checkpoint);
  PM_TRY(reader.require_flag("scale_attn_by_inverse_layer_idx", false));
  PM_ASSIGN(DecoderSpec spec, gpt2_like(reader, "gelu_new"));
  DecoderLayerSpec& layer = spec.layer;
  layer.qkv = stacked_qkv(spec, "attn.c_attn", true);
  for (LinearSpec& part : layer.qkv) part.transposed = true;
  layer.output.transposed = layer.up[0].transposed = layer.down.transposed = true;
  return spec;
}

}  // namespace pagemill
