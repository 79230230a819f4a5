//! Requests at a fixed rate, whether or not answers come: latency counts from when a request was due, so a stalled server cannot hide what it delayed
//! (coordinated omission; G. Tene, "How NOT to Measure Latency").

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::answer;
use crate::options::Options;
use crate::tally::Tally;

/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// One of the connections and its part of the schedule: every `step`, first at `first`.
struct Turn {
    first: Instant,
    step: Duration,
    deadline: Instant,
    length: usize,
}

/// `to`, `seconds`, `rate` per second over all `connections`, `length` of the answers.
pub fn run(options: &Options) -> Result<Tally, String> {
    let (to, length) = (options.address()?, options.number("length", 60)? as usize);
    let (rate, connections) = (options.number("rate", 5000)?.max(1), options.number("connections", 64)?.max(1));
    sharpen_timers();
    let streams = (0..connections)
        .map(|_| TcpStream::connect(to).map_err(|error| format!("connect: {error}")))
        .collect::<Result<Vec<_>, _>>()?;
    // Threads are up before the first request is due.
    let start = Instant::now() + Duration::from_millis(50);
    let mut tally = Tally::from(start);
    let deadline = start + options.duration()?;
    let threads: Vec<_> = streams
        .into_iter()
        .enumerate()
        .map(|(index, stream)| {
            let first = start + Duration::from_secs(1) * index as u32 / rate;
            let turn = Turn { first, step: Duration::from_secs(1) * connections / rate, deadline, length };
            thread::spawn(move || keep_turn(stream, &turn))
        })
        .collect();
    for thread in threads {
        tally.merge(thread.join().map_err(|_| "a thread of the load has ended")?);
    }
    Ok(tally)
}

/// Lets threads started from here on sleep to the microsecond, where the kernel allows it; without it they oversleep by 50 µs, in every measurement alike.
pub fn sharpen_timers() {
    let _ = std::fs::write("/proc/self/timerslack_ns", "1");
}

fn keep_turn(mut stream: TcpStream, turn: &Turn) -> Tally {
    let mut tally = Tally::from(turn.first);
    let mut due = turn.first;
    if let Err(error) = stream.set_nodelay(true).and_then(|()| stream.set_read_timeout(Some(PATIENCE))) {
        tally.add(Err(error.to_string()), turn.deadline);
        return tally;
    }
    let mut buffer = Vec::with_capacity(4096);
    // What is due before the end is asked and counted, however late the answer comes.
    let last = turn.deadline + PATIENCE;
    while due < turn.deadline {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let result = ask(&mut stream, &mut buffer, turn.length);
        let failed = result.is_err();
        tally.add(result.map(|()| due.elapsed()), last);
        if failed {
            return tally;
        }
        due += turn.step;
    }
    tally
}

fn ask(stream: &mut TcpStream, buffer: &mut Vec<u8>, length: usize) -> Result<(), String> {
    stream.write_all(answer::request("").as_bytes()).map_err(|error| format!("write: {error}"))?;
    buffer.clear();
    let mut piece = [0; 4096];
    loop {
        let read = stream.read(&mut piece).map_err(|error| format!("read: {error}"))?;
        buffer.extend_from_slice(&piece[..read]);
        if let Some(judged) = answer::judge(buffer, length) {
            return judged;
        }
        if read == 0 {
            return Err(format!("closed after {} bytes of an answer", buffer.len()));
        }
    }
}
