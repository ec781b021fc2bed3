// The families that registry.cc lists, one a file. Each turns a checkpoint's config into a spec;
// errors name the file and the key.
#pragma once

#include "loading/checkpoint.h"
#include "models/decoder_spec.h"

namespace pagemill {

using MakeSpec = Result<DecoderSpec> (*)(const Checkpoint&);

Result<DecoderSpec> bloom_spec(const Checkpoint& checkpoint);
Result<DecoderSpec> cohere_spec(const Checkpoint& checkpoint);
Result<DecoderSpec> falcon_spec(const Checkpoint& checkpoint);
Result<DecoderSpec> gemma_spec(const Checkpoint& checkpoint);
Result<DecoderSpec> gpt2_spec(const Checkpoint& checkpoint);
Result<DecoderSpec> gpt_bigcode_spec(const Checkpoint& checkpoint);
Result<DecoderSpec> gpt_neox_spec(const Checkpoint& checkpoint);
Result<DecoderSpec> gptj_spec(const Checkpoint& checkpoint);
Result<DecoderSpec> granite_spec(const Checkpoint& checkpoint);
Result<DecoderSpec> llama_spec(const Checkpoint& checkpoint);
Result<DecoderSpec> mixtral_spec(const Checkpoint& checkpoint);
Result<DecoderSpec> mpt_spec(const Checkpoint& checkpoint);
Result<DecoderSpec> olmo_spec(const Checkpoint& checkpoint);
Result<DecoderSpec> opt_spec(const Checkpoint& checkpoint);
Result<DecoderSpec> phi_spec(const Checkpoint& checkpoint);
Result<DecoderSpec> phi3_spec(const Checkpoint& checkpoint);
Result<DecoderSpec> qwen_spec(const Checkpoint& checkpoint);
Result<DecoderSpec> qwen_moe_spec(const Checkpoint& checkpoint);
Result<DecoderSpec> stablelm_spec(const Checkpoint& checkpoint);
Result<DecoderSpec> starcoder2_spec(const Checkpoint& checkpoint);

}  // namespace pagemill
