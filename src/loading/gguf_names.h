// Tensor names of GGUF's architectures in Hugging Face's terms.
#pragma once

#include <string>
#include <string_view>

namespace pagemill {

// "blk.3.attn_q.weight" -> "model.layers.3.self_attn.q_proj.weight". A name that has no counterpart
// ("rope_freqs.weight") is returned as it is.
std::string huggingface_tensor_name(std::string_view gguf_name);

}  // namespace pagemill
