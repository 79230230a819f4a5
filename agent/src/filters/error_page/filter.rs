//! The filter of `error-page`.

use std::sync::Arc;

use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::super::{BuildContext, Built, Filter, Flow, Phases, Resume, check};
use super::config::{Config, Metadata, Page};
use super::statuses::Statuses;
use crate::exchange::{Answer, Exchange, Inner, Reason};
use crate::http::{Body, FieldName, Fields, Name, RequestHead, ResponseHead};

struct ErrorPage {
    /// For the gateway's own answers.
    own: Statuses<Arc<Prepared>>,
    /// For all answers.
    pages: Statuses<Arc<Prepared>>,
    /// Statuses whose page is asked for.
    asked: Statuses<()>,
    query: String,
    host: Option<String>,
    rewrites: Statuses<u16>,
    request_fields: Option<Vec<FieldName>>,
    limit: u64,
}

/// A page as it is sent.
#[derive(Debug)]
struct Prepared {
    content_type: String,
    body: Bytes,
}

/// Fields of the request that mean the request itself and not the page.
const OF_THE_REQUEST: [FieldName; 10] = [
    FieldName::of("Content-Length"),
    FieldName::of("Content-Type"),
    FieldName::of("Content-Encoding"),
    FieldName::of("Accept-Encoding"),
    FieldName::of("Range"),
    FieldName::of("If-Range"),
    FieldName::of("If-Match"),
    FieldName::of("If-None-Match"),
    FieldName::of("If-Modified-Since"),
    FieldName::of("If-Unmodified-Since"),
];

/// Fields of the error that its status needs to be understood (RFC 9110 sections 10.2 and 11.6).
const OF_THE_ERROR: [FieldName; 4] = [
    FieldName::of("WWW-Authenticate"),
    FieldName::of("Proxy-Authenticate"),
    FieldName::of("Retry-After"),
    FieldName::of("Allow"),
];

pub(super) fn build(value: &Value, context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let metadata: Metadata = context.metadata.map(check::read).transpose()?.unwrap_or_default();
    let bad = |path: &str, error: String| vec![check::fault_at(path, error)];
    let (mut own, mut pages) = (Statuses::default(), Statuses::default());
    for (status, field, page) in metadata.pages().filter(|_| metadata.enable) {
        own.add(&status.to_string(), &Arc::new(Prepared::new(page))).map_err(|error| bad(field, error))?;
    }
    for (text, page) in &config.pages {
        pages.add(text, &Arc::new(Prepared::new(page))).map_err(|error| bad("pages", error))?;
    }
    let (mut asked, mut rewrites) = (Statuses::default(), Statuses::default());
    for text in &config.status {
        asked.add(text, &()).map_err(|error| bad("status", error))?;
    }
    for (text, status) in &config.status_rewrites {
        rewrites.add(text, status).map_err(|error| bad("status_rewrites", error))?;
    }
    Ok(Arc::new(ErrorPage {
        own,
        pages,
        asked,
        query: config.query,
        host: config.host.map(|host| host.to_ascii_lowercase()),
        rewrites,
        request_fields: config.error_request_headers.map(|names| names.into_iter().map(FieldName::new).collect()),
        limit: config.max_page_size,
    }))
}

impl Prepared {
    fn new(page: &Page) -> Prepared {
        Prepared { content_type: page.content_type.clone(), body: Bytes::from(page.body.clone()) }
    }
}

impl Filter for ErrorPage {
    fn phases(&self) -> Phases {
        Phases::AFTER_PROXY
    }

    fn after_proxy(&self, x: &mut Exchange, head: &mut ResponseHead, _body: &mut Body) -> Flow {
        let status = head.status;
        let new = self.rewrites.get(status).copied().unwrap_or(status);
        let reason = x.answer.reason;
        let own = if reason == Reason::None { None } else { self.own.get(status) };
        if let Some(page) = self.pages.get(status).or(own) {
            let mut answer = Answer::empty(new, reason);
            answer.head.fields.append_known(Name::ContentType, &page.content_type);
            keep(&head.fields, &mut answer.head.fields);
            answer.body = page.body.clone();
            return Flow::Answer(Box::new(answer));
        }
        // Pages that are asked for do not ask for pages themselves.
        if self.asked.get(status).is_none() || x.connection.inner {
            if !self.rewrites.is_empty() {
                head.status = new;
            }
            return Flow::Continue;
        }
        let mut kept = Fields::new();
        keep(&head.fields, &mut kept);
        let inner =
            Inner { head: Box::new(self.question(x, status, new)), body: Bytes::new(), limit: self.limit, upstream: None };
        let page = x.dispatch(inner);
        Flow::Wait(Box::pin(async move {
            let page = page.await;
            Box::new(move |_: &mut Exchange| match page {
                // Where there is no page, the error stays as it is.
                Ok((head, body)) if (200..300).contains(&head.status) => {
                    Flow::Answer(Box::new(served(head, body, new, &kept, reason)))
                }
                Ok((head, _)) => {
                    tracing::warn!(status = head.status, "error-page: the page for an error is an error itself");
                    Flow::Continue
                }
                Err(why) => {
                    tracing::warn!(reason = why.flag(), "error-page: there is no page for an error");
                    Flow::Continue
                }
            }) as Resume
        }))
    }
}

impl ErrorPage {
    /// The request for the page.
    fn question(&self, x: &Exchange, status: u16, new: u16) -> RequestHead {
        let url = || {
            let path = &x.original.path;
            let query = x.original.query.as_deref().map(|query| ["?", query].concat()).unwrap_or_default();
            let url = [x.scheme(), "://", &x.request.authority, path, &query].concat();
            utf8_percent_encode(&url, NON_ALPHANUMERIC).to_string()
        };
        let mut target = self.query.replace("{status}", &new.to_string()).replace("{originalStatus}", &status.to_string());
        if target.contains("{url}") {
            target = target.replace("{url}", &url());
        }
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
            None => (target, None),
        };
        let mut fields = Fields::new();
        match &self.request_fields {
            None => {
                x.request.fields.iter().for_each(|field| fields.append(field.name, field.value));
                for name in &OF_THE_REQUEST {
                    fields.remove_named(name);
                }
            }
            Some(names) => {
                for name in names {
                    x.request.fields.get_all_named(name).for_each(|value| fields.append_named(name, value));
                }
            }
        }
        let authority = self.host.clone().unwrap_or_else(|| x.request.authority.clone());
        RequestHead { authority, path, query, fields, ..RequestHead::default() }
    }
}

/// Copies what the status of an error needs.
fn keep(from: &Fields, to: &mut Fields) {
    for name in &OF_THE_ERROR {
        from.get_all_named(name).for_each(|value| to.append_named(name, value));
    }
}

fn served(mut head: ResponseHead, body: Bytes, status: u16, kept: &Fields, reason: Reason) -> Answer {
    head.status = status;
    head.fields.remove_known(Name::ContentLength);
    head.fields.append_all(kept);
    Answer { head, body, reason }
}
