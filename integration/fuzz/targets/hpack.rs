//! HPACK: what a block decodes to is decoded again from what we encode it as, over several blocks of one connection. Input: blocks, each behind an octet
//! with its length.
#![no_main]

use heddle_agent::bench::{Class, Decoder, Encoder, Name};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut theirs = Decoder::new(4096);
    let (mut ours, mut reader) = (Encoder::new(), Decoder::new(4096));
    let mut rest = data;
    while let Some((&length, behind)) = rest.split_first() {
        let (block, behind) = behind.split_at(usize::from(length).min(behind.len()));
        rest = behind;
        let mut fields = Vec::new();
        let taken = theirs.decode(block, |field| {
            if let Class::Field(id) = field.class
                && field.clean
            {
                fields.push((id, field.name.to_vec(), field.value.to_vec()));
            }
        });
        if taken.is_err() {
            return;
        }
        let mut wire = Vec::new();
        ours.begin(&mut wire);
        for (id, name, value) in &fields {
            assert_eq!(Name::find(name), *id);
            ours.field(&mut wire, *id, name, value);
        }
        let mut again = Vec::new();
        reader
            .decode(&wire, |field| {
                if let Class::Field(id) = field.class {
                    again.push((id, field.name.to_vec(), field.value.to_vec()));
                }
            })
            .unwrap_or_else(|violation| panic!("what we encode is no block: {violation}"));
        assert_eq!(fields, again);
    }
});
