// The factories that registry.cc lists, one per architecture file.
#pragma once

#include <memory>

#include "models/model.h"

namespace pagemill {

using ModelFactory = Result<std::unique_ptr<Model>> (*)(const Checkpoint&,
                                                        const ModelOptions&,
                                                        ThreadPool&,
                                                        Communicator&);

Result<std::unique_ptr<Model>> make_llama(const Checkpoint& checkpoint,
                                          const ModelOptions& options,
                                          ThreadPool& pool,
                                          Communicator& comm);

}  // namespace pagemill
