//! What a wolf server answers to the question whether somebody may do something. It asks nothing.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::server::User;
use crate::exchange::{Answer, Reason};
use crate::outbound::Reply;

/// A permission that was asked for.
pub(super) struct Permission {
    /// 200 grants it; any other status is the client's.
    pub(super) status: u16,
    reason: Option<String>,
    pub(super) user: User,
}

/// Query of the question.
pub(super) fn query(appid: &str, resource: &str, action: &str, client: &str) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    format!("appID={}&resName={}&action={}&clientIP={}", encoded(appid), encoded(resource), encoded(action), encoded(client))
}

impl Permission {
    /// Reads the answer; what is not understood grants nothing.
    pub(super) fn read(reply: &Reply) -> Permission {
        let status = reply.head.status;
        if status >= 500 {
            return Permission::refused(500, format!("request to wolf-server failed, status:{status}"));
        }
        let Ok(body) = serde_json::from_slice::<Value>(&reply.body) else {
            let status = if (400..500).contains(&status) { status } else { 500 };
            return Permission::refused(status, "check permission failed! parse response json failed!");
        };
        let info = &body["data"]["userInfo"];
        let nickname = text(&info["nickname"]).map(|name| utf8_percent_encode(&name, NON_ALPHANUMERIC).to_string());
        let user = User { id: text(&info["id"]), username: text(&info["username"]), nickname };
        // Only 200 grants; a status that is neither that nor a refusal means that this is no wolf server.
        let status = if status == 200 || (400..500).contains(&status) { status } else { 500 };
        Permission { status, reason: text(&body["reason"]), user }
    }

    /// Nothing is granted.
    pub(super) fn refused(status: u16, reason: impl Into<String>) -> Permission {
        Permission { status, reason: Some(reason.into()), user: User::default() }
    }

    /// What the client gets when it is not granted.
    pub(super) fn refusal(&self) -> Answer {
        let mut body = json!({});
        for (key, value) in [("message", &self.reason), ("username", &self.user.username), ("nickname", &self.user.nickname)] {
            if let Some(value) = value {
                body[key] = json!(value);
            }
        }
        Answer::json(self.status, &body, Reason::Plugin)
    }
}

/// Text or a number, without what may not stand in a field.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.chars().filter(|c| !c.is_control()).collect()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::http::ResponseHead;

    fn read(status: u16, body: &str) -> Permission {
        Permission::read(&Reply { head: ResponseHead::new(status), body: Bytes::copy_from_slice(body.as_bytes()) })
    }

    #[test]
    fn only_a_well_formed_200_grants() {
        let granted = read(200, r#"{"ok": true, "data": {"userInfo": {"id": 7, "username": "ann\n", "nickname": "A n"}}}"#);
        assert_eq!(granted.status, 200);
        let user = User { id: Some("7".into()), username: Some("ann".into()), nickname: Some("A%20n".into()) };
        assert_eq!(granted.user, user);
        for (status, body, told) in [
            (200, "nonsense", 500),
            (401, "nonsense", 401),
            (401, r#"{"reason": "no"}"#, 401),
            (302, "{}", 500),
            (503, "{}", 500),
        ] {
            assert_eq!(read(status, body).status, told, "{status} {body}");
        }
        assert_eq!(read(403, r#"{"reason": "no"}"#).refusal().body, "{\"message\":\"no\"}\n");
    }

    #[test]
    fn nothing_breaks_out_of_the_question() {
        assert_eq!(query("a&b", "/x?y=1 z", "GET", "::1"), "appID=a%26b&resName=%2Fx%3Fy%3D1%20z&action=GET&clientIP=%3A%3A1");
    }
}
