//! Vector code chosen at run time.

/// Runs `f` compiled for the widest vectors of this processor.
///
/// `f` must be a closure marked `#[inline(always)]`, written at the call: then the compiler sees it as called once, and everything
/// inlined into it is vectorised. (Passed to `pulp` directly it would be called through a shim that is not.)
#[inline(always)]
pub(crate) fn vectorised<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}
