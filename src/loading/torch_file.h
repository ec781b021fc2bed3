// The directory of a torch.save file (PyTorch 1.6 and later: a zip archive with a pickle of the
// state dict and one stored entry per storage). Nothing in it is executed.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "loading/stored_tensor.h"

namespace pagemill {

// The file must hold a dict of names to tensors. Tensors may share bytes (tied weights). `file` is
// named in errors, which also name the tensor or the offset. kUnsupported for the older formats,
// compressed entries, and tensors that are not contiguous.
Result<std::vector<StoredTensor>> parse_torch_file(std::span<const std::byte> bytes,
                                                   const std::string& file);

}  // namespace pagemill
