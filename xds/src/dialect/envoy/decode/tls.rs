//! TLS on both sides, and key material. It never shows material in an error.

use std::sync::Arc;

use super::read::{Fault, Fields, Read, bytes};
use super::source;
use crate::model::{Certificate, ClientValidation, Secret, SecretBody, TlsVersion, UpstreamTls, is_reference};

/// Bytes of a PEM text.
const MAX_PEM: usize = 2 * 1024 * 1024;
/// Where Envoys on most systems have the roots of the system, which agents find wherever they are.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Intermediates of a client's chain, where nothing is said; Envoy's own bound is higher than chains are long.
const DEPTH: u8 = 10;

/// TLS towards endpoints.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Client {
    pub(super) upstream: UpstreamTls,
    pub(super) secrets: Vec<Secret>,
    pub(super) asks: Vec<Arc<str>>,
}

/// What both sides say.
#[derive(Default)]
struct Common {
    /// Names of what is shown: of SDS or of our own.
    shown: Vec<Arc<str>>,
    /// Name of the roots.
    roots: Option<Arc<str>>,
    /// The roots are those of the system.
    by_system: bool,
    /// Anybody is believed.
    untrusted: bool,
    /// DNS names of which the peer must prove one.
    names: Vec<Arc<str>>,
    depth: Option<u8>,
    chooses: bool,
    secrets: Vec<Secret>,
    asks: Vec<Arc<str>>,
    versions: (Option<TlsVersion>, Option<TlsVersion>),
}

/// Reads `UpstreamTlsContext`.
pub(super) fn client(fields: &mut Fields<'_>, cluster: &str) -> Read<Client> {
    fields.ignore(&["max_session_keys", "enforce_rsa_key_usage", "allow_renegotiation"]);
    // The server name follows the host of the request unless one is said, and the name in the certificate must be it.
    fields.ignore(&["auto_host_sni", "auto_sni_san_validation"]);
    let sni = fields.text("sni")?.map(Arc::<str>::from);
    let mut common =
        fields.message("common_tls_context", |common| read_common(common, &format!("cluster/{cluster}")))?.unwrap_or_default();
    if common.shown.len() > 1 {
        return Err(Fault::new("common_tls_context.tls_certificates", "more than one certificate of a cluster is not supported"));
    }
    for (field, said) in [
        ("tls_minimum_protocol_version", common.versions.0 == Some(TlsVersion::V1_3)),
        ("tls_maximum_protocol_version", common.versions.1 == Some(TlsVersion::V1_2)),
    ] {
        if said {
            let reason =
                "is not supported here: upstreams are spoken to in the later of TLS 1.2 and 1.3 that they know; leave it out";
            return Err(Fault::new(format!("common_tls_context.tls_params.{field}"), reason));
        }
    }
    let sni = match (common.names.as_slice(), sni) {
        ([], sni) => sni,
        ([name], None) => Some(name.clone()),
        ([name], Some(sni)) if *name == sni => Some(sni),
        _ => {
            let reason = "expected the one name that is sent as sni: a certificate is checked for that name";
            return Err(Fault::new("common_tls_context.validation_context.match_typed_subject_alt_names", reason));
        }
    };
    let verify = (common.roots.is_some() || common.by_system) && !common.untrusted;
    let upstream = UpstreamTls { verify, ca: common.roots.take().filter(|_| verify), client_cert: common.shown.pop(), sni };
    Ok(Client { upstream, secrets: common.secrets, asks: common.asks })
}

/// What a listener shows and demands.
pub(super) struct Server {
    /// ALPN is to choose what is spoken.
    pub(super) chooses: bool,
    pub(super) certificate: Certificate,
    pub(super) secrets: Vec<Secret>,
    pub(super) asks: Vec<Arc<str>>,
}

/// Reads `DownstreamTlsContext`; `id` is what the certificate is called here. What is shown and demanded holds for this listener alone.
pub(super) fn server(fields: &mut Fields<'_>, listener: &Arc<str>, id: &str, names: &[Arc<str>]) -> Read<Server> {
    // Sessions are kept for hours at most, and by each node for itself; they say nothing of who the client is.
    fields.ignore(&["session_timeout", "disable_stateless_session_resumption", "disable_stateful_session_resumption"]);
    fields.ignore(&["full_scan_certs_on_sni_mismatch", "prefer_client_ciphers"]);
    fields.choice("ocsp_staple_policy", &[("LENIENT_STAPLING", 0, ())])?;
    fields.refuse("require_sni", "is not supported: use server_names of the chain")?;
    fields.refuse("session_ticket_keys", "is not supported: keys of tickets are made by each node")?;
    fields.refuse("session_ticket_keys_sds_secret_config", "is not supported: keys of tickets are made by each node")?;
    let demanded = fields.is_on("require_client_certificate")?;
    let common = fields.required("common_tls_context", |common| read_common(common, id))?;
    if common.shown.is_empty() {
        return Err(Fault::new("common_tls_context.tls_certificates", "is missing"));
    }
    if common.by_system {
        let reason = "the roots of the system are for upstreams: say by whom clients must be known";
        return Err(Fault::new("common_tls_context.validation_context.trusted_ca", reason));
    }
    if !common.names.is_empty() {
        let place = "common_tls_context.validation_context.match_typed_subject_alt_names";
        return Err(Fault::new(place, "demanding names of clients is not supported here"));
    }
    let client = match (demanded, common.roots) {
        (true, Some(ca)) if !common.untrusted => {
            Some(ClientValidation { ca, depth: common.depth.unwrap_or(DEPTH), skip_uri_regex: Vec::new() })
        }
        (false, None) => None,
        (true, _) => return Err(Fault::new("require_client_certificate", "needs trusted_ca in the validation context")),
        (false, Some(_)) => {
            return Err(Fault::new(
                "common_tls_context.validation_context",
                "client certificates that may be left out are not supported: set require_client_certificate",
            ));
        }
    };
    let certificate = Certificate {
        id: id.into(),
        snis: if names.is_empty() { vec!["*".into()] } else { names.to_vec() },
        secrets: common.shown,
        client,
        min_version: common.versions.0.unwrap_or(TlsVersion::V1_2),
        max_version: common.versions.1.unwrap_or(TlsVersion::V1_3),
        listeners: vec![listener.clone()],
    };
    Ok(Server { chooses: common.chooses, certificate, secrets: common.secrets, asks: common.asks })
}

fn read_common(fields: &mut Fields<'_>, owner: &str) -> Read<Common> {
    // What is offered and which curves are taken is that of our TLS, all of which is safe.
    let mut common = Common { chooses: !fields.texts("alpn_protocols")?.is_empty(), ..Common::default() };
    fields.ignore(&["key_log"]);
    fields.refuse("custom_handshaker", "is not supported")?;
    fields.refuse("tls_certificate_provider_instance", "is not supported: use SDS")?;
    if let Some(versions) = fields.message("tls_params", versions)? {
        common.versions = versions;
    }
    let pairs = fields.list("tls_certificates", pair)?;
    for (index, body) in pairs.into_iter().enumerate() {
        let name: Arc<str> = format!("{owner}/certificate/{index}").into();
        common.shown.push(name.clone());
        common.secrets.push(Secret { name, body });
    }
    for name in fields.list("tls_certificate_sds_secret_configs", sds)? {
        common.shown.push(name.clone());
        common.asks.push(name);
    }
    fields.message("validation_context", |context| context_of(context, owner, &mut common))?;
    if let Some(name) = fields.message("validation_context_sds_secret_config", sds)? {
        common.asks.push(name.clone());
        common.roots = Some(name);
    }
    fields.message("combined_validation_context", |both| {
        both.message("default_validation_context", |context| context_of(context, owner, &mut common))?;
        let name = both.required("validation_context_sds_secret_config", sds)?;
        common.asks.push(name.clone());
        common.roots = Some(name);
        Ok(())
    })?;
    Ok(common)
}

/// A secret of SDS: its name. Without a place of its own it is one that the bootstrap has.
fn sds(fields: &mut Fields<'_>) -> Read<Arc<str>> {
    fields.message("sds_config", source::read)?;
    fields.name("name")
}

fn versions(fields: &mut Fields<'_>) -> Read<(Option<TlsVersion>, Option<TlsVersion>)> {
    fields.ignore(&["cipher_suites", "ecdh_curves"]);
    let low = [
        ("TLS_AUTO", 0, None),
        ("TLSv1_0", 1, Some(TlsVersion::V1_2)),
        ("TLSv1_1", 2, Some(TlsVersion::V1_2)),
        ("TLSv1_2", 3, Some(TlsVersion::V1_2)),
        ("TLSv1_3", 4, Some(TlsVersion::V1_3)),
    ];
    let high = [("TLS_AUTO", 0, None), ("TLSv1_2", 3, Some(TlsVersion::V1_2)), ("TLSv1_3", 4, Some(TlsVersion::V1_3))];
    let low = fields.choice("tls_minimum_protocol_version", &low)?.flatten();
    let high = fields.choice("tls_maximum_protocol_version", &high)?.flatten();
    if low.zip(high).is_some_and(|(low, high)| low > high) {
        let reason = "is above tls_maximum_protocol_version: no version of TLS would be spoken";
        return Err(Fault::new("tls_minimum_protocol_version", reason));
    }
    Ok((low, high))
}

fn pair(fields: &mut Fields<'_>) -> Read<SecretBody> {
    fields.refuse("password", "an encrypted key is not supported")?;
    fields.refuse("private_key_provider", "is not supported: give private_key")?;
    fields.refuse("pkcs12", "is not supported: give certificate_chain and private_key")?;
    fields.refuse("watched_directory", "files are not watched: use SDS")?;
    fields.refuse("ocsp_staple", "is not supported: clients ask for themselves")?;
    Ok(SecretBody::KeyPair {
        chain_pem: fields.required("certificate_chain", material)?,
        key_pem: fields.required("private_key", material)?,
    })
}

/// Inline material only: a control plane must not make an agent read its files or environment.
fn material(fields: &mut Fields<'_>) -> Read<Arc<str>> {
    fields.refuse("filename", "files are read for a bootstrap only: use inline_bytes or inline_string")?;
    fields.refuse("environment_variable", "is not read: use inline_bytes or inline_string")?;
    fields.refuse("watched_directory", "files are not watched: use SDS")?;
    let inline = match fields.text("inline_string")? {
        Some(text) => text.to_owned(),
        None => {
            let raw = fields.text("inline_bytes")?.ok_or_else(|| Fault::new("", "expected inline_bytes or inline_string"))?;
            String::from_utf8(bytes(raw)?)
                .map_err(|_| Fault::new("inline_bytes", "expected text, found bytes that are not UTF-8"))?
        }
    };
    if inline.len() > MAX_PEM {
        return Err(Fault::new("", format!("has {} bytes, at most {MAX_PEM} are read", inline.len())));
    }
    if inline.trim().is_empty() {
        return Err(Fault::new("", "is empty, expected PEM"));
    }
    if is_reference(&inline) {
        return Err(Fault::new(
            "",
            "expected PEM, found a reference to what is kept elsewhere, which is read in Heddle's resources only",
        ));
    }
    Ok(inline.into())
}

fn context_of(fields: &mut Fields<'_>, owner: &str, common: &mut Common) -> Read<()> {
    let roots = fields.message("trusted_ca", |source| match source.take("filename") {
        Some(file) if file == SYSTEM_ROOTS => Ok(None),
        _ => material(source).map(Some),
    })?;
    common.by_system |= roots == Some(None) || fields.message("system_root_certs", |_| Ok(()))?.is_some();
    if let Some(pem) = roots.flatten() {
        let name: Arc<str> = format!("{owner}/roots").into();
        common.secrets.push(Secret { name: name.clone(), body: SecretBody::Roots(pem) });
        common.roots = Some(name);
    }
    for name in ["verify_certificate_hash", "verify_certificate_spki"] {
        fields.refuse(name, "pinning is not supported: give trusted_ca")?;
    }
    fields.refuse("crl", "revocation lists are not supported: use short-lived certificates")?;
    fields.refuse("allow_expired_certificate", "is not supported")?;
    fields.refuse("match_subject_alt_names", "is deprecated: use match_typed_subject_alt_names")?;
    fields.refuse("ca_certificate_provider_instance", "is not supported: use SDS")?;
    fields.refuse("custom_validator_config", "is not supported")?;
    fields.refuse("watched_directory", "files are not watched: use SDS")?;
    fields.refuse("require_signed_certificate_timestamp", "is not supported")?;
    fields.ignore(&["only_verify_leaf_cert_crl"]);
    common.untrusted |= fields
        .choice("trust_chain_verification", &[("VERIFY_TRUST_CHAIN", 0, false), ("ACCEPT_UNTRUSTED", 1, true)])?
        .unwrap_or(false);
    common.names.extend(fields.list("match_typed_subject_alt_names", |one| {
        one.choice("san_type", &[("DNS", 2, ())])?;
        one.refuse("oid", "is not supported")?;
        one.required("matcher", |matcher| {
            matcher.ignore(&["ignore_case"]);
            matcher.name("exact")
        })
    })?);
    // Envoy counts the root as well, and with zero believes only what is among the roots itself.
    let depth = |most: u32| match most.checked_sub(1).map(u8::try_from) {
        Some(Ok(depth)) => Ok(depth),
        _ => Err(Fault::new("max_verify_depth", "expected 1 to 256")),
    };
    common.depth = fields.small("max_verify_depth")?.map(depth).transpose()?.or(common.depth);
    Ok(())
}

/// Reads a `Secret` of SDS.
pub(super) fn secret(fields: &mut Fields<'_>) -> Read<Secret> {
    let name = fields.name("name")?;
    fields.refuse("session_ticket_keys", "is not supported: keys of tickets are made by each node")?;
    fields.refuse("generic_secret", "is not supported here")?;
    let pair = fields.message("tls_certificate", pair)?;
    let roots = fields.message("validation_context", |context| {
        let mut common = Common::default();
        context_of(context, "", &mut common)?;
        let said = [
            ("match_typed_subject_alt_names", !common.names.is_empty()),
            ("trust_chain_verification", common.untrusted),
            ("max_verify_depth", common.depth.is_some()),
        ];
        if common.by_system {
            let reason =
                "the roots of the system, which system_root_certs means too, are no secret: say it where the secret is used";
            return Err(Fault::new("trusted_ca", reason));
        }
        if let Some((field, _)) = said.iter().find(|(_, said)| *said) {
            return Err(Fault::new(*field, "is not supported in a secret: say it where the secret is used"));
        }
        common.secrets.pop().map(|secret| secret.body).ok_or_else(|| Fault::new("trusted_ca", "is missing"))
    })?;
    match (pair, roots) {
        (Some(body), None) | (None, Some(body)) => Ok(Secret { name, body }),
        _ => Err(Fault::new("type", "expected tls_certificate or validation_context")),
    }
}
