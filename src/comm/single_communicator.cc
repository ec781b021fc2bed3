#include "comm/communicator.h"

namespace pagemill {
namespace {

class SingleCommunicator final : public Communicator {
 public:
  std::int32_t rank() const override { return 0; }
  std::int32_t world_size() const override { return 1; }
  void all_reduce_sum(float*, std::int64_t) override {}
};

}  // namespace

std::unique_ptr<Communicator> make_single_communicator() {
  return std::make_unique<SingleCommunicator>();
}

}  // namespace pagemill
