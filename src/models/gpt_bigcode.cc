// GPT BigCode (SantaCoder, StarCoder): GPT-2 with one KV head for all queries.
//
// Source: arXiv 2301.03988.
#include "models/architectures.h"
#include "models/gpt2_like.h"

namespace pagemill {

Result<DecoderSpec> gpt_bigcode_spec(const Checkpoint& checkpoint) {
  const ConfigReader reader(checkpoint);
  PM_ASSIGN(DecoderSpec spec, gpt2_like(reader, "gelu_pytorch_tanh"));
  if (reader.flag("multi_query", true)) {
    spec.num_kv_heads = 1;
    spec.layer.qkv = stacked_qkv(spec, "attn.c_attn", true);
  } else {
    spec.layer.qkv = grouped_qkv(spec, "attn.c_attn", true);
  }
  return spec;
}

}  // namespace pagemill
