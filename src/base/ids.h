// Identifiers and small integer types that cross folders.
#pragma once

#include <cstdint>

namespace pagemill {

using TokenId = std::int32_t;     // 0 .. vocab_size-1
using BlockId = std::int32_t;     // 0 .. num_blocks-1; 0 is the null block, reserved for padding
using SeqId = std::uint64_t;      // unique for the life of the process, never reused
using RequestId = std::uint64_t;  // the engine's own id; the client's string id stays in the server

inline constexpr BlockId kNullBlock = 0;

}  // namespace pagemill
