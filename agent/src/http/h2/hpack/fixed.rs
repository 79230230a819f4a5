//! The static table (RFC 7541 appendix A). It knows no connection.

use super::class::{Class, Field};
use crate::http::Name;

/// Entries; dynamic ones are counted behind them.
pub(super) const LEN: usize = 61;

macro_rules! entries {
    ($($name:literal $(= $value:literal)? : $class:expr),* $(,)?) => {
        static ENTRIES: [(Class, &[u8], &[u8]); LEN] = [$(($class, $name, value!($($value)?))),*];
    };
}

macro_rules! value {
    () => {
        b""
    };
    ($value:literal) => {
        $value
    };
}

const OTHER: Class = Class::Field(Name::Other);

entries! {
    b":authority": Class::Authority,
    b":method" = b"GET": Class::Method,
    b":method" = b"POST": Class::Method,
    b":path" = b"/": Class::Path,
    b":path" = b"/index.html": Class::Path,
    b":scheme" = b"http": Class::Scheme,
    b":scheme" = b"https": Class::Scheme,
    b":status" = b"200": Class::Status,
    b":status" = b"204": Class::Status,
    b":status" = b"206": Class::Status,
    b":status" = b"304": Class::Status,
    b":status" = b"400": Class::Status,
    b":status" = b"404": Class::Status,
    b":status" = b"500": Class::Status,
    b"accept-charset": OTHER,
    b"accept-encoding" = b"gzip, deflate": OTHER,
    b"accept-language": OTHER,
    b"accept-ranges": OTHER,
    b"accept": Class::Field(Name::Accept),
    b"access-control-allow-origin": OTHER,
    b"age": OTHER,
    b"allow": OTHER,
    b"authorization": Class::Field(Name::Authorization),
    b"cache-control": OTHER,
    b"content-disposition": OTHER,
    b"content-encoding": Class::Field(Name::ContentEncoding),
    b"content-language": OTHER,
    b"content-length": Class::Field(Name::ContentLength),
    b"content-location": OTHER,
    b"content-range": OTHER,
    b"content-type": Class::Field(Name::ContentType),
    b"cookie": Class::Field(Name::Cookie),
    b"date": Class::Field(Name::Date),
    b"etag": OTHER,
    b"expect": Class::Field(Name::Expect),
    b"expires": OTHER,
    b"from": OTHER,
    b"host": Class::Field(Name::Host),
    b"if-match": OTHER,
    b"if-modified-since": OTHER,
    b"if-none-match": OTHER,
    b"if-range": OTHER,
    b"if-unmodified-since": OTHER,
    b"last-modified": OTHER,
    b"link": OTHER,
    b"location": Class::Field(Name::Location),
    b"max-forwards": OTHER,
    b"proxy-authenticate": Class::Field(Name::ProxyAuthenticate),
    b"proxy-authorization": Class::Field(Name::ProxyAuthorization),
    b"range": OTHER,
    b"referer": OTHER,
    b"refresh": OTHER,
    b"retry-after": OTHER,
    b"server": Class::Field(Name::Server),
    b"set-cookie": OTHER,
    b"strict-transport-security": OTHER,
    b"transfer-encoding": Class::Field(Name::TransferEncoding),
    b"user-agent": Class::Field(Name::UserAgent),
    b"vary": OTHER,
    b"via": Class::Field(Name::Via),
    b"www-authenticate": OTHER,
}

/// The entry with a number from 1 to [`LEN`].
pub(super) fn get(index: usize) -> Option<Field<'static>> {
    let &(class, name, value) = ENTRIES.get(index.checked_sub(1)?)?;
    // All are as they must be but the authority, which is empty.
    Some(Field { class, clean: class != Class::Authority, underscored: false, name, value })
}

/// Number of the entry that says this status.
pub(super) const fn status(status: u16) -> Option<usize> {
    Some(match status {
        200 => 8,
        204 => 9,
        206 => 10,
        304 => 11,
        400 => 12,
        404 => 13,
        500 => 14,
        _ => return None,
    })
}

/// Number of the first entry with this name, 0 where there is none.
pub(super) fn name(class: Class, name: &[u8]) -> usize {
    match class {
        Class::Authority => 1,
        Class::Method => 2,
        Class::Path => 4,
        Class::Scheme => 6,
        Class::Status => 8,
        Class::Protocol | Class::Bad => 0,
        Class::Field(Name::Other) => other(name),
        Class::Field(known) => KNOWN[known as usize],
    }
}

/// Numbers of the entries whose names are known.
static KNOWN: [usize; 256] = known();

const fn known() -> [usize; 256] {
    let mut table = [0; 256];
    let mut at = 0;
    while at < LEN {
        if let Class::Field(name) = ENTRIES[at].0
            && name as usize != Name::Other as usize
        {
            table[name as usize] = at + 1;
        }
        at += 1;
    }
    table
}

fn other(name: &[u8]) -> usize {
    match name {
        b"accept-charset" => 15,
        b"accept-encoding" => 16,
        b"accept-language" => 17,
        b"accept-ranges" => 18,
        b"access-control-allow-origin" => 20,
        b"age" => 21,
        b"allow" => 22,
        b"cache-control" => 24,
        b"content-disposition" => 25,
        b"content-language" => 27,
        b"content-location" => 29,
        b"content-range" => 30,
        b"etag" => 34,
        b"expires" => 36,
        b"from" => 37,
        b"if-match" => 39,
        b"if-modified-since" => 40,
        b"if-none-match" => 41,
        b"if-range" => 42,
        b"if-unmodified-since" => 43,
        b"last-modified" => 44,
        b"link" => 45,
        b"max-forwards" => 47,
        b"range" => 50,
        b"referer" => 51,
        b"refresh" => 52,
        b"retry-after" => 53,
        b"set-cookie" => 55,
        b"strict-transport-security" => 56,
        b"vary" => 59,
        b"www-authenticate" => 61,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::class::classify;
    use super::*;

    #[test]
    fn every_entry_is_found_by_its_name_and_its_class_is_right() {
        for index in 1..=LEN {
            let field = get(index).unwrap();
            assert_eq!(field.class, classify(field.name), "{index}");
            let first = (1..=LEN).find(|other| get(*other).unwrap().name == field.name);
            assert_eq!(Some(name(field.class, field.name)), first, "{index}");
        }
        assert!(get(0).is_none() && get(LEN + 1).is_none());
        for code in 100..600 {
            let index = (1..=LEN).find(|index| get(*index).unwrap().value == code.to_string().as_bytes());
            assert_eq!(status(code), index);
        }
        assert_eq!(name(Class::Field(Name::Other), b"x-none"), 0);
    }
}
