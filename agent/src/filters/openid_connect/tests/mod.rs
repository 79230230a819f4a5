//! Tests of `openid-connect` against a provider that lies and falls silent on demand.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bearer;
mod config;
mod fake;
mod logins;
mod sessions;
mod stored;

use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::task::LocalSet;

use super::super::testing::{filter, settled};
use super::super::{Filter, Flow};
use super::form::argument;
use crate::exchange::imagined::EmptyDirectory;
use crate::exchange::testing::{NOW_MS, at};
use crate::exchange::{Answer, Exchange};
use crate::http::ResponseHead;
use fake::Fake;

const NOW: u64 = NOW_MS / 1_000;

/// A browser, or another client, before the filter and its provider.
struct World {
    fake: Rc<Fake>,
    filter: Arc<dyn Filter>,
    /// Cookies that it holds.
    jar: BTreeMap<String, String>,
    /// Seconds since the beginning.
    time: u64,
    /// Fields of each request besides the cookies.
    fields: Vec<(&'static str, String)>,
}

/// What became of a request.
enum Outcome {
    Went(Box<Exchange>),
    Answered(Box<Answer>),
}

fn config_for(fake: &Fake, more: Value) -> Value {
    let mut config = json!({
        "client_id": "app", "client_secret": "a secret of the client", "discovery": fake.url("/.well-known/openid-configuration"),
        "redirect_uri": "/cb", "use_nonce": true, "use_pkce": true,
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

async fn world(more: Value) -> World {
    let fake = Fake::start().await;
    let filter = filter("openid-connect", &config_for(&fake, more));
    World { fake, filter, jar: BTreeMap::new(), time: 0, fields: Vec::new() }
}

/// Runs a story on one thread, as a worker does.
async fn story(story: impl Future<Output = ()>) {
    LocalSet::new().run_until(story).await;
}

impl World {
    async fn ask(&mut self, method: &str, target: &str) -> Outcome {
        let cookies: Vec<_> = self.jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let cookies = cookies.join("; ");
        let mut fields: Vec<(&str, &str)> = self.fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        if !cookies.is_empty() {
            fields.push(("Cookie", &cookies));
        }
        let mut x = at(NOW_MS + self.time * 1_000, method, "h", target, &fields, Rc::new(EmptyDirectory));
        let flow = self.filter.rewrite(&mut x);
        match settled(flow, &mut x).await {
            Flow::Continue => {
                let mut head = ResponseHead::new(200);
                self.filter.response_head(&mut x, &mut head);
                self.take_cookies(&head);
                Outcome::Went(Box::new(x))
            }
            Flow::Answer(answer) => {
                self.take_cookies(&answer.head);
                Outcome::Answered(answer)
            }
            _ => panic!("not settled"),
        }
    }

    async fn get(&mut self, target: &str) -> Outcome {
        self.ask("GET", target).await
    }

    /// Does what a browser does at a login: off to the provider, which agrees, and back.
    async fn log_in(&mut self, target: &str) -> Outcome {
        let sent = self.get(target).await.sent_to();
        let state = self.agree(&sent);
        self.get(&format!("/cb?code=c1&state={state}")).await
    }

    /// What the provider remembers of being asked; the state.
    fn agree(&self, sent: &str) -> String {
        let query = sent.split_once('?').unwrap().1;
        *self.fake.nonce.borrow_mut() = argument(query, "nonce");
        argument(query, "state").unwrap()
    }

    fn take_cookies(&mut self, head: &ResponseHead) {
        for line in head.fields.get_all("set-cookie") {
            let line = std::str::from_utf8(line).unwrap();
            let (name, value) = line.split(';').next().unwrap().split_once('=').unwrap();
            if line.contains("Max-Age=0") {
                self.jar.remove(name);
            } else {
                self.jar.insert(name.to_owned(), value.to_owned());
            }
        }
    }
}

impl Outcome {
    fn went(self) -> Box<Exchange> {
        match self {
            Outcome::Went(x) => x,
            Outcome::Answered(answer) => panic!("answered {} {:?}", answer.head.status, answer.body),
        }
    }

    fn answered(self) -> (u16, String) {
        match self {
            Outcome::Went(_) => panic!("the request went on"),
            Outcome::Answered(answer) => (answer.head.status, String::from_utf8(answer.body.to_vec()).unwrap()),
        }
    }

    fn field(&self, name: &str) -> Option<String> {
        match self {
            Outcome::Went(x) => x.request.fields.get_str(name).map(str::to_owned),
            Outcome::Answered(answer) => answer.head.fields.get_str(name).map(str::to_owned),
        }
    }

    fn sent_to(&self) -> String {
        match self {
            Outcome::Answered(answer) if answer.head.status == 302 => self.field("location").unwrap(),
            Outcome::Answered(answer) => panic!("answered {} {:?}", answer.head.status, answer.body),
            Outcome::Went(_) => panic!("the request went on"),
        }
    }
}
