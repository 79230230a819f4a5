//! Loops whose lengths differ by a known share. They measure the measure.

use std::hint::black_box;

use super::Case;
use crate::subject::Subject;

struct Loop(u32);

impl Subject for Loop {
    fn run(&mut self, rounds: usize) {
        for _ in 0..rounds * self.0 as usize {
            black_box(self.0);
        }
    }
}

pub fn cases() -> Vec<Case> {
    let case = |name, make| Case { name, rounds: 64, less: None, make };
    vec![
        case("yardstick/1000", || Box::new(Loop(1000))),
        case("yardstick/1040", || Box::new(Loop(1040))),
        case("yardstick/1060", || Box::new(Loop(1060))),
    ]
}
