//! The examples of RFC 7541 appendix C, our two halves against each other, tables against a plain list, and bytes that mean nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;

use super::huffman;
use super::integer::{Reader, write_integer};
use super::table::Table;
use super::*;
use crate::http::Name;
use crate::http::h2::frame::{ErrorCode, Scope, Violation};

type Plain = (Vec<u8>, Vec<u8>);

fn octets(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<Plain>, Violation> {
    let mut fields = Vec::new();
    decoder.decode(block, |field| fields.push((field.name.to_vec(), field.value.to_vec())))?;
    Ok(fields)
}

fn text(fields: &[Plain]) -> String {
    fields.iter().map(|(name, value)| format!("{}={}\n", String::from_utf8_lossy(name), String::from_utf8_lossy(value))).collect()
}

/// Blocks of one connection and what each says, one field a line.
fn check(table_size: u32, blocks: &[(&str, &str)]) {
    let mut decoder = Decoder::new(table_size);
    for (block, expected) in blocks {
        assert_eq!(text(&decode(&mut decoder, &octets(block)).unwrap()), expected.replace(' ', "\n").replace('_', " ") + "\n");
    }
}

#[test]
fn integers_of_appendix_c1() {
    for (value, bits, expected) in [(10, 5, &[10][..]), (1337, 5, &[31, 154, 10]), (42, 7, &[42])] {
        let mut out = Vec::new();
        write_integer(&mut out, 0, bits, value);
        assert_eq!(out, expected);
        assert_eq!(Reader::new(&out[1..]).integer(out[0], bits), Ok(value));
    }
}

#[test]
fn single_fields_of_appendix_c2() {
    check(
        4096,
        &[
            ("400a637573746f6d2d6b65790d637573746f6d2d686561646572", "custom-key=custom-header"),
            ("040c2f73616d706c652f70617468", ":path=/sample/path"),
            ("100870617373776f726406736563726574", "password=secret"),
            ("82", ":method=GET"),
        ],
    );
}

const REQUESTS: [&str; 3] = [
    ":method=GET :scheme=http :path=/ :authority=www.example.com",
    ":method=GET :scheme=http :path=/ :authority=www.example.com cache-control=no-cache",
    ":method=GET :scheme=https :path=/index.html :authority=www.example.com custom-key=custom-value",
];

#[test]
fn requests_of_appendix_c3_and_c4() {
    let plain = [
        "828684410f7777772e6578616d706c652e636f6d",
        "828684be58086e6f2d6361636865",
        "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
    ];
    let packed =
        ["828684418cf1e3c2e5f23a6ba0ab90f4ff", "828684be5886a8eb10649cbf", "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf"];
    for blocks in [plain, packed] {
        check(4096, &std::array::from_fn::<_, 3, _>(|at| (blocks[at], REQUESTS[at])));
    }
}

const RESPONSES: [&str; 3] = [
    ":status=302 cache-control=private date=Mon,_21_Oct_2013_20:13:21_GMT location=https://www.example.com",
    ":status=307 cache-control=private date=Mon,_21_Oct_2013_20:13:21_GMT location=https://www.example.com",
    ":status=200 cache-control=private date=Mon,_21_Oct_2013_20:13:22_GMT location=https://www.example.com content-encoding=gzip \
     set-cookie=foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU;_max-age=3600;_version=1",
];

#[test]
fn responses_of_appendix_c5_and_c6_with_evictions() {
    let plain = [
        "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d546e1768747470733a2f2f7777772e65
         78616d706c652e636f6d",
        "4803333037c1c0bf",
        "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153444a4b48514b425a584f5157
         454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31",
    ];
    let packed = [
        "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
        "4883640effc1c0bf",
        "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab
         270fb5291f9587316065c003ed4ee5b1063d5007",
    ];
    for blocks in [plain, packed] {
        check(256, &std::array::from_fn::<_, 3, _>(|at| (blocks[at], RESPONSES[at])));
    }
}

#[test]
fn what_breaks_the_tables_ends_the_connection() {
    let bad = [
        ("80", "index 0"),
        ("be", "index beyond the tables"),
        ("7f00", "name beyond the tables"),
        ("ffffffffff7f", "huge index"),
        ("8080", "index 0 again"),
        ("3fe21f", "table larger than allowed"),
        ("8220", "table resized behind a field"),
        ("40", "name missing"),
        ("0f", "integer cut off"),
        ("410561", "value cut off"),
        ("4181ff", "padding alone is no octet short"),
        ("4184ffffffff", "end of string"),
        ("418118", "padding of zeros"),
    ];
    for (block, what) in bad {
        let violation = decode(&mut Decoder::new(4096), &octets(block)).map(|fields| text(&fields)).unwrap_err();
        assert_eq!((violation.code, violation.scope), (ErrorCode::COMPRESSION_ERROR, Scope::Connection), "{what}");
    }
}

#[test]
fn names_and_values_are_judged_once() {
    let mut decoder = Decoder::new(4096);
    let mut block = Vec::new();
    for (name, value) in
        [("X-Upper", "a"), ("x-blank", " a"), ("x-ok", "a"), (":what", "a"), ("", "a"), ("x-nul", "a\0"), ("te", "\tb")]
    {
        block.push(0x40);
        for text in [name, value] {
            write_integer(&mut block, 0, 7, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
    let expected = [
        (Class::Bad, true),
        (Class::Field(Name::Other), false),
        (Class::Field(Name::Other), true),
        (Class::Bad, true),
        (Class::Bad, true),
        (Class::Field(Name::Other), false),
        (Class::Field(Name::Te), false),
    ];
    for block in [block, (62..69).rev().map(|index| 0x80 | index).collect()] {
        let mut seen = Vec::new();
        decoder.decode(&block, |field| seen.push((field.class, field.clean))).unwrap();
        assert_eq!(seen, expected);
    }
}

/// A block of these fields.
fn encode(encoder: &mut Encoder, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    encoder.begin(&mut out);
    for (name, value) in fields {
        encoder.field(&mut out, Name::find(name.as_bytes()), name.as_bytes(), value.as_bytes());
    }
    out
}

#[test]
fn what_comes_again_is_indexed_what_does_not_is_not() {
    let mut encoder = Encoder::new();
    let mut sizes = Vec::new();
    for etag in ["a1", "b2", "c3", "d4"] {
        let fields = [("server", "heddle"), ("content-type", "application/json"), ("X-Frame", "deny"), ("etag", etag)];
        sizes.push(encode(&mut encoder, &fields).len());
    }
    assert!(sizes[0] > 30 && sizes[1] > 30, "{sizes:?}");
    assert!(sizes[2] <= 8 && sizes[3] == sizes[2], "three octets and the etag: {sizes:?}");
    let cookie = [("cookie", "id=0123456789"), ("authorization", "Basic 0123456789")];
    let secret: Vec<usize> = (0..4).map(|_| encode(&mut encoder, &cookie).len()).collect();
    assert!(secret.iter().all(|size| *size == secret[0]), "{secret:?}");
    assert_eq!(encode(&mut encoder, &cookie)[0], 0x1f, "never indexed, with a name of the static table");
}

#[test]
fn known_names_are_said_by_index_even_where_values_differ() {
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(4096));
    for nth in 0..200 {
        let id = format!("{nth:08}");
        let fields = [("x-request-id", &*id), ("x-custom", &*id), ("server", "heddle")];
        let block = encode(&mut encoder, &fields);
        let expected: String = fields.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        assert_eq!(text(&decode(&mut decoder, &block).unwrap()), expected);
        assert!(nth < 2 || block.len() < 30, "the name that is not known and the values: {}", block.len());
    }
}

#[test]
fn the_other_ends_table_is_respected() {
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(0));
    encoder.allow(0, 0);
    for _ in 0..4 {
        let block = encode(&mut encoder, &[("server", "heddle")]);
        assert_eq!(text(&decode(&mut decoder, &block).unwrap()), "server=heddle\n");
    }
    let mut encoder = Encoder::new();
    encoder.allow(100, 65_536);
    assert_eq!(encode(&mut encoder, &[])[..], [0x3f, 69, 0x3f, 0xe1, 31], "first the smallest, then the last");
    assert!(encode(&mut encoder, &[]).is_empty());
    encoder.allow(4096, 65_536);
    assert!(encode(&mut encoder, &[]).is_empty(), "more than the default is not made use of");
}

#[test]
fn every_octet_is_packed_and_unpacked() {
    let all: Vec<u8> = (0..=255).collect();
    for octet in &all {
        // In front of many short codes, so that packing is shorter.
        let text = [&[*octet][..], &[b'0'; 40]].concat();
        let mut packed = Vec::new();
        assert!(huffman::encode(&text, &mut packed), "{octet}");
        let mut out = Vec::new();
        assert!(huffman::decode(&packed, &mut out));
        assert_eq!(out, text);
    }
    let mut out = Vec::new();
    assert!(huffman::encode(b"www.example.com", &mut out));
    assert_eq!(out, octets("f1e3c2e5f23a6ba0ab90f4ff"));
    assert!(!huffman::encode(&all, &mut Vec::new()), "longer than it is");
    assert!(!huffman::encode(b"", &mut Vec::new()));
}

fn field() -> impl Strategy<Value = Plain> {
    let name = prop_oneof![
        prop::sample::select(vec!["server", "content-type", "etag", "cookie", "x-a", "vary", "date", "set-cookie"])
            .prop_map(str::to_owned),
        "[a-z-]{1,40}",
    ];
    let value = prop_oneof![
        prop::sample::select(vec!["heddle", "text/html", "1", ""]).prop_map(|text| text.as_bytes().to_vec()),
        "[ -~]{0,60}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..40),
        prop::collection::vec(Just(b'a'), 0..3000),
    ];
    (name.prop_map(String::into_bytes), value)
}

proptest! {
    #[test]
    fn our_halves_understand_each_other(
        blocks in prop::collection::vec((prop::option::of((0u32..5000, 0u32..5000)), prop::collection::vec(field(), 0..8)), 1..12),
    ) {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(4096));
        for (resize, fields) in blocks {
            if let Some((smallest, last)) = resize {
                encoder.allow(smallest, last);
            }
            let mut out = Vec::new();
            // The second time most of it is indexed.
            for _ in 0..3 {
                out.clear();
                encoder.begin(&mut out);
                for (name, value) in &fields {
                    encoder.field(&mut out, Name::find(name), name, value);
                }
                prop_assert_eq!(&decode(&mut decoder, &out).unwrap(), &fields);
            }
        }
    }

    #[test]
    fn pseudo_fields_arrive(status in 100u16..1000, method in "[A-Z]{1,9}", authority in "[a-z.]{1,30}", path in "/[a-z]{0,40}", query in prop::option::of("[a-z]{0,9}"), tls: bool) {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(4096));
        for _ in 0..3 {
            let mut out = Vec::new();
            encoder.begin(&mut out);
            encoder.status(&mut out, status);
            encoder.method(&mut out, method.as_bytes());
            encoder.scheme(&mut out, tls);
            encoder.authority(&mut out, authority.as_bytes());
            encoder.path(&mut out, path.as_bytes(), query.as_ref().map(String::as_bytes));
            let scheme = if tls { "https" } else { "http" };
            let path = query.as_ref().map_or(path.clone(), |query| format!("{path}?{query}"));
            let expected = format!(
                ":status={status}\n:method={method}\n:scheme={scheme}\n:authority={authority}\n:path={path}\n"
            );
            prop_assert_eq!(text(&decode(&mut decoder, &out).unwrap()), expected);
        }
    }

    #[test]
    fn no_bytes_panic(blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 1..6)) {
        let mut decoder = Decoder::new(4096);
        for block in blocks {
            if decode(&mut decoder, &block).is_err() {
                break;
            }
        }
    }

    #[test]
    fn no_packed_bytes_panic_and_what_is_unpacked_was_packed(packed in prop::collection::vec(any::<u8>(), 0..60)) {
        let mut text = Vec::new();
        if huffman::decode(&packed, &mut text) {
            let mut again = Vec::new();
            if huffman::encode(&text, &mut again) {
                prop_assert_eq!(again, packed);
            }
        }
    }

    #[test]
    fn packing_is_undone(text in prop::collection::vec(any::<u8>(), 0..60)) {
        let mut packed = Vec::new();
        if huffman::encode(&text, &mut packed) {
            prop_assert!(packed.len() < text.len());
            let mut again = vec![7];
            prop_assert!(huffman::decode(&packed, &mut again));
            prop_assert_eq!(&again[1..], &text);
        }
    }

    #[test]
    fn a_table_is_a_list_that_forgets_its_end(
        max in 0usize..300,
        steps in prop::collection::vec((0u8..8, 0usize..60, 0usize..300), 1..80),
    ) {
        let (mut table, mut list, mut max) = (Table::new(max), Vec::<Plain>::new(), max);
        for (step, (kind, name_len, other)) in steps.into_iter().enumerate() {
            let value = vec![step as u8; other % 90];
            match kind {
                0 => {
                    max = other;
                    table.resize(max);
                }
                1..4 if !list.is_empty() => {
                    let index = other % list.len();
                    let name = list[index].0.clone();
                    table.insert_named(index, &value, true);
                    list.insert(0, (name, value));
                }
                _ => {
                    let name = vec![b'n'; name_len];
                    table.insert(Field { class: Class::Bad, clean: true, underscored: false, name: &name, value: &value });
                    list.insert(0, (name, value));
                }
            }
            let mut size = 0;
            let fits = list.iter().take_while(|(name, value)| { size += name.len() + value.len() + 32; size <= max }).count();
            list.truncate(fits);
            prop_assert_eq!(table.len(), list.len());
            for (index, (name, value)) in list.iter().enumerate() {
                let field = table.get(index).unwrap();
                prop_assert_eq!((field.name, field.value), (&name[..], &value[..]));
            }
        }
    }
}
