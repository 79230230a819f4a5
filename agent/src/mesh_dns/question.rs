//! What a question of DNS is about and how it is answered: functions of bytes. It opens no socket and knows no services.

use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{DNSClass, RData, Record, RecordType};

use crate::tables::Called;

/// How long an answer of ours may be believed: an address stays the same as long as its service is there, but services come.
const TTL: u32 = 10;

/// What becomes of a packet.
#[derive(Debug)]
pub(super) enum Plan {
    /// Nothing: it is no question, and an answer could be made to go round in circles.
    Ignore,
    /// It is answered with this.
    Answer(Vec<u8>),
    /// It asks for a service of the mesh.
    Service(Question),
    /// It asks for a service of Kubernetes, which may be one of the mesh.
    Kubernetes(Question),
    /// It is for others to answer.
    Forward,
}

/// A question about a service.
#[derive(Debug)]
pub(super) struct Question {
    /// `<namespace>/<service>`.
    pub(super) service: Arc<str>,
    message: Message,
}

/// What is known of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// It exists; its address, where it has one.
    Service(Option<IpAddr>),
    /// There is none of this name.
    Nobody,
    /// The control plane has not answered.
    Unknown,
}

/// Reads a packet; services without a namespace are those of `own`, and `domain` is that of Kubernetes, where its names are asked about.
pub(super) fn plan(packet: &[u8], own: &str, domain: Option<&str>) -> Plan {
    let Ok(message) = Message::from_vec(packet) else {
        return Plan::Ignore;
    };
    if message.metadata.message_type != MessageType::Query {
        return Plan::Ignore;
    }
    let [query] = &message.queries[..] else { return Plan::Forward };
    if message.metadata.op_code != OpCode::Query || query.query_class != DNSClass::IN {
        return Plan::Forward;
    }
    let name = query.name.to_ascii();
    let bare = name.strip_suffix('.').unwrap_or(&name).to_ascii_lowercase();
    if bare != "mesh" && !bare.ends_with(".mesh") {
        // An address is all that a service of the mesh has here; whatever else is known of it, others know.
        let is_address = matches!(query.query_type, RecordType::A | RecordType::AAAA);
        let service = domain.filter(|_| is_address).and_then(|domain| Called::of_kubernetes(&bare, domain));
        return service.map_or(Plan::Forward, |service| Plan::Kubernetes(Question { service, message }));
    }
    match Called::of_name(&bare, own) {
        Some(called) => Plan::Service(Question { service: called.service, message }),
        None => answer(&message, ResponseCode::NXDomain, None).map_or(Plan::Ignore, Plan::Answer),
    }
}

impl Question {
    /// The answer.
    pub(super) fn answer(&self, found: Found) -> Option<Vec<u8>> {
        let query = self.message.queries.first()?;
        let record = match (found, query.query_type) {
            (Found::Service(Some(IpAddr::V4(vip))), RecordType::A) => Some(RData::A(A(vip))),
            (Found::Service(Some(IpAddr::V6(vip))), RecordType::AAAA) => Some(RData::AAAA(AAAA(vip))),
            _ => None,
        };
        let code = match found {
            Found::Service(_) => ResponseCode::NoError,
            Found::Nobody => ResponseCode::NXDomain,
            Found::Unknown => ResponseCode::ServFail,
        };
        answer(&self.message, code, record)
    }
}

/// Whether others have answered that there is such a name, as the code in the head of the message says (RFC 1035 section 4.1.1).
pub(super) fn exists(answer: &[u8]) -> bool {
    answer.get(3).is_none_or(|flags| flags & 0x0f == 0)
}

/// The answer to a packet that nobody could answer.
pub(super) fn failure(packet: &[u8]) -> Option<Vec<u8>> {
    answer(&Message::from_vec(packet).ok()?, ResponseCode::ServFail, None)
}

fn answer(question: &Message, code: ResponseCode, data: Option<RData>) -> Option<Vec<u8>> {
    let mut message = Message::response(question.metadata.id, question.metadata.op_code);
    message.metadata.recursion_desired = question.metadata.recursion_desired;
    message.metadata.recursion_available = true;
    message.metadata.response_code = code;
    // What is in the mesh and what is not is ours to say (RFC 1035 section 4.1.1); by that it is seen, too, that captured questions arrive here.
    message.metadata.authoritative = code != ResponseCode::ServFail;
    message.add_queries(question.queries.iter().cloned());
    if let Some((data, query)) = data.zip(question.queries.first()) {
        message.add_answer(Record::from_rdata(query.name.clone(), TTL, data));
    }
    message.to_vec().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use hickory_proto::op::Query;
    use hickory_proto::rr::Name;
    use proptest::prelude::*;

    use super::*;

    const DOMAIN: Option<&str> = Some("cluster.local");

    fn packet(name: &str, kind: RecordType) -> Vec<u8> {
        let mut message = Message::query();
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        message.to_vec().unwrap()
    }

    fn answered(name: &str, kind: RecordType, found: Found) -> Message {
        let Plan::Service(question) = plan(&packet(name, kind), "shop", None) else { panic!("{name} is a service") };
        Message::from_vec(&question.answer(found).unwrap()).unwrap()
    }

    #[test]
    fn services_have_one_address_and_others_are_not_ours() {
        let vip: IpAddr = "240.0.0.7".parse().unwrap();
        let message = answered("API.pay.mesh.", RecordType::A, Found::Service(Some(vip)));
        assert_eq!(message.metadata.response_code, ResponseCode::NoError);
        assert_eq!(message.answers[0].data, RData::A(A("240.0.0.7".parse().unwrap())));
        for (kind, found, code) in [
            (RecordType::AAAA, Found::Service(Some(vip)), ResponseCode::NoError),
            (RecordType::TXT, Found::Service(Some(vip)), ResponseCode::NoError),
            (RecordType::A, Found::Service(None), ResponseCode::NoError),
            (RecordType::A, Found::Nobody, ResponseCode::NXDomain),
            (RecordType::A, Found::Unknown, ResponseCode::ServFail),
        ] {
            let message = answered("api.mesh.", kind, found);
            assert_eq!((message.metadata.response_code, message.answers.len()), (code, 0), "{kind} {found:?}");
            assert_eq!(message.metadata.authoritative, found != Found::Unknown, "{found:?}");
        }
        for other in ["example.com.", "api.pay.", "mesh.example.com.", "xmesh."] {
            assert!(matches!(plan(&packet(other, RecordType::A), "shop", DOMAIN), Plan::Forward), "{other}");
        }
        let Plan::Answer(bytes) = plan(&packet("a.b.c.mesh.", RecordType::A), "shop", DOMAIN) else { panic!("it is ours") };
        assert_eq!(Message::from_vec(&bytes).unwrap().metadata.response_code, ResponseCode::NXDomain);
    }

    #[test]
    fn addresses_of_services_of_kubernetes_may_be_ours_and_nothing_else_of_them() {
        for (name, kind, is_ours) in [
            ("API.pay.svc.cluster.local.", RecordType::A, true),
            ("api.pay.svc.", RecordType::AAAA, true),
            ("api.pay.svc.cluster.local.", RecordType::SRV, false),
            ("api.pay.svc.cluster.local.", RecordType::TXT, false),
            ("_http._tcp.api.pay.svc.cluster.local.", RecordType::SRV, false),
            ("api-0.api.pay.svc.cluster.local.", RecordType::A, false),
            ("api.svc.cluster.local.", RecordType::A, false),
            ("www.example.com.svc.cluster.local.", RecordType::A, false),
        ] {
            match plan(&packet(name, kind), "shop", DOMAIN) {
                Plan::Kubernetes(question) => assert!(is_ours && &*question.service == "pay/api", "{name} {kind}"),
                other => assert!(!is_ours && matches!(other, Plan::Forward), "{name} {kind}"),
            }
            assert!(matches!(plan(&packet(name, kind), "shop", None), Plan::Forward), "{name}: they are left to others");
        }
    }

    #[test]
    fn answers_are_not_answered() {
        let Plan::Service(question) = plan(&packet("api.mesh.", RecordType::A), "shop", DOMAIN) else { panic!("a service") };
        let answer = question.answer(Found::Nobody).unwrap();
        assert!(matches!(plan(&answer, "shop", DOMAIN), Plan::Ignore));
        assert!(failure(&packet("a.example.", RecordType::A)).is_some());
    }

    proptest! {
        #[test]
        fn no_packet_breaks_anything(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Plan::Service(question) | Plan::Kubernetes(question) = plan(&bytes, "shop", DOMAIN) {
                question.answer(Found::Service(None));
            }
            exists(&bytes);
            failure(&bytes);
        }

        #[test]
        fn no_change_of_a_question_breaks_anything(at in any::<prop::sample::Index>(), byte in any::<u8>(), name in "([a-z-]{1,12}\\.){1,4}(mesh|svc|svc\\.cluster\\.local)\\.") {
            let Ok(name) = Name::from_ascii(&name) else { return Ok(()) };
            let mut message = Message::query();
            message.add_query(Query::query(name, RecordType::A));
            let mut bytes = message.to_vec().unwrap();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Plan::Service(question) | Plan::Kubernetes(question) = plan(&bytes, "shop", DOMAIN) {
                prop_assert!(question.answer(Found::Service(None)).is_some());
            }
        }
    }
}
