//! Blocks to fields (RFC 7541 sections 3 and 6). It keeps the table of its direction; what the fields mean others say.

use super::class::{Field, classify, is_clean};
use super::integer::{Reader, Text, broken};
use super::table::Table;
use super::{fixed, table};
use crate::http::h2::frame::Violation;

/// Octets of unpacked text that are kept for the next block.
const KEEP: usize = 4 * 1024;

/// The decoding half of a connection.
#[derive(Debug)]
pub struct Decoder {
    table: Table,
    /// What we have allowed the other end.
    limit: usize,
    /// Strings of the field that is read, unpacked.
    scratch: Vec<u8>,
}

/// Where the name of a literal is.
enum NameFrom<'a> {
    Fixed(Field<'static>),
    Entry(usize),
    Literal(Text<'a>),
}

impl Decoder {
    /// One whose table has at most `table_size` octets, which is what our settings say.
    pub fn new(table_size: u32) -> Decoder {
        let limit = (table_size as usize).min(table::MAX);
        Decoder { table: Table::new(limit), limit, scratch: Vec::new() }
    }

    /// Reads a whole block and hands its fields on, in order. An error ends the connection: the tables of the two ends differ from then on.
    /// The time it takes is bounded by the length of the block, for what `take` does with a field is all that depends on the field's size.
    pub fn decode(&mut self, block: &[u8], mut take: impl FnMut(Field<'_>)) -> Result<(), Violation> {
        let mut reader = Reader::new(block);
        let mut begun = false;
        while let Some(first) = reader.next() {
            match first {
                0x80.. => self.indexed(reader.integer(first, 7)?, &mut take)?,
                0x40.. => self.literal(reader.integer(first, 6)?, true, &mut reader, &mut take)?,
                0x20.. => {
                    let size = reader.integer(first, 5)?;
                    if begun || size > self.limit {
                        return Err(broken("the table is resized where or as it must not"));
                    }
                    self.table.resize(size);
                    continue;
                }
                _ => self.literal(reader.integer(first, 4)?, false, &mut reader, &mut take)?,
            }
            begun = true;
        }
        self.scratch.clear();
        self.scratch.shrink_to(KEEP);
        Ok(())
    }

    fn indexed(&mut self, index: usize, take: &mut impl FnMut(Field<'_>)) -> Result<(), Violation> {
        take(self.field(index)?);
        Ok(())
    }

    fn field(&self, index: usize) -> Result<Field<'_>, Violation> {
        let found = if index <= fixed::LEN { fixed::get(index) } else { self.table.get(index - fixed::LEN - 1) };
        found.ok_or(broken("there is no entry with this index"))
    }

    fn literal(
        &mut self,
        index: usize,
        indexing: bool,
        reader: &mut Reader<'_>,
        take: &mut impl FnMut(Field<'_>),
    ) -> Result<(), Violation> {
        self.scratch.clear();
        let name = match index {
            0 => NameFrom::Literal(reader.string(&mut self.scratch)?),
            1..=fixed::LEN => NameFrom::Fixed(self.field_name(index)?),
            _ => NameFrom::Entry(index - fixed::LEN - 1),
        };
        let value = reader.string(&mut self.scratch)?;
        let value = value.of(&self.scratch);
        match name {
            NameFrom::Literal(name) => {
                let name = name.of(&self.scratch);
                let class = classify(name);
                let field = Field { class, clean: is_clean(class, value), underscored: name.contains(&b'_'), name, value };
                take(field);
                if indexing {
                    self.table.insert(field);
                }
            }
            NameFrom::Fixed(entry) => {
                let field = Field { clean: is_clean(entry.class, value), value, ..entry };
                take(field);
                if indexing {
                    self.table.insert(field);
                }
            }
            NameFrom::Entry(index) => {
                let entry = self.table.get(index).ok_or(broken("there is no entry with this index"))?;
                let clean = is_clean(entry.class, value);
                take(Field { clean, value, ..entry });
                if indexing {
                    self.table.insert_named(index, value, clean);
                }
            }
        }
        Ok(())
    }

    fn field_name(&self, index: usize) -> Result<Field<'static>, Violation> {
        fixed::get(index).ok_or(broken("there is no entry with this index"))
    }
}
