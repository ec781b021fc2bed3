#include "base/bounded_queue.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "base/clock.h"

namespace pagemill {
namespace {

using std::chrono::milliseconds;

TEST(BoundedQueue, KeepsOrderAndRefusesWhenFull) {
  BoundedQueue<int> queue(2);
  EXPECT_TRUE(queue.try_push(1));
  EXPECT_TRUE(queue.try_push(2));
  EXPECT_FALSE(queue.try_push(3));
  EXPECT_EQ(queue.size(), 2u);
  EXPECT_EQ(queue.try_pop(), 1);
  EXPECT_TRUE(queue.try_push(3));
  EXPECT_EQ(queue.try_pop(), 2);
  EXPECT_EQ(queue.try_pop(), 3);
  EXPECT_EQ(queue.try_pop(), std::nullopt);
}

TEST(BoundedQueue, ARefusedItemStaysWithItsOwner) {
  BoundedQueue<std::unique_ptr<int>> queue(1);
  EXPECT_TRUE(queue.try_push(std::make_unique<int>(1)));
  auto item = std::make_unique<int>(2);
  EXPECT_FALSE(queue.try_push(std::move(item)));
  ASSERT_NE(item, nullptr);  // NOLINT(bugprone-use-after-move): what this test is about
  EXPECT_EQ(*item, 2);       // NOLINT(bugprone-use-after-move)
}

TEST(BoundedQueue, WaitTimesOut) {
  BoundedQueue<int> queue(1);
  const double start = monotonic_seconds();
  EXPECT_EQ(queue.pop_wait(milliseconds(20)), std::nullopt);
  EXPECT_GE(monotonic_seconds() - start, 0.02);
}

TEST(BoundedQueue, CloseWakesWaitersAndDrains) {
  BoundedQueue<int> queue(4);
  std::atomic<int> woken{0};
  std::vector<std::thread> waiters(3);
  for (std::thread& waiter : waiters) {
    waiter = std::thread([&] {
      while (queue.pop_wait()) {
      }
      ++woken;
    });
  }
  std::this_thread::sleep_for(milliseconds(5));
  queue.close();
  for (std::thread& waiter : waiters) waiter.join();
  EXPECT_EQ(woken.load(), 3);
  EXPECT_TRUE(queue.closed());

  BoundedQueue<int> holding(4);
  EXPECT_TRUE(holding.try_push(7));
  holding.close();
  EXPECT_FALSE(holding.try_push(8));
  EXPECT_EQ(holding.pop_wait(), 7);
  EXPECT_EQ(holding.pop_wait(), std::nullopt);
}

TEST(BoundedQueue, ManyProducersAndConsumersLoseNothing) {
  constexpr int kEach = 2000;
  constexpr int kThreads = 3;
  BoundedQueue<int> queue(16);
  std::vector<std::atomic<int>> seen(kEach * kThreads);
  std::vector<std::thread> producers;
  std::vector<std::thread> consumers;
  for (int t = 0; t < kThreads; ++t) {
    producers.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        while (!queue.try_push(t * kEach + i)) std::this_thread::yield();
      }
    });
    consumers.emplace_back([&] {
      while (auto item = queue.pop_wait()) ++seen[static_cast<std::size_t>(*item)];
    });
  }
  for (std::thread& producer : producers) producer.join();
  queue.close();
  for (std::thread& consumer : consumers) consumer.join();
  for (const auto& count : seen) ASSERT_EQ(count.load(), 1);
}

}  // namespace
}  // namespace pagemill
