//! A bound on what one computation may allocate, for code that has no bound of its own: minijinja
//! counts the values that a template makes, but not all that it takes to join, compare or write
//! them, and a value that holds itself twice, forty times over, is small until then.
//!
//! The archive's allocator refuses what goes over the bound. Rust calls a hook for a refused
//! allocation, which may unwind; ours does, back to `limited`, so that the process goes on.
//! Outside of `limited` the allocator is malloc and one look at a thread-local.

use std::alloc::{set_alloc_error_hook, GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::sync::Once;

#[derive(Clone, Copy)]
pub struct Limits {
    /// Held at once.
    pub bytes: u64,
    /// Over all allocations: their bytes, and CALL_WORK for each. It bounds the time, since to walk
    /// nested values is to allocate their iterators.
    pub work: u64,
}

const CALL_WORK: u64 = 64;

#[derive(Debug, PartialEq, Eq)]
pub struct OverLimit;

#[derive(Clone, Copy)]
struct Budget {
    bytes: i64,
    work: i64,
}

thread_local! {
    static BUDGET: Cell<Option<Budget>> = const { Cell::new(None) };
}

/// Runs `body`, whose allocations on this thread may not go over `limits`. Calls don't nest.
pub fn limited<T>(limits: Limits, body: impl FnOnce() -> T) -> Result<T, OverLimit> {
    unwind_where_limited();
    let signed = |limit: u64| i64::try_from(limit).unwrap_or(i64::MAX);
    BUDGET.set(Some(Budget { bytes: signed(limits.bytes), work: signed(limits.work) }));
    let outcome = catch_unwind(AssertUnwindSafe(body));
    BUDGET.set(None);
    outcome.map_err(|panic| match panic.downcast::<OverLimit>() {
        Ok(over) => *over,
        Err(other) => resume_unwind(other),
    })
}

fn unwind_where_limited() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| set_alloc_error_hook(on_refusal));
}

fn on_refusal(layout: Layout) {
    // Unwinding frees, but may allocate as well: it has no bound.
    if BUDGET.take().is_some() {
        resume_unwind(Box::new(OverLimit));
    }
    eprintln!("memory allocation of {} bytes failed", layout.size());  // and Rust aborts
}

/// Counts that `freed` bytes become `size`; false where that is over the limit.
fn take(size: usize, freed: usize) -> bool {
    let Some(Budget { bytes, work }) = BUDGET.get() else { return true };
    let left = Budget {
        bytes: bytes.saturating_add_unsigned(freed as u64).saturating_sub_unsigned(size as u64),
        work: work.saturating_sub_unsigned(size as u64 + CALL_WORK),
    };
    // Another panic's unwinding must not be cut off by a second one.
    if (left.bytes < 0 || left.work < 0) && !std::thread::panicking() {
        return false;
    }
    BUDGET.set(Some(left));
    true
}

struct Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

// SAFETY: every block is System's.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if take(layout.size(), 0) {
            System.alloc(layout)
        } else {
            std::ptr::null_mut()
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if take(layout.size(), 0) {
            System.alloc_zeroed(layout)
        } else {
            std::ptr::null_mut()
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if take(size, layout.size()) {
            System.realloc(block, layout, size)
        } else {
            std::ptr::null_mut()
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(Budget { bytes, work }) = BUDGET.get() {
            let bytes = bytes.saturating_add_unsigned(layout.size() as u64);
            BUDGET.set(Some(Budget { bytes, work }));
        }
        System.dealloc(block, layout);
    }
}
