//! What several targets share: cutting an input into lines, and the request that they look at. It knows no target.

use std::rc::Rc;

use heddle_agent::exchange::Exchange;
use heddle_agent::exchange::imagined::{EmptyDirectory, Imagined};

/// The host of every request.
pub const HOST: &str = "h.example";

/// The first lines of an input, and the rest.
pub fn lines<const COUNT: usize>(data: &[u8]) -> Option<([&str; COUNT], &str)> {
    let mut rest = std::str::from_utf8(data).ok()?;
    let mut lines = [""; COUNT];
    for line in &mut lines {
        (*line, rest) = rest.split_once('\n')?;
    }
    Some((lines, rest))
}

/// A request with this target and this value of several fields, as far as such a value may come in a request.
pub fn exchange(method: &str, target: &str, value: &str) -> Exchange {
    let value: String = value.chars().filter(|c| !c.is_control()).collect();
    let fields = [("x-value", value.as_str()), ("cookie", value.as_str()), ("user-agent", value.as_str())];
    let (remote, local) = (([192, 0, 2, 7], 4711).into(), ([192, 0, 2, 1], 9080).into());
    let imagined = Imagined { method, authority: HOST, target, fields: &fields, remote, local };
    imagined.exchange(heddle_node::clock::now(), 1_700_000_000_000, Rc::new(EmptyDirectory))
}
