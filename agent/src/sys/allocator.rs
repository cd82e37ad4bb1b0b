//! How the C library's allocator keeps what was freed.
#![expect(unsafe_code, reason = "no library wraps mallopt(3)")]

/// As many heaps as there are threads that serve. Each keeps for itself what was freed, and a policy makes and frees megabytes.
const ARENAS: libc::c_int = 2;

/// Bounds how many heaps there are. Where it is refused, memory is larger and everything works.
pub(crate) fn bound_heaps() {
    // SAFETY: the call changes a number inside the allocator, under its lock; it has no pointers.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS) };
}
