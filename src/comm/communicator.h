// Communicator: how the ranks of a tensor-parallel model exchange activations.
#pragma once

#include <cstdint>
#include <memory>

namespace pagemill {

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual std::int32_t rank() const = 0;
  virtual std::int32_t world_size() const = 0;
  // data[i] becomes the sum over ranks, added in rank order (the same bits on every rank).
  virtual void all_reduce_sum(float* data, std::int64_t count) = 0;
};

// World size 1: every operation is the identity.
std::unique_ptr<Communicator> make_single_communicator();

}  // namespace pagemill
