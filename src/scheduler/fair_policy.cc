#include "scheduler/fair_policy.h"

#include <algorithm>
#include <span>

#include "base/check.h"

namespace pagemill {

FairQueue::FairQueue(bool is_fair, Weights weights) : is_fair_(is_fair), weights_(weights) {}

Tenant& FairQueue::find_or_add(std::string_view name) {
  Digest digest;
  if (is_fair_) {
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(name.data());
    digest = Sha256().update({bytes, name.size()}).finish();
  }
  std::unique_ptr<Tenant>& tenant = tenants_[digest];
  if (tenant == nullptr) {
    tenant = std::make_unique<Tenant>();
    tenant->name = digest;
  }
  return *tenant;
}

void FairQueue::enter(ScheduledRequest& request, std::string_view name) {
  settle();
  Tenant& tenant = find_or_add(name);
  if (tenant.num_requests++ == 0) idle_.erase({tenant.idle_since, &tenant});
  if (tenant.waiting.empty()) lift(tenant);
  request.tenant = &tenant;
  insert(request);
}

void FairQueue::lift(Tenant& tenant) {
  std::int64_t least = last_service_;
  if (!ready_.empty()) {
    least = ready_.begin()->service;
  } else if (last_ready_ != nullptr) {
    least = last_ready_->service;
  }
  tenant.service = std::max(tenant.service, least);
}

void FairQueue::insert(ScheduledRequest& request) {
  PM_CHECK(request.tenant->waiting.insert(&request).second, "request {} waits", request.id);
  ++size_;
  rank(*request.tenant);
}

void FairQueue::erase(ScheduledRequest& request) {
  PM_CHECK(request.tenant->waiting.erase(&request) == 1, "request {} does not wait", request.id);
  --size_;
  rank(*request.tenant);
}

void FairQueue::leave(ScheduledRequest& request) {
  Tenant& tenant = *request.tenant;
  if (--tenant.num_requests > 0) return;
  settle();
  tenant.idle_since = next_idle_++;
  idle_.insert({tenant.idle_since, &tenant});
  if (idle_.size() > kMaxIdleTenants) forget_idle();
}

// The one that has been idle for the longest. Should it come back, it is lifted as a new one is.
void FairQueue::forget_idle() {
  Tenant* tenant = idle_.begin()->second;
  if (tenant == last_ready_) {
    last_service_ = tenant->service;
    last_ready_ = nullptr;
  }
  idle_.erase(idle_.begin());
  tenants_.erase(tenants_.find(tenant->name));
}

void FairQueue::charge_input(Tenant& tenant, std::int32_t num_tokens) {
  if (!is_fair_) return;
  tenant.service += weights_.input * num_tokens;
  rank(tenant);
}

void FairQueue::charge_output(Tenant& tenant) {
  if (!is_fair_ || weights_.output == 0) return;
  if (tenant.due == 0) charged_.push_back(&tenant);
  tenant.due += weights_.output;
}

void FairQueue::settle() {
  for (Tenant* tenant : charged_) {
    tenant->service += tenant->due;
    tenant->due = 0;
    rank(*tenant);
  }
  charged_.clear();
}

// Puts the tenant in its place among those with requests that wait.
void FairQueue::rank(Tenant& tenant) {
  const Rank old{tenant.ranked_service, tenant.first_waiting, &tenant};
  if (tenant.waiting.empty()) {
    if (ready_.erase(old) > 0) last_ready_ = &tenant;
    return;
  }
  const Rank now{tenant.service, (*tenant.waiting.begin())->arrival, &tenant};
  auto node = ready_.extract(old);
  tenant.ranked_service = now.service;
  tenant.first_waiting = now.arrival;
  if (node.empty()) {
    ready_.insert(now);
  } else {
    node.value() = now;
    ready_.insert(std::move(node));
  }
}

void FairQueue::check_invariants() const {
  std::int32_t num_waiting = 0;
  std::size_t num_ready = 0, num_idle = 0;
  for (const auto& [name, tenant] : tenants_) {
    PM_CHECK(tenant->name == name && tenant->service >= 0);
    num_waiting += static_cast<std::int32_t>(tenant->waiting.size());
    num_idle += idle_.count({tenant->idle_since, tenant.get()});
    PM_CHECK((tenant->num_requests == 0) == (idle_.count({tenant->idle_since, tenant.get()}) == 1));
    PM_CHECK(tenant->num_requests >= static_cast<std::int32_t>(tenant->waiting.size()));
    if (tenant->waiting.empty()) continue;
    ++num_ready;
    PM_CHECK(ready_.count({tenant->service, (*tenant->waiting.begin())->arrival, tenant.get()}));
  }
  PM_CHECK(num_waiting == size_ && num_ready == ready_.size() && num_idle == idle_.size());
  PM_CHECK(idle_.size() <= kMaxIdleTenants);
}

}  // namespace pagemill
