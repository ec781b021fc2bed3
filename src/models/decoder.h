// Decoder: loads and runs what a DecoderSpec describes.
#pragma once

#include <memory>

#include "models/decoder_spec.h"
#include "models/model.h"

namespace pagemill {

Result<std::unique_ptr<Model>> make_decoder(DecoderSpec spec,
                                            const Checkpoint& checkpoint,
                                            const ModelOptions& options,
                                            ThreadPool& pool,
                                            Communicator& comm);

}  // namespace pagemill
