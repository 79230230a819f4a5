//! Where this process gets its memory from, and how it gives back what is free. It knows nothing of what runs.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[expect(unsafe_code, reason = "mi_collect is one of many functions of mimalloc, and the only one that is needed")]
// SAFETY: this is the declaration in mimalloc.h, of which every program with the allocator above has the definition.
unsafe extern "C" {
    /// mimalloc.h: frees what holds nothing; with `force` it is given back to the kernel at once.
    fn mi_collect(force: bool);
}

/// Gives the pages back to the kernel that hold nothing any more. The allocator keeps them for what comes next, and looks through them only while it is asked for more:
/// after a start, which takes a configuration apart, a process at rest would hold them for ever. Those of this thread are meant, and those that nobody has.
#[expect(unsafe_code, reason = "mi_collect has no safe face")]
pub fn give_back() {
    // SAFETY: every thread may call it at any time; it touches only what holds nothing.
    unsafe { mi_collect(true) }
}
