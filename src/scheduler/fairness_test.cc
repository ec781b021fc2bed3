// The fair policy in virtual time: what each tenant is served, step by step, against the bounds of
// Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024, section 4.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "scheduler/scheduler.h"

namespace pagemill {
namespace {

constexpr std::int32_t kBlocks = 40, kBlockSize = 4, kMaxPrompt = 24;
constexpr std::int64_t kInputWeight = 1, kOutputWeight = 2;
// The paper's U: a request's input, or the tokens that fit the cache at once as output.
constexpr std::int64_t kU =
    std::max<std::int64_t>(kInputWeight * kMaxPrompt, kOutputWeight* kBlocks* kBlockSize);

class Clients {
 public:
  explicit Clients(SchedulingPolicy policy, std::int32_t num_blocks = kBlocks) {
    SchedulerConfig config;
    config.kv_groups.resize(1);
    config.num_blocks = num_blocks + 1;
    config.block_size = kBlockSize;
    config.max_model_len = 100;
    config.max_num_batched_tokens = 32;
    config.max_num_seqs = 16;
    config.max_queued_requests = 100000;
    config.enable_prefix_caching = false;
    config.policy = policy;
    scheduler_ = Scheduler::create(config).value();
  }

  RequestId send(const std::string& user, std::int32_t prompt_len, std::int32_t num_output) {
    Request request;
    request.id = ++last_id_;
    request.user = user;
    request.prompt_token_ids.assign(prompt_len, 3);
    request.params.max_tokens = num_output;
    request.params.ignore_eos = true;
    live_[request.id] = {user, prompt_len, num_output};
    EXPECT_TRUE(scheduler_->add_request(std::move(request)).ok());
    ++waiting_[user];
    return last_id_;
  }

  RequestId send_random(const std::string& user) {
    return send(user, 1 + random_() % kMaxPrompt, 1 + random_() % 30);
  }

  void step() {
    scheduler_->plan(plan_);
    for (const Admission& admission : scheduler_->newly_admitted()) {
      const Live& live = live_.at(admission.request);
      served_[live.user] += kInputWeight * live.prompt_len;
      --waiting_[live.user];
      admitted_.push_back(admission.request);
    }
    if (plan_.empty()) return;
    StepResult result{plan_.step_id, {}};
    for (const SequenceStep& share : plan_.sequences) {
      result.sequences.push_back({share.seq});
      if (share.sample()) result.sequences.back().samples.push_back({7, {}});
    }
    scheduler_->commit(std::move(result), output_);
    for (const SequenceEvent& event : output_.events) {
      served_[live_.at(event.request).user] += kOutputWeight;
      finished_ += event.request_finished;
    }
  }

  bool has_admitted(RequestId id) const {
    return std::find(admitted_.begin(), admitted_.end(), id) != admitted_.end();
  }
  std::int32_t waiting(const std::string& user) { return waiting_[user]; }
  std::int64_t served(const std::string& user) { return served_[user]; }
  std::int64_t num_finished() const { return finished_; }
  std::int64_t num_sent() const { return static_cast<std::int64_t>(last_id_); }
  Scheduler& scheduler() { return *scheduler_; }

 private:
  struct Live {
    std::string user;
    std::int32_t prompt_len = 0, num_output = 0;
  };
  std::mt19937 random_{17};
  std::unique_ptr<Scheduler> scheduler_;
  StepPlan plan_;
  StepOutput output_;
  RequestId last_id_ = 0;
  std::map<RequestId, Live> live_;
  std::map<std::string, std::int32_t> waiting_;
  std::map<std::string, std::int64_t> served_;
  std::vector<RequestId> admitted_;
  std::int64_t finished_ = 0;
};

// The most by which two tenants' service differs over any stretch of time in which both wait, one
// of them sending ten times as much.
std::int64_t unfairness_under_a_flood(SchedulingPolicy policy) {
  Clients clients(policy);
  std::int64_t lowest = 0, highest = 0;
  for (int i = 0; i < 4000; ++i) {
    while (clients.waiting("modest") < 1 + i % 3) clients.send_random("modest");
    for (int k = 0; k < 10 && clients.waiting("flood") < 2000; ++k) clients.send_random("flood");
    clients.step();
    const std::int64_t difference = clients.served("flood") - clients.served("modest");
    lowest = std::min(lowest, difference);
    highest = std::max(highest, difference);
  }
  EXPECT_GT(clients.served("flood") + clients.served("modest"), 100 * kU);
  EXPECT_GT(clients.scheduler().stats().preemptions, 10u);
  return highest - lowest;
}

TEST(Fairness, AFloodGetsNoMoreThanItsShare) {
  EXPECT_LE(unfairness_under_a_flood(SchedulingPolicy::kFair), 2 * kU);
  EXPECT_GT(unfairness_under_a_flood(SchedulingPolicy::kFcfs), 20 * kU);
}

// Theorem 4.11: a tenant that does not wait has its next request taken up before the n - 1 others
// have been served 2 (n - 1) U.
TEST(Fairness, ARequestOfAnIdleTenantIsTakenUpSoon) {
  Clients clients(SchedulingPolicy::kFair);
  const std::vector<std::string> floods = {"a", "b", "c"};
  const auto served = [&] {
    std::int64_t total = 0;
    for (const std::string& name : floods) total += clients.served(name);
    return total;
  };
  std::mt19937 random(4);
  for (int round = 0; round < 200; ++round) {
    for (const std::string& name : floods) {
      while (clients.waiting(name) < 500) clients.send_random(name);
    }
    for (std::uint32_t i = random() % 40; i > 0; --i) clients.step();
    const RequestId id = clients.send_random("now and then");
    const std::int64_t before = served();
    while (!clients.has_admitted(id)) clients.step();
    EXPECT_LE(served() - before, 2 * 3 * kU);
  }
}

TEST(Fairness, APauseSavesUpNothing) {
  Clients clients(SchedulingPolicy::kFair);
  for (int i = 0; i < 20; ++i) clients.send("late", 10, 10);
  while (clients.waiting("late") > 0) clients.step();
  for (int i = 0; i < 3000; ++i) clients.send("steady", 10, 10);
  for (int i = 0; i < 600; ++i) clients.step();
  ASSERT_GT(clients.waiting("steady"), 100);
  ASSERT_GT(clients.served("steady"), 4 * kU);
  for (int i = 0; i < 400; ++i) clients.send("late", 10, 10);
  const std::int64_t steady = clients.served("steady"), late = clients.served("late");
  for (int i = 0; i < 300; ++i) clients.step();
  ASSERT_GT(clients.waiting("steady"), 0);
  EXPECT_LE(clients.served("late") - late - (clients.served("steady") - steady), 2 * kU);
}

// Whoever comes meanwhile, and however short memory is, everyone is served to the end.
TEST(Fairness, NobodyStarves) {
  for (int seed = 0; seed < 20; ++seed) {
    Clients clients(SchedulingPolicy::kFair, 25);
    std::mt19937 random(seed);
    const RequestId patient = clients.send("patient", kMaxPrompt, 50);
    for (int i = 0; i < 1500; ++i) {
      if (clients.waiting("crowd") < 50) {
        clients.send_random(random() % 2 ? "crowd" : "newcomer " + std::to_string(i));
      }
      clients.step();
      clients.scheduler().check_invariants();
    }
    EXPECT_TRUE(clients.has_admitted(patient));
    for (int i = 0; i < 20000 && clients.scheduler().has_requests(); ++i) clients.step();
    EXPECT_EQ(clients.num_finished(), clients.num_sent());
  }
}

TEST(Fairness, TheTenantServedMostIsPreempted) {
  Clients clients(SchedulingPolicy::kFair, 20);
  for (int i = 0; i < 2; ++i) clients.send("greedy", 12, 40);
  clients.step();
  const RequestId last = clients.send("modest", 4, 40);
  clients.step();
  ASSERT_TRUE(clients.has_admitted(last));
  while (clients.scheduler().stats().preemptions == 0) clients.step();
  // One of the greedy's two has left, although the modest one's came last.
  const std::int64_t greedy = clients.served("greedy"), modest = clients.served("modest");
  clients.step();
  EXPECT_EQ(clients.served("greedy") - greedy, kOutputWeight);
  EXPECT_EQ(clients.served("modest") - modest, kOutputWeight);
}

TEST(FairQueue, RemembersABoundedNumberOfTenants) {
  Clients clients(SchedulingPolicy::kFair);
  FairQueue queue(true, {1, 2});
  for (int i = 0; i < 5000; ++i) {
    ScheduledRequest request;
    request.arrival = i;
    queue.enter(request, "user " + std::to_string(i));
    queue.charge_output(*request.tenant);
    queue.erase(request);
    queue.leave(request);
    ASSERT_LE(queue.num_tenants(), FairQueue::kMaxIdleTenants + 1);
    if (i % 500 == 0) queue.check_invariants();
  }
  // A new one starts from the counter of the last that waited, not from nothing.
  ScheduledRequest request;
  request.arrival = 5000;
  queue.enter(request, "another");
  EXPECT_EQ(request.tenant->service, 2 * 5000);
}

TEST(FairQueue, ChargesComputedTokensByWeight) {
  FairQueue queue(true, {3, 5});
  ScheduledRequest a, b, c;
  a.arrival = 1, b.arrival = 2, c.arrival = 3;
  queue.enter(a, "a");
  queue.enter(b, "b");
  queue.enter(c, "a");
  EXPECT_EQ(&queue.front(), &a);
  EXPECT_EQ(a.tenant, c.tenant);
  queue.erase(a);
  queue.charge_input(*a.tenant, 7);
  EXPECT_EQ(a.tenant->service, 21);
  EXPECT_EQ(&queue.front(), &b);
  for (int i = 0; i < 5; ++i) queue.charge_output(*b.tenant);
  EXPECT_EQ(&queue.front(), &b);
  queue.settle();
  EXPECT_EQ(b.tenant->service, 25);
  EXPECT_EQ(&queue.front(), &c);
  queue.check_invariants();
}

}  // namespace
}  // namespace pagemill
