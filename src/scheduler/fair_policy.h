// FairQueue: the requests that wait, and whose turn it is.
//
// Under the fair policy that is the tenant that has been served least, by a virtual token counter
// (Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024): a tenant's counter rises
// with the tokens that it is served, and on arrival after a pause it is lifted to the least counter
// of those who wait, so that nobody saves up service. While two tenants both have requests waiting,
// their counters differ by at most U = max(input_weight * longest prompt, output_weight * tokens
// that the KV cache holds), and the service they get over any time by at most 2 U.
//
// Under the other policies all requests are of one tenant and nothing is charged. No operation
// costs more than the logarithm of the queue's length.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <string_view>
#include <unordered_map>

#include "base/sha256.h"
#include "scheduler/sequence.h"

namespace pagemill {

// Of one tenant's requests.
struct Tenant {
  Digest name;
  std::int64_t service = 0;         // weighted tokens: the virtual token counter
  std::int64_t due = 0;             // to be added by settle()
  std::int32_t num_requests = 0;    // waiting or running
  std::uint64_t idle_since = 0;     // order of the tenants that have none
  RequestQueue waiting;             // in the order of service
  std::uint64_t first_waiting = 0;  // its first's arrival, as ready_ has it
  std::int64_t ranked_service = 0;  // its service, as ready_ has it
};

// The order in which running requests are served, and (from the end) preempted.
struct RunsBefore {
  bool operator()(const ScheduledRequest* a, const ScheduledRequest* b) const {
    const std::int64_t of_a = a->tenant->service, of_b = b->tenant->service;
    return of_a != of_b ? of_a < of_b : ServedBefore()(a, b);
  }
};

class FairQueue {
 public:
  struct Weights {
    std::int64_t input = 0, output = 0;  // of a prompt token computed, of a token generated
  };
  // Tenants without requests whose counters are remembered.
  static constexpr std::size_t kMaxIdleTenants = 1024;

  // Not fair: one tenant, no charges.
  FairQueue(bool is_fair, Weights weights);

  // A request arrives and waits: request.tenant is set. Paired with leave().
  void enter(ScheduledRequest& request, std::string_view tenant);
  // It waits again, preempted.
  void insert(ScheduledRequest& request);
  // It waits no longer.
  void erase(ScheduledRequest& request);
  // It has ended, and does not wait.
  void leave(ScheduledRequest& request);

  std::int32_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  bool contains(ScheduledRequest& request) const { return request.tenant->waiting.count(&request); }
  // The next to be served. Not empty.
  ScheduledRequest& front() const { return **ready_.begin()->tenant->waiting.begin(); }

  // Counts at once: who is next may change.
  void charge_input(Tenant& tenant, std::int32_t num_tokens);
  // Counts from the next settle() on.
  void charge_output(Tenant& tenant);
  void settle();

  std::size_t num_tenants() const { return tenants_.size(); }
  void check_invariants() const;  // linear: tests

 private:
  struct Rank {
    std::int64_t service = 0;
    std::uint64_t arrival = 0;  // of its first request
    Tenant* tenant = nullptr;
    auto operator<=>(const Rank&) const = default;
  };
  struct PrefixHash {
    std::size_t operator()(const Digest& digest) const { return digest.prefix64(); }
  };

  Tenant& find_or_add(std::string_view name);
  void lift(Tenant& tenant);
  void rank(Tenant& tenant);
  void forget_idle();

  bool is_fair_;
  Weights weights_;
  // By the digest of the name, which a client may make as long as it likes.
  std::unordered_map<Digest, std::unique_ptr<Tenant>, PrefixHash> tenants_;
  std::set<Rank> ready_;  // tenants with requests that wait
  std::set<std::pair<std::uint64_t, Tenant*>> idle_;
  std::vector<Tenant*> charged_;  // those with something due
  std::int32_t size_ = 0;
  std::uint64_t next_idle_ = 1;
  const Tenant* last_ready_ = nullptr;  // the one that was the last to leave ready_
  std::int64_t last_service_ = 0;       // its counter, once it is forgotten
};

}  // namespace pagemill
