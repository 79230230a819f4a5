//! Giving back memory that a process holds only because it has just started. It knows nothing of what runs.
//!
//! The kernel maps a file in windows of 64 KiB around each page that is touched, and never takes a window back while memory is plentiful: after its start a
//! process keeps resident code and constants that it will not use again. Let go of once, the windows that are needed come back from the page cache, a microsecond each.

use std::fs;

/// Below this there is nothing to win.
const WORTH_IT: usize = 1024 * 1024;

/// Lets go of the code and the constants of this program; what is used comes back by itself. Gives the bytes of them that were resident, 0 where nothing can
/// be let go of.
pub fn let_go_of_code() -> usize {
    let (Ok(program), Ok(smaps)) = (fs::read_link("/proc/self/exe"), fs::read_to_string("/proc/self/smaps")) else { return 0 };
    let Some(program) = program.to_str() else { return 0 };
    let parts = unwritten(&smaps, program).into_iter().filter(|part| part.length >= WORTH_IT);
    parts.map(|part| if let_go(part.start, part.length) { part.resident } else { 0 }).sum()
}

/// A part of the address space, in bytes, and how much of it is resident.
#[derive(Debug, PartialEq)]
struct Part {
    start: usize,
    length: usize,
    resident: usize,
}

/// The mappings in `/proc/self/smaps` (proc(5)) that hold what the program's file holds and nothing else: read-only now, and without a page of their own. What
/// the loader has relocated is read-only too by then, but has pages of its own.
fn unwritten(smaps: &str, program: &str) -> Vec<Part> {
    let mut found = Vec::new();
    let mut candidate: Option<Part> = None;
    for line in smaps.lines() {
        match line.split_once(':') {
            Some(("Rss", size)) => candidate = candidate.and_then(|part| Some(Part { resident: bytes(size)?, ..part })),
            Some(("Anonymous", size)) => candidate = candidate.filter(|_| bytes(size) == Some(0)),
            // The last of the three.
            Some(("Swap", size)) => found.extend(candidate.take().filter(|_| bytes(size) == Some(0))),
            _ => {
                if let Some(mapping) = mapping(line) {
                    let is_candidate = mapping.path == program && matches!(mapping.rights, "r-xp" | "r--p");
                    let (start, length) = mapping.range;
                    candidate = is_candidate.then_some(Part { start, length, resident: 0 });
                }
            }
        }
    }
    found
}

/// A size as it stands there: `12 kB`.
fn bytes(size: &str) -> Option<usize> {
    size.trim().strip_suffix(" kB")?.parse::<usize>().ok()?.checked_mul(1024)
}

/// The first line of a mapping.
struct Mapping<'a> {
    range: (usize, usize),
    rights: &'a str,
    path: &'a str,
}

/// `start-end rights offset device inode path`; `None` for lines of another form.
fn mapping(line: &str) -> Option<Mapping<'_>> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    let rights = words.next()?;
    Some(Mapping { range: (start, end.checked_sub(start)?), rights, path: words.nth(3).unwrap_or_default() })
}

#[expect(unsafe_code, reason = "madvise(2) has no safe face; what is let go of is read-only and backed by a file")]
fn let_go(start: usize, length: usize) -> bool {
    let start = std::ptr::with_exposed_provenance_mut(start);
    // SAFETY: the range is one mapping of this process, just read from the kernel; code and constants of the running program stay mapped for as long as it runs. It is a
    // read-only private mapping without a page of its own, so its pages equal the file's, and MADV_DONTNEED makes the next access read them from there again.
    unsafe { rustix::mm::madvise(start, length, rustix::mm::Advice::LinuxDontNeed) }.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(range: &str, rights: &str, path: &str, anonymous: &str, swap: &str) -> String {
        format!(
            "{range} {rights} 00400000 fe:00 1234    {path}\nSize: 16 kB\nRss: 12 kB\nAnonymous: {anonymous}\nSwap: {swap}\nVmFlags: rd ex mr\n"
        )
    }

    #[test]
    fn only_what_equals_the_file_of_the_program_is_found() {
        let program = "/usr/bin/heddle";
        let smaps = [
            block("1000-5000", "r--p", program, "0 kB", "0 kB"),
            block("5000-9000", "r-xp", program, "0 kB", "0 kB"),
            block("9000-a000", "r--p", program, "8 kB", "0 kB"),
            block("a000-b000", "r--p", program, "0 kB", "4 kB"),
            block("b000-c000", "rw-p", program, "0 kB", "0 kB"),
            block("c000-d000", "r-xp", "/usr/lib/libc.so.6", "0 kB", "0 kB"),
            block("d000-e000", "r--p", "", "0 kB", "0 kB"),
        ]
        .concat();
        let part = |start| Part { start, length: 0x4000, resident: 0x3000 };
        assert_eq!(unwritten(&smaps, program), [part(0x1000), part(0x5000)]);
        assert!(unwritten("nonsense\nAnonymous: 0 kB\nSwap: 0 kB", program).is_empty());
    }

    #[test]
    fn what_the_loader_wrote_is_kept() {
        static NAMES: [&str; 3] = ["one", "two", "three"];
        let_go_of_code();
        assert_eq!(std::hint::black_box(&NAMES).map(str::len), [3, 3, 5], "its addresses were relocated at the start");
    }

    #[test]
    fn a_process_lives_on_without_the_code_of_its_start() {
        assert!(let_go_of_code() > 0, "what runs is resident");
        assert_eq!((1..=10).product::<u64>(), 3_628_800);
    }
}
