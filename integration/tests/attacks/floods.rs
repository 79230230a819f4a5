//! Floods over HTTP/2: each ends its own connection and is counted, while others are served.

use heddle_integration::attack::frames::{
    ACK, CONTINUATION, DATA, END_STREAM, Fate, Frames, GOAWAY, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE,
    request,
};
use heddle_integration::client;

use super::ground::{Ground, metric};

/// Sends this again and again until the gateway ends the connection, and says how.
fn flood(ground: &Ground, start: impl Fn(&mut Frames), mut again: impl FnMut(&mut Frames, u32)) -> Fate {
    let mut frames = Frames::open(&ground.plain);
    start(&mut frames);
    for round in 0..4000 {
        again(&mut frames, round);
    }
    loop {
        match frames.receive() {
            Some((GOAWAY, _, _, payload)) if payload[4..8] != [0; 4] => {
                return Fate::GoAway(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
            }
            Some(_) => {}
            None => return Fate::Closed,
        }
    }
}

#[test]
fn floods_end_their_own_connection() {
    let ground = Ground::new();
    let open = |frames: &mut Frames| frames.headers(0, 1, &request("POST", "/flood"));
    let nothing = |_: &mut Frames| {};
    let ended = [
        ("ping", flood(&ground, nothing, |frames, _| frames.send(PING, 0, 0, &[0; 8]))),
        ("settings", flood(&ground, nothing, |frames, _| frames.send(SETTINGS, 0, 0, &[]))),
        ("priority", flood(&ground, nothing, |frames, _| frames.send(PRIORITY, 0, 1, &[0, 0, 0, 3, 7]))),
        ("empty data", flood(&ground, open, |frames, _| frames.send(DATA, 0, 1, &[]))),
        ("padded empty data", flood(&ground, open, |frames, _| frames.send(DATA, 8, 1, &[3, 0, 0, 0]))),
        ("window updates", flood(&ground, open, |frames, _| frames.send(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]))),
        ("unknown frames", flood(&ground, nothing, |frames, _| frames.send(0x42, 0, 0, &[0; 8]))),
        (
            "continuation",
            flood(&ground, |frames| frames.send(HEADERS, 0, 1, &[0x88]), |frames, _| frames.send(CONTINUATION, 0, 1, &[])),
        ),
        (
            "rapid reset",
            flood(&ground, nothing, |frames, round| {
                frames.headers(END_STREAM, round * 2 + 1, &request("GET", "/flood"));
                frames.send(RST_STREAM, 0, round * 2 + 1, &[0, 0, 0, 8]);
            }),
        ),
        (
            "resets provoked",
            flood(&ground, nothing, |frames, round| {
                frames.headers(0, round * 2 + 1, &request("POST", "/flood"));
                frames.send(WINDOW_UPDATE, 0, round * 2 + 1, &[0, 0, 0, 0]);
            }),
        ),
    ];
    let wrong: Vec<String> = ended
        .iter()
        .filter(|(_, fate)| !matches!(fate, Fate::GoAway(_) | Fate::Closed))
        .map(|(name, fate)| format!("{name}: {fate:?}"))
        .collect();
    let kills = metric(&ground.heddle.metrics(), "heddle_connections_total{event=\"glitch_kills\"}");
    assert!(kills.is_some_and(|kills| kills >= 5.0), "killed by their glitches: {kills:?}\n{}", ground.heddle.metrics());
    ground.check(wrong);
}

#[test]
fn settings_that_are_acknowledged_unasked_and_shut_windows_harm_nobody() {
    let ground = Ground::new();
    let mut frames = Frames::with_settings(&ground.plain, &[0, 4, 0, 0, 0, 0]);
    for _ in 0..50 {
        frames.send(SETTINGS, ACK, 0, &[]);
    }
    for stream in 0..100 {
        frames.headers(END_STREAM, stream * 2 + 1, &request("GET", "/shut"));
    }
    // Beyond the streams that are allowed at once.
    frames.headers(END_STREAM, 201, &request("GET", "/shut"));
    assert!(!matches!(frames.fate(201), Fate::Status(500..)));
    assert_eq!(client::get(ground.heddle.http, "/others").unwrap().status, 200);
    ground.check(Vec::new());
}
