//! Giving back memory that a process holds only because it has just started. It knows nothing of what runs.
//!
//! The kernel maps code in windows of 64 KiB around each page that is touched, and never takes a window back while memory is plentiful: after its start a
//! process keeps resident what it will not run again. Let go of once, the windows that are needed come back from the page cache, a microsecond each.

use std::fs;

/// Below this there is nothing to win.
const WORTH_IT: usize = 1024 * 1024;

/// Lets go of the code of this program; what runs comes back by itself. Gives the bytes of address space that were let go of, 0 where that is not possible.
pub fn let_go_of_code() -> usize {
    let (Ok(program), Ok(maps)) = (fs::read_link("/proc/self/exe"), fs::read_to_string("/proc/self/maps")) else { return 0 };
    let Some(program) = program.to_str() else { return 0 };
    let parts = maps.lines().filter_map(|line| code_of(line, program)).filter(|(_, length)| *length >= WORTH_IT);
    parts.map(|(start, length)| if let_go(start, length) { length } else { 0 }).sum()
}

/// Start and length of a mapping of `/proc/self/maps` (proc(5)) that holds code of the program: executable, never written, so never different from the file.
fn code_of(line: &str, program: &str) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (range, rights) = (words.next()?, words.next()?);
    let path = words.nth(3)?;
    if rights != "r-xp" || path != program {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    Some((start, end.checked_sub(start)?))
}

#[expect(unsafe_code, reason = "madvise(2) has no safe face; what is let go of is read-only and backed by a file")]
fn let_go(start: usize, length: usize) -> bool {
    let start = std::ptr::with_exposed_provenance_mut(start);
    // SAFETY: the range is one mapping of this process, just read from the kernel; code of the running program stays mapped for as long as it runs. It is a private
    // mapping of a file that was never writable, so its pages equal the file's, and MADV_DONTNEED makes the next access read them from there again.
    unsafe { rustix::mm::madvise(start, length, rustix::mm::Advice::LinuxDontNeed) }.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_the_program_is_found() {
        let line = |rights: &str, path: &str| format!("55d0c8a00000-55d0c9e00000 {rights} 00400000 fe:00 1234    {path}");
        let found = |rights: &str, path: &str| code_of(&line(rights, path), "/usr/bin/heddle");
        assert_eq!(found("r-xp", "/usr/bin/heddle"), Some((0x55d0_c8a0_0000, 0x0140_0000)));
        for (rights, path) in
            [("r--p", "/usr/bin/heddle"), ("rwxp", "/usr/bin/heddle"), ("r-xp", "/usr/lib/libc.so.6"), ("r-xp", "")]
        {
            assert_eq!(found(rights, path), None, "{rights} {path}");
        }
        assert_eq!(code_of("nonsense", "/usr/bin/heddle"), None);
    }

    #[test]
    fn a_process_lives_on_without_the_code_of_its_start() {
        assert!(let_go_of_code() >= WORTH_IT, "a test binary is larger than that");
        assert_eq!((1..=10).product::<u64>(), 3_628_800);
    }
}
